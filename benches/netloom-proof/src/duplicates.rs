//! Whether an address has two owners, asked from three sides that know nothing of each other: the
//! store's chunk records, the hosts' journals, and those who use the addresses.
//!
//! The three are read at a quiet moment: no call and no commit is under way. Then they must agree, and
//! each must be free of doubles by itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A range of addresses and the host whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first address.
    pub first: IpAddr,
    /// The last address.
    pub last: IpAddr,
    /// The host.
    pub owner: String,
    /// Whether the range is on its way between hosts: offered in the store, leaving in a journal.
    pub way: Way,
}

/// Whether a range changes hands just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Its owner hands it out.
    Settled,
    /// Offered and not adopted, or leaving and not gone.
    Underway,
}

/// One address that is used, and by which host it was handed out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Use {
    /// The address.
    pub address: IpAddr,
    /// The host.
    pub host: String,
}

/// What the three sides say.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sides {
    /// The runs of all chunk records.
    pub store: Vec<Range>,
    /// The ranges of all journals.
    pub journals: Vec<Range>,
    /// The addresses that journals say were handed out.
    pub journalled: Vec<Use>,
    /// The addresses that callers were given and have not given back.
    pub held: Vec<Use>,
}

/// Two that claim one address, or one that claims it alone where two must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Disagreement {
    /// Two runs of the store overlap.
    TwoRuns(Range, Range),
    /// Two journals own one address.
    TwoJournals(Range, Range),
    /// Two callers hold one address, or one caller holds it twice.
    TwoHolders(Use, Use),
    /// A journal owns a range that the store does not give to that host.
    NotInStore(Range),
    /// An address is held and its host's journal does not know.
    NotInJournal(Use),
    /// An address is held, or in a journal, outside of its host's ranges.
    NotInRange(Use),
    /// A journal says that an address was handed out, and nobody holds it: a leak.
    NobodyHolds(Use),
}

/// What the comparison found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DuplicateReport {
    /// Runs in the store, ranges in journals, addresses in journals, addresses held.
    pub compared: [usize; 4],
    /// Where the sides disagree.
    pub found: Vec<Disagreement>,
}

/// Compares the three sides.
#[must_use]
pub fn compare(sides: &Sides) -> DuplicateReport {
    let Sides {
        store,
        journals,
        journalled,
        held,
    } = sides;
    let mut found = Vec::new();
    let settled: Vec<&Range> = journals.iter().filter(|r| r.way == Way::Settled).collect();
    found.extend(overlaps(store.iter()).map(|(one, other)| Disagreement::TwoRuns(one, other)));
    let doubles = overlaps(settled.iter().copied());
    found.extend(doubles.map(|(one, other)| Disagreement::TwoJournals(one, other)));
    found.extend(twice(held).map(|(one, other)| Disagreement::TwoHolders(one, other)));

    let runs = Owners::new(store.iter().filter(|run| run.way == Way::Settled));
    let unrecorded = settled.iter().filter(|range| !runs.cover(range));
    found.extend(unrecorded.map(|range| Disagreement::NotInStore((*range).clone())));
    let ranges = Owners::new(settled.iter().copied());
    let outside = held
        .iter()
        .chain(journalled)
        .filter(|held| !ranges.has(held));
    found.extend(outside.map(|held| Disagreement::NotInRange(held.clone())));

    let mut known: Vec<&Use> = journalled.iter().collect();
    known.sort();
    let unknown = held
        .iter()
        .filter(|held| known.binary_search(held).is_err());
    found.extend(unknown.map(|held| Disagreement::NotInJournal(held.clone())));
    let mut used: Vec<&Use> = held.iter().collect();
    used.sort();
    let leaked = journalled
        .iter()
        .filter(|known| used.binary_search(known).is_err());
    found.extend(leaked.map(|leaked| Disagreement::NobodyHolds(leaked.clone())));
    let compared = [store.len(), journals.len(), journalled.len(), held.len()];
    DuplicateReport { compared, found }
}

/// Neighbours in the order of addresses that share one.
fn overlaps<'a>(ranges: impl Iterator<Item = &'a Range>) -> impl Iterator<Item = (Range, Range)> {
    let mut sorted: Vec<&Range> = ranges.collect();
    sorted.sort_by_key(|range| (range.first, range.last));
    let mut furthest: Option<&Range> = None;
    let mut found = Vec::new();
    for range in sorted {
        match furthest {
            Some(before) if before.last >= range.first => {
                found.push((before.clone(), range.clone()));
                if range.last > before.last {
                    furthest = Some(range);
                }
            }
            _ => furthest = Some(range),
        }
    }
    found.into_iter()
}

fn twice(held: &[Use]) -> impl Iterator<Item = (Use, Use)> {
    let mut sorted: Vec<&Use> = held.iter().collect();
    sorted.sort();
    let pairs: Vec<_> = sorted
        .windows(2)
        .filter_map(|pair| match pair {
            [one, other] if one.address == other.address => {
                Some(((*one).clone(), (*other).clone()))
            }
            _ => None,
        })
        .collect();
    pairs.into_iter()
}

/// Ranges by owner, neighbouring ones joined.
struct Owners<'a> {
    ranges: BTreeMap<&'a str, Vec<(u128, u128)>>,
}

impl<'a> Owners<'a> {
    fn new(ranges: impl Iterator<Item = &'a Range>) -> Self {
        let mut by_owner: BTreeMap<&str, Vec<(u128, u128)>> = BTreeMap::new();
        for range in ranges {
            let own = by_owner.entry(&range.owner).or_default();
            own.push((number(range.first), number(range.last)));
        }
        for own in by_owner.values_mut() {
            own.sort_unstable();
            let mut joined: Vec<(u128, u128)> = Vec::with_capacity(own.len());
            for (first, last) in own.drain(..) {
                match joined.last_mut() {
                    Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                    _ => joined.push((first, last)),
                }
            }
            *own = joined;
        }
        Self { ranges: by_owner }
    }

    fn cover(&self, range: &Range) -> bool {
        self.within(&range.owner, number(range.first), number(range.last))
    }

    fn has(&self, held: &Use) -> bool {
        let address = number(held.address);
        self.within(&held.host, address, address)
    }

    fn within(&self, owner: &str, first: u128, last: u128) -> bool {
        let own = self.ranges.get(owner).map_or(&[][..], Vec::as_slice);
        let place = own.partition_point(|(start, _)| *start <= first);
        let before = place.checked_sub(1).and_then(|place| own.get(place));
        before.is_some_and(|(_, end)| *end >= last)
    }
}

/// Both families on one line: version 4 stands where version 6 maps it to.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 9, 0, last])
    }

    fn range(first: u8, last: u8, owner: &str) -> Range {
        Range {
            first: ip(first),
            last: ip(last),
            owner: owner.to_owned(),
            way: Way::Settled,
        }
    }

    fn used(address: u8, host: &str) -> Use {
        Use {
            address: ip(address),
            host: host.to_owned(),
        }
    }

    fn sound() -> Sides {
        Sides {
            store: vec![range(0, 9, "a"), range(10, 19, "a"), range(20, 29, "b")],
            journals: vec![range(0, 19, "a"), range(20, 29, "b")],
            journalled: vec![used(3, "a"), used(19, "a"), used(20, "b")],
            held: vec![used(3, "a"), used(19, "a"), used(20, "b")],
        }
    }

    #[test]
    fn three_sides_that_agree() {
        let report = compare(&sound());
        assert_eq!(report.found, []);
        assert_eq!(report.compared, [3, 2, 3, 3]);
    }

    #[test]
    fn two_runs_of_the_store() {
        let mut sides = sound();
        sides.store.push(range(5, 5, "b"));
        assert_eq!(
            compare(&sides).found,
            [Disagreement::TwoRuns(range(0, 9, "a"), range(5, 5, "b"))]
        );
    }

    #[test]
    fn a_long_run_hides_none_behind_a_short_one() {
        let mut sides = sound();
        sides.store = vec![range(0, 29, "a"), range(2, 3, "a"), range(20, 29, "b")];
        let doubles = compare(&sides).found;
        let doubles = doubles
            .iter()
            .filter(|d| matches!(d, Disagreement::TwoRuns(..)));
        assert_eq!(doubles.count(), 2);
    }

    #[test]
    fn two_journals_own_what_the_store_gives_to_one() {
        let mut sides = sound();
        sides.journals.push(range(20, 21, "a"));
        assert_eq!(
            compare(&sides).found,
            [
                Disagreement::TwoJournals(range(20, 21, "a"), range(20, 29, "b")),
                Disagreement::NotInStore(range(20, 21, "a")),
            ]
        );
        // One that is leaving is nobody's double.
        sides.journals.last_mut().unwrap().way = Way::Underway;
        assert_eq!(compare(&sides).found, []);
    }

    #[test]
    fn two_holders_and_a_holder_twice() {
        for host in ["a", "b"] {
            let mut sides = sound();
            sides.held.push(used(20, host));
            let found = compare(&sides).found;
            assert!(
                found
                    .iter()
                    .any(|d| matches!(d, Disagreement::TwoHolders(..))),
                "{found:?}"
            );
        }
    }

    #[test]
    fn held_but_not_in_the_journal_and_the_other_way_round() {
        let mut sides = sound();
        sides.held.push(used(4, "a"));
        sides.journalled.push(used(5, "a"));
        assert_eq!(
            compare(&sides).found,
            [
                Disagreement::NotInJournal(used(4, "a")),
                Disagreement::NobodyHolds(used(5, "a")),
            ]
        );
    }

    #[test]
    fn an_offered_run_is_nobodys_to_use() {
        let mut sides = sound();
        sides.store.last_mut().unwrap().way = Way::Underway;
        assert_eq!(
            compare(&sides).found,
            [Disagreement::NotInStore(range(20, 29, "b"))]
        );
        sides.journals.pop();
        let outside = Disagreement::NotInRange(used(20, "b"));
        assert_eq!(compare(&sides).found, [outside.clone(), outside]);
    }
}
