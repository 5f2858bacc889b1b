//! A disk in memory that forgets what was not synced, and fails on demand.

use super::Random;
use netloom_ipam::journal::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// By name: the file's number, which survives a renaming.
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Content>,
    next: u64,
    syncs: u64,
    trouble: Trouble,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trouble {
    #[default]
    None,
    /// The next sync of a file fails once.
    NextSync,
    /// No new file can be made.
    Full,
    /// No new file can be made and nothing written, as where the filesystem copies on write.
    NoSpace,
    /// The next write fails for want of space, half done.
    NextWriteFull,
    /// After so many more syncs the machine stands still: nothing is synced or made any more.
    PowerLostAfter(u64),
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Writes since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
}

impl SimDisk {
    pub fn trouble(&self, trouble: Trouble) {
        self.0.lock().unwrap().trouble = trouble;
    }

    pub fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().names.keys().cloned().collect()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let inner = self.0.lock().unwrap();
        inner.files[&inner.names[name]].current.clone()
    }

    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut inner = self.0.lock().unwrap();
        let number = inner.names[name];
        inner.files.insert(
            number,
            Content {
                durable: bytes.clone(),
                current: bytes,
                pending: Vec::new(),
            },
        );
    }

    pub fn remove_file(&self, name: &str) {
        self.0.lock().unwrap().names.remove(name);
    }

    /// The power is cut: of each write that was not synced, a part up to a random byte arrives.
    pub fn lose_power(&self, random: &mut Random) {
        let mut inner = self.0.lock().unwrap();
        inner.trouble = Trouble::None;
        for content in inner.files.values_mut() {
            let pending = std::mem::take(&mut content.pending);
            for (offset, bytes) in pending {
                let arrived = random.below(bytes.len() + 1);
                content.durable[offset..offset + arrived].copy_from_slice(&bytes[..arrived]);
            }
            content.current.clone_from(&content.durable);
        }
    }

    /// Whether the power is on.
    pub fn is_running(&self) -> bool {
        self.0.lock().unwrap().trouble != Trouble::PowerLostAfter(0)
    }

    /// The process is killed: the kernel still has what it wrote.
    pub fn lose_process(&self) {
        self.0.lock().unwrap().trouble = Trouble::None;
    }
}

impl Inner {
    fn lost(&self) -> io::Result<()> {
        match self.trouble {
            Trouble::PowerLostAfter(0) => Err(io::Error::other("the power is gone")),
            _ => Ok(()),
        }
    }

    fn number(&self, name: &str) -> io::Result<u64> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        self.names.get(name).copied().ok_or_else(missing)
    }

    fn make(&mut self, name: &str, bytes: Vec<u8>) -> u64 {
        self.next += 1;
        let content = Content {
            durable: bytes.clone(),
            current: bytes,
            pending: Vec::new(),
        };
        self.files.insert(self.next, content);
        let replaced = self.names.insert(name.to_owned(), self.next);
        if let Some(replaced) = replaced {
            self.files.remove(&replaced);
        }
        self.next
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let inner = self.0.lock().unwrap();
        Ok(inner.files[&inner.number(name)?].current.clone())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let number = self.0.lock().unwrap().number(name)?;
        Ok(Box::new(SimFile(self.clone(), number)))
    }

    fn create(&self, name: &str, len: usize) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.0.lock().unwrap();
        inner.lost()?;
        if matches!(inner.trouble, Trouble::Full | Trouble::NoSpace) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let number = inner.make(name, vec![0; len]);
        Ok(Box::new(SimFile(self.clone(), number)))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.lost()?;
        if matches!(inner.trouble, Trouble::Full | Trouble::NoSpace) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inner.make(name, bytes.to_vec());
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.lost()?;
        let number = inner.number(from)?;
        inner.names.remove(from);
        inner.names.insert(to.to_owned(), number);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.lost()?;
        let number = inner.number(name)?;
        inner.names.remove(name);
        inner.files.remove(&number);
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile(SimDisk, u64);

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.0.0.lock().unwrap();
        let full = matches!(inner.trouble, Trouble::NextWriteFull | Trouble::NoSpace);
        let offset = usize::try_from(offset).unwrap();
        let part = match inner.trouble {
            Trouble::NextWriteFull => bytes.len() / 2,
            Trouble::NoSpace => 0,
            _ => bytes.len(),
        };
        let bytes = &bytes[..part];
        let content = inner.files.get_mut(&self.1).unwrap();
        content.current[offset..offset + part].copy_from_slice(bytes);
        content.pending.push((offset, bytes.to_vec()));
        if full {
            if inner.trouble == Trouble::NextWriteFull {
                inner.trouble = Trouble::None;
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.0.0.lock().unwrap();
        inner.lost()?;
        match &mut inner.trouble {
            Trouble::NextSync => {
                inner.trouble = Trouble::None;
                return Err(io::Error::other("an I/O error"));
            }
            Trouble::PowerLostAfter(left) => *left -= 1,
            Trouble::None | Trouble::Full | Trouble::NoSpace | Trouble::NextWriteFull => {}
        }
        inner.syncs += 1;
        let content = inner.files.get_mut(&self.1).unwrap();
        content.pending.clear();
        content.durable.clone_from(&content.current);
        Ok(())
    }
}
