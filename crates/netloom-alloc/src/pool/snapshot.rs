//! Snapshots of pools.
//!
//! ```text
//!   head     4   "NLP", version 1
//!   subnet   18  family (4 or 6), prefix length, address as 16 bytes, IPv4 in the last four
//!   range    18  the same
//!   count        reserved addresses, LEB128
//!   each         index as distance from the one before, LEB128; role, 1 byte
//!   bits         length, LEB128; a dense or sparse snapshot
//!   check    8   FNV-1a, 64 bits, over all before
//! ```

use super::bits::Bits;
use super::{AddressPool, Role, reserved};
use crate::SnapshotError;
use crate::snapshot::{Reader, Writer};
use netloom_types::{Family, Subnet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const POOL: [u8; 3] = *b"NLP";

impl AddressPool {
    /// A compact copy of everything, the policy's position included.
    ///
    /// ```
    /// use netloom_alloc::AddressPool;
    ///
    /// let subnet = "10.9.0.0/16".parse()?;
    /// let mut pool = AddressPool::new(subnet);
    /// pool.allocate()?;
    /// assert_eq!(AddressPool::restore(&pool.snapshot(), subnet)?, pool);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Writer::new(POOL);
        write_subnet(&mut out, self.subnet());
        write_subnet(&mut out, self.range());
        out.count(self.reserved_indices().len() as u128);
        let mut before = 0;
        for (index, role) in self.reserved_indices() {
            out.count(index - before);
            out.u8(role.tag());
            before = *index;
        }
        let bits = self.bits().snapshot();
        out.count(bits.len() as u128);
        out.bytes(&bits);
        out.finish()
    }

    /// The pool that [`AddressPool::snapshot`] wrote.
    ///
    /// # Errors
    /// When the bytes are not exactly such a snapshot, or one of another subnet.
    pub fn restore(bytes: &[u8], subnet: Subnet) -> Result<Self, SnapshotError> {
        let mut input = Reader::new(bytes, POOL)?;
        if read_subnet(&mut input)? != subnet {
            return Err(SnapshotError::Mismatch { what: "the subnet" });
        }
        let range = read_subnet(&mut input)?;
        if !range.is_subnet_of(subnet) {
            return Err(SnapshotError::Corrupt {
                what: "the range lies outside of the subnet",
            });
        }
        let reserved = read_reserved(&mut input)?;
        let length = input.count()?;
        let bits = Bits::restore(input.take(length)?, subnet.host_bits())?;
        input.finish()?;
        let taken = reserved
            .iter()
            .all(|(index, _)| subnet.nth(*index).is_some() && bits.is_allocated(*index));
        let family = reserved::of_family(subnet).all(|own| reserved.contains(&own));
        if !(taken && family) {
            return Err(SnapshotError::Corrupt {
                what: "the reserved addresses do not fit",
            });
        }
        Ok(Self::from_parts(subnet, range, reserved, bits))
    }
}

fn read_reserved(input: &mut Reader<'_>) -> Result<Vec<(u128, Role)>, SnapshotError> {
    const BAD: SnapshotError = SnapshotError::Corrupt {
        what: "a reserved address does not fit",
    };
    let mut reserved: Vec<(u128, Role)> = Vec::new();
    for _ in 0..input.count()? {
        let gap = input.count()?;
        let index = match reserved.last() {
            Some(_) if gap == 0 => return Err(BAD),
            Some((before, _)) => before.checked_add(gap).ok_or(BAD)?,
            None => gap,
        };
        reserved.push((index, Role::from_tag(input.u8()?).ok_or(BAD)?));
    }
    Ok(reserved)
}

fn write_subnet(out: &mut Writer, subnet: Subnet) {
    let (family, bits) = match subnet.first() {
        IpAddr::V4(v4) => (4, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (6, v6.to_bits()),
    };
    out.u8(family);
    out.u8(subnet.prefix_len());
    out.bytes(&bits.to_be_bytes());
}

fn read_subnet(input: &mut Reader<'_>) -> Result<Subnet, SnapshotError> {
    const BAD: SnapshotError = SnapshotError::Corrupt {
        what: "a subnet is not valid",
    };
    let family = match input.u8()? {
        4 => Family::V4,
        6 => Family::V6,
        _ => return Err(BAD),
    };
    let prefix_len = input.u8()?;
    let bits = u128::from_be_bytes(input.array()?);
    let ip = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).map_err(|_| BAD)?)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    };
    Subnet::new(ip, prefix_len).map_err(|_| BAD)
}
