//! The listening sockets: handed over by systemd or netloom-holder, or bound here.

use anyhow::{Context, bail};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Group};
use std::fs::Permissions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::config::Config;

/// The names that systemd and netloom-holder give to the two sockets.
const PLUGIN: &str = "plugin";
const API: &str = "api";

/// A listening socket, and its file if it is ours to remove.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: UnixListener,
    file: Option<OwnFile>,
}

/// A socket file that this process made.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for OwnFile {
    /// A socket without a listener makes dockerd wait for 15 s, so a clean stop leaves none; but
    /// what another process has put there meanwhile is its own.
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|now| now == self.inode) {
            // A file that cannot be removed is found and named by `netloom doctor`.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The two sockets of the daemon.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) plugin: Listening,
    pub(crate) api: Listening,
}

/// Takes over the sockets that were handed to this process, and binds the others.
///
/// To be called while there is one thread: it changes the file mode mask for a moment.
pub(crate) fn open(config: &Config) -> anyhow::Result<Sockets> {
    let mut handed = handed_over()?;
    let mut socket = |name: &str, path: &Path, group: Option<Gid>| match handed
        .iter()
        .position(|(n, _)| n == name)
    {
        Some(at) => {
            let (_, listener) = handed.swap_remove(at);
            let file = None;
            Ok(Listening { listener, file })
        }
        None => bind(path, group),
    };
    let group = config.api_group.as_deref().map(group_id).transpose()?;
    let plugin = socket(PLUGIN, &config.plugin_socket, None)?;
    let api = socket(API, &config.api_socket, group)?;
    if let Some((name, _)) = handed.first() {
        bail!("a socket named {name:?} was handed over, known are {PLUGIN:?} and {API:?}");
    }
    Ok(Sockets { plugin, api })
}

/// The id of a group by its name.
pub(crate) fn group_id(name: &str) -> anyhow::Result<Gid> {
    let group = Group::from_name(name).with_context(|| format!("looking up the group {name}"))?;
    let group = group.with_context(|| {
        format!("there is no group {name}: create it with `groupadd --system {name}`, or change api_group")
    })?;
    Ok(group.gid)
}

fn handed_over() -> anyhow::Result<Vec<(String, UnixListener)>> {
    let mut fds = listenfd::ListenFd::from_env();
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut handed = Vec::new();
    for at in 0..fds.len() {
        let name = names.next().unwrap_or_default().to_owned();
        let listener = fds
            .take_unix_listener(at)
            .context("a file descriptor that was handed over is no unix stream socket")?
            .context("a file descriptor was handed over twice")?;
        handed.push((name, listener));
    }
    Ok(handed)
}

/// Binds `path`, for its owner and group alone, in place of a socket that nobody listens on.
fn bind(path: &Path, group: Option<Gid>) -> anyhow::Result<Listening> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    remove_stale(path)?;
    let listener = listen(path).with_context(|| format!("listening at {}", path.display()))?;
    let file = OwnFile {
        path: path.to_owned(),
        inode: inode(path).with_context(|| format!("looking at {}", path.display()))?,
    };
    if let Some(group) = group {
        nix::unistd::chown(path, None, Some(group))
            .with_context(|| format!("giving {} to the group", path.display()))?;
    }
    Ok(Listening {
        listener,
        file: Some(file),
    })
}

/// Listens at `path`, which is never open to more than its owner and group: a socket's file gets
/// the socket's own mode at bind (unix(7)), and the process-wide mask is left to other threads.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mode = Mode::from_bits_truncate(0o660);
    fchmod(&socket, mode)?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    // The mask may have taken something away.
    std::fs::set_permissions(path, Permissions::from_mode(mode.bits()))?;
    socket::listen(&socket, Backlog::MAXCONN)?;
    Ok(socket.into())
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let meta = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("looking at {}", path.display()))?,
    };
    if !meta.file_type().is_socket() {
        bail!(
            "{} exists and is not a socket: move it away, or set another path",
            path.display()
        );
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!(
            "another process answers at {}: stop it, or set another path",
            path.display()
        ),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)
            .with_context(|| format!("removing the stale socket {}", path.display())),
        Err(e) => Err(e).with_context(|| format!("trying the socket {}", path.display())),
    }
}

impl Listening {
    /// The listener for tokio, and a guard that removes the file in the end.
    pub(crate) fn into_tokio(self) -> io::Result<(tokio::net::UnixListener, impl Send + 'static)> {
        self.listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(self.listener)?;
        Ok((listener, self.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/x.sock");
        let first = bind(&path, None).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = bind(&path, None).unwrap_err();
        assert!(error.to_string().contains("another process answers"));
        // A process that was killed leaves its file and no listener.
        let Listening { listener, file } = first;
        std::mem::forget(file);
        drop(listener);
        assert!(path.exists());
        let second = bind(&path, None).unwrap();
        drop(second);
        assert!(!path.exists(), "a clean stop leaves a socket file");
    }

    #[test]
    fn a_socket_that_somebody_else_bound_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let ours = bind(&path, None).unwrap();
        std::fs::remove_file(&path).unwrap();
        let theirs = UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
        drop(theirs);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(bind(&path, None).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
