//! Events of the journal and their bytes. docs/records.md draws them.

use crate::cluster::Memory;
use crate::ranges::held::Part;
use crate::space::space_code;
use netloom_core::{AddressSpace, ReservedFor, Timestamp};
use netloom_types::{MacAddr, Subnet};
use std::net::{IpAddr, Ipv6Addr};

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
    /// In snapshots only: numbers that were used, even if nothing else shows it.
    Counters { operation: u64, pool: u32 },
    /// How far this host came with the store.
    HostCounter(Memory),
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
            Self::RangeOwned {
                pool,
                part,
                generation,
                idle,
            } => {
                out.part(code::RANGE_OWNED, *pool, *part);
                out.u64(*generation);
                out.u64(idle.0);
            }
            Self::RangeLeaving { pool, part } => out.part(code::RANGE_LEAVING, *pool, *part),
            Self::RangeKept {
                pool,
                part,
                generation,
            } => {
                out.part(code::RANGE_KEPT, *pool, *part);
                out.u64(*generation);
            }
            Self::RangeLeft { pool, part } => out.part(code::RANGE_LEFT, *pool, *part),
            Self::Counters { operation, pool } => {
                out.head(code::COUNTERS, *pool);
                out.u64(*operation);
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
}

/// A taken event with a short name fits.
const EVENT_USUAL: usize = 64;
/// Longest container name that is kept: Docker's own are far shorter.
pub(crate) const NAME_BYTES_MAX: usize = 255;

struct Out(Vec<u8>);

impl Out {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn head(&mut self, kind: u8, pool: u32) {
        self.u8(kind);
        self.0.extend_from_slice(&pool.to_le_bytes());
    }

    /// Indices are short as a rule: their length, then only the bytes that count.
    fn at(&mut self, kind: u8, pool: u32, index: u128) {
        self.head(kind, pool);
        self.index(index);
    }

    fn part(&mut self, kind: u8, pool: u32, part: Part) {
        self.at(kind, pool, part.first);
        self.index(part.last);
    }

    fn index(&mut self, index: u128) {
        let bytes = index.to_le_bytes();
        let len = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        self.u8(u8::try_from(len).expect("an index has 16 bytes"));
        self.0.extend(bytes.iter().take(len));
    }

    fn taken(&mut self, pool: u32, index: u128, slot: &Slot) {
        let Slot {
            operation,
            reference,
            since,
            state,
            mac,
            name,
        } = slot;
        self.at(code::TAKEN, pool, index);
        self.u64(*operation);
        self.u64(*reference);
        self.u64(since.0);
        self.u8(match state {
            SlotState::InDoubt => 0,
            SlotState::Endpoint => 1,
        });
        self.mac(*mac);
        self.text(name.as_deref().unwrap_or_default());
    }

    fn mac(&mut self, mac: Option<MacAddr>) {
        self.u8(u8::from(mac.is_some()));
        if let Some(mac) = mac {
            self.0.extend_from_slice(&mac.octets());
        }
    }

    fn text(&mut self, text: &str) {
        self.u8(u8::try_from(text.len()).expect("texts are bounded where they come in"));
        self.0.extend_from_slice(text.as_bytes());
    }

    fn subnet(&mut self, subnet: Subnet) {
        let (family, bits) = match subnet.first() {
            IpAddr::V4(v4) => (4, v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => (6, v6),
        };
        self.u8(family);
        self.u8(subnet.prefix_len());
        self.0.extend_from_slice(&bits.octets());
    }

    fn memory(&mut self, memory: &Memory) {
        self.u64(memory.counter);
        self.u64(memory.starts);
        self.u64(memory.epoch);
        self.u64(memory.mark);
        self.text(&memory.store);
    }

    fn holder(&mut self, holder: &ReservedFor) {
        match holder {
            ReservedFor::Explicit => self.u8(0),
            ReservedFor::Mac(mac) => {
                self.u8(1);
                self.0.extend_from_slice(&mac.octets());
            }
            ReservedFor::Name(name) => {
                self.u8(2);
                self.text(name);
            }
        }
    }
}

struct In<'a>(&'a [u8]);

impl In<'_> {
    fn event(&mut self) -> Option<Event> {
        let (kind, pool) = (self.u8()?, u32::from_le_bytes(self.take()?));
        Some(match kind {
            code::POOL_OPENED => Event::PoolOpened {
                pool,
                space: crate::space::space_of_code(self.u8()?)?,
                subnet: self.subnet()?,
                generation: self.u64()?,
            },
            code::POOL_CLOSED => Event::PoolClosed { pool },
            code::COUNTERS => Event::Counters {
                operation: self.u64()?,
                pool,
            },
            code::HOST_COUNTER => Event::HostCounter(self.memory()?),
            _ => self.address_event(kind, pool)?,
        })
    }

    fn address_event(&mut self, kind: u8, pool: u32) -> Option<Event> {
        let index = self.index()?;
        Some(match kind {
            code::TAKEN => Event::Taken {
                pool,
                index,
                slot: self.slot()?,
            },
            code::CONFIRMED => Event::Confirmed {
                pool,
                index,
                operation: self.u64()?,
                mac: self.mac()?,
            },
            code::RELEASED => Event::Released {
                pool,
                index,
                operation: self.u64()?,
                at: Timestamp(self.u64()?),
            },
            code::RESERVED => Event::Reserved {
                pool,
                index,
                holder: self.holder()?,
            },
            code::UNRESERVED => Event::Unreserved {
                pool,
                index,
                at: Timestamp(self.u64()?),
            },
            code::COOLING => Event::Cooling {
                pool,
                index,
                at: Timestamp(self.u64()?),
            },
            _ => self.range_event(kind, pool, index)?,
        })
    }

    fn range_event(&mut self, kind: u8, pool: u32, first: u128) -> Option<Event> {
        let last = self.index()?;
        let part = (first <= last).then_some(Part { first, last })?;
        Some(match kind {
            code::RANGE_OWNED => Event::RangeOwned {
                pool,
                part,
                generation: self.u64()?,
                idle: Timestamp(self.u64()?),
            },
            code::RANGE_LEAVING => Event::RangeLeaving { pool, part },
            code::RANGE_KEPT => Event::RangeKept {
                pool,
                part,
                generation: self.u64()?,
            },
            code::RANGE_LEFT => Event::RangeLeft { pool, part },
            _ => return None,
        })
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn index(&mut self) -> Option<u128> {
        let len = usize::from(self.u8()?);
        let (bytes, rest) = self.0.split_at_checked(len)?;
        let mut whole = [0; 16];
        whole.get_mut(..len)?.copy_from_slice(bytes);
        self.0 = rest;
        Some(u128::from_le_bytes(whole))
    }

    fn slot(&mut self) -> Option<Slot> {
        Some(Slot {
            operation: self.u64()?,
            reference: self.u64()?,
            since: Timestamp(self.u64()?),
            state: match self.u8()? {
                0 => SlotState::InDoubt,
                1 => SlotState::Endpoint,
                _ => return None,
            },
            mac: self.mac()?,
            name: Some(self.text()?).filter(|n| !n.is_empty()).map(Into::into),
        })
    }

    fn mac(&mut self) -> Option<Option<MacAddr>> {
        match self.u8()? {
            0 => Some(None),
            1 => Some(Some(MacAddr::new(self.take()?))),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::from(self.u8()?);
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        String::from_utf8(bytes.to_vec()).ok()
    }

    fn subnet(&mut self) -> Option<Subnet> {
        let (family, prefix_len) = (self.u8()?, self.u8()?);
        let bits = Ipv6Addr::from(self.take::<16>()?);
        let ip = match family {
            4 => IpAddr::V4(bits.to_ipv4_mapped()?),
            6 => IpAddr::V6(bits),
            _ => return None,
        };
        Subnet::new(ip, prefix_len).ok()
    }

    fn memory(&mut self) -> Option<Memory> {
        Some(Memory {
            counter: self.u64()?,
            starts: self.u64()?,
            epoch: self.u64()?,
            mark: self.u64()?,
            store: self.text()?.into(),
        })
    }

    fn holder(&mut self) -> Option<ReservedFor> {
        Some(match self.u8()? {
            0 => ReservedFor::Explicit,
            1 => ReservedFor::Mac(MacAddr::new(self.take()?)),
            2 => ReservedFor::Name(self.text()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
