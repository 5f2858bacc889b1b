//! Snapshots come back as they were, and nothing else comes back at all.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use netloom_alloc::{AddressPool, Bitmap, Policy, SnapshotError, SparseBitmap};

fn samples() -> Vec<Bitmap> {
    let mut all = Vec::new();
    for capacity in [0, 1, 64, 65, 1_000, 70_000] {
        for policy in [
            Policy::LowestFree,
            Policy::NextFit,
            Policy::RandomStart { seed: 7 },
        ] {
            let mut map = Bitmap::with_policy(capacity, policy).unwrap();
            map.reserve(0, capacity / 3);
            for _ in 0..capacity / 5 {
                map.allocate();
            }
            map.clear(capacity / 2, capacity / 2 + capacity / 7);
            all.push(map);
        }
    }
    all
}

#[test]
fn a_snapshot_continues_exactly_where_it_was_taken() {
    for mut map in samples() {
        let mut copy = Bitmap::restore(&map.snapshot(), map.capacity()).unwrap();
        for _ in 0..200 {
            assert_eq!(map.allocate(), copy.allocate());
        }
        assert_eq!(map, copy);
    }
}

#[test]
fn a_snapshot_of_long_runs_is_short() {
    let mut map = Bitmap::new(1 << 24).unwrap();
    map.reserve(0, 1 << 23);
    assert!(map.snapshot().len() < 50, "{}", map.snapshot().len());
    let mut map = SparseBitmap::new(u128::MAX);
    map.reserve(1 << 100, 1 << 120);
    assert!(map.snapshot().len() < 200, "{}", map.snapshot().len());
}

#[test]
fn every_damaged_byte_and_every_cut_is_refused() {
    let mut map = Bitmap::new(1_000).unwrap();
    map.reserve(100, 300);
    map.allocate_at(777).unwrap();
    let whole = map.snapshot();
    for at in 0..whole.len() {
        assert!(Bitmap::restore(&whole[..at], 1_000).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            assert!(
                Bitmap::restore(&bytes, 1_000).is_err(),
                "byte {at}, bit {bit}"
            );
        }
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(Bitmap::restore(&longer, 1_000).is_err());
}

/// Puts the right checksum under changed bytes, as damage by a program would.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let check = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    body.extend(check.to_le_bytes());
    body
}

#[test]
fn sealed_nonsense_is_refused_and_accepted_bytes_are_the_only_ones() {
    let mut map = Bitmap::new(300).unwrap();
    map.reserve(3, 200);
    let whole = map.snapshot();
    let body = &whole[..whole.len() - 8];
    let mut accepted = 0;
    for at in 0..body.len() {
        for byte in 0..=u8::MAX {
            let mut changed = body.to_vec();
            changed[at] = byte;
            let bytes = sealed(changed);
            if let Ok(other) = Bitmap::restore(&bytes, 300) {
                accepted += 1;
                assert_eq!(other.snapshot(), bytes, "one content, one encoding");
            }
        }
    }
    assert!(
        accepted > body.len(),
        "positions and literal words may vary: {accepted}"
    );
}

#[test]
fn other_sizes_versions_and_kinds_are_told_apart() {
    let map = Bitmap::new(64).unwrap();
    let bytes = map.snapshot();
    assert_eq!(
        Bitmap::restore(&bytes, 65),
        Err(SnapshotError::Mismatch {
            what: "the capacity"
        })
    );
    let mut newer = bytes.clone();
    newer[3] = 9;
    assert_eq!(
        Bitmap::restore(&newer, 64),
        Err(SnapshotError::Version { found: 9 })
    );
    assert!(matches!(
        SparseBitmap::restore(&bytes, 63),
        Err(SnapshotError::Corrupt { .. })
    ));
    let pool = AddressPool::new("10.9.0.0/24".parse().unwrap());
    let other = AddressPool::restore(&pool.snapshot(), "10.8.0.0/24".parse().unwrap());
    assert_eq!(other, Err(SnapshotError::Mismatch { what: "the subnet" }));
}

#[test]
fn damaged_pools_and_sparse_maps_are_refused() {
    let subnet = "fd00::/48".parse().unwrap();
    let mut pool = AddressPool::new(subnet);
    for _ in 0..5_000 {
        pool.allocate().unwrap();
    }
    let whole = pool.snapshot();
    assert_eq!(AddressPool::restore(&whole, subnet), Ok(pool));
    for at in 0..whole.len() {
        assert!(
            AddressPool::restore(&whole[..at], subnet).is_err(),
            "cut at {at}"
        );
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        assert!(AddressPool::restore(&bytes, subnet).is_err(), "byte {at}");
    }
}

/// The form inside of a pool's snapshot is the writer's word: one of a wider pool is no single address.
#[test]
fn a_sparse_form_of_another_size_is_refused() {
    let wide: netloom_types::Subnet = "10.9.0.0/24".parse().unwrap();
    let narrow: netloom_types::Subnet = "10.9.0.0/32".parse().unwrap();
    let mut pool = AddressPool::builder(wide).sparse().build().unwrap();
    pool.allocate().unwrap();
    let mut bytes = pool.snapshot();
    // Both subnets of the head.
    for place in [5, 23] {
        assert_eq!(bytes[place], 24);
        bytes[place] = 32;
    }
    bytes.truncate(bytes.len() - 8);
    assert!(matches!(
        AddressPool::restore(&sealed(bytes), narrow),
        Err(SnapshotError::Mismatch { .. } | SnapshotError::Corrupt { .. })
    ));
}
