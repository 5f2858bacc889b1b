//! With next fit, what was released is handed out last, longest idle first.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use netloom_alloc::{AddressPool, AtomicBitmap, Bitmap, SparseBitmap};

macro_rules! released_numbers_come_last {
    ($name:ident, $map:expr) => {
        #[test]
        #[allow(unused_mut, reason = "the atomic form needs no exclusive access")]
        fn $name() {
            let mut map = $map;
            for expected in 0..50 {
                assert_eq!(map.allocate(), Some(expected));
            }
            map.release(40).unwrap();
            map.release(10).unwrap();
            let after: Vec<_> = std::iter::from_fn(|| map.allocate()).collect();
            assert_eq!(after.first(), Some(&50));
            // The search has come round: in the order of numbers, whatever was released first.
            assert_eq!((after.len(), &after[50..]), (52, [10, 40].as_slice()));
        }
    };
}

released_numbers_come_last!(in_the_dense_form, Bitmap::new(100).unwrap());
released_numbers_come_last!(in_the_atomic_form, AtomicBitmap::new(100).unwrap());
released_numbers_come_last!(in_the_sparse_form, SparseBitmap::new(99));

#[test]
fn a_pool_is_full_only_when_every_address_is_in_use() {
    let mut pool = AddressPool::new("10.9.0.0/28".parse().unwrap());
    let all: Vec<_> = std::iter::from_fn(|| pool.allocate().ok()).collect();
    assert_eq!(all.len(), 14);
    for ip in all {
        pool.release(ip).unwrap();
        assert_eq!(
            pool.allocate(),
            Ok(ip),
            "the only free address is given, however short idle"
        );
    }
}
