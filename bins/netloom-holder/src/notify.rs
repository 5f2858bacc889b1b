//! How the daemon says that it is ready and that it lives: two words of systemd's notification
//! protocol.

use crate::sockets::make_directory;
use anyhow::Context;
use nix::sys::stat::{Mode, umask};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// A notification has a few short lines; systemd itself reads no more than a page.
const MESSAGE_BYTES: usize = 4096;

/// What the daemon says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// It serves.
    Ready,
    /// It lives: asked for by WATCHDOG_USEC.
    Alive,
}

impl Word {
    fn of(line: &[u8]) -> Option<Self> {
        match line {
            b"READY=1" => Some(Self::Ready),
            b"WATCHDOG=1" => Some(Self::Alive),
            _ => None,
        }
    }
}

/// The socket that NOTIFY_SOCKET names.
#[derive(Debug)]
pub(crate) struct Notifications {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notifications {
    /// Makes the socket in `directory`, for the owner alone.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        make_directory(directory, 0o755)?;
        let path = directory.join("holder-notify.sock");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            // What a holder before this one left.
            _ => {}
        }
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixDatagram::bind(&path);
        umask(before);
        let socket = bound.with_context(|| format!("making the socket {}", path.display()))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path })
    }

    /// Where the daemon sends to.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all that came, in order.
    pub(crate) fn take(&self) -> Vec<Word> {
        let mut words = Vec::new();
        let mut buffer = [0; MESSAGE_BYTES];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let message = buffer.get(..length).unwrap_or_default();
            words.extend(message.split(|byte| *byte == b'\n').filter_map(Word::of));
        }
        words
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        // It lies in a directory that a boot empties; the next holder removes it too.
        let _ = std::fs::remove_file(&self.path);
    }
}
