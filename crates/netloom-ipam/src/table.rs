//! What the journal's events add up to: the state of every address that is not simply free.

mod admit;

use crate::cluster::Memory;
use crate::cooling::Cooling;
use crate::event::{Event, Slot, SlotState};
use crate::journal::Fold;
use crate::ranges::held::{Held, Part, Range, RangeState};
use crate::space::PoolKey;
use netloom_core::{AddressSpace, ReservedFor, Timestamp};
use netloom_types::Subnet;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// All pools' addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) pools: BTreeMap<u32, Ledger>,
    /// How far this host came with the store.
    pub(crate) host: Memory,
    /// The last operation's number.
    operation: u64,
    /// The last pool's number.
    pool: u32,
}

/// One pool's addresses, by their index in its subnet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) key: PoolKey,
    /// Which life of this pool: it counts up when a pool that was gone comes back.
    pub(crate) generation: u64,
    /// What this host holds of the pool; addresses are handed out of owned ranges only.
    pub(crate) held: Held,
    pub(crate) slots: FxHashMap<u128, Slot>,
    pub(crate) reserved: BTreeMap<u128, ReservedFor>,
    pub(crate) cooling: Cooling,
}

/// What an event did to the set of free addresses, for whoever keeps that set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Effect {
    /// Free again for everybody: it was the longest in cool-down when that was full.
    pub(crate) cooled: Option<u128>,
}

impl Table {
    pub(crate) fn next_operation(&self) -> u64 {
        self.operation + 1
    }

    pub(crate) fn next_pool(&self) -> u32 {
        self.pool + 1
    }

    /// The number of this life of this pool.
    pub(crate) fn find(&self, key: PoolKey, generation: u64) -> Option<u32> {
        let found =
            |(_, ledger): &(&u32, &Ledger)| ledger.key == key && ledger.generation == generation;
        self.pools.iter().find(found).map(|(number, _)| *number)
    }

    /// The latest life of a pool that is known here.
    pub(crate) fn newest(&self, key: PoolKey) -> Option<u64> {
        let lives = self.pools.values().filter(|ledger| ledger.key == key);
        lives.map(|ledger| ledger.generation).max()
    }

    /// Takes an event in. One that cannot follow what came before shows that the journal is
    /// damaged, or that whoever made it decided on another state.
    pub(crate) fn apply(&mut self, event: Event) -> Result<Effect, String> {
        match event {
            Event::PoolOpened {
                pool,
                space,
                subnet,
                generation,
            } => {
                self.pool = self.pool.max(pool);
                let key = PoolKey { space, subnet };
                match self.pools.insert(pool, Ledger::new(key, generation)) {
                    None => Ok(Effect::default()),
                    Some(_) => Err(format!("pool {pool} is opened twice")),
                }
            }
            Event::PoolClosed { pool } => match self.pools.remove(&pool) {
                Some(_) => Ok(Effect::default()),
                None => Err(format!("pool {pool} is closed, but was not open")),
            },
            Event::Counters { operation, pool } => {
                self.operation = self.operation.max(operation);
                self.pool = self.pool.max(pool);
                Ok(Effect::default())
            }
            Event::PoolShared { pool, generation } => Ok(self.ledger(pool)?.shared(generation)),
            Event::HostCounter(memory) => {
                self.host = memory;
                Ok(Effect::default())
            }
            Event::Taken { pool, index, slot } => {
                self.operation = self.operation.max(slot.operation);
                self.ledger(pool)?.taken(index, slot)
            }
            Event::Confirmed {
                pool,
                index,
                operation,
                mac,
            } => {
                let slot = self.ledger(pool)?.slot(index, operation)?;
                slot.state = SlotState::Endpoint;
                slot.mac = mac.or(slot.mac);
                Ok(Effect::default())
            }
            Event::Released {
                pool,
                index,
                operation,
                at,
            } => self.ledger(pool)?.released(index, operation, at),
            Event::Reserved {
                pool,
                index,
                holder,
            } => {
                let ledger = self.ledger(pool)?;
                ledger.cooling.remove(index);
                ledger.reserved.insert(index, holder);
                Ok(Effect::default())
            }
            Event::Unreserved { pool, index, at } => self.ledger(pool)?.unreserved(index, at),
            Event::Cooling { pool, index, at } => Ok(self.ledger(pool)?.cool(index, at)),
            range @ (Event::RangeOwned { .. }
            | Event::RangeLeaving { .. }
            | Event::RangeKept { .. }
            | Event::RangeLeft { .. }
            | Event::RangeLost { .. }) => self.apply_range(&range),
        }
    }

    fn apply_range(&mut self, event: &Event) -> Result<Effect, String> {
        match *event {
            Event::RangeOwned {
                pool,
                part,
                generation,
                idle,
            } => self.ledger(pool)?.owned(part, generation, idle),
            Event::RangeLeaving { pool, part } => self.ledger(pool)?.leaving(part),
            Event::RangeKept {
                pool,
                part,
                generation,
            } => self.ledger(pool)?.kept(part, generation),
            Event::RangeLeft { pool, part } => self.ledger(pool)?.left(part),
            Event::RangeLost { pool, part } => self.ledger(pool)?.lost(part),
            _ => Ok(Effect::default()),
        }
    }

    fn ledger(&mut self, pool: u32) -> Result<&mut Ledger, String> {
        self.pools
            .get_mut(&pool)
            .ok_or_else(|| format!("an event names pool {pool}, which is not open"))
    }
}

impl Ledger {
    fn new(key: PoolKey, generation: u64) -> Self {
        Self {
            key,
            generation,
            held: Held::default(),
            slots: FxHashMap::default(),
            reserved: BTreeMap::new(),
            cooling: Cooling::default(),
        }
    }

    pub(crate) fn subnet(&self) -> Subnet {
        self.key.subnet
    }

    fn shared(&mut self, generation: u64) -> Effect {
        self.key.space = AddressSpace::Global;
        self.generation = generation;
        Effect::default()
    }

    fn taken(&mut self, index: u128, slot: Slot) -> Result<Effect, String> {
        self.cooling.remove(index);
        match self.slots.insert(index, slot) {
            None => Ok(Effect::default()),
            Some(_) => Err(format!(
                "address {index} of {} is taken twice",
                self.subnet()
            )),
        }
    }

    fn slot(&mut self, index: u128, operation: u64) -> Result<&mut Slot, String> {
        let subnet = self.key.subnet;
        self.slots
            .get_mut(&index)
            .filter(|slot| slot.operation == operation)
            .ok_or_else(|| format!("address {index} of {subnet} is not held by {operation}"))
    }

    fn released(&mut self, index: u128, operation: u64, at: Timestamp) -> Result<Effect, String> {
        self.slot(index, operation)?;
        self.slots.remove(&index);
        if self.reserved.contains_key(&index) {
            return Ok(Effect::default());
        }
        Ok(self.cool(index, at))
    }

    fn unreserved(&mut self, index: u128, at: Timestamp) -> Result<Effect, String> {
        if self.reserved.remove(&index).is_none() {
            return Err(format!(
                "address {index} of {} is not reserved",
                self.subnet()
            ));
        }
        if self.slots.contains_key(&index) {
            return Ok(Effect::default());
        }
        Ok(self.cool(index, at))
    }

    fn cool(&mut self, index: u128, at: Timestamp) -> Effect {
        Effect {
            cooled: self.cooling.push(index, at),
        }
    }

    /// A range came into this host's hands. What was in use elsewhere before queues up here.
    fn owned(&mut self, part: Part, generation: u64, idle: Timestamp) -> Result<Effect, String> {
        let added = self.held.add(part, generation);
        added.map_err(|why| self.odd(part, why))?;
        if idle > Timestamp::default() {
            let (slots, reserved) = (&self.slots, &self.reserved);
            let free = |at: &u128| !slots.contains_key(at) && !reserved.contains_key(at);
            let queued = (part.first..=part.last).filter(free);
            self.cooling.queue(queued, idle);
        }
        Ok(Effect::default())
    }

    fn leaving(&mut self, part: Part) -> Result<Effect, String> {
        if self.occupied_in(part) {
            return Err(self.odd(part, "leaves with addresses in use"));
        }
        let (from, to) = (Some(RangeState::Owned), RangeState::Leaving);
        let changed = self.held.change(part, from, to, None);
        changed.map_err(|why| self.odd(part, why))?;
        Ok(Effect::default())
    }

    fn kept(&mut self, part: Part, generation: u64) -> Result<Effect, String> {
        let to = RangeState::Owned;
        let changed = self.held.change(part, None, to, Some(generation));
        changed.map_err(|why| self.odd(part, why))?;
        Ok(Effect::default())
    }

    fn lost(&mut self, part: Part) -> Result<Effect, String> {
        let removed = self.held.lose(part);
        removed.map_err(|why| self.odd(part, why))?;
        for index in part.first..=part.last {
            self.cooling.forget(index);
        }
        Ok(Effect::default())
    }

    fn left(&mut self, part: Part) -> Result<Effect, String> {
        let removed = self.held.remove(part);
        removed.map_err(|why| self.odd(part, why))?;
        for index in part.first..=part.last {
            self.cooling.forget(index);
        }
        Ok(Effect::default())
    }

    /// Whether an address is not simply free, if it is this host's.
    pub(crate) fn is_kept(&self, index: u128) -> bool {
        self.slots.contains_key(&index)
            || self.reserved.contains_key(&index)
            || self.cooling.contains(index)
    }

    /// Whether nothing of this life is the host's.
    pub(crate) fn is_blank(&self) -> bool {
        self.held.is_empty() && self.slots.is_empty() && self.reserved.is_empty()
    }

    /// How many addresses this host could hand out.
    pub(crate) fn free(&self) -> u128 {
        let idle = |(index, _): &(&u128, _)| !self.slots.contains_key(index);
        let reserved = self.reserved.iter().filter(idle).count();
        self.held
            .owned()
            .saturating_sub((self.slots.len() + reserved) as u128)
    }

    /// Whether an address of `part` is in use or reserved.
    pub(crate) fn occupied_in(&self, part: Part) -> bool {
        // A part is of one chunk: 1,024 addresses at most.
        let mut all = part.first..=part.last;
        all.any(|at| self.slots.contains_key(&at) || self.reserved.contains_key(&at))
    }

    fn odd(&self, part: Part, why: &str) -> String {
        let (subnet, Part { first, last }) = (self.subnet(), part);
        format!("the range {first} to {last} of {subnet} {why}")
    }

    fn dump(&self, pool: u32, sink: &mut dyn FnMut(&Event)) {
        sink(&Event::PoolOpened {
            pool,
            space: self.key.space,
            subnet: self.key.subnet,
            generation: self.generation,
        });
        for range in self.held.iter() {
            sink(&Event::RangeOwned {
                pool,
                part: range.part,
                generation: range.generation,
                idle: Timestamp::default(),
            });
        }
        for (index, slot) in &self.slots {
            sink(&Event::Taken {
                pool,
                index: *index,
                slot: slot.clone(),
            });
        }
        for (index, holder) in &self.reserved {
            sink(&Event::Reserved {
                pool,
                index: *index,
                holder: holder.clone(),
            });
        }
        for (index, at) in self.cooling.iter() {
            sink(&Event::Cooling { pool, index, at });
        }
        let leaving = |range: &Range| range.state == RangeState::Leaving;
        for range in self.held.iter().filter(leaving) {
            let part = range.part;
            sink(&Event::RangeLeaving { pool, part });
        }
    }
}

impl Fold for Table {
    fn apply(&mut self, event: &[u8]) -> Result<(), String> {
        self.apply(Event::decode(event)?).map(drop)
    }

    fn dump(&self, sink: &mut dyn FnMut(&[u8])) {
        sink(
            &Event::Counters {
                operation: self.operation,
                pool: self.pool,
            }
            .encode(),
        );
        sink(&Event::HostCounter(self.host.clone()).encode());
        for (pool, ledger) in &self.pools {
            ledger.dump(*pool, &mut |event| sink(&event.encode()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Table {
        let mut table = Table::default();
        let event = Event::PoolOpened {
            pool: 1,
            space: AddressSpace::Local,
            subnet: "10.0.0.0/8".parse().unwrap(),
            generation: 1,
        };
        table.apply(event).unwrap();
        table
    }

    fn take(table: &mut Table, index: u128) -> u64 {
        let operation = table.next_operation();
        let slot = Slot {
            operation,
            reference: 1,
            since: Timestamp(0),
            state: SlotState::InDoubt,
            mac: None,
            name: None,
        };
        let event = Event::Taken {
            pool: 1,
            index,
            slot,
        };
        table.apply(event).unwrap();
        operation
    }

    fn release(table: &mut Table, index: u128, operation: u64) -> Result<Effect, String> {
        table.apply(Event::Released {
            pool: 1,
            index,
            operation,
            at: Timestamp(1),
        })
    }

    #[test]
    fn a_late_release_of_an_older_generation_is_refused() {
        let mut table = opened();
        let first = take(&mut table, 5);
        release(&mut table, 5, first).unwrap();
        let second = take(&mut table, 5);
        assert!(release(&mut table, 5, first).is_err());
        assert!(release(&mut table, 5, second).is_ok());
    }

    #[test]
    fn a_dump_leads_to_the_same_state_in_the_same_order() {
        let mut table = opened();
        for index in [9, 3, 7, 1] {
            let operation = take(&mut table, index);
            release(&mut table, index, operation).unwrap();
        }
        take(&mut table, 3);
        let holder = ReservedFor::Name("db".to_owned());
        let event = Event::Reserved {
            pool: 1,
            index: 8,
            holder,
        };
        table.apply(event).unwrap();
        let owned = |first, last, generation| Event::RangeOwned {
            pool: 1,
            part: Part { first, last },
            generation,
            idle: Timestamp(0),
        };
        table.apply(owned(0, 1023, 4)).unwrap();
        table.apply(owned(2048, 2063, 5)).unwrap();
        let part = Part {
            first: 9,
            last: 200,
        };
        let leaving = Event::RangeLeaving { pool: 1, part };
        table.apply(leaving).unwrap();
        let mut again = Table::default();
        Fold::dump(&table, &mut |event| Fold::apply(&mut again, event).unwrap());
        assert_eq!(again, table);
        let order: Vec<_> = again.pools[&1].cooling.iter().map(|(at, _)| at).collect();
        assert_eq!(order, [9, 7, 1]);
        assert_eq!(again.next_operation(), table.next_operation());
    }

    #[test]
    fn a_range_with_an_address_in_use_does_not_leave() {
        let mut table = opened();
        let part = |first, last| Part { first, last };
        let owned = Event::RangeOwned {
            pool: 1,
            part: part(0, 15),
            generation: 1,
            idle: Timestamp(0),
        };
        table.apply(owned).unwrap();
        let operation = take(&mut table, 5);
        let leaving = |part| Event::RangeLeaving { pool: 1, part };
        assert!(table.apply(leaving(part(4, 7))).is_err());
        table.apply(leaving(part(6, 7))).unwrap();
        release(&mut table, 5, operation).unwrap();
        table.apply(leaving(part(4, 5))).unwrap();
        let left = Event::RangeLeft {
            pool: 1,
            part: part(4, 5),
        };
        table.apply(left).unwrap();
        assert!(!table.pools[&1].cooling.contains(5));
    }

    #[test]
    fn a_range_that_was_in_use_elsewhere_queues_behind_what_was_idle_for_longer() {
        let mut table = opened();
        let own = |table: &mut Table, first, idle| {
            let event = Event::RangeOwned {
                pool: 1,
                part: Part {
                    first,
                    last: first + 1,
                },
                generation: 1,
                idle: Timestamp(idle),
            };
            table.apply(event).unwrap();
        };
        own(&mut table, 10, 500);
        own(&mut table, 20, 300);
        own(&mut table, 30, 0);
        own(&mut table, 40, 400);
        let order: Vec<_> = table.pools[&1].cooling.iter().map(|(at, _)| at).collect();
        assert_eq!(order, [20, 21, 40, 41, 10, 11]);
    }
}
