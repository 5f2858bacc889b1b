//! The ranges of one pool that this host holds by its own journal. Pure.

use std::collections::BTreeMap;

/// Neighbouring addresses of a pool, by their index, the last one included. A range never crosses
/// the border of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Part {
    pub(crate) first: u128,
    pub(crate) last: u128,
}

/// The life of a held range: owned from a commit of its own on; leaving from the choice to give it
/// away on, until a commit did so or can never do so any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RangeState {
    /// Handed out from; entered from nothing, or from leaving.
    Owned,
    /// Not handed out from; entered from owned.
    Leaving,
}

/// A range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) part: Part,
    pub(crate) generation: u64,
    pub(crate) state: RangeState,
}

/// All ranges of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    ranges: BTreeMap<u128, Range>,
    /// Addresses in owned ranges.
    owned: u128,
}

impl Part {
    pub(crate) fn one(at: u128) -> Self {
        Self {
            first: at,
            last: at,
        }
    }

    pub(crate) fn len(self) -> u128 {
        self.last - self.first + 1
    }

    pub(crate) fn contains(self, at: u128) -> bool {
        (self.first..=self.last).contains(&at)
    }

    /// What both have.
    pub(crate) fn common(self, other: Self) -> Option<Self> {
        let both = Self {
            first: self.first.max(other.first),
            last: self.last.min(other.last),
        };
        (both.first <= both.last).then_some(both)
    }
}

impl Held {
    /// How many addresses are owned.
    pub(crate) fn owned(&self) -> u128 {
        self.owned
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range> {
        self.ranges.values().copied()
    }

    /// Those that touch `part`, as far as they lie in it.
    pub(crate) fn within(&self, part: Part) -> impl Iterator<Item = Range> {
        let before = self.ranges.range(..part.first).next_back();
        let start = before.map_or(part.first, |(first, _)| *first);
        self.ranges
            .range(start..=part.last)
            .filter_map(move |(_, range)| {
                let part = range.part.common(part)?;
                Some(Range { part, ..*range })
            })
    }

    /// The range that an address lies in.
    pub(crate) fn at(&self, index: u128) -> Option<Range> {
        let (_, range) = self.ranges.range(..=index).next_back()?;
        range.part.contains(index).then_some(*range)
    }

    /// Whether an address may be handed out by this host.
    pub(crate) fn owns(&self, index: u128) -> bool {
        self.at(index)
            .is_some_and(|range| range.state == RangeState::Owned)
    }

    /// How many addresses of `part` are owned.
    pub(crate) fn owned_in(&self, part: Part) -> u128 {
        self.within(part)
            .filter(|range| range.state == RangeState::Owned)
            .map(|range| range.part.len())
            .sum()
    }

    /// A claim or an adoption was committed.
    pub(crate) fn add(&mut self, part: Part, generation: u64) -> Result<(), &'static str> {
        if part.last < part.first || self.within(part).next().is_some() {
            return Err("is owned twice");
        }
        self.insert(Range {
            part,
            generation,
            state: RangeState::Owned,
        });
        Ok(())
    }

    /// A part of one range gets another state, and a generation if one is given.
    pub(crate) fn change(
        &mut self,
        part: Part,
        from: Option<RangeState>,
        to: RangeState,
        generation: Option<u64>,
    ) -> Result<(), &'static str> {
        let range = self.cut(part, from)?;
        self.insert(Range {
            part,
            generation: generation.unwrap_or(range.generation),
            state: to,
        });
        Ok(())
    }

    /// A leaving part is somebody else's now.
    pub(crate) fn remove(&mut self, part: Part) -> Result<(), &'static str> {
        self.cut(part, Some(RangeState::Leaving)).map(drop)
    }

    /// A part of one range is somebody else's, who never was given it.
    pub(crate) fn lose(&mut self, part: Part) -> Result<(), &'static str> {
        self.cut(part, None).map(drop)
    }

    /// Takes a part of one range out.
    fn cut(&mut self, part: Part, state: Option<RangeState>) -> Result<Range, &'static str> {
        let found = self.at(part.first);
        let range = found
            .filter(|range| part.first <= part.last && range.part.last >= part.last)
            .ok_or("is not one range of this host")?;
        if state.is_some_and(|state| state != range.state) {
            return Err("is not in the state that this follows");
        }
        self.ranges.remove(&range.part.first);
        if range.state == RangeState::Owned {
            self.owned -= range.part.len();
        }
        if range.part.first < part.first {
            let left = Part {
                first: range.part.first,
                last: part.first - 1,
            };
            self.insert(Range {
                part: left,
                ..range
            });
        }
        if range.part.last > part.last {
            let right = Part {
                first: part.last + 1,
                last: range.part.last,
            };
            self.insert(Range {
                part: right,
                ..range
            });
        }
        Ok(range)
    }

    fn insert(&mut self, range: Range) {
        if range.state == RangeState::Owned {
            self.owned += range.part.len();
        }
        self.ranges.insert(range.part.first, range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(first: u128, last: u128) -> Part {
        Part { first, last }
    }

    proptest! {
        #[test]
        fn it_is_what_single_addresses_would_be(
            deeds in prop::collection::vec((0..4u8, 0..40u128, 0..8u128), 1..80)
        ) {
            let mut held = Held::default();
            let mut naive: BTreeMap<u128, RangeState> = BTreeMap::new();
            for (deed, first, more) in deeds {
                let part = part(first, first + more);
                let before = held.clone();
                let done = match deed {
                    0 => held.add(part, 1),
                    1 => held.change(part, Some(RangeState::Owned), RangeState::Leaving, None),
                    2 => held.change(part, Some(RangeState::Leaving), RangeState::Owned, Some(2)),
                    _ => held.remove(part),
                };
                if done.is_ok() {
                    for at in part.first..=part.last {
                        match deed {
                            0 | 2 => naive.insert(at, RangeState::Owned),
                            1 => naive.insert(at, RangeState::Leaving),
                            _ => naive.remove(&at),
                        };
                    }
                } else {
                    prop_assert_eq!(&held, &before);
                }
                for at in 0..60 {
                    prop_assert_eq!(held.at(at).map(|r| r.state), naive.get(&at).copied());
                }
                let owned = naive.values().filter(|s| **s == RangeState::Owned).count();
                prop_assert_eq!(held.owned(), owned as u128);
            }
        }
    }

    #[test]
    fn only_what_is_leaving_leaves() {
        let mut held = Held::default();
        held.add(part(0, 9), 1).unwrap();
        assert!(held.remove(part(0, 3)).is_err());
        let leaving = RangeState::Leaving;
        held.change(part(2, 3), Some(RangeState::Owned), leaving, None)
            .unwrap();
        assert!(!held.owns(2) && held.owns(1) && held.owns(4));
        held.remove(part(2, 2)).unwrap();
        assert_eq!(held.at(2), None);
        assert_eq!(held.owned_in(part(1, 5)), 3);
        assert!(held.add(part(1, 2), 5).is_err());
        held.add(part(2, 2), 5).unwrap();
    }
}
