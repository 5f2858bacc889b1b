//! The state directory: one daemon at a time, and the host's lasting identity.

use anyhow::{Context, bail};
use netloom_core::Ids;
use netloom_types::{BootId, HostId};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The state directory, held by this process.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// Held until the process ends, however it ends.
    _lock: Flock<File>,
}

impl StateDir {
    /// Makes the directory where it is missing, and takes it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("making the state directory {}", path.display()))?;
        let lock_path = path.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .with_context(|| format!("opening {}", lock_path.display()))?;
        let mut holder = String::new();
        // What it says is for the message alone.
        let _ = file.read_to_string(&mut holder);
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => bail!(
                "the state directory {} is in use by process {}: stop that netloomd first, or \
                 choose another --state-dir",
                path.display(),
                holder.trim()
            ),
            Err((_, error)) => {
                return Err(error).with_context(|| format!("locking {}", lock_path.display()));
            }
        };
        lock.set_len(0)?;
        let mut writer: &File = &lock;
        std::io::Seek::rewind(&mut writer)?;
        writeln!(writer, "{}", std::process::id())?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// A file or directory in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// This host's id: made once, kept for ever.
    pub(crate) fn host_id(&self, ids: &dyn Ids) -> anyhow::Result<HostId> {
        let path = self.join("host-id");
        match std::fs::read_to_string(&path) {
            Ok(text) => HostId::new(text.trim())
                .with_context(|| format!("{} does not hold a host id", path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let id = HostId::new(ids.operation().as_str())?;
                write_durably(&path, id.as_str())?;
                Ok(id)
            }
            Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
        }
    }
}

/// Writes a small file so that it is there wholly or not at all, also after a power cut.
fn write_durably(path: &Path, text: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&new)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// The kernel's own id of this boot.
pub(crate) fn boot_id() -> anyhow::Result<BootId> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    BootId::new(text.trim()).with_context(|| format!("{path} does not hold a boot id"))
}

/// The operating system's id of this machine (machine-id(5)); empty where there is none.
pub(crate) fn machine_id() -> String {
    let text = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use netloom_core::SystemClock;

    #[test]
    fn a_second_daemon_is_told_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = StateDir::open(&path).unwrap();
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn the_host_keeps_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let clock = SystemClock::new();
        let state = StateDir::open(dir.path()).unwrap();
        let id = state.host_id(&clock).unwrap();
        assert_eq!(state.host_id(&clock).unwrap(), id);
        std::fs::write(dir.path().join("host-id"), "../x").unwrap();
        assert!(state.host_id(&clock).is_err());
    }
}
