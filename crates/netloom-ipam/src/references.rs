//! Who uses a pool, as a host keeps it in memory: its own references whole, because it may have to
//! write them again; of all others', however many there are, what it goes by.

use crate::names::Names;
use crate::records::{GatewayHold, ReferenceRecord, ReferenceState};
use netloom_types::Subnet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// References of this host whose gateway it began to give back, each with the one that it held, if any:
/// until they are gone, or are used on with it.
pub(crate) type LetGo = BTreeMap<u64, Option<IpAddr>>;

/// The references of one pool.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    own: BTreeMap<u64, ReferenceRecord>,
    others: Others,
}

/// A few bytes for each.
#[derive(Debug, Default, PartialEq, Eq)]
struct Others {
    /// Both in order.
    used: Box<[u64]>,
    offered: Box<[u64]>,
    /// Of those that are confined to a part of the pool, which one.
    ranges: BTreeMap<u64, Subnet>,
    auxiliary: BTreeSet<IpAddr>,
    hosts: Names,
}

impl References {
    /// What host `me` keeps of these.
    pub(crate) fn of<'a>(
        me: &str,
        all: impl IntoIterator<Item = (u64, &'a ReferenceRecord)>,
    ) -> Self {
        let mut own = BTreeMap::new();
        let (mut used, mut offered) = (Vec::new(), Vec::new());
        let mut others = Others::default();
        let mut hosts = Vec::new();
        for (nonce, record) in all {
            if record.host == me {
                own.insert(nonce, record.clone());
                continue;
            }
            match record.state {
                ReferenceState::Used => used.push(nonce),
                ReferenceState::Offered => offered.push(nonce),
            }
            others
                .ranges
                .extend(record.range.map(|range| (nonce, range)));
            others.auxiliary.extend(&record.auxiliary);
            hosts.push(record.host.as_str());
        }
        used.sort_unstable();
        offered.sort_unstable();
        (others.used, others.offered) = (used.into(), offered.into());
        others.hosts = Names::of(hosts);
        Self { own, others }
    }

    /// Those of this host.
    pub(crate) fn own(&self) -> &BTreeMap<u64, ReferenceRecord> {
        &self.own
    }

    /// Those of this host, those in use first.
    pub(crate) fn own_by_use(&self) -> impl Iterator<Item = u64> {
        let of = |state| {
            let own = self.own.iter().filter(move |(_, r)| r.state == state);
            own.map(|(nonce, _)| *nonce)
        };
        of(ReferenceState::Used).chain(of(ReferenceState::Offered))
    }

    /// All of them, those of this host first.
    pub(crate) fn nonces(&self) -> impl Iterator<Item = u64> {
        let others = self.others.used.iter().chain(&self.others.offered);
        self.own.keys().chain(others).copied()
    }

    pub(crate) fn state(&self, nonce: u64) -> Option<ReferenceState> {
        let others = &self.others;
        match self.own.get(&nonce) {
            Some(own) => Some(own.state),
            None if others.used.binary_search(&nonce).is_ok() => Some(ReferenceState::Used),
            None if others.offered.binary_search(&nonce).is_ok() => Some(ReferenceState::Offered),
            None => None,
        }
    }

    pub(crate) fn contains(&self, nonce: u64) -> bool {
        self.state(nonce).is_some()
    }

    /// The part of the pool that a reference is confined to.
    pub(crate) fn range_of(&self, nonce: u64) -> Option<Subnet> {
        let own = self.own.get(&nonce);
        own.map_or_else(|| self.others.ranges.get(&nonce).copied(), |own| own.range)
    }

    /// The part of the pool that all references are confined to.
    pub(crate) fn common_range(&self) -> Option<Subnet> {
        let mut all = self.nonces().map(|nonce| self.range_of(nonce));
        let first = all.next()??;
        all.all(|range| range == Some(first)).then_some(first)
    }

    pub(crate) fn auxiliary(&self) -> impl Iterator<Item = IpAddr> {
        let own = self.own.values().flat_map(|r| &r.auxiliary);
        own.chain(&self.others.auxiliary).copied()
    }

    pub(crate) fn is_auxiliary(&self, ip: IpAddr) -> bool {
        let own = || self.own.values().any(|r| r.auxiliary.contains(&ip));
        self.others.auxiliary.contains(&ip) || own()
    }

    /// One that somebody was seen to use; one of this host's, if there is such.
    pub(crate) fn any_used(&self) -> Option<u64> {
        let used = |(_, r): &(_, &ReferenceRecord)| r.state == ReferenceState::Used;
        let own = self.own.iter().find(used).map(|(nonce, _)| *nonce);
        own.or_else(|| self.others.used.first().copied())
    }

    /// The hosts that refer to the pool, but for this one.
    pub(crate) fn other_hosts(&self) -> impl Iterator<Item = &str> {
        self.others.hosts.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nonces().next().is_none()
    }

    /// These of this host's hold the pool's gateway no more.
    pub(crate) fn let_gateways_go(&mut self, let_go: &LetGo) {
        for (nonce, own) in &mut self.own {
            if let_go.contains_key(nonce) {
                own.gateway = GatewayHold::None;
            }
        }
    }

    /// Takes one out, whoever's it is; what others keep aside with it stays until all are read again.
    pub(crate) fn remove(&mut self, nonce: u64) {
        let without = |nonces: &mut Box<[u64]>| {
            if nonces.binary_search(&nonce).is_ok() {
                *nonces = nonces.iter().copied().filter(|n| *n != nonce).collect();
            }
        };
        if self.own.remove(&nonce).is_none() {
            self.others.ranges.remove(&nonce);
            without(&mut self.others.used);
            without(&mut self.others.offered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::VERSION;

    fn record(host: &str, state: ReferenceState) -> ReferenceRecord {
        ReferenceRecord {
            version: VERSION,
            operation: "0a".to_owned(),
            host: host.to_owned(),
            state,
            identity: None,
            range: None,
            gateway: GatewayHold::None,
            auxiliary: Vec::new(),
            granted: 7,
        }
    }

    #[test]
    fn what_is_kept_of_others_answers_as_their_records_would() {
        let (used, offered) = (ReferenceState::Used, ReferenceState::Offered);
        let range: Subnet = "10.0.0.64/26".parse().unwrap();
        let aux = |last| IpAddr::from([10, 0, 0, last]);
        let mut all = BTreeMap::from([
            (9, record("h1", offered)),
            (3, record("h2", used)),
            (8, record("h3", offered)),
            (5, record("h2", used)),
        ]);
        for (nonce, range_of, auxiliary) in [
            (9, Some(range), vec![aux(65)]),
            (3, Some(range), vec![aux(66), aux(67)]),
            (5, None, vec![aux(66)]),
        ] {
            let record = all.get_mut(&nonce).unwrap();
            (record.range, record.auxiliary) = (range_of, auxiliary);
        }
        for me in ["h1", "h2", "h3", "h4"] {
            let kept = References::of(me, all.iter().map(|(nonce, record)| (*nonce, record)));
            for nonce in 0..10 {
                let whole = all.get(&nonce);
                assert_eq!(kept.state(nonce), whole.map(|r| r.state), "{me} {nonce}");
                assert_eq!(kept.contains(nonce), whole.is_some());
                assert_eq!(kept.range_of(nonce), whole.and_then(|r| r.range));
            }
            for last in 64..70 {
                let somebodys = all.values().any(|r| r.auxiliary.contains(&aux(last)));
                assert_eq!(kept.is_auxiliary(aux(last)), somebodys, "{me} {last}");
            }
            let nonces: BTreeSet<u64> = kept.nonces().collect();
            assert_eq!(nonces, all.keys().copied().collect());
            assert_eq!(kept.auxiliary().collect::<BTreeSet<_>>().len(), 3);
            let own = all.iter().filter(|(_, r)| r.host == me);
            assert!(kept.own().iter().eq(own));
            let others: BTreeSet<&str> = all.values().map(|r| r.host.as_str()).collect();
            assert!(
                kept.other_hosts()
                    .eq(others.into_iter().filter(|h| *h != me))
            );
            assert_eq!(kept.common_range(), None);
            assert_eq!(kept.any_used().and_then(|n| kept.state(n)), Some(used));
        }
        for record in all.values_mut() {
            record.range = Some(range);
        }
        let kept = References::of("h1", all.iter().map(|(nonce, record)| (*nonce, record)));
        assert_eq!(kept.common_range(), Some(range));
    }

    #[test]
    fn of_a_hosts_own_those_in_use_come_first() {
        let (used, offered) = (ReferenceState::Used, ReferenceState::Offered);
        let all = [(3, offered), (5, used), (6, offered), (9, used)]
            .map(|(nonce, state)| (nonce, record("h1", state)));
        let other = record("h2", used);
        let each = all.iter().map(|(nonce, record)| (*nonce, record));
        let kept = References::of("h1", each.chain([(1, &other)]));
        assert!(kept.own_by_use().eq([5, 9, 3, 6]));
    }

    #[test]
    fn a_pool_of_nobody_is_empty() {
        let mut kept = References::of("h1", []);
        assert!(kept.is_empty() && kept.any_used().is_none() && kept.common_range().is_none());
        let own = record("h1", ReferenceState::Used);
        kept = References::of("h1", [(4, &own)]);
        assert_eq!((kept.any_used(), kept.is_empty()), (Some(4), false));
        kept.remove(4);
        assert!(kept.is_empty());
    }
}
