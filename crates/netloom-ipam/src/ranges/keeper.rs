//! What goes on in the background: answering, settling, keeping a reserve, returning what is too
//! much.

use super::gate::Gate;
use super::give::Gift;
use super::held::{Part, RangeState};
use super::{Fetched, Life, Need, RangeError, STORE_TIME, chunk_of, part_of, span_in};
use crate::chunk::Span;
use crate::live::usable;
use crate::manager::{AddressManager, settle};
use crate::registry::CONFLICTS_MAX;
use crate::space::PoolKey;
use netloom_core::{IpamError, crash_point};
use tokio::time::timeout;

/// How a pool stands against what this host should have of it.
#[derive(Debug, Clone, Copy)]
struct Stock {
    free: u128,
    reserve: u128,
    /// Free addresses above which whole blocks are returned.
    plenty: u128,
    /// Whether a network of this host uses the pool.
    used: bool,
}

impl AddressManager {
    /// A watched record may have changed: answers for this host, or wants of others.
    ///
    /// # Errors
    /// When the store or the journal does not take an answer; the next call tries again.
    pub async fn on_change(&self) -> Result<(), IpamError> {
        self.gates.answers.notify_waiters();
        if self.is_alone() {
            return Ok(());
        }
        self.serve().await
    }

    /// To be called now and then.
    ///
    /// # Errors
    /// When the store or the journal does not take a change; the next call tries again.
    pub async fn keep(&self) -> Result<(), IpamError> {
        let pools: Vec<PoolKey> = self.book().pools.keys().copied().collect();
        let mut outcome = Ok(());
        for pool in pools {
            // The others are not to suffer from what is wrong with one.
            outcome = outcome.and(self.keep_pool(pool).await);
        }
        outcome
    }

    async fn keep_pool(&self, pool: PoolKey) -> Result<(), IpamError> {
        let gate = self.gates.of(pool);
        self.follow_life(pool).await?;
        self.settle(pool, &gate).await?;
        if self.is_alone() {
            return Ok(());
        }
        self.keep_stock(pool, &gate).await
    }

    async fn keep_stock(&self, pool: PoolKey, gate: &Gate) -> Result<(), IpamError> {
        let Some(stock) = self.stock(pool) else {
            return Ok(());
        };
        if stock.used && stock.free < stock.reserve {
            return self.claim_more(pool, gate).await;
        }
        for _ in 0..RETURNS_MAX {
            let Some(stock) = self.stock(pool) else {
                break;
            };
            let goal = if stock.used { stock.plenty } else { 0 };
            if stock.free <= goal || !self.give_back(pool, gate, stock.free - goal).await? {
                break;
            }
        }
        Ok(())
    }

    /// Claims what will be needed soon; whoever needs it meanwhile waits for it here. Who fetches already
    /// makes it needless.
    pub(crate) async fn claim_ahead(&self, pool: PoolKey) -> Result<(), IpamError> {
        let gate = self.gates.of(pool);
        // Before the gate: it waits for changes, which wait for what is fetched.
        self.follow_life(pool).await?;
        let Ok(_one_at_a_time) = gate.fetching.try_lock() else {
            return Ok(());
        };
        let scarce = u128::from(self.claim_size(pool));
        let is_scarce = |stock: Stock| stock.used && stock.free < scarce;
        if !self.stock(pool).is_some_and(is_scarce) {
            return Ok(());
        }
        let claimed = async {
            self.settle(pool, &gate).await?;
            self.claim_more(pool, &gate).await
        };
        // What is under way then is settled later, as when a caller goes away.
        timeout(STORE_TIME, claimed).await.unwrap_or(Ok(()))
    }

    async fn claim_more(&self, pool: PoolKey, gate: &Gate) -> Result<(), IpamError> {
        let need = Need::Any(usable(pool.subnet));
        if gate.is_fertile() && self.claim(pool, gate, need).await? == Fetched::Nothing {
            gate.note_barren();
        }
        Ok(())
    }

    fn stock(&self, pool: PoolKey) -> Option<Stock> {
        let size = u128::from(self.claim_size(pool));
        let share = pool.subnet.size_saturating() / self.hosts_count();
        let reserve = share.min(RESERVE_MAX);
        let book = self.book();
        let live = book.pools.get(&pool)?;
        let ledger = book.table.pools.get(&live.number)?;
        Some(Stock {
            free: ledger.free(),
            reserve,
            plenty: 4 * reserve + 2 * size,
            used: !live.references.own().is_empty(),
        })
    }

    /// Returns free blocks of one chunk, at most `excess` addresses; whether it did.
    async fn give_back(&self, pool: PoolKey, gate: &Gate, excess: u128) -> Result<bool, IpamError> {
        let _one_at_a_time = gate.hands.lock().await;
        let life = self.life(pool)?;
        let Some((chunk, addresses)) = self.spare(pool, life, excess) else {
            return Ok(false);
        };
        let Some(mut gift) = self.leave(life, chunk, addresses)? else {
            return Ok(false);
        };
        settle(gift.ticket.take()).await?;
        crash_point!("ipam.range.returning");
        match self.try_return(pool, life, &gift).await {
            Ok(()) => self.note_left(life, &gift).map(|()| true),
            Err(RangeError::Conflict) => self.settle_leaving(pool).await.map(|()| false),
            Err(RangeError::Refused(error)) => {
                self.note_kept(life, &gift)?;
                Err(error)
            }
            Err(RangeError::Unknown(error)) => Err(error),
        }
    }

    async fn try_return(&self, pool: PoolKey, life: Life, gift: &Gift) -> Result<(), RangeError> {
        let me = self.registry.host();
        for tries in 0..CONFLICTS_MAX {
            let stored = self.registry.chunk(pool, life.generation, gift.chunk).await;
            let mut stored = stored.map_err(RangeError::Unknown)?;
            let mut returned = gift.parts.iter().filter_map(|(part, idle, _)| {
                let span = span_in(*part, gift.chunk)?;
                Some(stored.chunk.give_back(span, me, *idle))
            });
            if returned.any(|returned| returned.is_err()) {
                break;
            }
            let operation = self.registry.operation();
            let write = self
                .registry
                .write_chunk(&stored, life.generation, &operation);
            match self.commit_range(&operation, vec![write]).await {
                Err(RangeError::Conflict) => {}
                done => return done.map_err(|error| error.after_tries(tries)),
            }
        }
        Err(RangeError::Conflict)
    }

    /// Free addresses of the last chunk that has some to spare, in whole aligned blocks; all of
    /// them if no network of this host uses the pool.
    fn spare(&self, pool: PoolKey, life: Life, excess: u128) -> Option<(u128, Vec<(u64, u128)>)> {
        let block = match self.stock(pool)?.used {
            true => u128::from(self.claim_size(pool)),
            false => 1,
        };
        let book = self.book();
        let ledger = book.table.pools.get(&life.number)?;
        let owned = ledger.held.iter();
        let owned = owned.filter(|range| range.state == RangeState::Owned);
        let mut chunks: Vec<u128> = owned.map(|range| chunk_of(range.part.first)).collect();
        chunks.dedup();
        for chunk in chunks.into_iter().rev().take(CHUNKS_LOOKED_AT) {
            let whole = part_of(Span::WHOLE, chunk);
            let mut spare = Vec::new();
            let mut first = whole.first;
            while first <= whole.last && (spare.len() as u128) + block <= excess {
                let part = Part {
                    first,
                    last: first + block - 1,
                };
                first += block;
                let Some(usable) = part.common(usable(pool.subnet)) else {
                    continue;
                };
                if ledger.held.owned_in(usable) == usable.len() && !ledger.occupied_in(usable) {
                    let idle = |at| ledger.cooling.since(at).map_or(0, |since| since.0);
                    spare.extend((usable.first..=usable.last).map(|at| (idle(at), at)));
                }
            }
            if !spare.is_empty() {
                return Some((chunk, spare));
            }
        }
        None
    }
}

/// Free addresses that a host keeps for the time without a store, if the pool has as many.
const RESERVE_MAX: u128 = 64;
/// Returns of one round.
const RETURNS_MAX: u32 = 16;
/// Chunks that are searched for something to return.
const CHUNKS_LOOKED_AT: usize = 16;
