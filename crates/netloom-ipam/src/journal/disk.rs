//! The few things that the journal asks of a disk, so that tests can lose and break them.

use netloom_core::crash_point;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A flat directory of files.
pub trait Disk: core::fmt::Debug + Send + Sync {
    /// The names of all files.
    ///
    /// # Errors
    /// The system's.
    fn list(&self) -> io::Result<Vec<String>>;

    /// All bytes of a file.
    ///
    /// # Errors
    /// The system's; `NotFound` when there is none.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Opens an existing file for writing.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Makes a file of `len` bytes, all really written and durable: overwriting them later changes
    /// no metadata, so that a sync is one write and one flush.
    ///
    /// # Errors
    /// The system's; `StorageFull` when there is no room for it.
    fn create(&self, name: &str, len: usize) -> io::Result<Box<dyn DiskFile>>;

    /// Gives `name` exactly these bytes, durably; a crash leaves the old or the new ones.
    ///
    /// # Errors
    /// The system's.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Gives a file another name, durably.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; the removal may come back after a power loss.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A file that is written in place.
pub trait DiskFile: core::fmt::Debug + Send {
    /// Writes all of `bytes` at `offset`, inside the file's length.
    ///
    /// # Errors
    /// The system's.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written durable.
    ///
    /// # Errors
    /// The system's; what was written is then unknown.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the file system, used by one process at a time.
#[derive(Debug)]
pub struct DirDisk {
    path: PathBuf,
    _lock: Flock<File>,
}

impl DirDisk {
    /// Opens `path`, making it where it does not exist, and locks it.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(path.join(LOCK_FILE))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn new_file(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(FILE_MODE)
            .open(self.path.join(name))
    }
}

impl Disk for DirDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            // A name that is not text is not ours.
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK_FILE
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.path.join(name))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).open(self.path.join(name))?;
        Ok(Box::new(OpenedFile(file)))
    }

    fn create(&self, name: &str, len: usize) -> io::Result<Box<dyn DiskFile>> {
        let mut file = self.new_file(name)?;
        let zeros = [0u8; ZEROS];
        let mut left = len;
        while left > 0 {
            let part = left.min(ZEROS);
            file.write_all(zeros.get(..part).unwrap_or(&zeros))?;
            left -= part;
        }
        file.sync_all()?;
        crash_point!("ipam.disk.created");
        self.sync_directory()?;
        Ok(Box::new(OpenedFile(file)))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = format!("{name}{TEMPORARY}");
        let mut file = self.new_file(&temporary)?;
        file.write_all(bytes)?;
        crash_point!("ipam.disk.replace_written");
        file.sync_all()?;
        crash_point!("ipam.disk.replace_synced");
        self.rename(&temporary, name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        crash_point!("ipam.disk.renamed");
        self.sync_directory()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }
}

#[derive(Debug)]
struct OpenedFile(File);

impl DiskFile for OpenedFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// How an unfinished [`Disk::replace`] is recognised.
pub(super) const TEMPORARY: &str = ".tmp";
const LOCK_FILE: &str = "lock";
/// The journal names containers and their addresses: nobody's business but root's.
const FILE_MODE: u32 = 0o600;
/// Written at once when a file is prepared: large enough that the calls do not count.
const ZEROS: usize = 64 * 1024;
