//! How events are written and read.

use super::{Event, Slot, SlotState, code};
use crate::cluster::Memory;
use crate::ranges::held::Part;
use netloom_core::{ReservedFor, Timestamp};
use netloom_types::{MacAddr, Subnet};
use std::net::{IpAddr, Ipv6Addr};

pub(super) struct Out(pub(super) Vec<u8>);

impl Out {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn head(&mut self, kind: u8, pool: u32) {
        self.u8(kind);
        self.0.extend_from_slice(&pool.to_le_bytes());
    }

    /// Indices are short as a rule: their length, then only the bytes that count.
    pub(super) fn at(&mut self, kind: u8, pool: u32, index: u128) {
        self.head(kind, pool);
        self.index(index);
    }

    pub(super) fn part(&mut self, kind: u8, pool: u32, part: Part) {
        self.at(kind, pool, part.first);
        self.index(part.last);
    }

    pub(super) fn index(&mut self, index: u128) {
        let bytes = index.to_le_bytes();
        let len = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        self.u8(u8::try_from(len).expect("an index has 16 bytes"));
        self.0.extend(bytes.iter().take(len));
    }

    pub(super) fn range(&mut self, event: &Event) {
        match event {
            Event::RangeOwned {
                pool,
                part,
                generation,
                idle,
            } => {
                self.part(code::RANGE_OWNED, *pool, *part);
                self.u64(*generation);
                self.u64(idle.0);
            }
            Event::RangeLeaving { pool, part } => self.part(code::RANGE_LEAVING, *pool, *part),
            Event::RangeKept {
                pool,
                part,
                generation,
            } => {
                self.part(code::RANGE_KEPT, *pool, *part);
                self.u64(*generation);
            }
            Event::RangeLeft { pool, part } => self.part(code::RANGE_LEFT, *pool, *part),
            Event::RangeLost { pool, part } => self.part(code::RANGE_LOST, *pool, *part),
            _ => {}
        }
    }

    pub(super) fn taken(&mut self, pool: u32, index: u128, slot: &Slot) {
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

    pub(super) fn mac(&mut self, mac: Option<MacAddr>) {
        self.u8(u8::from(mac.is_some()));
        if let Some(mac) = mac {
            self.0.extend_from_slice(&mac.octets());
        }
    }

    pub(super) fn text(&mut self, text: &str) {
        self.u8(u8::try_from(text.len()).expect("texts are bounded where they come in"));
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(super) fn subnet(&mut self, subnet: Subnet) {
        let (family, bits) = match subnet.first() {
            IpAddr::V4(v4) => (4, v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => (6, v6),
        };
        self.u8(family);
        self.u8(subnet.prefix_len());
        self.0.extend_from_slice(&bits.octets());
    }

    pub(super) fn memory(&mut self, memory: &Memory) {
        self.u64(memory.counter);
        self.u64(memory.starts);
        self.u64(memory.epoch);
        self.u64(memory.mark);
        self.u8(u8::from(memory.alone));
        self.text(&memory.store);
    }

    pub(super) fn holder(&mut self, holder: &ReservedFor) {
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

pub(super) struct In<'a>(pub(super) &'a [u8]);

impl In<'_> {
    pub(super) fn event(&mut self) -> Option<Event> {
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
            code::POOL_SHARED => Event::PoolShared {
                pool,
                generation: self.u64()?,
            },
            _ => self.address_event(kind, pool)?,
        })
    }

    pub(super) fn address_event(&mut self, kind: u8, pool: u32) -> Option<Event> {
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

    pub(super) fn range_event(&mut self, kind: u8, pool: u32, first: u128) -> Option<Event> {
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
            code::RANGE_LOST => Event::RangeLost { pool, part },
            _ => return None,
        })
    }

    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn index(&mut self) -> Option<u128> {
        let len = usize::from(self.u8()?);
        let (bytes, rest) = self.0.split_at_checked(len)?;
        let mut whole = [0; 16];
        whole.get_mut(..len)?.copy_from_slice(bytes);
        self.0 = rest;
        Some(u128::from_le_bytes(whole))
    }

    pub(super) fn slot(&mut self) -> Option<Slot> {
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

    pub(super) fn mac(&mut self) -> Option<Option<MacAddr>> {
        match self.u8()? {
            0 => Some(None),
            1 => Some(Some(MacAddr::new(self.take()?))),
            _ => None,
        }
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let len = usize::from(self.u8()?);
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        String::from_utf8(bytes.to_vec()).ok()
    }

    pub(super) fn subnet(&mut self) -> Option<Subnet> {
        let (family, prefix_len) = (self.u8()?, self.u8()?);
        let bits = Ipv6Addr::from(self.take::<16>()?);
        let ip = match family {
            4 => IpAddr::V4(bits.to_ipv4_mapped()?),
            6 => IpAddr::V6(bits),
            _ => return None,
        };
        Subnet::new(ip, prefix_len).ok()
    }

    pub(super) fn memory(&mut self) -> Option<Memory> {
        Some(Memory {
            counter: self.u64()?,
            starts: self.u64()?,
            epoch: self.u64()?,
            mark: self.u64()?,
            alone: match self.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            },
            store: self.text()?.into(),
        })
    }

    pub(super) fn holder(&mut self) -> Option<ReservedFor> {
        Some(match self.u8()? {
            0 => ReservedFor::Explicit,
            1 => ReservedFor::Mac(MacAddr::new(self.take()?)),
            2 => ReservedFor::Name(self.text()?),
            _ => return None,
        })
    }
}
