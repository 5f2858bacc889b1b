//! The hosts on record, as far as each host keeps them in memory.

use crate::names::Names;
use crate::records::{HostRecord, HostState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Hosts on record, by the last part of their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct States {
    members: Names,
    forgotten: Names,
}

/// What is kept of all hosts on record. Each host keeps this of every other one, so it is small,
/// and a copy of it shares its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peers {
    states: Arc<States>,
    /// What is on record of this host.
    me: Option<HostState>,
    /// Changes and starts of this host, and of all others.
    own: u128,
    others: u128,
}

impl States {
    fn of(states: &[(&str, HostState)]) -> Self {
        let in_state = |wanted: HostState| {
            let states = states.iter().filter(|(_, state)| *state == wanted);
            Names::of(states.map(|(host, _)| *host))
        };
        Self {
            members: in_state(HostState::Member),
            forgotten: in_state(HostState::Forgotten),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, HostState)> {
        let members = self.members.iter().map(|host| (host, HostState::Member));
        let forgotten = self.forgotten.iter();
        members.chain(forgotten.map(|host| (host, HostState::Forgotten)))
    }
}

impl Peers {
    /// Nobody.
    pub(crate) fn none() -> Self {
        Self::of("", &BTreeMap::new())
    }

    /// What is known of these hosts' records at host `me`.
    pub(crate) fn of(me: &str, records: &BTreeMap<String, HostRecord>) -> Self {
        let states = records.iter().map(|(host, r)| (host.as_str(), r.state));
        let states: Vec<_> = states.collect();
        let all: u128 = records.values().map(work).sum();
        let own = records.get(me).map_or(0, work);
        Self {
            states: Arc::new(States::of(&states)),
            me: records.get(me).map(|record| record.state),
            own,
            others: all - own,
        }
    }

    /// Takes in the record of this host.
    pub(crate) fn note_own(&mut self, own: &HostRecord) {
        self.own = work(own);
        if self.me != Some(own.state) {
            self.me = Some(own.state);
            let me = own.host.as_str();
            let others = self.states.iter().filter(|(host, _)| *host != me);
            let all: Vec<_> = others.chain([(me, own.state)]).collect();
            self.states = Arc::new(States::of(&all));
        }
    }

    /// Keeps the names of `earlier`, if they are the same: whoever has those too shares them.
    pub(crate) fn share_with(&mut self, earlier: &Self) {
        if self.states == earlier.states {
            self.states = Arc::clone(&earlier.states);
        }
    }

    /// All hosts on record with their states.
    pub(crate) fn states(&self) -> &Arc<States> {
        &self.states
    }

    /// The hosts that take part.
    pub(crate) fn members(&self) -> impl Iterator<Item = &str> {
        self.states.members.iter()
    }

    /// How many hosts share the store, this one included, whatever is on record of it.
    pub(crate) fn count_with_own(&self) -> usize {
        self.states.members.len() + usize::from(self.me != Some(HostState::Member))
    }

    /// Hosts on record, forgotten ones included.
    pub(crate) fn len(&self) -> usize {
        self.states.members.len() + self.states.forgotten.len()
    }

    /// Changes and starts of all hosts: it never goes back while the store keeps its past.
    pub(crate) fn mark(&self) -> u64 {
        u64::try_from(self.own.saturating_add(self.others)).unwrap_or(u64::MAX)
    }
}

fn work(record: &HostRecord) -> u128 {
    u128::from(record.starts) + u128::from(record.counter)
}

#[cfg(test)]
mod tests {
    use super::super::heal::unknown_host;
    use super::*;

    fn record(host: &str, state: HostState, counter: u64) -> HostRecord {
        HostRecord {
            state,
            counter,
            ..unknown_host(host)
        }
    }

    fn peers(records: &[HostRecord]) -> Peers {
        let records = records.iter().cloned();
        let records = records.map(|record| (record.host.clone(), record));
        Peers::of("h1", &records.collect())
    }

    #[test]
    fn what_is_noted_of_this_host_is_what_a_list_would_show() {
        let other = record("h2", HostState::Member, 7);
        let mut noted = peers(std::slice::from_ref(&other));
        let steps = [
            (HostState::Member, 3),
            (HostState::Member, 4),
            (HostState::Forgotten, 4),
        ];
        for (state, counter) in steps {
            let own = record("h1", state, counter);
            noted.note_own(&own);
            assert_eq!(noted, peers(&[own, other.clone()]));
        }
        assert_eq!((noted.len(), noted.mark()), (2, 11));
        assert_eq!(noted.members().collect::<Vec<_>>(), ["h2"]);
        assert_eq!(noted.count_with_own(), 2);
    }

    #[test]
    fn a_mark_too_large_to_count_stays_the_largest() {
        let most = |host| record(host, HostState::Member, u64::MAX);
        assert_eq!(peers(&[most("h1"), most("h2")]).mark(), u64::MAX);
    }

    #[test]
    fn names_are_shared_while_they_are_the_same() {
        let first = peers(&[record("h2", HostState::Member, 1)]);
        let mut later = peers(&[record("h2", HostState::Member, 5)]);
        later.share_with(&first);
        assert!(Arc::ptr_eq(later.states(), first.states()));
        assert_eq!(later.mark(), 5);
        let mut gone = peers(&[record("h2", HostState::Forgotten, 5)]);
        gone.share_with(&first);
        assert!(!Arc::ptr_eq(gone.states(), first.states()));
    }
}
