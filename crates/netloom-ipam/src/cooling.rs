//! The order in which free addresses of a pool come into use again.

use netloom_core::Timestamp;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// Free addresses in the order in which they came back. They are handed out only when no address
/// is left that was idle for longer, and then the oldest first: an order, never a wait.
#[derive(Debug, Default)]
pub(crate) struct Cooling {
    /// With stale entries, which the map does not confirm.
    order: VecDeque<Entry>,
    turns: FxHashMap<u128, (u64, Timestamp)>,
    turn: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    index: u128,
    turn: u64,
    since: Timestamp,
}

impl Cooling {
    pub(crate) fn len(&self) -> usize {
        self.turns.len()
    }

    pub(crate) fn contains(&self, index: u128) -> bool {
        self.turns.contains_key(&index)
    }

    /// Since when an address is idle, if it cools down.
    pub(crate) fn since(&self, index: u128) -> Option<Timestamp> {
        self.turns.get(&index).map(|(_, since)| *since)
    }

    /// The time for an address that comes back now: a clock that went back changes no order.
    pub(crate) fn stamp(&self, now: Timestamp) -> Timestamp {
        now.max(self.order.back().map_or(now, |entry| entry.since))
    }

    /// Takes an address out because it is not free for hand-out any more; whether it was in.
    pub(crate) fn forget(&mut self, index: u128) -> bool {
        let known = self.contains(index);
        if known {
            self.remove(index);
        }
        known
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u128, Timestamp)> {
        self.order
            .iter()
            .filter(|entry| is_live(&self.turns, entry))
            .map(|entry| (entry.index, entry.since))
    }

    /// Adds one; gives the oldest when there are too many.
    pub(crate) fn push(&mut self, index: u128, since: Timestamp) -> Option<u128> {
        self.queue([index], since);
        let full = self.len() > COOLING_MAX;
        let oldest = full.then(|| self.iter().next())?.map(|(index, _)| index);
        if let Some(oldest) = oldest {
            self.remove(oldest);
        }
        oldest
    }

    /// Adds some that were in use last at the same time, behind those that are idle for longer.
    pub(crate) fn queue(&mut self, indices: impl IntoIterator<Item = u128>, since: Timestamp) {
        let late = self.order.back().is_some_and(|entry| entry.since > since);
        for index in indices {
            self.turn += 1;
            self.turns.insert(index, (self.turn, since));
            self.order.push_back(Entry {
                index,
                turn: self.turn,
                since,
            });
        }
        if late {
            let all = self.order.make_contiguous();
            all.sort_by_key(|entry| entry.since);
        }
    }

    pub(crate) fn remove(&mut self, index: u128) {
        self.turns.remove(&index);
        while let Some(entry) = self.order.front()
            && !is_live(&self.turns, entry)
        {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.turns.len() + STALE_MAX {
            let turns = &self.turns;
            self.order.retain(|entry| is_live(turns, entry));
        }
    }
}

fn is_live(turns: &FxHashMap<u128, (u64, Timestamp)>, entry: &Entry) -> bool {
    turns
        .get(&entry.index)
        .is_some_and(|(turn, _)| *turn == entry.turn)
}

/// The order counts, not the numbers that it was kept with.
impl PartialEq for Cooling {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Cooling {}

/// Addresses of one pool whose idle time is remembered: all of a /16. A longer memory would cost
/// more than it is worth: beyond it an address has already been passed over 65,536 times.
const COOLING_MAX: usize = 65_536;
/// Stale entries that are not worth a sweep.
const STALE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_its_oldest_back_when_it_is_full() {
        let mut cooling = Cooling::default();
        for index in 0..=COOLING_MAX as u128 {
            let expected = (index == COOLING_MAX as u128).then_some(0);
            assert_eq!(cooling.push(index, Timestamp(1)), expected);
        }
        assert_eq!(cooling.len(), COOLING_MAX);
    }

    #[test]
    fn stale_entries_do_not_pile_up() {
        let mut cooling = Cooling::default();
        cooling.push(1000, Timestamp(0));
        for round in 0..10_000 {
            cooling.push(round % 7, Timestamp(0));
            cooling.remove(round % 7);
        }
        assert!(cooling.order.len() <= 2 * cooling.len() + STALE_MAX + 1);
    }

    #[test]
    fn a_clock_that_goes_back_changes_no_order() {
        let mut cooling = Cooling::default();
        for (index, now) in [(1, 900), (2, 100), (3, 500)] {
            let since = cooling.stamp(Timestamp(now));
            cooling.push(index, since);
        }
        let order: Vec<_> = cooling.iter().map(|(index, _)| index).collect();
        assert_eq!(order, [1, 2, 3]);
    }
}
