//! Settling what a crash or a silent store left open.

use super::gate::Gate;
use super::held::{Part, RangeState};
use super::{Life, RangeError, chunk_of, part_of, span_in};
use crate::chunk::Holder;
use crate::event::Event;
use crate::manager::AddressManager;
use crate::pools::contended;
use crate::registry::CONFLICTS_MAX;
use crate::space::PoolKey;
use netloom_core::{IpamError, crash_point};
use std::collections::BTreeSet;
use std::sync::Arc;

impl AddressManager {
    /// Settles leaving ranges, and adopts what a commit without an answer may have brought.
    pub(super) async fn settle(&self, pool: PoolKey, gate: &Gate) -> Result<(), IpamError> {
        {
            let _one_at_a_time = gate.hands.lock().await;
            self.settle_leaving(pool).await?;
        }
        if let Some(unclear) = gate.clear_up() {
            self.member.end_late().await?;
            self.adopt_all(pool, gate).await?;
            unclear.ends();
        }
        Ok(())
    }

    /// Settles what is leaving while nobody is at giving it; `hands` is held.
    pub(crate) async fn settle_leaving(&self, pool: PoolKey) -> Result<(), IpamError> {
        let leaving = self.leaving(pool);
        let chunks: BTreeSet<u128> = leaving.iter().map(|part| chunk_of(part.first)).collect();
        if chunks.is_empty() {
            return Ok(());
        }
        let life = self.life(pool)?;
        for number in chunks {
            self.settle_chunk(pool, life, number).await?;
        }
        Ok(())
    }

    /// What the store still calls this host's gets a new generation, and stays; the commit that
    /// would have given it away can never happen then. The rest is gone.
    async fn settle_chunk(&self, pool: PoolKey, life: Life, number: u128) -> Result<(), IpamError> {
        let me: Arc<str> = self.registry.host().into();
        for _ in 0..CONFLICTS_MAX {
            let mut stored = self.registry.chunk(pool, life.generation, number).await?;
            let (mut kept, mut left) = (Vec::new(), Vec::new());
            let leaving = self.leaving(pool);
            for span in leaving.iter().filter_map(|part| span_in(*part, number)) {
                for run in stored.chunk.within(span).collect::<Vec<_>>() {
                    let part = part_of(run.span, number);
                    if run.holder == Holder::Owned(Arc::clone(&me)) {
                        let renewed = stored.chunk.adopt(run.span, &me);
                        kept.push((part, renewed.map_err(|_| contended())?));
                    } else {
                        left.push(part);
                    }
                }
            }
            if !kept.is_empty() {
                let operation = self.registry.operation();
                let write = self
                    .registry
                    .write_chunk(&stored, life.generation, &operation);
                crash_point!("ipam.range.before_renewal");
                match self.commit_range(&operation, vec![write]).await {
                    Ok(()) => crash_point!("ipam.range.after_renewal"),
                    Err(RangeError::Conflict) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            return self.note_settled(life, &kept, &left);
        }
        Err(contended())
    }

    /// Nobody waits for these: after a crash they are settled again.
    fn note_settled(
        &self,
        life: Life,
        kept: &[(Part, u64)],
        left: &[Part],
    ) -> Result<(), IpamError> {
        let pool = life.number;
        let mut book = self.book();
        for (part, generation) in kept {
            drop(book.note(Event::RangeKept {
                pool,
                part: *part,
                generation: *generation,
            })?);
        }
        for part in left {
            drop(book.note(Event::RangeLeft { pool, part: *part })?);
        }
        Ok(())
    }

    fn leaving(&self, pool: PoolKey) -> Vec<Part> {
        let book = self.book();
        let live = book.pools.get(&pool);
        let ledger = live.and_then(|live| book.table.pools.get(&live.number));
        let ranges = ledger.into_iter().flat_map(|ledger| ledger.held.iter());
        let leaving = ranges.filter(|range| range.state == RangeState::Leaving);
        leaving.map(|range| range.part).collect()
    }
}
