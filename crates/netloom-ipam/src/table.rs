//! What the journal's events add up to: the state of every address that is not simply free.

use crate::cluster::Memory;
use crate::event::{Event, Slot, SlotState};
use crate::journal::Fold;
use crate::space::PoolKey;
use netloom_core::ReservedFor;
use netloom_types::Subnet;
use std::collections::{BTreeMap, HashMap, VecDeque};

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
    pub(crate) slots: HashMap<u128, Slot>,
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
                let ledger = Ledger {
                    key: PoolKey { space, subnet },
                    generation,
                    slots: HashMap::new(),
                    reserved: BTreeMap::new(),
                    cooling: Cooling::default(),
                };
                self.pool = self.pool.max(pool);
                match self.pools.insert(pool, ledger) {
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
            } => self.ledger(pool)?.released(index, operation),
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
            Event::Unreserved { pool, index } => self.ledger(pool)?.unreserved(index),
            Event::Cooling { pool, index } => Ok(self.ledger(pool)?.cool(index)),
        }
    }

    fn ledger(&mut self, pool: u32) -> Result<&mut Ledger, String> {
        self.pools
            .get_mut(&pool)
            .ok_or_else(|| format!("an event names pool {pool}, which is not open"))
    }
}

impl Ledger {
    pub(crate) fn subnet(&self) -> Subnet {
        self.key.subnet
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

    fn released(&mut self, index: u128, operation: u64) -> Result<Effect, String> {
        self.slot(index, operation)?;
        self.slots.remove(&index);
        if self.reserved.contains_key(&index) {
            return Ok(Effect::default());
        }
        Ok(self.cool(index))
    }

    fn unreserved(&mut self, index: u128) -> Result<Effect, String> {
        if self.reserved.remove(&index).is_none() {
            return Err(format!(
                "address {index} of {} is not reserved",
                self.subnet()
            ));
        }
        if self.slots.contains_key(&index) {
            return Ok(Effect::default());
        }
        Ok(self.cool(index))
    }

    fn cool(&mut self, index: u128) -> Effect {
        Effect {
            cooled: self.cooling.push(index),
        }
    }

    fn dump(&self, pool: u32, sink: &mut dyn FnMut(&Event)) {
        sink(&Event::PoolOpened {
            pool,
            space: self.key.space,
            subnet: self.key.subnet,
            generation: self.generation,
        });
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
        for index in self.cooling.iter() {
            sink(&Event::Cooling { pool, index });
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

/// Free addresses in the order in which they came back. They are handed out only when no address
/// is left that was idle for longer, and then the oldest first: an order, never a wait.
#[derive(Debug, Default)]
pub(crate) struct Cooling {
    /// With stale entries, which the map does not confirm.
    order: VecDeque<(u128, u64)>,
    turns: HashMap<u128, u64>,
    turn: u64,
}

impl Cooling {
    pub(crate) fn len(&self) -> usize {
        self.turns.len()
    }

    pub(crate) fn contains(&self, index: u128) -> bool {
        self.turns.contains_key(&index)
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
    pub(crate) fn iter(&self) -> impl Iterator<Item = u128> {
        let live = |(index, turn): &&(u128, u64)| self.turns.get(index) == Some(turn);
        self.order.iter().filter(live).map(|(index, _)| *index)
    }

    /// Adds the youngest; gives the oldest when there are too many.
    fn push(&mut self, index: u128) -> Option<u128> {
        self.turn += 1;
        self.turns.insert(index, self.turn);
        self.order.push_back((index, self.turn));
        let oldest = (self.len() > COOLING_MAX).then(|| self.iter().next())?;
        if let Some(oldest) = oldest {
            self.remove(oldest);
        }
        oldest
    }

    fn remove(&mut self, index: u128) {
        self.turns.remove(&index);
        while let Some((index, turn)) = self.order.front()
            && self.turns.get(index) != Some(turn)
        {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.turns.len() + STALE_MAX {
            let turns = &self.turns;
            self.order
                .retain(|(index, turn)| turns.get(index) == Some(turn));
        }
    }
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
    use netloom_core::{AddressSpace, Timestamp};

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
        let mut again = Table::default();
        Fold::dump(&table, &mut |event| Fold::apply(&mut again, event).unwrap());
        assert_eq!(again, table);
        let order: Vec<_> = again.pools[&1].cooling.iter().collect();
        assert_eq!(order, [9, 7, 1]);
        assert_eq!(again.next_operation(), table.next_operation());
    }

    #[test]
    fn cool_down_gives_its_oldest_back_when_it_is_full() {
        let mut table = opened();
        for index in 0..=COOLING_MAX as u128 {
            let operation = take(&mut table, index);
            let effect = release(&mut table, index, operation).unwrap();
            let expected = (index == COOLING_MAX as u128).then_some(0);
            assert_eq!(effect.cooled, expected);
        }
        assert_eq!(table.pools[&1].cooling.len(), COOLING_MAX);
    }

    #[test]
    fn stale_entries_of_the_cool_down_do_not_pile_up() {
        let mut cooling = Cooling::default();
        cooling.push(1000);
        for round in 0..10_000 {
            cooling.push(round % 7);
            cooling.remove(round % 7);
        }
        assert!(cooling.order.len() <= 2 * cooling.len() + STALE_MAX + 1);
    }
}
