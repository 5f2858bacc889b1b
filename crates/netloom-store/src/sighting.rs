//! How a host notices that its store went back in time.

use netloom_core::store::{StoreError, StoreIdentity};

/// What was seen of a store at some moment: which one it was, and how far it had come.
///
/// Keep the latest one outside of the store, and compare it after every opening. A store that is
/// another one, or behind what was seen before, was replaced or put back from a copy: what this
/// host committed since then is gone, although the store answers.
///
/// ```
/// use netloom_core::store::StoreIdentity;
/// use netloom_store::Sighting;
///
/// let at = |mark| Sighting { identity: StoreIdentity("a".into()), mark };
/// assert!(at(4).precedes(&at(9)).is_ok());
/// assert!(at(9).precedes(&at(4)).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Which store it was.
    pub identity: StoreIdentity,
    /// How many changes had ever been committed to it. It never goes back while the store lives.
    pub mark: u64,
}

impl Sighting {
    /// Checks that `now` can be a later sight of the same store.
    ///
    /// What this cannot see: a store that went back and has since come further than this sighting.
    /// So compare before the first commit after every opening.
    ///
    /// # Errors
    /// `WrongEpoch` when the store was replaced or rolled back.
    pub fn precedes(&self, now: &Self) -> Result<(), StoreError> {
        if self.identity != now.identity {
            return Err(StoreError::WrongEpoch(format!(
                "this host knew the store {}, and found {} in its place",
                self.identity.0, now.identity.0
            )));
        }
        if now.mark < self.mark {
            return Err(StoreError::WrongEpoch(format!(
                "the store {} holds {} changes, but this host has seen {}: it was put back from \
                 an older copy",
                now.identity.0, now.mark, self.mark
            )));
        }
        Ok(())
    }
}
