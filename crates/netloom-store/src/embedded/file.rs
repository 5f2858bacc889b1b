//! The file: its tables, its bytes, and how it begins. Drawn in docs/records.md.

use crate::rules::VERSION_BYTES;
use netloom_core::store::{Key, StoreIdentity, Version, Versioned};
use netloom_core::{Ids, SystemClock};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The layout that this code writes and reads.
const SCHEMA: u32 = 1;
/// The records of a host with thousands of endpoints take a few MiB; the library's own default of
/// 1 GiB is meant for databases.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Bytes at the start of a file that tell a database from anything else.
const MAGIC_BYTES: usize = 9;
/// The size of a page, and so of the header.
const HEADER_BYTES: usize = 4096;
/// A file that was never finished is no longer than its first layout, a little above 1 MiB.
const UNFINISHED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Key to version and value.
pub(crate) const ROWS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("rows");
/// What is known of the store as a whole.
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

const META_SCHEMA: &str = "schema";
const META_IDENTITY: &str = "identity";
const META_MARK: &str = "mark";
const META_ROWS: &str = "rows";
/// Bytes of a row before its value: the version and the checksum.
const ROW_HEADER_BYTES: usize = VERSION_BYTES + 4;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the store {} is in use by another process: stop that one, or give this one a state \
         directory of its own", path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A later release wrote it.
    #[error(
        "the store {} has schema {found}, and this release reads up to {SCHEMA}: install the \
         release that wrote it", path.display()
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// The schema that it has.
        found: u32,
    },
    /// It is not a store, or its bytes are damaged.
    #[error(
        "the store {} is damaged ({reason}): put it back from a copy, or move it away to start \
         with an empty one", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk or the file system refused.
    #[error("the store {} cannot be opened: check the directory, its rights and the disk", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// What the file says of the store as a whole.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) identity: StoreIdentity,
}

/// Why something in an open file could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{0}")]
    Damaged(String),
    #[error("the database failed")]
    Database(#[source] redb::Error),
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

/// Opens the file at `path` for this process alone; makes it where nothing is.
pub(crate) fn open(path: &Path) -> Result<(Database, Meta), OpenError> {
    let io = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse {
                path: path.to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    if is_unfinished(&file).map_err(io)? {
        // A process died while it made the file; nothing was ever acknowledged from it.
        file.set_len(0).map_err(io)?;
    }
    // The database's code takes some damage for a reason to panic.
    let opened = contained(|| open_database(file))
        .unwrap_or_else(|what| Err(BeginError::Read(ReadError::Damaged(what))));
    let (database, meta) = opened.map_err(|error| match error {
        BeginError::Newer(found) => OpenError::NewerSchema {
            path: path.to_owned(),
            found,
        },
        BeginError::Read(ReadError::Damaged(reason)) => OpenError::Damaged {
            path: path.to_owned(),
            reason,
        },
        BeginError::Read(ReadError::Database(error)) => open_error(path, error),
    })?;
    // The file's name must be as durable as its content.
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io)?;
    netloom_core::crash_point!("store.opened");
    Ok((database, meta))
}

fn open_database(file: File) -> Result<(Database, Meta), BeginError> {
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_file(file)?;
    netloom_core::crash_point!("store.file_made");
    let meta = begin(&database)?;
    verify(&database)?;
    Ok((database, meta))
}

/// Runs what reads or writes the database; a panic becomes the text of an error. What it was about
/// is not used afterwards, so nobody sees it half done.
pub(crate) fn contained<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(what)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or(panic.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no reason was given");
        format!("the database stopped at what it found: {text}")
    })
}

/// Whether the file was never finished.
fn is_unfinished(file: &File) -> std::io::Result<bool> {
    let length = file.metadata()?.len();
    if length > UNFINISHED_BYTES_MAX {
        return Ok(false);
    }
    let mut content = Vec::new();
    let mut reader = file;
    reader.rewind()?;
    reader
        .take(UNFINISHED_BYTES_MAX)
        .read_to_end(&mut content)?;
    Ok(is_unfinished_content(&content))
}

/// Whether a process died between making the file and finishing its header: the magic bytes, which
/// come last, are missing, and nothing was ever written behind the header. A database whose header
/// was destroyed holds other bytes, and is left alone.
pub(crate) fn is_unfinished_content(content: &[u8]) -> bool {
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let magic = content.get(..MAGIC_BYTES).unwrap_or(content);
    let behind = content.get(HEADER_BYTES..).unwrap_or_default();
    zero(magic) && zero(behind)
}

fn open_error(path: &Path, error: redb::Error) -> OpenError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => OpenError::InUse { path },
        redb::Error::Io(source) if source.kind() != std::io::ErrorKind::InvalidData => {
            OpenError::Io { path, source }
        }
        other => OpenError::Damaged {
            path,
            reason: other.to_string(),
        },
    }
}

pub(crate) enum BeginError {
    Newer(u32),
    Read(ReadError),
}

impl<E: Into<ReadError>> From<E> for BeginError {
    fn from(error: E) -> Self {
        Self::Read(error.into())
    }
}

/// Reads what the file says of itself, and writes it if the file is new.
pub(crate) fn begin(database: &Database) -> Result<Meta, BeginError> {
    let write = database.begin_write()?;
    let mut meta = write.open_table(META)?;
    let schema = meta.get(META_SCHEMA)?.map(|bytes| bytes.value().to_vec());
    if let Some(schema) = schema {
        let schema = u32::from_be_bytes(fixed(META_SCHEMA, &schema)?);
        if schema > SCHEMA {
            return Err(BeginError::Newer(schema));
        }
        let identity = meta.get(META_IDENTITY)?.map(|bytes| bytes.value().to_vec());
        let identity = identity
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| ReadError::Damaged("it has no identity".into()))?;
        drop(meta);
        write.abort()?;
        return Ok(Meta {
            identity: StoreIdentity(identity),
        });
    }
    let identity = format!("embedded-{}", SystemClock::new().operation());
    meta.insert(META_SCHEMA, SCHEMA.to_be_bytes().as_slice())?;
    meta.insert(META_IDENTITY, identity.as_bytes())?;
    Totals::default().write(&mut meta)?;
    drop(meta);
    drop(write.open_table(ROWS)?);
    netloom_core::crash_point!("store.identity_written");
    write.commit()?;
    Ok(Meta {
        identity: StoreIdentity(identity),
    })
}

/// What is counted over the whole store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// How many changes were ever committed.
    pub(crate) mark: u64,
    /// How many rows there are: a row that is lost to damage shows only so.
    pub(crate) rows: u64,
}

impl Totals {
    /// Reads them.
    pub(crate) fn read(
        meta: &impl ReadableTable<&'static str, &'static [u8]>,
    ) -> Result<Self, ReadError> {
        let number = |name: &str| {
            let bytes = meta.get(name)?;
            let bytes = bytes.ok_or_else(|| ReadError::Damaged(format!("it has no {name:?}")))?;
            Ok::<_, ReadError>(u64::from_be_bytes(fixed(name, bytes.value())?))
        };
        Ok(Self {
            mark: number(META_MARK)?,
            rows: number(META_ROWS)?,
        })
    }

    /// Writes them.
    pub(crate) fn write(
        self,
        meta: &mut Table<'_, &'static str, &'static [u8]>,
    ) -> Result<(), redb::StorageError> {
        meta.insert(META_MARK, self.mark.to_be_bytes().as_slice())?;
        meta.insert(META_ROWS, self.rows.to_be_bytes().as_slice())?;
        Ok(())
    }
}

/// The same, of the latest committed state.
pub(crate) fn read_totals(read: &ReadTransaction) -> Result<Totals, ReadError> {
    Totals::read(&read.open_table(META)?)
}

/// Reads every row, and counts them. The database has checksums of its own, but looks at them only
/// after a crash; a bit that the disk lost must not become an address given out twice.
pub(crate) fn verify(database: &Database) -> Result<(), ReadError> {
    let read = database.begin_read()?;
    let mut found: u64 = 0;
    for row in read.open_table(ROWS)?.iter()? {
        let (key, bytes) = row?;
        parse(key.value(), bytes.value())?;
        found += 1;
    }
    let Totals { rows, .. } = read_totals(&read)?;
    if found != rows {
        return Err(ReadError::Damaged(format!(
            "it has {found} rows, and should have {rows}"
        )));
    }
    Ok(())
}

/// One row.
pub(crate) fn read_row(read: &ReadTransaction, key: &Key) -> Result<Option<Versioned>, ReadError> {
    let row = read.open_table(ROWS)?.get(key.as_str())?;
    row.map(|bytes| decode(key.as_str(), bytes.value()))
        .transpose()
}

/// All rows below a directory, ordered.
pub(crate) fn read_rows_below(
    read: &ReadTransaction,
    prefix: &Key,
) -> Result<Vec<(Key, Versioned)>, ReadError> {
    let rows = read.open_table(ROWS)?;
    // '0' is the byte after '/'.
    let (from, until) = (format!("{prefix}/"), format!("{prefix}0"));
    rows.range(from.as_str()..until.as_str())?
        .map(|row| {
            let (key, bytes) = row?;
            parse(key.value(), bytes.value())
        })
        .collect()
}

fn parse(key: &str, bytes: &[u8]) -> Result<(Key, Versioned), ReadError> {
    let row = decode(key, bytes)?;
    let key = Key::new(key).map_err(|error| ReadError::Damaged(error.to_string()))?;
    Ok((key, row))
}

/// A row's bytes: the version, the checksum, the value.
pub(crate) fn encode(key: &Key, version: &Version, value: &[u8]) -> Vec<u8> {
    let checksum = checksum(key.as_str(), version.as_bytes(), value);
    [version.as_bytes(), checksum.as_slice(), value].concat()
}

/// Reads a row's bytes.
pub(crate) fn decode(key: &str, bytes: &[u8]) -> Result<Versioned, ReadError> {
    let damaged = || ReadError::Damaged(format!("the row {key:?} is not what was written"));
    let (header, value) = bytes
        .split_at_checked(ROW_HEADER_BYTES)
        .ok_or_else(damaged)?;
    let (version, sum) = header.split_at_checked(VERSION_BYTES).ok_or_else(damaged)?;
    if sum != checksum(key, version, value) {
        return Err(damaged());
    }
    Ok(Versioned {
        value: value.to_vec(),
        version: Version::from_bytes(version),
    })
}

/// CRC-32 over the key, the version and the value. The version has a fixed length and no key holds
/// a zero byte, so no two different rows are summed as the same bytes.
fn checksum(key: &str, version: &[u8], value: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    for part in [key.as_bytes(), &[0], version, value] {
        hasher.update(part);
    }
    hasher.finalize().to_be_bytes()
}

fn fixed<const N: usize>(name: &str, bytes: &[u8]) -> Result<[u8; N], ReadError> {
    bytes
        .try_into()
        .map_err(|_| ReadError::Damaged(format!("{name:?} has {} bytes, not {N}", bytes.len())))
}
