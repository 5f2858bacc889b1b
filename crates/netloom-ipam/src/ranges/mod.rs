//! Ranges of shared pools: how this host comes to addresses and how it gives them away.
//! docs/address-protocol.md is the rule.
//!
//! ```text
//!   fetch --> settle what is open --> claim what is nobody's --> ask the holders
//!   keeper --> serve others' wants, settle, keep a reserve, return what is too much
//! ```

mod ask;
mod claim;
mod gate;
mod give;
pub(crate) mod held;
mod keeper;
mod settle;
mod store;

pub(crate) use crate::cluster::RangeError;
pub(crate) use gate::Gates;
pub(crate) use give::Gift;
pub(crate) use store::StoredChunk;

use crate::chunk::{CHUNK, Span};
use crate::manager::AddressManager;
use crate::space::PoolKey;
use held::Part;
use netloom_core::IpamError;
use std::time::Duration;
use tokio::time::Instant;

/// What a host lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Some address of a part.
    Any(Part),
    /// This very one.
    Exactly(u128),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// Something came in, or may be there by now: try again.
    Some,
    /// Nobody has anything to give.
    Nothing,
}

impl From<RangeError> for IpamError {
    fn from(error: RangeError) -> Self {
        match error {
            RangeError::Conflict => crate::pools::contended(),
            RangeError::Unknown(error) | RangeError::Refused(error) => error,
        }
    }
}

impl Need {
    /// The addresses that would do.
    pub(crate) fn part(self) -> Part {
        match self {
            Self::Any(part) => part,
            Self::Exactly(at) => Part::one(at),
        }
    }
}

impl AddressManager {
    /// Comes to addresses of a pool, if there are any to be had by `deadline`.
    pub(crate) async fn fetch(
        &self,
        pool: PoolKey,
        need: Need,
        deadline: Instant,
    ) -> Result<Fetched, IpamError> {
        let found = self.find(pool, need, deadline);
        let found = tokio::time::timeout_at(deadline + STORE_TIME, found).await;
        found.unwrap_or_else(|_| {
            Err(IpamError::Unavailable {
                what: "the store is slow; try again".to_owned(),
                source: None,
            })
        })
    }

    async fn find(
        &self,
        pool: PoolKey,
        need: Need,
        deadline: Instant,
    ) -> Result<Fetched, IpamError> {
        let gate = self.gates.of(pool);
        let _one_at_a_time = gate.fetching.lock().await;
        if self.has(pool, need) {
            return Ok(Fetched::Some);
        }
        self.settle(pool, &gate).await?;
        loop {
            if self.claim(pool, &gate, need).await? == Fetched::Some {
                return Ok(Fetched::Some);
            }
            if let (Need::Any(part), true) = (need, self.is_alone()) {
                if let Some(live) = self.book().pools.get_mut(&pool) {
                    live.claimed_out.insert(part);
                }
                return Ok(Fetched::Nothing);
            }
            match self.ask(pool, &gate, need, deadline).await? {
                ask::Asked::Received => return Ok(Fetched::Some),
                ask::Asked::Changed if Instant::now() >= deadline => {
                    return Err(ask::restless(pool));
                }
                ask::Asked::Changed => {}
            }
        }
    }

    /// Whether another request's fetch brought what this one needs.
    fn has(&self, pool: PoolKey, need: Need) -> bool {
        let book = self.book();
        let Some(live) = book.pools.get(&pool) else {
            return false;
        };
        let Some(ledger) = book.table.pools.get(&live.number) else {
            return false;
        };
        match need {
            Need::Exactly(at) => ledger.held.owns(at),
            Need::Any(part) if self.is_alone() => live.has_fresh(part),
            Need::Any(part) => live.has_fresh(part) || live.idle_in(part, ledger).next().is_some(),
        }
    }

    /// The pool's present life, by the book.
    ///
    /// # Errors
    /// When there is none, or none that other hosts see: what a shared store has of a host's own pool is
    /// the copy of another store, and nothing is taken or given there.
    pub(crate) fn life(&self, pool: PoolKey) -> Result<Life, IpamError> {
        self.must_be_common(pool)?;
        let book = self.book();
        let live = book.pools.get(&pool).ok_or_else(crate::pools::contended)?;
        let ledger = book.table.pools.get(&live.number);
        let generation = ledger.map(|ledger| ledger.generation);
        Ok(Life {
            pool,
            number: live.number,
            generation: generation.ok_or_else(crate::pools::contended)?,
        })
    }

    /// How many addresses a claim takes.
    fn claim_size(&self, pool: PoolKey) -> u32 {
        if self.is_alone() {
            return CHUNK;
        }
        let hosts = self.hosts_count();
        let share = pool.subnet.size_saturating() / (4 * hosts);
        let size = u32::try_from(share).unwrap_or(CHUNK).clamp(1, CHUNK);
        1 << size.ilog2()
    }
}

/// One life of a pool, with its number in the journal and its generation in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) pool: PoolKey,
    pub(crate) number: u32,
    pub(crate) generation: u64,
}

/// The chunk that an address lies in.
pub(crate) fn chunk_of(index: u128) -> u128 {
    index / u128::from(CHUNK)
}

/// What a part has of a chunk.
pub(crate) fn span_in(part: Part, chunk: u128) -> Option<Span> {
    let base = chunk.checked_mul(u128::from(CHUNK))?;
    let whole = Part {
        first: base,
        last: base.checked_add(u128::from(CHUNK) - 1)?,
    };
    let common = part.common(whole)?;
    let narrow = |index: u128| u32::try_from(index - base).ok();
    Some(Span {
        first: narrow(common.first)?,
        last: narrow(common.last)?,
    })
}

/// Where a span of a chunk lies in the pool.
pub(crate) fn part_of(span: Span, chunk: u128) -> Part {
    let base = chunk * u128::from(CHUNK);
    Part {
        first: base + u128::from(span.first),
        last: base + u128::from(span.last),
    }
}

/// What a slow store may add to the time in which other hosts answer: a plugin call is answered
/// within five seconds.
const STORE_TIME: Duration = Duration::from_secs(3);
