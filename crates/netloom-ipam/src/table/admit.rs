//! Whether an event of a range can follow what the table holds.

use super::Table;
use crate::event::Event;
use crate::ranges::held::RangeState;

impl Table {
    /// What was decided before the store was waited for may be overtaken: the pool may be gone, or
    /// a part of the range. An event that cannot follow must never reach the journal.
    ///
    /// # Errors
    /// Why it cannot follow.
    pub(crate) fn admits(&self, event: &Event) -> Result<(), &'static str> {
        let (Event::RangeOwned { pool, part, .. }
        | Event::RangeLeaving { pool, part }
        | Event::RangeKept { pool, part, .. }
        | Event::RangeLeft { pool, part }
        | Event::RangeLost { pool, part }) = *event
        else {
            return Ok(());
        };
        let ledger = self.pools.get(&pool).ok_or("the pool was given up")?;
        if part.last < part.first {
            return Err("a range has an address at least");
        }
        let state = match event {
            Event::RangeOwned { .. } => {
                let known = ledger.held.within(part).next();
                return known.map_or(Ok(()), |_| Err("a part of it is held here"));
            }
            Event::RangeLeaving { .. } if ledger.occupied_in(part) => {
                return Err("an address of it came into use");
            }
            Event::RangeLeaving { .. } => Some(RangeState::Owned),
            Event::RangeLeft { .. } => Some(RangeState::Leaving),
            _ => None,
        };
        let range = ledger.held.at(part.first);
        let range = range.filter(|range| range.part.last >= part.last);
        let range = range.ok_or("it is not one range of this host")?;
        match state {
            Some(state) if state != range.state => Err("it is in another state by now"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranges::held::Part;
    use netloom_core::{AddressSpace, Timestamp};

    /// A pool of which a range is leaving while the store is waited for.
    fn leaving() -> Table {
        let mut table = Table::default();
        let part = Part { first: 0, last: 7 };
        let events = [
            Event::PoolOpened {
                pool: 1,
                space: AddressSpace::Global,
                subnet: "10.0.0.0/24".parse().unwrap(),
                generation: 1,
            },
            Event::RangeOwned {
                pool: 1,
                part,
                generation: 1,
                idle: Timestamp(0),
            },
            Event::RangeLeaving { pool: 1, part },
        ];
        for event in events {
            table.admits(&event).unwrap();
            table.apply(event).unwrap();
        }
        table
    }

    #[test]
    fn a_range_given_back_after_its_pool_was_given_up_never_reaches_the_journal() {
        let mut table = leaving();
        let part = Part { first: 0, last: 7 };
        let left = Event::RangeLeft { pool: 1, part };
        assert_eq!(table.admits(&left), Ok(()));
        table.apply(Event::PoolClosed { pool: 1 }).unwrap();
        for late in [
            left,
            Event::RangeKept {
                pool: 1,
                part,
                generation: 2,
            },
            Event::RangeLeaving { pool: 1, part },
            Event::RangeLost { pool: 1, part },
        ] {
            assert!(table.admits(&late).is_err(), "{late:?}");
            assert!(table.apply(late).is_err());
        }
    }

    #[test]
    fn what_is_leaving_is_not_owned_a_second_time() {
        let table = leaving();
        let part = Part { first: 4, last: 9 };
        let owned = Event::RangeOwned {
            pool: 1,
            part,
            generation: 3,
            idle: Timestamp(0),
        };
        assert!(table.admits(&owned).is_err());
    }
}
