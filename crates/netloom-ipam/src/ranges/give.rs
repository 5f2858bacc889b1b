//! Serving what other hosts want.

use super::gate::Gate;
use super::held::{Part, RangeState};
use super::{Life, Need, RangeError, chunk_of, span_in};
use crate::event::{Event, SlotState};
use crate::journal::Ticket;
use crate::manager::{AddressManager, settle};
use crate::records::{AnswerRecord, AnswerWord, VERSION, WantRecord, WantShape};
use crate::registry::{CONFLICTS_MAX, Stored, write};
use crate::space::PoolKey;
use netloom_alloc::AddressState;
use netloom_core::store::{Key, Operation};
use netloom_core::{AddressSpace, IpamError, crash_point};
use netloom_types::{HostId, Subnet};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// A want that asks this host.
#[derive(Debug)]
struct Asked {
    pool: PoolKey,
    key: Key,
    want: Stored<WantRecord>,
    need: Need,
    asker: Arc<str>,
}

/// Addresses of one chunk that were chosen to be given away, and are leaving.
#[derive(Debug)]
pub(crate) struct Gift {
    pub(crate) chunk: u128,
    /// Each with when its youngest address was in use last, and its generation.
    pub(crate) parts: Vec<(Part, u64, u64)>,
    pub(crate) ticket: Option<Ticket>,
}

/// What this host says to a want.
#[derive(Debug)]
enum Reply {
    Offer(Gift),
    Nothing,
    InUse(String),
}

impl AddressManager {
    /// Answers all wants that ask this host and were not answered yet.
    pub(crate) async fn serve(&self) -> Result<(), IpamError> {
        let mut outcome = Ok(());
        for (subnet, key, want) in self.registry.wants().await? {
            let Some(asked) = self.asked(subnet, key, want) else {
                continue;
            };
            let (pool, asker) = (asked.pool, asked.asker.to_string());
            let round = asked.want.record.round.clone();
            if self.answered(pool, &asker).as_ref() == Some(&round) {
                continue;
            }
            let gate = self.gates.of(pool);
            if let Err(error) = self.answer(&gate, asked).await {
                // The others' wants are not to suffer from it.
                outcome = Err(error);
                continue;
            }
            let answered = self.gates.answered.lock();
            let mut answered = answered.unwrap_or_else(PoisonError::into_inner);
            answered.insert((pool, asker), round);
        }
        outcome
    }

    fn answered(&self, pool: PoolKey, asker: &str) -> Option<String> {
        let answered = self.gates.answered.lock();
        let answered = answered.unwrap_or_else(PoisonError::into_inner);
        answered.get(&(pool, asker.to_owned())).cloned()
    }

    /// The want, if it is one that this host has to answer.
    fn asked(&self, subnet: Subnet, key: Key, want: Stored<WantRecord>) -> Option<Asked> {
        let me = self.registry.host();
        let record = &want.record;
        if record.host == me || !record.asked.iter().any(|host| host == me) {
            return None;
        }
        // What a store says is no host's name until it is one.
        let asker = HostId::new(record.host.as_str()).ok()?;
        let part = Part {
            first: record.first,
            last: record.last,
        };
        let need = match record.shape {
            WantShape::Any if part.first <= part.last => Need::Any(part),
            WantShape::Exactly if part.first == part.last => Need::Exactly(part.first),
            WantShape::Any | WantShape::Exactly => return None,
        };
        let space = AddressSpace::Global;
        Some(Asked {
            pool: PoolKey { space, subnet },
            key,
            need,
            asker: asker.as_str().into(),
            want,
        })
    }

    async fn answer(&self, gate: &Gate, asked: Asked) -> Result<(), IpamError> {
        let life = self.life(asked.pool);
        let life = life
            .ok()
            .filter(|l| l.generation == asked.want.record.generation);
        let Some(life) = life else {
            // Nothing of this life is here.
            return self.say(&asked, &Reply::Nothing).await;
        };
        // What a former commit left open, or was offered to this host, may be what is wanted.
        self.settle(asked.pool, gate).await?;
        if self.nothing_to_give(life, &asked) {
            self.adopt_all(asked.pool, gate).await?;
        }
        let _one_at_a_time = gate.hands.lock().await;
        match self.choose_gift(life, &asked)? {
            Reply::Offer(gift) => self.offer(life, &asked, gift).await,
            other => self.say(&asked, &other).await,
        }
    }

    /// Gives leaving ranges to the asker in one commit with the answer; `hands` is held. The check
    /// of the want keeps one that was withdrawn from being served.
    async fn offer(&self, life: Life, asked: &Asked, mut gift: Gift) -> Result<(), IpamError> {
        settle(gift.ticket.take()).await?;
        crash_point!("ipam.range.leaving");
        match self.try_offer(life, asked, &gift).await {
            Ok(()) => self.note_left(life, &gift),
            // Whatever the records are by now: what is still this host's gets a new generation.
            Err(RangeError::Conflict) => self.settle_leaving(asked.pool).await,
            Err(RangeError::Refused(error)) => {
                self.note_kept(life, &gift)?;
                Err(error)
            }
            Err(RangeError::Unknown(error)) => Err(error),
        }
    }

    async fn try_offer(&self, life: Life, asked: &Asked, gift: &Gift) -> Result<(), RangeError> {
        let me = self.registry.host();
        for tries in 0..CONFLICTS_MAX {
            if !self
                .still_wanted(asked)
                .await
                .map_err(RangeError::Unknown)?
            {
                break;
            }
            let (pool, number) = (asked.pool, gift.chunk);
            let stored = self.registry.chunk(pool, life.generation, number).await;
            let mut stored = stored.map_err(RangeError::Unknown)?;
            let mut offered = gift.parts.iter().filter_map(|(part, idle, _)| {
                let span = span_in(*part, number)?;
                Some(stored.chunk.offer(span, me, &asked.asker, *idle))
            });
            if offered.any(|offered| offered.is_err()) {
                break;
            }
            let operation = self.registry.operation();
            let chunk = self
                .registry
                .write_chunk(&stored, life.generation, &operation);
            let version = asked.want.version.clone();
            let wanted = Operation::CheckVersion(asked.key.clone(), version);
            let operations = vec![chunk, wanted];
            match self.say_offered(asked, gift, operation, operations).await {
                Err(RangeError::Conflict) => {}
                done => return done.map_err(|error| error.after_tries(tries)),
            }
        }
        Err(RangeError::Conflict)
    }

    async fn still_wanted(&self, asked: &Asked) -> Result<bool, IpamError> {
        let found = self.registry.read::<WantRecord>(&asked.key).await?;
        Ok(found.is_some_and(|found| found.version == asked.want.version))
    }

    async fn say_offered(
        &self,
        asked: &Asked,
        gift: &Gift,
        operation: String,
        mut operations: Vec<Operation>,
    ) -> Result<(), RangeError> {
        let answer = self.answer_record(asked, AnswerWord::Offered, gift.chunk, String::new());
        let answer = AnswerRecord {
            operation: operation.clone(),
            ..answer
        };
        let Some(key) = self.answer_key(asked) else {
            return Err(RangeError::Refused(crate::pools::contended()));
        };
        let known = self.registry.read::<AnswerRecord>(&key).await;
        let known = known.map_err(RangeError::Unknown)?;
        operations.push(write(key, &answer, known.map(|known| known.version)));
        operations.push(self.membership_check(&asked.asker).await?);
        crash_point!("ipam.range.before_offer");
        let outcome = self.commit_range(&operation, operations).await;
        crash_point!("ipam.range.after_offer");
        outcome
    }

    /// Says that there is nothing, or who has it.
    async fn say(&self, asked: &Asked, reply: &Reply) -> Result<(), IpamError> {
        let (word, by) = match reply {
            Reply::Offer(_) | Reply::Nothing => (AnswerWord::Nothing, String::new()),
            Reply::InUse(by) => (AnswerWord::InUse, by.clone()),
        };
        let Some(key) = self.answer_key(asked) else {
            return Ok(());
        };
        let answer = self.answer_record(asked, word, 0, by);
        let known = self.registry.read::<AnswerRecord>(&key).await?;
        let known = known.map(|known| known.version);
        // A word about a want that was replaced meanwhile must not cover the word about the new one.
        let wanted = Operation::CheckVersion(asked.key.clone(), asked.want.version.clone());
        let answered = self.registry.talk([write(key, &answer, known), wanted]);
        answered.await
    }

    fn answer_key(&self, asked: &Asked) -> Option<Key> {
        let (me, subnet) = (self.registry.host(), asked.pool.subnet);
        self.registry.keys.answer(&asked.asker, subnet, me)
    }

    fn answer_record(
        &self,
        asked: &Asked,
        word: AnswerWord,
        chunk: u128,
        by: String,
    ) -> AnswerRecord {
        AnswerRecord {
            version: VERSION,
            operation: self.registry.operation(),
            host: self.registry.host().to_owned(),
            round: asked.want.record.round.clone(),
            word,
            chunk,
            by,
            used: self.used(asked.pool),
        }
    }

    fn used(&self, pool: PoolKey) -> u64 {
        let book = self.book();
        let live = book.pools.get(&pool);
        let ledger = live.and_then(|live| book.table.pools.get(&live.number));
        ledger.map_or(0, |ledger| ledger.slots.len() as u64)
    }

    fn nothing_to_give(&self, life: Life, asked: &Asked) -> bool {
        self.free_of(life, asked.need.part()).is_empty()
    }

    /// Chooses what to give, and notes that it leaves: nobody here gets it from now on.
    fn choose_gift(&self, life: Life, asked: &Asked) -> Result<Reply, IpamError> {
        if let Need::Exactly(at) = asked.need
            && let Some(by) = self.user(life, at)
        {
            return Ok(Reply::InUse(by));
        }
        let mut free = self.free_of(life, asked.need.part());
        let total: usize = free.values().map(Vec::len).sum();
        let most = free.iter().max_by_key(|(_, addresses)| addresses.len());
        let Some(chunk) = most.map(|(chunk, _)| *chunk) else {
            return Ok(Reply::Nothing);
        };
        let mut chosen = free.remove(&chunk).unwrap_or_default();
        chosen.truncate(total.div_ceil(2).clamp(1, GIFT_MAX));
        let gift = self.leave(life, chunk, chosen)?;
        Ok(gift.map_or(Reply::Nothing, Reply::Offer))
    }

    /// Who has an address of this host, if somebody has.
    fn user(&self, life: Life, at: u128) -> Option<String> {
        let host = self.registry.host();
        let book = self.book();
        let ledger = book.table.pools.get(&life.number)?;
        if !ledger.held.owns(at) {
            return None;
        }
        if let Some(slot) = ledger.slots.get(&at) {
            let name = slot.name.as_deref().unwrap_or("a container");
            return Some(match slot.state {
                SlotState::InDoubt => format!("{name} on host {host}, as of moments ago"),
                SlotState::Endpoint => format!("{name} on host {host}"),
            });
        }
        let holder = ledger.reserved.get(&at)?;
        let holder = crate::book::told(holder);
        Some(format!("a reservation for {holder} on host {host}"))
    }

    /// Free addresses of this host by chunk, those that were idle longest first.
    fn free_of(&self, life: Life, part: Part) -> BTreeMap<u128, Vec<(u64, u128)>> {
        let book = self.book();
        let mut free: BTreeMap<u128, Vec<(u64, u128)>> = BTreeMap::new();
        let Some(ledger) = book.table.pools.get(&life.number) else {
            return free;
        };
        let Some(live) = book.pools.get(&ledger.key) else {
            return free;
        };
        let mut looked = 0;
        let owned = ledger.held.within(part);
        for range in owned.filter(|range| range.state == RangeState::Owned) {
            for at in range.part.first..=range.part.last {
                let Some(ip) = live.key.subnet.nth(at) else {
                    continue;
                };
                let idle = match ledger.cooling.since(at) {
                    _ if live.is_infrastructure(ip) => continue,
                    Some(since) => since.0,
                    None if live.addresses.state(ip) == AddressState::Free => 0,
                    None => continue,
                };
                free.entry(chunk_of(at)).or_default().push((idle, at));
            }
            looked += range.part.len();
            if looked > LOOKED_MAX && !free.is_empty() {
                break;
            }
        }
        for addresses in free.values_mut() {
            // From the end, so that what stays is handed out on in order.
            addresses.sort_by_key(|(idle, at)| (*idle, u128::MAX - *at));
        }
        free
    }

    /// Notes that addresses of one chunk leave.
    pub(crate) fn leave(
        &self,
        life: Life,
        chunk: u128,
        mut addresses: Vec<(u64, u128)>,
    ) -> Result<Option<Gift>, IpamError> {
        addresses.sort_by_key(|(_, at)| *at);
        let mut book = self.book();
        let mut gift = Gift {
            chunk,
            parts: Vec::new(),
            ticket: None,
        };
        let Some(ledger) = book.table.pools.get(&life.number) else {
            return Ok(None);
        };
        for (idle, at) in addresses {
            // Another request may have been quicker.
            let Some(range) = ledger.held.at(at).filter(|_| ledger.held.owns(at)) else {
                continue;
            };
            if ledger.occupied_in(Part::one(at)) {
                continue;
            }
            match gift.parts.last_mut() {
                Some((part, youngest, _))
                    if part.last + 1 == at
                        && range.part.contains(part.first)
                        && (*youngest == 0) == (idle == 0) =>
                {
                    part.last = at;
                    *youngest = (*youngest).max(idle);
                }
                _ => gift.parts.push((Part::one(at), idle, range.generation)),
            }
        }
        let pool = life.number;
        for (part, _, _) in &gift.parts {
            let part = *part;
            gift.ticket = Some(book.note(Event::RangeLeaving { pool, part })?);
        }
        Ok((!gift.parts.is_empty()).then_some(gift))
    }

    pub(crate) fn note_left(&self, life: Life, gift: &Gift) -> Result<(), IpamError> {
        let pool = life.number;
        let mut book = self.book();
        for (part, _, _) in &gift.parts {
            drop(book.note(Event::RangeLeft { pool, part: *part })?);
        }
        Ok(())
    }

    pub(super) fn note_kept(&self, life: Life, gift: &Gift) -> Result<(), IpamError> {
        let pool = life.number;
        let mut book = self.book();
        for (part, _, generation) in &gift.parts {
            drop(book.note(Event::RangeKept {
                pool,
                part: *part,
                generation: *generation,
            })?);
        }
        Ok(())
    }
}

/// Addresses of one gift.
const GIFT_MAX: usize = 1024;
/// Addresses that are looked at for one gift once something was found: requests wait meanwhile.
const LOOKED_MAX: u128 = 8192;
