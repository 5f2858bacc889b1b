//! Records by which addresses of a pool change hands.

use super::Record;
use serde::{Deserialize, Serialize};

/// `chunks/SPACE/SUBNET/NUMBER`: who owns which of 1,024 addresses. Made on first use, never
/// deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChunkRecord {
    pub(crate) version: u32,
    pub(crate) operation: String,
    /// The life of the pool in which the runs hold; in a later one they are void.
    pub(crate) generation: u64,
    /// Ordered, without overlap; what no run names belongs to nobody.
    pub(crate) runs: Vec<RunRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunRecord {
    /// The first address, counted from the chunk's start.
    pub(crate) from: u32,
    /// The last address.
    pub(crate) to: u32,
    pub(crate) owner: String,
    /// The boot of the owner in which it was claimed.
    pub(crate) boot: String,
    /// Counts up with every change of hands.
    pub(crate) generation: u64,
    pub(crate) state: RunState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunState {
    /// Its owner hands out from it; entered by the claim.
    Owned,
}

impl Record for ChunkRecord {}
