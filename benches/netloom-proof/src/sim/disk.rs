//! A disk that forgets what was not synced, and fails on demand.

use super::random::Random;
use netloom_ipam::journal::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What goes wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Trouble {
    #[default]
    None,
    /// The next sync of a file fails once.
    NextSync,
    /// No file can be made, and the next write fails half done.
    Full,
}

/// How a disk lies, for planted bugs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Lie {
    #[default]
    None,
    /// A sync returns before anything is durable.
    EarlySync,
    /// A full disk swallows writes and says that it took them.
    SilentlyFull,
    /// A file that is replaced may be empty after a crash.
    TornReplace,
}

/// The machine's disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// By name: the file's number, which survives a renaming.
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Content>,
    next: u64,
    trouble: Trouble,
    lie: Lie,
    /// Which process may write: those before are dead.
    process: u64,
    /// Something that this process wrote failed.
    failed: bool,
}

#[derive(Debug, Default, Clone)]
struct Content {
    bytes: Vec<u8>,
    /// Writes since the last sync: where, what was there before, what is there now.
    pending: Vec<(usize, Vec<u8>, Vec<u8>)>,
}

impl SimDisk {
    pub(crate) fn new(lie: Lie) -> Self {
        let inner = Inner {
            lie,
            ..Inner::default()
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        self.inner().trouble = trouble;
    }

    /// The power is cut: of each write that was not synced, a part up to a random byte arrives.
    pub(crate) fn lose_power(&self, random: &mut Random) {
        let mut inner = self.inner();
        for content in inner.files.values_mut() {
            let pending = std::mem::take(&mut content.pending);
            for (offset, before, _) in pending.iter().rev() {
                put(&mut content.bytes, *offset, before);
            }
            for (offset, _, after) in &pending {
                let arrived = random.place(after.len() + 1);
                put(
                    &mut content.bytes,
                    *offset,
                    after.get(..arrived).unwrap_or(after),
                );
            }
        }
    }

    /// The disk for a new process; what older ones still hold of it does nothing any more.
    pub(crate) fn process(&self) -> ProcessDisk {
        let mut inner = self.inner();
        inner.process += 1;
        inner.failed = false;
        ProcessDisk {
            disk: self.clone(),
            process: inner.process,
        }
    }

    /// Whether all that the running process wrote was taken, and the next write will be.
    pub(crate) fn is_well(&self) -> bool {
        let inner = self.inner();
        !inner.failed && inner.trouble == Trouble::None
    }

    /// Takes over another disk's bytes: a cloned machine.
    pub(crate) fn become_copy_of(&self, other: &Self) {
        let (names, files, next) = {
            let other = other.inner();
            (other.names.clone(), other.files.clone(), other.next)
        };
        let mut inner = self.inner();
        (inner.names, inner.files, inner.next) = (names, files, next);
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        let inner = self.inner();
        let sizes = inner.files.values().map(|content| content.bytes.len());
        u64::try_from(sizes.sum::<usize>()).unwrap_or(u64::MAX)
    }
}

fn put(bytes: &mut [u8], offset: usize, part: &[u8]) {
    if let Some(room) = bytes.get_mut(offset..offset + part.len()) {
        room.copy_from_slice(part);
    }
}

impl Inner {
    fn number(&self, name: &str) -> io::Result<u64> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        self.names.get(name).copied().ok_or_else(missing)
    }

    fn make(&mut self, name: &str, bytes: Vec<u8>) -> u64 {
        self.next += 1;
        let pending = Vec::new();
        self.files.insert(self.next, Content { bytes, pending });
        if let Some(replaced) = self.names.insert(name.to_owned(), self.next) {
            self.files.remove(&replaced);
        }
        self.next
    }

    fn room(&mut self) -> io::Result<()> {
        match self.trouble {
            Trouble::Full if self.lie != Lie::SilentlyFull => {
                self.failed = true;
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

/// A disk as one process sees it.
#[derive(Debug, Clone)]
pub(crate) struct ProcessDisk {
    disk: SimDisk,
    process: u64,
}

impl ProcessDisk {
    fn inner(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.inner();
        if inner.process != self.process {
            return Err(io::Error::other("the process is dead"));
        }
        Ok(inner)
    }
}

impl Disk for ProcessDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner()?.names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let inner = self.inner()?;
        let number = inner.number(name)?;
        let content = inner
            .files
            .get(&number)
            .map(|content| content.bytes.clone());
        content.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let number = self.inner()?.number(name)?;
        Ok(Box::new(SimFile(self.clone(), number)))
    }

    fn create(&self, name: &str, len: usize) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.inner()?;
        inner.room()?;
        let number = inner.make(name, vec![0; len]);
        Ok(Box::new(SimFile(self.clone(), number)))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner()?;
        inner.room()?;
        let number = inner.make(name, bytes.to_vec());
        if inner.lie == Lie::TornReplace
            && let Some(content) = inner.files.get_mut(&number)
        {
            let before = vec![0; bytes.len()];
            content.pending.push((0, before, bytes.to_vec()));
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner()?;
        let number = inner.number(from)?;
        inner.names.remove(from);
        if let Some(replaced) = inner.names.insert(to.to_owned(), number) {
            inner.files.remove(&replaced);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner()?;
        let number = inner.number(name)?;
        inner.names.remove(name);
        inner.files.remove(&number);
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile(ProcessDisk, u64);

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.0.inner()?;
        let full = inner.trouble == Trouble::Full;
        if full && inner.lie == Lie::SilentlyFull {
            return Ok(());
        }
        let Some(content) = inner.files.get_mut(&self.1) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let len = if full { bytes.len() / 2 } else { bytes.len() };
        let part = bytes.get(..len).unwrap_or(bytes);
        let Some(room) = content.bytes.get_mut(offset..offset + len) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let before = room.to_vec();
        room.copy_from_slice(part);
        content.pending.push((offset, before, part.to_vec()));
        if full {
            inner.failed = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.0.inner()?;
        if inner.trouble == Trouble::NextSync {
            inner.trouble = Trouble::None;
            inner.failed = true;
            return Err(io::Error::other("an I/O error"));
        }
        if inner.lie == Lie::EarlySync {
            return Ok(());
        }
        if let Some(content) = inner.files.get_mut(&self.1) {
            content.pending.clear();
        }
        Ok(())
    }
}
