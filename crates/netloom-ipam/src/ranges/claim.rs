//! Claiming what nobody has, and taking what names this host.

use super::gate::Gate;
use super::held::Part;
use super::store::StoredChunk;
use super::{Fetched, Life, Need, RangeError, chunk_of, part_of, span_in};
use crate::chunk::{Run, Span};
use crate::event::Event;
use crate::live::usable;
use crate::manager::{AddressManager, settle};
use crate::pools::contended;
use crate::registry::CONFLICTS_MAX;
use crate::space::PoolKey;
use netloom_core::{IpamError, Timestamp, crash_point};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A range that came into this host's hands by a commit.
#[derive(Debug, Clone, Copy)]
struct Taken {
    part: Part,
    generation: u64,
    idle: u64,
}

impl AddressManager {
    /// Claims addresses that nobody has, if there are any.
    pub(super) async fn claim(
        &self,
        pool: PoolKey,
        gate: &Gate,
        need: Need,
    ) -> Result<Fetched, IpamError> {
        let life = self.life(pool)?;
        let mut part = need.part();
        if let (Need::Exactly(at), true) = (need, self.is_alone()) {
            part = whole_chunk(pool, at);
        }
        let mut tried = BTreeSet::new();
        for number in self.probes(pool, life, gate, part) {
            tried.insert(number);
            if self.claim_in(gate, life, number, part).await? == Fetched::Some {
                return Ok(Fetched::Some);
            }
        }
        if matches!(need, Need::Exactly(_)) {
            return Ok(Fetched::Nothing);
        }
        for _ in 0..CONFLICTS_MAX {
            let listed = self.registry.chunks(pool, life.generation).await?;
            let named = self.named_in(part, &listed);
            let free = self.candidates(pool, part, &listed);
            for number in named.into_iter().chain(free) {
                if self.claim_in(gate, life, number, part).await? == Fetched::Some {
                    return Ok(Fetched::Some);
                }
            }
            if all_made(part, &listed) {
                break;
            }
            // Others were quicker; for what was never anybody's no holder can be asked.
        }
        Ok(Fetched::Nothing)
    }

    /// Claims in one chunk, or adopts what names this host there already.
    pub(super) async fn claim_in(
        &self,
        gate: &Gate,
        life: Life,
        number: u128,
        part: Part,
    ) -> Result<Fetched, IpamError> {
        let Some(span) = span_in(part, number) else {
            return Ok(Fetched::Nothing);
        };
        let _one_at_a_time = gate.hands.lock().await;
        // What was given back without an answer may be nobody's, and is leaving here.
        self.settle_leaving(life.pool).await?;
        for _ in 0..CONFLICTS_MAX {
            let stored = self.registry.chunk(life.pool, life.generation, number);
            let mut stored = stored.await?;
            let adopted = self.adopt_into(&mut stored)?;
            let wanted = adopted
                .iter()
                .any(|taken| taken.part.common(part).is_some());
            let taken = if wanted {
                adopted
            } else {
                let mut taken = adopted;
                taken.extend(self.claim_into(&mut stored, span));
                taken
            };
            if taken.is_empty() {
                return Ok(Fetched::Nothing);
            }
            match self.take_in(gate, life, &stored, &taken).await {
                Ok(()) => {
                    gate.set_place(life.generation, number);
                    let any = taken.iter().any(|taken| taken.part.common(part).is_some());
                    return Ok(if any { Fetched::Some } else { Fetched::Nothing });
                }
                Err(RangeError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended())
    }

    /// Adopts all that names this host in a pool although its journal does not know.
    pub(super) async fn adopt_all(&self, pool: PoolKey, gate: &Gate) -> Result<(), IpamError> {
        let life = self.life(pool)?;
        let listed = self.registry.chunks(pool, life.generation).await?;
        for number in self.named_in(usable(pool.subnet), &listed) {
            let _one_at_a_time = gate.hands.lock().await;
            self.adopt_in(gate, life, number).await?;
        }
        Ok(())
    }

    /// As [`adopt_all`](Self::adopt_all), in one chunk; `hands` is held, and what was read before is old.
    async fn adopt_in(&self, gate: &Gate, life: Life, number: u128) -> Result<(), IpamError> {
        for _ in 0..CONFLICTS_MAX {
            let stored = self.registry.chunk(life.pool, life.generation, number);
            let mut stored = stored.await?;
            let adopted = self.adopt_into(&mut stored)?;
            if adopted.is_empty() {
                return Ok(());
            }
            match self.take_in(gate, life, &stored, &adopted).await {
                Ok(()) => return Ok(()),
                Err(RangeError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended())
    }

    /// Commits what was taken and notes it; usable from then on.
    async fn take_in(
        &self,
        gate: &Gate,
        life: Life,
        stored: &StoredChunk,
        taken: &[Taken],
    ) -> Result<(), RangeError> {
        if self.member.is_unchecked() {
            // In another life than the store's it would take the place of what others have.
            let there = self.registry.pool(life.pool).await;
            let there = there.map_err(RangeError::Refused)?;
            if there.is_none_or(|there| there.pool.record.generation != life.generation) {
                return Err(RangeError::Refused(contended()));
            }
        }
        let operation = self.registry.operation();
        let write = self
            .registry
            .write_chunk(stored, life.generation, &operation);
        // Until it is durable here, also if whoever waits for this is dropped in the middle.
        let doubt = gate.doubt();
        crash_point!("ipam.range.before_claim");
        match self.commit_range(&operation, vec![write]).await {
            Ok(()) => {}
            Err(error @ (RangeError::Conflict | RangeError::Refused(_))) => {
                doubt.ends();
                return Err(error);
            }
            Err(error @ RangeError::Unknown(_)) => return Err(error),
        }
        crash_point!("ipam.range.after_claim");
        let noted = self.note_taken(stored.pool, life, taken);
        let noted = settle(noted.map_err(RangeError::Refused)?).await;
        noted.map_err(RangeError::Refused)?;
        doubt.ends();
        Ok(())
    }

    fn note_taken(
        &self,
        pool: PoolKey,
        life: Life,
        taken: &[Taken],
    ) -> Result<Option<crate::journal::Ticket>, IpamError> {
        let mut book = self.book();
        if book.pools.get(&pool).map(|live| live.number) != Some(life.number) {
            return Err(contended());
        }
        let mut ticket = None;
        for Taken {
            part,
            generation,
            idle,
        } in taken
        {
            ticket = Some(book.note(Event::RangeOwned {
                pool: life.number,
                part: *part,
                generation: *generation,
                idle: Timestamp(*idle),
            })?);
        }
        let count = taken.iter().map(|taken| taken.part.len()).sum();
        let now = self.clock.now();
        if let Some(live) = book.pools.get_mut(&pool) {
            live.note_come_in(count, now);
        }
        Ok(ticket)
    }

    /// Takes for this host what names it, and its journal does not hold.
    fn adopt_into(&self, stored: &mut StoredChunk) -> Result<Vec<Taken>, IpamError> {
        let me: Arc<str> = self.registry.host().into();
        let runs: Vec<Run> = stored.chunk.of(&me).cloned().collect();
        let mut taken = Vec::new();
        for run in runs {
            for part in self.not_held(stored.pool, part_of(run.span, stored.number)) {
                let Some(span) = span_in(part, stored.number) else {
                    continue;
                };
                let adopted = stored.chunk.adopt(span, &me);
                taken.push(Taken {
                    part,
                    generation: adopted.map_err(|_| contended())?,
                    idle: run.idle,
                });
            }
        }
        Ok(taken)
    }

    fn claim_into(&self, stored: &mut StoredChunk, span: Span) -> Vec<Taken> {
        let me: Arc<str> = self.registry.host().into();
        let size = self.claim_size(stored.pool);
        let mut taken = Vec::new();
        for run in stored.chunk.pick(span, size) {
            let part = part_of(run.span, stored.number);
            if self.not_held(stored.pool, part) != [part] {
                continue;
            }
            if let Ok(generation) = stored.chunk.claim(run.span, &me) {
                taken.push(Taken {
                    part,
                    generation,
                    idle: run.idle,
                });
            }
        }
        taken
    }

    /// What the journal does not hold of a part.
    fn not_held(&self, pool: PoolKey, part: Part) -> Vec<Part> {
        let book = self.book();
        let live = book.pools.get(&pool);
        let ledger = live.and_then(|live| book.table.pools.get(&live.number));
        let held = ledger.map(|ledger| ledger.held.within(part).collect::<Vec<_>>());
        let mut gaps = Vec::new();
        let mut next = part.first;
        for range in held.unwrap_or_default() {
            if range.part.first > next {
                gaps.push(Part {
                    first: next,
                    last: range.part.first - 1,
                });
            }
            next = range.part.last + 1;
        }
        if next <= part.last {
            gaps.push(Part {
                first: next,
                last: part.last,
            });
        }
        gaps
    }

    /// Chunks to look at first: hosts begin at places of their own, so that they seldom meet, and
    /// where they do they part again.
    fn probes(&self, pool: PoolKey, life: Life, gate: &Gate, part: Part) -> Vec<u128> {
        let (first, last) = (chunk_of(part.first), chunk_of(part.last));
        let fits = |place: &u128| (first..=last).contains(place);
        let start = gate.place(life.generation).filter(fits);
        let start = start.unwrap_or_else(|| self.own_place(pool, part, None));
        let ahead = (start..=last).take(PROBES);
        let is_wide = !self.is_alone() && last - first >= WIDE;
        let elsewhere = is_wide.then(|| self.own_place(pool, part, Some(start)));
        let mut probes: Vec<u128> = ahead.chain(elsewhere).collect();
        probes.retain(|number| {
            let here = part_of(Span::WHOLE, *number).common(part);
            here.is_some_and(|here| !self.not_held(pool, here).is_empty())
        });
        probes
    }

    /// Where this host begins in a part of a pool, or goes on when others have what follows a place.
    fn own_place(&self, pool: PoolKey, part: Part, behind: Option<u128>) -> u128 {
        let (first, last) = (chunk_of(part.first), chunk_of(part.last));
        // Who starts with others at once does not know of them yet.
        if self.is_alone() {
            return first;
        }
        let host = self.registry.host().bytes();
        let behind = behind.map(u128::to_le_bytes).into_iter().flatten();
        let seed = host.chain([pool.subnet.prefix_len()]).chain(behind);
        let hash = seed.fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| {
            (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
        first + u128::from(hash >> 16) % (last - first + 1)
    }

    /// Chunks in which something names this host that its journal does not hold: offered by an
    /// answer that came too late.
    fn named_in(&self, part: Part, listed: &[StoredChunk]) -> Vec<u128> {
        let me = self.registry.host();
        let is_named = |stored: &&StoredChunk| {
            let spans = stored
                .chunk
                .of(me)
                .map(|run| part_of(run.span, stored.number));
            let mut parts = spans.filter_map(|run| run.common(part));
            parts.any(|run| !self.not_held(stored.pool, run).is_empty())
        };
        let named = listed.iter().filter(is_named);
        named.map(|stored| stored.number).collect()
    }

    /// Where there is something to claim by a list: what was never anybody's, then what was idle
    /// longest.
    fn candidates(&self, pool: PoolKey, part: Part, listed: &[StoredChunk]) -> Vec<u128> {
        let (first, last) = (chunk_of(part.first), chunk_of(part.last));
        let start = self.own_place(pool, part, None);
        let known: BTreeSet<u128> = listed.iter().map(|stored| stored.number).collect();
        let unknown = (start..=last)
            .chain(first..start)
            .filter(|number| !known.contains(number));
        let unknown: Vec<u128> = unknown.take(CANDIDATES).collect();
        let mut known: Vec<(u64, u128)> = listed
            .iter()
            .filter_map(|stored| {
                let span = span_in(part, stored.number)?;
                let idle = stored.chunk.free(span).map(|run| run.idle).min()?;
                Some((idle, stored.number))
            })
            .collect();
        known.sort_unstable();
        let known = known.into_iter().map(|(_, number)| number);
        unknown.into_iter().chain(known.take(CANDIDATES)).collect()
    }
}

/// Whether every chunk of a part has a record.
fn all_made(part: Part, listed: &[StoredChunk]) -> bool {
    let (first, last) = (chunk_of(part.first), chunk_of(part.last));
    let numbers = listed.iter().map(|stored| stored.number);
    let made = numbers.filter(|number| (first..=last).contains(number));
    u128::try_from(made.count()).unwrap_or(u128::MAX) > last - first
}

/// The usable addresses of the chunk that an address lies in.
fn whole_chunk(pool: PoolKey, at: u128) -> Part {
    let chunk = part_of(Span::WHOLE, chunk_of(at));
    chunk.common(usable(pool.subnet)).unwrap_or(Part::one(at))
}

/// Chunks that are looked at one by one before all are listed.
const PROBES: usize = 3;
/// From so many chunks on a host looks at one place more: a list of all would be long.
const WIDE: u128 = 32;
/// Chunks of a list that are tried, of each kind: somebody else may be quicker at each.
const CANDIDATES: usize = 8;
