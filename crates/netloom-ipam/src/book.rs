//! The address book in memory: decides, notes the event, and gives the ticket to wait for.
//!
//! Everything here is quick and runs under one lock; waiting for disk and store happens outside.
//! An event is queued before the memory changes, so the journal's order is the order of decisions.

mod choice;

use choice::{After, choose_named, is_for};
pub(crate) use choice::{
    bounded, exhausted, infrastructural, not_journalled, occupied, told, unknown_reference,
};

use crate::config::{IpamConfig, Sharing};
use crate::event::{Event, Slot, SlotState};
use crate::journal::{Journal, Ticket};
use crate::live::{Live, Own};
use crate::ranges::Need;
use crate::records::{GatewayHold, ReferenceState};
use crate::references::LetGo;
use crate::registry::StoredPool;
use crate::space::{PoolKey, Reference};
use crate::table::{Ledger, Table};
use netloom_core::{AddressSpace, Clock, IpamError, Timestamp};
use netloom_types::MacAddr;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Book {
    /// This host's name.
    host: String,
    clock: Arc<dyn Clock>,
    pub(crate) habit: Habit,
    pub(crate) table: Table,
    pub(crate) journal: Journal,
    pub(crate) pools: BTreeMap<PoolKey, Live>,
    /// Operations up to this one are from before this start: their answers may never have left.
    pub(crate) answered_after: u64,
    /// Of these, the ones in doubt that the runtime and the kernel were seen not to have.
    pub(crate) unanswered: HashSet<u64>,
    /// Uses whose address another endpoint named too and was refused: its caller gives the address
    /// back, once, and that frees nobody else's.
    refused: HashSet<u64>,
    pub(crate) let_go: LetGo,
    /// References of this host that it began to give back: whether they are there still, the store tells.
    pub(crate) going: BTreeSet<u64>,
}

/// Where the next address comes from when all that this host owns were in use before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// From what nobody owns, while there is some: the store is this host's own.
    ClaimFirst,
    /// From the one that was idle longest, without the store.
    ReuseFirst,
}

/// What an endpoint asks for.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) wanted: Option<IpAddr>,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) name: Option<String>,
    pub(crate) now: Timestamp,
}

/// An address that was taken.
#[derive(Debug)]
pub(crate) struct Taking {
    pub(crate) ip: IpAddr,
    /// To be waited for.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) outlook: Outlook,
}

/// What is left after an address was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    Enough,
    /// The next ones are to be claimed before they are needed.
    Scarce,
}

/// Why an address was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The reference has not been used before: mark it first.
    Unused,
    /// This host owns no address that would do: fetch some first.
    Absent(Need),
    /// It cannot be.
    Error(IpamError),
}

impl From<IpamError> for Refusal {
    fn from(error: IpamError) -> Self {
        Self::Error(error)
    }
}

/// Where a chosen address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Its bit was free and is set now.
    Fresh,
    /// Its bit was set before: it cools down, or is kept for the asker.
    Kept,
}

fn overtaken(why: &'static str) -> IpamError {
    IpamError::Unavailable {
        what: format!("another change of the same range came first ({why}); try again"),
        source: None,
    }
}

impl Book {
    pub(crate) fn new(
        config: &IpamConfig,
        journal: Journal,
        table: Table,
        (stored, let_go): (&[StoredPool], LetGo),
        clock: Arc<dyn Clock>,
    ) -> Result<Self, IpamError> {
        let habit = match config.sharing {
            Sharing::Alone => Habit::ClaimFirst,
            Sharing::Cluster(_) => Habit::ReuseFirst,
        };
        let mut book = Self {
            host: config.host.as_str().to_owned(),
            clock,
            habit,
            answered_after: table.next_operation() - 1,
            table,
            journal,
            pools: BTreeMap::new(),
            unanswered: HashSet::new(),
            refused: HashSet::new(),
            going: let_go.keys().copied().collect(),
            let_go,
        };
        for pool in stored.iter().filter(|p| p.is_active()) {
            book.follow(pool)?;
        }
        let live: HashSet<u32> = book.pools.values().map(|live| live.number).collect();
        let numbers = book.table.pools.keys().copied();
        let gone: Vec<u32> = numbers.filter(|n| !live.contains(n)).collect();
        for pool in gone {
            book.note_unwaited(Event::PoolClosed { pool })?;
        }
        Ok(book)
    }

    /// A reference of this host begins to give its pool's gateway back.
    pub(crate) fn let_gateway_go(&mut self, reference: Reference) {
        let Some(live) = self.pools.get_mut(&reference.pool) else {
            return;
        };
        if let Some(own) = live.references.own().get(&reference.nonce) {
            let held = live.gateway.filter(|_| own.gateway == GatewayHold::Held);
            self.let_go.entry(reference.nonce).or_insert(held);
            // Also after a restart, which remembers that alone.
            self.going.insert(reference.nonce);
            live.references.let_gateways_go(&self.let_go);
        }
    }

    /// Forgets the references that are gone.
    pub(crate) fn prune_let_go(&mut self) {
        let pools = &self.pools;
        let is_there = |nonce: &u64| pools.values().any(|l| l.references.contains(*nonce));
        self.let_go.retain(|nonce, _| is_there(nonce));
        self.going.retain(is_there);
    }

    /// Brings a pool in line with the store.
    pub(crate) fn follow(&mut self, stored: &StoredPool) -> Result<(), IpamError> {
        let key = stored.key;
        let generation = stored.pool.record.generation;
        let known = self.pools.get(&key).map(|live| live.number);
        let same_life = known.filter(|number| {
            let ledger = self.table.pools.get(number);
            stored.is_active() && ledger.is_some_and(|l| l.generation == generation)
        });
        if let (Some(number), None) = (known, same_life) {
            self.note_unwaited(Event::PoolClosed { pool: number })?;
            self.pools.remove(&key);
        }
        if !stored.is_active() || self.has_twin(key) {
            return Ok(());
        }
        let number = match same_life.or_else(|| self.table.find(key, generation)) {
            Some(number) => number,
            None => self.open(key, generation)?,
        };
        let ledger = self
            .table
            .pools
            .get(&number)
            .expect("the pool was found or opened just now");
        let me = Own {
            host: &self.host,
            let_go: &self.let_go,
        };
        match self.pools.get_mut(&key) {
            Some(live) => live.follow(stored, ledger, me),
            None => {
                let live = Live::new(number, stored, ledger, me);
                self.pools.insert(key, live);
            }
        }
        Ok(())
    }

    /// Whether the store has a pool in a former life than is known here, and nothing of the later one
    /// is this host's.
    pub(crate) fn is_lost_life(&self, stored: &StoredPool) -> bool {
        let live = self.pools.get(&stored.key);
        let mut later = self.lives_after(stored).peekable();
        stored.is_active()
            && later.peek().is_some()
            && later.all(|(_, ledger)| ledger.is_blank())
            && live.is_none_or(|live| live.references.own().is_empty())
    }

    /// Follows the store to a former life of a pool, if nothing of the later one is this host's.
    pub(crate) fn leave_lost_life(&mut self, stored: &StoredPool) -> Result<(), IpamError> {
        if !self.is_lost_life(stored) {
            return Ok(());
        }
        let later: Vec<u32> = self.lives_after(stored).map(|(number, _)| number).collect();
        for pool in later {
            self.note_unwaited(Event::PoolClosed { pool })?;
            self.pools.retain(|_, live| live.number != pool);
        }
        self.follow(stored)
    }

    fn lives_after(&self, stored: &StoredPool) -> impl Iterator<Item = (u32, &Ledger)> {
        let (key, generation) = (stored.key, stored.pool.record.generation);
        let ledgers = self.table.pools.iter();
        let later = ledgers.filter(move |(_, l)| l.key == key && l.generation > generation);
        later.map(|(number, ledger)| (*number, ledger))
    }

    /// Whether another ledger holds what a pool names: while a host's own pool becomes one of all,
    /// and after it did. With two ledgers its addresses would be handed out twice.
    fn has_twin(&self, key: PoolKey) -> bool {
        if self.habit == Habit::ClaimFirst || self.table.newest(key).is_some() {
            return false;
        }
        let in_space = |space| PoolKey { space, ..key };
        match key.space {
            AddressSpace::Local => self.table.newest(in_space(AddressSpace::Global)).is_some(),
            AddressSpace::Global => self.pools.contains_key(&in_space(AddressSpace::Local)),
        }
    }

    fn open(&mut self, key: PoolKey, generation: u64) -> Result<u32, IpamError> {
        let pool = self.table.next_pool();
        self.note_unwaited(Event::PoolOpened {
            pool,
            space: key.space,
            subnet: key.subnet,
            generation,
        })?;
        Ok(pool)
    }

    /// Notes what follows from the store, so that after a crash it is noted again: nobody waits.
    fn note_unwaited(&mut self, event: Event) -> Result<(), IpamError> {
        drop(self.note(event)?);
        Ok(())
    }

    /// Queues an event and takes it in.
    ///
    /// # Errors
    /// When the journal does not take it, or it cannot follow any more: something came first.
    pub(crate) fn note(&mut self, event: Event) -> Result<Ticket, IpamError> {
        self.table.admits(&event).map_err(overtaken)?;
        let ticket = self
            .journal
            .append(&[&event.encode()])
            .map_err(not_journalled)?;
        let after = After::of(&event);
        let effect = self
            .table
            .apply(event)
            .expect("an event is made from the state that it is applied to");
        match (after, effect.cooled) {
            (After::CoolDown(number), Some(cooled)) => {
                self.with_live(number, |live, ledger| live.free(cooled, ledger));
            }
            (After::CoolDown(_) | After::Nothing, _) => {}
            (After::Open(number, part), _) => {
                self.with_live(number, |live, ledger| live.open(part, ledger));
            }
            (After::Close(number, part), _) => self.with_live(number, |live, _| live.close(part)),
        }
        Ok(ticket)
    }

    fn with_live(&mut self, number: u32, deed: impl FnOnce(&mut Live, &Ledger)) {
        if let Some(ledger) = self.table.pools.get(&number)
            && let Some(live) = self.pools.get_mut(&ledger.key)
            && live.number == number
        {
            deed(live, ledger);
        }
    }

    /// The time of an address that comes back now.
    fn stamp(&self, pool: u32) -> Timestamp {
        let now = self.clock.now();
        let ledger = self.table.pools.get(&pool);
        ledger.map_or(now, |ledger| ledger.cooling.stamp(now))
    }

    /// Takes an address for an endpoint; in doubt until somebody is seen to have the answer.
    pub(crate) fn take(&mut self, reference: Reference, wish: &Wish) -> Result<Taking, Refusal> {
        let live = self.live(reference)?;
        let is_used = live.references.state(reference.nonce) == Some(ReferenceState::Used);
        if !is_used || self.going.contains(&reference.nonce) {
            return Err(Refusal::Unused);
        }
        let number = live.number;
        if let Some(ip) = wish.wanted
            && let Some(known) = self.settle_occupied(reference, ip, wish)?
        {
            return Ok(Taking {
                ip,
                ticket: known,
                outlook: Outlook::Enough,
            });
        }
        let (ip, source) = self.choose(reference, wish)?;
        let subnet = reference.pool.subnet;
        let index = subnet
            .index_of(ip)
            .expect("only addresses of the pool are chosen");
        let slot = Slot {
            operation: self.table.next_operation(),
            reference: reference.nonce,
            since: wish.now,
            state: SlotState::InDoubt,
            mac: wish.mac,
            name: wish.name.as_deref().map(bounded),
        };
        let taken = self.note(Event::Taken {
            pool: number,
            index,
            slot,
        });
        match taken {
            Ok(ticket) => Ok(Taking {
                ip,
                ticket: Some(ticket),
                outlook: self.outlook(reference, wish.now),
            }),
            Err(error) => {
                self.put_back(reference.pool, ip, source);
                Err(error.into())
            }
        }
    }

    /// A reference is being given back.
    pub(crate) fn begins_to_go(&mut self, reference: Reference) {
        // What a host's own store had of a pool that is one of all by now is another reference.
        if self.live(reference).is_ok() {
            self.going.insert(reference.nonce);
        }
    }

    /// Whether an address is a container's through this reference.
    pub(crate) fn gave(&self, reference: Reference, ip: IpAddr) -> bool {
        let place = self.locate(reference.pool, ip);
        let slot = place.and_then(|(number, index)| self.slot(number, index));
        slot.is_some_and(|slot| slot.reference == reference.nonce)
    }

    fn slot(&self, number: u32, index: u128) -> Option<&Slot> {
        self.table.pools.get(&number)?.slots.get(&index)
    }

    /// Takes an address back, if it was given through this reference.
    pub(crate) fn release(
        &mut self,
        reference: Reference,
        ip: IpAddr,
    ) -> Result<Option<Ticket>, IpamError> {
        let Some((number, index)) = self.locate(reference.pool, ip) else {
            return Ok(None);
        };
        match self.slot(number, index) {
            Some(slot) if slot.reference == reference.nonce => {
                let operation = slot.operation;
                if self.refused.remove(&operation) {
                    return Ok(self.journal.under_way());
                }
                self.free(number, index, operation).map(Some)
            }
            // Given back already, or another network's by now: a repeat changes nothing.
            Some(_) | None => Ok(self.journal.under_way()),
        }
    }

    pub(crate) fn free(
        &mut self,
        pool: u32,
        index: u128,
        operation: u64,
    ) -> Result<Ticket, IpamError> {
        self.unanswered.remove(&operation);
        self.refused.remove(&operation);
        let at = self.stamp(pool);
        self.note(Event::Released {
            pool,
            index,
            operation,
            at,
        })
    }

    /// An address is reserved no more.
    pub(crate) fn unreserve(&mut self, pool: u32, index: u128) -> Result<Ticket, IpamError> {
        let at = self.stamp(pool);
        self.note(Event::Unreserved { pool, index, at })
    }

    /// Somebody has the answer that gave `ip`. It is the last moment at which a duplicate can be
    /// stopped: an address that was given to another one, or settled as free, is refused.
    pub(crate) fn confirm(
        &mut self,
        ip: IpAddr,
        mac: Option<MacAddr>,
    ) -> Result<Option<Ticket>, IpamError> {
        let mut found = None;
        let mut given_back = false;
        let spaces = self.pools.iter().filter(|(key, _)| key.subnet.contains(ip));
        for (key, live) in spaces {
            let index = key.subnet.index_of(ip).expect("the subnet contains it");
            let ledger = self.table.pools.get(&live.number);
            if let Some(slot) = ledger.and_then(|l| l.slots.get(&index)) {
                let same = slot.mac.is_none() || mac.is_none() || slot.mac == mac;
                found = Some((live.number, index, slot.operation, slot.state, same));
                if same {
                    break;
                }
            } else if live.gateway != Some(ip) && !live.is_auxiliary(ip) {
                // Of a pool that only others use nothing was given here: Docker gives its own networks what it likes.
                given_back |= !live.references.own().is_empty();
            }
        }
        match found {
            None if given_back => Err(IpamError::InUse(format!(
                "{ip} was given back meanwhile, because nobody was seen to use it; start this \
                 container again"
            ))),
            // Not ours to confirm: another address management gave it.
            None => Ok(None),
            Some((_, _, operation, _, false)) => {
                self.refused.insert(operation);
                Err(IpamError::InUse(format!(
                    "{ip} was given to another container meanwhile; start this one again"
                )))
            }
            Some((_, _, _, SlotState::Endpoint, true)) => Ok(self.journal.under_way()),
            Some((pool, index, operation, SlotState::InDoubt, true)) => {
                self.unanswered.remove(&operation);
                self.note(Event::Confirmed {
                    pool,
                    index,
                    operation,
                    mac,
                })
                .map(Some)
            }
        }
    }

    pub(crate) fn live(&self, reference: Reference) -> Result<&Live, IpamError> {
        self.pools
            .get(&reference.pool)
            .filter(|live| live.references.contains(reference.nonce))
            .ok_or_else(|| unknown_reference(reference))
    }

    pub(crate) fn locate(&self, pool: PoolKey, ip: IpAddr) -> Option<(u32, u128)> {
        let live = self.pools.get(&pool)?;
        Some((live.number, pool.subnet.index_of(ip)?))
    }

    /// Looks at a named address that somebody has: an answer that was lost is given again, one
    /// that never left gives way, and everybody else keeps it.
    fn settle_occupied(
        &mut self,
        reference: Reference,
        ip: IpAddr,
        wish: &Wish,
    ) -> Result<Option<Option<Ticket>>, IpamError> {
        let Some((number, index)) = self.locate(reference.pool, ip) else {
            let subnet = reference.pool.subnet;
            return Err(IpamError::Invalid(format!(
                "{ip} does not lie in the pool {subnet}; choose an address inside of it"
            )));
        };
        let ledger = self.table.pools.get(&number);
        let Some(slot) = ledger.and_then(|l| l.slots.get(&index)) else {
            return Ok(None);
        };
        let in_doubt = slot.state == SlotState::InDoubt;
        if in_doubt && slot.reference == reference.nonce && slot.mac == wish.mac {
            return Ok(Some(self.journal.under_way()));
        }
        let operation = slot.operation;
        if in_doubt && self.unanswered.contains(&operation) {
            drop(self.free(number, index, operation)?);
            return Ok(None);
        }
        Err(IpamError::InUse(if in_doubt {
            format!("{ip} was handed out moments ago and is not settled yet; try again in a minute")
        } else {
            let holder = slot.name.as_deref().map(|n| format!(" by {n}"));
            let holder = holder.unwrap_or_default();
            format!("{ip} is in use{holder}; choose another address, or see `netloom address ls`")
        }))
    }

    /// Chooses an address and sets its bit.
    fn choose(&mut self, reference: Reference, wish: &Wish) -> Result<(IpAddr, Source), Refusal> {
        let live = self
            .pools
            .get_mut(&reference.pool)
            .ok_or_else(|| unknown_reference(reference))?;
        let ledger = self
            .table
            .pools
            .get(&live.number)
            .expect("a live pool has a ledger");
        let subnet = reference.pool.subnet;
        if let Some(ip) = wish.wanted {
            return choose_named(live, ledger, wish, ip);
        }
        let mine = ledger.reserved.iter().find(|(index, holder)| {
            !ledger.slots.contains_key(index)
                && is_for(holder, wish)
                && !live.is_infrastructure_at(**index)
        });
        if let Some((index, _)) = mine
            && let Some(ip) = subnet.nth(*index)
        {
            return choose_named(live, ledger, wish, ip);
        }
        let own = live.references.range_of(reference.nonce);
        if let Ok(ip) = live.addresses.allocate_in(own.unwrap_or(subnet)) {
            return Ok((ip, Source::Fresh));
        }
        let part = live.part(own);
        let need = Need::Any(part);
        if self.habit == Habit::ClaimFirst && !live.claimed_out.contains(&part) {
            return Err(Refusal::Absent(need));
        }
        let oldest = live.idle_in(part, ledger).next();
        match (oldest, self.habit) {
            (Some(ip), _) => Ok((ip, Source::Kept)),
            (None, Habit::ReuseFirst) => Err(Refusal::Absent(need)),
            (None, Habit::ClaimFirst) => Err(exhausted(subnet, own).into()),
        }
    }

    fn outlook(&mut self, reference: Reference, now: Timestamp) -> Outlook {
        if self.habit == Habit::ReuseFirst
            && let Some(live) = self.pools.get_mut(&reference.pool)
            && let Some(ledger) = self.table.pools.get(&live.number)
            // Whose range is full cannot be told by what is free of all.
            && live.references.range_of(reference.nonce).is_none()
            && live.claims_ahead(ledger, now)
        {
            return Outlook::Scarce;
        }
        Outlook::Enough
    }

    fn put_back(&mut self, pool: PoolKey, ip: IpAddr, source: Source) {
        if source == Source::Fresh
            && let Some(live) = self.pools.get_mut(&pool)
        {
            let _ = live.addresses.release(ip);
        }
    }
}
