//! What can go wrong with the journal, by what a person can do about it.

use std::io;

/// Why the journal could not be opened, or did not take an event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The disk is full. Nothing was acknowledged; it works again once there is room.
    #[error("the disk that holds the address journal is full, free some space: {what}")]
    Full {
        /// What did not fit.
        what: String,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The disk did not do as told. Nothing was acknowledged.
    #[error("the address journal could not be used: {what}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A write to the disk failed in a way that leaves open what it holds, so nothing is
    /// acknowledged any more until the process starts anew and reads it again.
    #[error(
        "the address journal is closed since a write to the disk failed ({cause}); \
         check the disk, then restart netloomd"
    )]
    Poisoned {
        /// The first failure.
        cause: String,
    },
    /// What is on the disk was not written by this program in this way: acknowledged events are
    /// damaged or missing.
    #[error(
        "the address journal is damaged: {file} at byte {offset}: {why}; \
         restore the state directory from a backup, or move it away and start afresh"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// Written by a newer release.
    #[error(
        "the address journal has schema {found} in {file}, this program knows up to {known}; \
         use the newer release again"
    )]
    TooNew {
        /// The file.
        file: String,
        /// Its schema.
        found: u32,
        /// The newest schema that this program knows.
        known: u32,
    },
    /// Another process has it.
    #[error("another process uses the address journal in {directory}; stop it first")]
    Locked {
        /// The directory.
        directory: String,
    },
    /// One event is larger than a frame.
    #[error("an event of {bytes} bytes does not fit into the address journal")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

impl JournalError {
    pub(super) fn io(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return Self::Full { what, source };
        }
        Self::Io { what, source }
    }

    pub(super) fn corrupt(file: &str, offset: usize, why: impl Into<String>) -> Self {
        Self::Corrupt {
            file: file.to_owned(),
            offset: u64::try_from(offset).unwrap_or(u64::MAX),
            why: why.into(),
        }
    }
}
