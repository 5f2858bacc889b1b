//! Records by which addresses of a pool change hands.

use super::{Record, count};
use crate::chunk::{Chunk, Holder, Run, Span};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// `chunks/SPACE/SUBNET/HIGH/LOW`: who has which of 1,024 addresses. Made on first use, never
/// deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChunkRecord {
    pub(crate) version: u32,
    pub(crate) operation: String,
    /// The life of the pool in which the runs hold; in a later one they are void.
    #[serde(deserialize_with = "count")]
    pub(crate) generation: u64,
    /// Changes of hands in all lives: where the runs' generations come from.
    #[serde(deserialize_with = "count")]
    pub(crate) counter: u64,
    /// The hosts that runs name, by their place here.
    pub(crate) owners: Vec<String>,
    /// Ordered, without overlap; what no run names was never anybody's.
    pub(crate) runs: Vec<RunRecord>,
}

/// A run as a row: first and last address counted from the chunk's start, state, place of the
/// owner, generation, and when its youngest address was last in use. A row, because a chunk may
/// have 1,024 of them and must stay below 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord(
    pub(crate) u32,
    pub(crate) u32,
    pub(crate) RunState,
    pub(crate) u32,
    pub(crate) u64,
    pub(crate) u64,
);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunState {
    /// Its owner hands out from it; entered by a claim, an adoption, or an assertion.
    Owned,
    /// Given to a host that has not taken it yet; entered from owned.
    Offered,
    /// Nobody's again; entered from owned, or by forgetting its owner.
    Returned,
    /// A gateway or an auxiliary address: the pool's own; entered from nobody's or owned.
    Pool,
}

/// `wants/SUBNET/HOST`: what a host asks the holders of a pool for. Deleted when it has it, or
/// gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantRecord {
    pub(crate) version: u32,
    pub(crate) operation: String,
    pub(crate) host: String,
    /// The life of the pool.
    pub(crate) generation: u64,
    pub(crate) round: String,
    /// The first and the last address that would do, counted from the pool's start.
    pub(crate) first: u128,
    pub(crate) last: u128,
    pub(crate) shape: WantShape,
    /// Whom it asks.
    pub(crate) asked: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WantShape {
    /// Some of them.
    Any,
    /// The one that there is between first and last, and by whom it is used if it is.
    Exactly,
}

/// `answers/ASKER/SUBNET/HOLDER`: what a holder says to one round of a want. Deleted by the asker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnswerRecord {
    pub(crate) version: u32,
    pub(crate) operation: String,
    pub(crate) host: String,
    pub(crate) round: String,
    pub(crate) word: AnswerWord,
    /// `offered`: the chunk in which there are runs for the asker now.
    pub(crate) chunk: u128,
    /// `in_use`: by whom, in words.
    pub(crate) by: String,
    /// Addresses of the pool that the holder has in use.
    pub(crate) used: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AnswerWord {
    /// Runs were offered, in the very commit that wrote this.
    Offered,
    /// There is nothing to give.
    Nothing,
    /// The address asked for is taken.
    InUse,
}

/// The newest version of a chunk's record: with offers.
pub(crate) const CHUNK_VERSION: u32 = 2;

impl Record for ChunkRecord {
    const NEWEST: u32 = CHUNK_VERSION;
}
impl Record for WantRecord {}
impl Record for AnswerRecord {}

impl ChunkRecord {
    /// The chunk as a record of this life of its pool.
    pub(crate) fn new(operation: String, generation: u64, chunk: &Chunk) -> Self {
        let mut owners: Vec<String> = Vec::new();
        let mut place = |holder: &Holder| {
            let Some(host) = holder.host() else {
                return 0;
            };
            let known = owners.iter().position(|owner| owner == host);
            let at = known.unwrap_or_else(|| {
                owners.push(host.to_owned());
                owners.len() - 1
            });
            u32::try_from(at).expect("a chunk has 1,024 runs at most")
        };
        let was_touched = |run: &&Run| run.holder != Holder::Nobody || run.idle > 0;
        let runs = chunk.runs().iter().filter(was_touched).map(|run| {
            let Span { first, last } = run.span;
            let state = match run.holder {
                Holder::Nobody => RunState::Returned,
                Holder::Pool => RunState::Pool,
                Holder::Owned(_) => RunState::Owned,
                Holder::Offered(_) => RunState::Offered,
            };
            let (owner, generation) = (place(&run.holder), run.generation);
            RunRecord(first, last, state, owner, generation, run.idle)
        });
        Self {
            version: CHUNK_VERSION,
            operation,
            generation,
            counter: chunk.counter(),
            runs: runs.collect(),
            owners,
        }
    }

    /// The chunk in the life `generation` of its pool: what an earlier life left is void.
    ///
    /// # Errors
    /// What is wrong with it, as words that follow the key's name.
    pub(crate) fn chunk(&self, generation: u64) -> Result<Chunk, String> {
        if self.generation < generation {
            return Ok(Chunk::new(self.counter));
        }
        let owners: Vec<Arc<str>> = self.owners.iter().map(|o| o.as_str().into()).collect();
        let mut runs = Vec::with_capacity(self.runs.len());
        for RunRecord(first, last, state, owner, generation, idle) in &self.runs {
            let named = || {
                let at = usize::try_from(*owner).ok();
                let owner = at.and_then(|at| owners.get(at)).cloned();
                owner.ok_or_else(|| "has a run of an owner that it does not name".to_owned())
            };
            runs.push(Run {
                span: Span {
                    first: *first,
                    last: *last,
                },
                holder: match state {
                    RunState::Owned => Holder::Owned(named()?),
                    RunState::Offered => Holder::Offered(named()?),
                    RunState::Returned => Holder::Nobody,
                    RunState::Pool => Holder::Pool,
                },
                generation: *generation,
                idle: *idle,
            });
        }
        Chunk::from_runs(self.counter, runs).map_err(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::CHUNK;
    use netloom_core::store::VALUE_BYTES_MAX;

    #[test]
    fn a_chunk_round_trips_and_the_most_divided_one_fits_a_record() {
        let mut chunk = Chunk::new(u64::from(u32::MAX));
        let hosts: Vec<Arc<str>> = (0..8).map(|n| format!("{n:036}").into()).collect();
        for at in 0..CHUNK {
            let host = &hosts[at as usize % hosts.len()];
            chunk.claim(Span::one(at), host).unwrap();
            chunk
                .offer(Span::one(at), host, host, 1_700_000_000_000 + u64::from(at))
                .unwrap();
        }
        let record = ChunkRecord::new("0".repeat(32), 1, &chunk);
        let bytes = record.encode();
        assert!(bytes.len() < VALUE_BYTES_MAX, "{} bytes", bytes.len());
        let read = ChunkRecord::decode(&bytes).unwrap();
        assert_eq!(read.chunk(1), Ok(chunk.clone()));
        assert_eq!(read.chunk(2), Ok(Chunk::new(chunk.counter())));
    }

    #[test]
    fn a_run_of_an_unnamed_owner_is_refused() {
        let mut chunk = Chunk::new(0);
        chunk.claim(Span::one(3), &"h1".into()).unwrap();
        let mut record = ChunkRecord::new("a".to_owned(), 1, &chunk);
        record.owners.clear();
        assert!(record.chunk(1).is_err());
    }
}
