//! Events of the journal and their bytes. docs/records.md draws them.

mod bytes;

use crate::cluster::Memory;
use crate::ranges::held::Part;
use crate::space::space_code;
use bytes::{In, Out};
use netloom_core::{AddressSpace, ReservedFor, Timestamp};
use netloom_types::{MacAddr, Subnet};

/// Something that happened to an address or a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// From here on `pool` is the number of this pool in its present life.
    PoolOpened {
        pool: u32,
        space: AddressSpace,
        subnet: Subnet,
        generation: u64,
    },
    /// The pool and all of its addresses are gone.
    PoolClosed { pool: u32 },
    /// An address was handed out.
    Taken { pool: u32, index: u128, slot: Slot },
    /// An address in doubt is an endpoint's.
    Confirmed {
        pool: u32,
        index: u128,
        operation: u64,
        mac: Option<MacAddr>,
    },
    /// An address came back; the operation that handed it out is quoted.
    Released {
        pool: u32,
        index: u128,
        operation: u64,
        /// When; never before an earlier one of its pool.
        at: Timestamp,
    },
    /// An address is kept for somebody.
    Reserved {
        pool: u32,
        index: u128,
        holder: ReservedFor,
    },
    /// It is not any more.
    Unreserved {
        pool: u32,
        index: u128,
        at: Timestamp,
    },
    /// In snapshots only: a free address that cools down, oldest first.
    Cooling {
        pool: u32,
        index: u128,
        at: Timestamp,
    },
    /// The store took a commit of this host that made it the owner. `idle`: when its youngest
    /// address was in use last, 0 for never.
    RangeOwned {
        pool: u32,
        part: Part,
        generation: u64,
        idle: Timestamp,
    },
    /// An owned range was chosen to be given away; what it holds is free.
    RangeLeaving { pool: u32, part: Part },
    /// It stays: the commit that gave it away did not happen, and cannot any more.
    RangeKept {
        pool: u32,
        part: Part,
        generation: u64,
    },
    /// It is somebody else's, or nobody's.
    RangeLeft { pool: u32, part: Part },
    /// It is somebody else's although this host never gave it: the store lost its past. What is in
    /// use of it stays in use, and does not come back.
    RangeLost { pool: u32, part: Part },
    /// In snapshots only: numbers that were used, even if nothing else shows it.
    Counters { operation: u64, pool: u32 },
    /// How far this host came with the store.
    HostCounter(Memory),
    /// The pool was this host's own, and is one of all from here on, in this life.
    PoolShared { pool: u32, generation: u64 },
}

/// An address in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The number of the request that took it: its generation, never used twice.
    pub(crate) operation: u64,
    /// The pool reference that it was asked for through.
    pub(crate) reference: u64,
    /// When.
    pub(crate) since: Timestamp,
    /// Whether somebody was seen to have the answer.
    pub(crate) state: SlotState,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) name: Option<Box<str>>,
}

/// The life of an address in use: in doubt from the request on, an endpoint's from its
/// confirmation on; both end with the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotState {
    /// Handed out; entered from free.
    InDoubt,
    /// An endpoint has it; entered from in doubt.
    Endpoint,
}

impl Event {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Out(Vec::with_capacity(EVENT_USUAL));
        match self {
            Self::PoolOpened {
                pool,
                space,
                subnet,
                generation,
            } => {
                out.head(code::POOL_OPENED, *pool);
                out.u8(space_code(*space));
                out.subnet(*subnet);
                out.u64(*generation);
            }
            Self::PoolClosed { pool } => out.head(code::POOL_CLOSED, *pool),
            Self::Taken { pool, index, slot } => out.taken(*pool, *index, slot),
            Self::Confirmed {
                pool,
                index,
                operation,
                mac,
            } => {
                out.at(code::CONFIRMED, *pool, *index);
                out.u64(*operation);
                out.mac(*mac);
            }
            Self::Released {
                pool,
                index,
                operation,
                at,
            } => {
                out.at(code::RELEASED, *pool, *index);
                out.u64(*operation);
                out.u64(at.0);
            }
            Self::Reserved {
                pool,
                index,
                holder,
            } => {
                out.at(code::RESERVED, *pool, *index);
                out.holder(holder);
            }
            Self::Unreserved { pool, index, at } => {
                out.at(code::UNRESERVED, *pool, *index);
                out.u64(at.0);
            }
            Self::Cooling { pool, index, at } => {
                out.at(code::COOLING, *pool, *index);
                out.u64(at.0);
            }
            Self::RangeOwned { .. }
            | Self::RangeLeaving { .. }
            | Self::RangeKept { .. }
            | Self::RangeLeft { .. }
            | Self::RangeLost { .. } => out.range(self),
            Self::Counters { operation, pool } => {
                out.head(code::COUNTERS, *pool);
                out.u64(*operation);
            }
            Self::PoolShared { pool, generation } => {
                out.head(code::POOL_SHARED, *pool);
                out.u64(*generation);
            }
            Self::HostCounter(memory) => {
                out.head(code::HOST_COUNTER, 0);
                out.memory(memory);
            }
        }
        out.0
    }

    /// Reads one event, to its last byte.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut from = In(bytes);
        let event = from.event().ok_or_else(|| {
            let kind = bytes.first().copied().unwrap_or_default();
            format!("an event of kind {kind} cannot be read; a newer release may have written it")
        })?;
        if from.0.is_empty() {
            Ok(event)
        } else {
            Err("an event is longer than its kind".to_owned())
        }
    }
}

/// Kinds of events: append only.
mod code {
    pub(super) const POOL_OPENED: u8 = 1;
    pub(super) const POOL_CLOSED: u8 = 2;
    pub(super) const TAKEN: u8 = 3;
    pub(super) const CONFIRMED: u8 = 4;
    pub(super) const RELEASED: u8 = 5;
    pub(super) const RESERVED: u8 = 6;
    pub(super) const UNRESERVED: u8 = 7;
    pub(super) const COOLING: u8 = 8;
    pub(super) const COUNTERS: u8 = 9;
    pub(super) const RANGE_OWNED: u8 = 10;
    pub(super) const RANGE_LEAVING: u8 = 11;
    pub(super) const RANGE_KEPT: u8 = 12;
    pub(super) const RANGE_LEFT: u8 = 13;
    pub(super) const HOST_COUNTER: u8 = 14;
    pub(super) const POOL_SHARED: u8 = 15;
    pub(super) const RANGE_LOST: u8 = 16;
}

/// A taken event with a short name fits.
const EVENT_USUAL: usize = 64;
/// Longest container name that is kept: Docker's own are far shorter.
pub(crate) const NAME_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests;
