//! The `serde` feature: values come back through JSON, and nonsense does not.
#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use netloom_alloc::{AddressPool, Bitmap, SparseBitmap};
use serde::{Serialize, de::DeserializeOwned};

fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value);
    assert!(serde_json::from_str::<T>(&text.replacen(',', ",1,", 2)).is_err());
}

#[test]
fn values_come_back_through_json() {
    let mut map = Bitmap::new(1_000).unwrap();
    map.reserve(5, 70);
    there_and_back(&map);
    let mut map = SparseBitmap::new(1 << 90);
    map.reserve(5, 1 << 70);
    there_and_back(&map);
    let mut pool = AddressPool::new("fd00::/64".parse().unwrap());
    pool.allocate().unwrap();
    there_and_back(&pool);
}

#[test]
fn a_size_that_a_stranger_invents_takes_no_memory() {
    let error = serde_json::from_str::<Bitmap>("[4294967296, [1]]").unwrap_err();
    assert!(error.to_string().contains("2^24"), "{error}");
}
