//! What a transaction may do, decided without any store.

use netloom_core::store::{Conflict, Operation, Version};

/// Which life of a store made a version: a random number for each time a store is opened, so that
/// a file that was put back from a copy never makes a version a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Incarnation([u8; 8]);

impl Incarnation {
    /// A new one.
    pub(crate) fn random() -> Self {
        use std::hash::{BuildHasher, Hasher, RandomState};
        // Each RandomState has keys of its own, from the system's random source.
        Self(RandomState::new().build_hasher().finish().to_be_bytes())
    }

    /// The version of everything that the transaction with this mark writes. Marks only grow, so
    /// a key that is deleted and created again never gets an old version back.
    pub(crate) fn version(self, mark: u64) -> Version {
        Version::from_bytes([self.0, mark.to_be_bytes()].concat())
    }
}

/// Bytes of a version as [`Incarnation::version`] makes it.
pub(crate) const VERSION_BYTES: usize = 16;

/// Whether `operation` may happen to a key that has the version `current`, or does not exist.
pub(crate) fn check(operation: &Operation, current: Option<&Version>) -> Result<(), Conflict> {
    match operation {
        Operation::CheckAbsent(_) | Operation::Create(..) => match current {
            None => Ok(()),
            Some(_) => Err(Conflict::Exists),
        },
        Operation::CheckVersion(_, wanted)
        | Operation::Update(_, _, wanted)
        | Operation::Delete(_, wanted) => match current {
            None => Err(Conflict::Absent),
            Some(current) if current == wanted => Ok(()),
            Some(_) => Err(Conflict::VersionDiffers),
        },
    }
}

/// Whether `operation` changes the store when it happens.
pub(crate) fn changes(operation: &Operation) -> bool {
    match operation {
        Operation::CheckAbsent(_) | Operation::CheckVersion(..) => false,
        Operation::Create(..) | Operation::Update(..) | Operation::Delete(..) => true,
    }
}
