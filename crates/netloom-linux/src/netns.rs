//! Network namespaces: opened by path, checked, entered on threads of their own.

use crate::KernelError;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The identity of a network namespace while it lives: device and inode of its `nsfs` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

impl NamespaceId {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> Result<Self, KernelError> {
        let path = "/proc/thread-self/ns/net";
        let file = File::open(path).map_err(|e| KernelError::io(format!("opening {path}"), e))?;
        Self::of(&file)
    }

    fn of(file: &File) -> Result<Self, KernelError> {
        let stat = fstat(file).map_err(|e| KernelError::io("reading a namespace's identity", e))?;
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }

    /// The inode number, as `ip netns` and `lsns` show it.
    #[must_use]
    pub fn inode(self) -> u64 {
        self.inode
    }
}

/// An open network namespace that is not the host's.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: PathBuf,
    id: NamespaceId,
}

impl Namespace {
    /// Opens the namespace at `path`.
    ///
    /// # Errors
    /// [`KernelError::NotFound`] when nothing is there, [`KernelError::NotANamespace`] when it is
    /// something else, [`KernelError::HostNamespace`] when it is `host`: a path from outside must
    /// not make us change the host.
    pub fn open(path: &Path, host: NamespaceId) -> Result<Self, KernelError> {
        // Without waiting: a pipe at that path would hold us for ever.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(path);
        let file = opened.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => KernelError::NotFound {
                what: format!("namespace {}", path.display()),
            },
            _ => KernelError::io(format!("opening namespace {}", path.display()), error),
        })?;
        let not = |reason: &str| KernelError::NotANamespace {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let statfs = fstatfs(&file)
            .map_err(|e| KernelError::io(format!("examining {}", path.display()), e))?;
        if statfs.filesystem_type() != NSFS_MAGIC {
            return Err(not("it lies on another file system than nsfs"));
        }
        // The link of an open namespace file reads `net:[4026531840]`; it tells the type without
        // an ioctl.
        let link = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
        let target = std::fs::read_link(&link)
            .map_err(|e| KernelError::io(format!("examining {}", path.display()), e))?;
        // Where the namespace is mounted on the path itself, as Docker and `ip netns` do, the link
        // gives that path instead, and only entering it tells the type.
        let right = match target.is_absolute() {
            true => is_net(&file),
            false => target.to_string_lossy().starts_with("net:"),
        };
        if !right {
            return Err(not("it is a namespace of another type"));
        }
        let id = NamespaceId::of(&file)?;
        if id == host {
            return Err(KernelError::HostNamespace {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            id,
        })
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> NamespaceId {
        self.id
    }

    /// Runs `work` on a new thread inside the namespace and waits for it.
    ///
    /// A thread of its own, because a namespace is a property of a thread: one that was entered
    /// and not left again would poison a pool.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or `work` fails.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn run<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, KernelError> + Send,
    ) -> Result<T, KernelError> {
        let enter = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| KernelError::io(format!("entering {self}"), errno))?;
            work()
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netloom-netns".into())
                .spawn_scoped(scope, enter)
                .map_err(|e| KernelError::io("starting a thread", e))?;
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// Whether it can be entered as a network namespace, tried by a thread that ends with it.
fn is_net(file: &File) -> bool {
    let enter = || setns(file, CloneFlags::CLONE_NEWNET).is_ok();
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap_or(false))
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "namespace {}", self.path.display())
    }
}
