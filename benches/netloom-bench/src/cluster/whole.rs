//! The design of old: all hosts read and rewrite one key.

use super::bitmap::Bitmap;
use super::job::{Pattern, Random};
use super::worker::{Caller, Step, begin};
use anyhow::Context;
use async_trait::async_trait;
use netloom_core::store::{CommitError, Key, Operation, Store, Transaction};
use std::sync::Arc;

/// Writes what the pattern finds: the pool's bitmap and the list of pools.
pub(super) async fn prepare(store: &dyn Store, pattern: Pattern) -> anyhow::Result<()> {
    let mut random = Random::new(SEED);
    let map = match pattern {
        Pattern::Half => {
            let half = |_| u32::try_from(random.next() >> 32).unwrap_or(0);
            let mut map = Bitmap::of_blocks((0..2048).map(half));
            map.set(0, true);
            map.set((1 << pattern.host_bits()) - 1, true);
            map
        }
        Pattern::Fresh | Pattern::Churn => Bitmap::new(pattern.host_bits()),
    };
    let pools = serde_json::json!({ "GlobalDefault": { "Scope": "global", "Subnets": {
        format!("GlobalDefault/{}", pattern.subnet()): { "Pool": pattern.subnet().to_string(), "RefCount": 1 }
    }}});
    let made = [
        Operation::Create(map_key()?, map.encode()),
        Operation::Create(pools_key()?, pools.to_string().into_bytes()),
    ];
    store.commit(Transaction::new(made)).await?;
    Ok(())
}

/// One process of the old kind.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) store: Arc<dyn Store>,
    pub(super) pattern: Pattern,
    pub(super) text: bool,
    pub(super) random: Random,
    pub(super) live: Vec<u64>,
}

impl Whole {
    /// The addresses in use that this one of `callers` may give back.
    pub(super) async fn adopt(&mut self, place: usize, callers: usize) -> anyhow::Result<()> {
        if self.pattern == Pattern::Half {
            let row = self.store.get(&map_key()?).await?;
            let taken = Bitmap::decode(&row.context("the bitmap is missing")?.value)?.taken();
            // The first and the last belong to nobody.
            let inner = taken.iter().skip(1).take(taken.len().saturating_sub(2));
            self.live = inner.skip(place).step_by(callers).copied().collect();
        }
        Ok(())
    }

    /// Reads, changes and writes the whole, again at once whenever another one was faster.
    async fn change(&self, which: Option<u64>) -> anyhow::Result<Option<u64>> {
        // The list of pools is read afresh on every call.
        self.store.get(&pools_key()?).await?;
        let mut first = true;
        loop {
            let row = self.store.get(&map_key()?).await?;
            let row = row.context("the bitmap is missing")?;
            let mut map = Bitmap::decode(&row.value)?;
            if first && self.text {
                std::hint::black_box(map.text());
            }
            first = false;
            let Some(ordinal) = which.or_else(|| map.first_free()) else {
                return Ok(None);
            };
            map.set(ordinal, which.is_none());
            let write = Operation::Update(map_key()?, map.encode(), row.version);
            match self.store.commit(Transaction::new([write])).await {
                Ok(_) => return Ok(Some(ordinal)),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[async_trait]
impl Caller for Whole {
    async fn step(&mut self) -> anyhow::Result<Step> {
        if self.pattern == Pattern::Half && !self.live.is_empty() {
            let place = self.random.below(self.live.len());
            let given_back = self.live.swap_remove(place);
            self.change(Some(given_back)).await?;
        }
        let begun = begin();
        let Some(ordinal) = self.change(None).await? else {
            return Ok(Step::Over);
        };
        let took = begun.elapsed();
        match self.pattern {
            Pattern::Fresh => {}
            Pattern::Half => self.live.push(ordinal),
            Pattern::Churn => drop(self.change(Some(ordinal)).await?),
        }
        Ok(Step::Took(took))
    }
}

fn map_key() -> anyhow::Result<Key> {
    Ok(Key::new("ipam/default/data/global/pool")?)
}

fn pools_key() -> anyhow::Result<Key> {
    Ok(Key::new("ipam/default/config/global")?)
}

const SEED: u64 = 42;
