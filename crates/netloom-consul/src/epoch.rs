//! How a store that went back in time shows itself.

use netloom_core::store::StoreError;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The highest index that this store was seen at. Every change gets the number of its entry in
/// Consul's log, which only grows: a change numbered below what was seen before it was sent was
/// made in a store put back from an older copy.
#[derive(Debug, Default)]
pub(crate) struct Epoch {
    seen: AtomicU64,
    broken: OnceLock<String>,
}

impl Epoch {
    /// The highest index seen so far. Take it before sending: of answers that overtake each other
    /// the later one may carry the lower number.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Something committed carries this index.
    pub(crate) fn saw(&self, index: u64) {
        self.seen.fetch_max(index, Ordering::SeqCst);
    }

    /// The store's latest change carries this index, and did so after `before` had been seen.
    pub(crate) fn latest(&self, index: u64, before: u64) -> Result<(), String> {
        if index < before {
            let text = format!(
                "it is at index {index}, but was seen at {before}: it was put back from an older \
                 copy, or replaced"
            );
            // The first finding is the one to tell.
            return Err(self.broken.get_or_init(|| text).clone());
        }
        self.saw(index);
        Ok(())
    }

    /// Once found in another epoch, the store is not believed until it is opened anew.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.broken.get().map_or(Ok(()), |text| Err(text.clone()))
    }

    /// The same, for reads.
    pub(crate) fn check_read(&self) -> Result<(), StoreError> {
        self.check().map_err(StoreError::WrongEpoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_overtake_each_other_are_no_rollback() {
        let epoch = Epoch::default();
        let (first, second) = (epoch.seen(), epoch.seen());
        assert!(epoch.latest(11, second).is_ok());
        assert!(epoch.latest(10, first).is_ok());
        assert_eq!(epoch.seen(), 11);
    }

    #[test]
    fn a_lower_index_is_a_rollback_for_good() {
        let epoch = Epoch::default();
        epoch.saw(11);
        assert!(epoch.latest(10, epoch.seen()).is_err());
        assert!(epoch.check().is_err());
    }
}
