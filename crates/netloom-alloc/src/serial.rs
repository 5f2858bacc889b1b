//! `Serialize` and `Deserialize` as snapshots, so that what comes in is checked as strictly.
//!
//! A size stands beside the bytes where the snapshot's reader expects one. It is bounded before any
//! memory is taken for it: what a stranger sends must not ask for half a gigabyte.

use crate::{Bitmap, SparseBitmap};
use alloc::vec::Vec;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bits of the widest dense bitmap that is read: those of an IPv4 /8, 2 MiB.
const CAPACITY_MAX: usize = 1 << 24;

impl Serialize for Bitmap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.capacity(), self.snapshot()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bitmap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (capacity, bytes) = <(usize, Vec<u8>)>::deserialize(deserializer)?;
        if capacity > CAPACITY_MAX {
            return Err(D::Error::custom(
                "more than 2^24 numbers, use `Bitmap::restore`",
            ));
        }
        Self::restore(&bytes, capacity).map_err(D::Error::custom)
    }
}

impl Serialize for SparseBitmap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.last(), self.snapshot()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SparseBitmap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (last, bytes) = <(u128, Vec<u8>)>::deserialize(deserializer)?;
        Self::restore(&bytes, last).map_err(D::Error::custom)
    }
}

#[cfg(feature = "std")]
impl Serialize for crate::AddressPool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.subnet().to_string(), self.snapshot()).serialize(serializer)
    }
}

#[cfg(feature = "std")]
impl<'de> Deserialize<'de> for crate::AddressPool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (subnet, bytes) = <(String, Vec<u8>)>::deserialize(deserializer)?;
        let subnet = subnet.parse().map_err(D::Error::custom)?;
        Self::restore(&bytes, subnet).map_err(D::Error::custom)
    }
}
