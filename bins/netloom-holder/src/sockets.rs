//! The socket files: made, hidden, shown and removed.

use anyhow::{Context, bail};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Group;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The directory beside the plugin's socket in which it is parked. On the same file system, so that
/// a link can move it; a directory, because dockerd takes every socket in its own one for a plugin.
const PARKING: &str = ".netloom-holder";

/// A listening socket and where its file is.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl Socket {
    /// Listens at `path`, for the owner and the group alone.
    ///
    /// # Errors
    /// When another process answers there, or the system refuses.
    pub(crate) fn bind(path: &Path) -> anyhow::Result<Self> {
        remove_stale(path)?;
        // The mask, not a later chmod: between bind and chmod anybody could connect.
        let before = umask(Mode::from_bits_truncate(0o117));
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.with_context(|| format!("listening at {}", path.display()))?;
        let inode = inode(path).with_context(|| format!("looking at {}", path.display()))?;
        let path = path.to_owned();
        Ok(Self {
            listener,
            path,
            inode,
        })
    }

    /// Lets the group of this name use it.
    ///
    /// # Errors
    /// When there is no such group, or the system refuses.
    pub(crate) fn give_to_group(&self, name: &str) -> anyhow::Result<()> {
        let group = Group::from_name(name).with_context(|| format!("looking up group {name}"))?;
        let group = group.with_context(|| format!("there is no group {name}: create it first"))?;
        nix::unistd::chown(&self.path, None, Some(group.gid))
            .with_context(|| format!("giving {} to the group {name}", self.path.display()))
    }

    /// Moves the file. A link and an unlink instead of a rename, which would silently replace what
    /// another process has put there.
    fn move_to(&mut self, path: &Path) -> anyhow::Result<()> {
        if inode(&self.path).ok() != Some(self.inode) {
            bail!("somebody removed or replaced {}", self.path.display());
        }
        remove_stale(path)?;
        std::fs::hard_link(&self.path, path)
            .with_context(|| format!("moving {} to {}", self.path.display(), path.display()))?;
        let old = std::mem::replace(&mut self.path, path.to_owned());
        std::fs::remove_file(&old).with_context(|| format!("removing {}", old.display()))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Socket {
    /// The file goes first, so that nobody connects to what is about to close.
    fn drop(&mut self) {
        if inode(&self.path).ok() == Some(self.inode) {
            // A file that cannot be removed is found and named by `netloom doctor`.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The plugin's socket, which comes and goes.
#[derive(Debug)]
pub(crate) struct PluginSocket {
    published_at: PathBuf,
    parking: PathBuf,
    socket: Option<Socket>,
}

impl PluginSocket {
    /// Makes it and publishes it.
    ///
    /// # Errors
    /// When another process answers there, or the system refuses.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        // A path without a directory is below the current one.
        let directory = path.parent().unwrap_or(Path::new("."));
        make_directory(directory, 0o755)?;
        let parking = directory.join(PARKING);
        make_directory(&parking, 0o700)?;
        let mut plugin = Self {
            published_at: path.to_owned(),
            parking,
            socket: None,
        };
        plugin.make()?;
        plugin.publish()?;
        Ok(plugin)
    }

    fn parked_at(&self) -> PathBuf {
        self.parking.join("plugin")
    }

    /// Makes a new one, parked.
    pub(crate) fn make(&mut self) -> anyhow::Result<()> {
        self.socket = Some(Socket::bind(&self.parked_at())?);
        Ok(())
    }

    /// Moves it to where dockerd looks.
    pub(crate) fn publish(&mut self) -> anyhow::Result<()> {
        let path = self.published_at.clone();
        self.socket_mut()?.move_to(&path)
    }

    /// Hides it.
    pub(crate) fn park(&mut self) -> anyhow::Result<()> {
        let path = self.parked_at();
        self.socket_mut()?.move_to(&path)
    }

    /// Closes it: who waits on it is told, unless a daemon has a copy.
    pub(crate) fn discard(&mut self) {
        self.socket = None;
    }

    /// The socket, unless it is gone.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        self.socket.as_ref()
    }

    fn socket_mut(&mut self) -> anyhow::Result<&mut Socket> {
        self.socket.as_mut().context("the plugin's socket is gone")
    }
}

impl Drop for PluginSocket {
    fn drop(&mut self) {
        self.discard();
        // Only if empty: what somebody else has put there is theirs.
        let _ = std::fs::remove_dir(&self.parking);
    }
}

/// Makes the directory and those above it.
pub(crate) fn make_directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("making the directory {}", path.display()))
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// Removes a socket that nobody listens on; refuses anything else.
pub(crate) fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let meta = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("looking at {}", path.display()))?,
    };
    if !meta.file_type().is_socket() {
        bail!(
            "{} exists and is not a socket: move it away, or name another path",
            path.display()
        );
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!(
            "another process answers at {}: stop it, or name another path",
            path.display()
        ),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
                .with_context(|| format!("removing the stale socket {}", path.display()))
        }
        Err(error) => Err(error).with_context(|| format!("trying the socket {}", path.display())),
    }
}
