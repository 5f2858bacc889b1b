//! Subnets cut from larger ones: none overlaps another, whatever is asked in whatever order.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use netloom_alloc::{SubnetError, SubnetPool};
use netloom_types::{Family, Subnet};

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

#[test]
fn successive_requests_differ_and_then_fail_clearly() {
    let mut pool = SubnetPool::new([
        (subnet("172.30.0.0/15"), 16),
        (subnet("192.168.0.0/22"), 24),
    ])
    .unwrap();
    let all: Vec<_> = std::iter::from_fn(|| pool.allocate(Family::V4, &[]).ok()).collect();
    assert_eq!(all.len(), 6);
    assert_eq!(pool.iter().collect::<Vec<_>>(), all);
    let family = Family::V4;
    assert_eq!(
        pool.allocate(family, &[]),
        Err(SubnetError::Exhausted { family })
    );
    let family = Family::V6;
    assert_eq!(
        pool.allocate(family, &[]),
        Err(SubnetError::NoPool { family })
    );
    pool.release(all[2]).unwrap();
    assert_eq!(
        pool.release(all[2]),
        Err(SubnetError::NotAllocated { subnet: all[2] })
    );
    assert_eq!(pool.allocate(Family::V4, &[]), Ok(all[2]));
}

#[test]
fn whatever_is_asked_for_nothing_overlaps() {
    let base = subnet("10.0.0.0/20");
    let routes = [
        subnet("10.0.3.128/25"),
        subnet("10.0.8.0/24"),
        subnet("192.168.0.0/16"),
    ];
    let mut pool = SubnetPool::new([(base, 24)]).unwrap();
    let sizes = [28, 24, 26, 22, 32, 25, 23, 30, 24, 27].into_iter().cycle();
    for size in sizes.take(400) {
        if let Ok(got) = pool.allocate_sized(Family::V4, size, &routes) {
            assert!(got.is_subnet_of(base) && got.prefix_len() == size);
            assert!(!routes.iter().any(|route| route.overlaps(got)), "{got}");
        }
    }
    let all: Vec<_> = pool.iter().collect();
    for (at, one) in all.iter().enumerate() {
        assert!(
            all.iter().skip(at + 1).all(|other| !one.overlaps(*other)),
            "{one}"
        );
    }
    // Only what the routes take is missing.
    let sum: u128 = all.iter().map(|one| one.size_saturating()).sum();
    assert_eq!(sum, 4_096 - 128 - 256);
}

#[test]
fn a_claim_names_what_it_overlaps() {
    let mut pool = SubnetPool::new([(subnet("fd00::/48"), 64)]).unwrap();
    let first = pool.allocate(Family::V6, &[]).unwrap();
    for wanted in ["fd00::/48", "fd00::/64", "fd00::8000:0:0:0/65"] {
        let wanted = subnet(wanted);
        let expected = Err(SubnetError::Overlaps {
            subnet: wanted,
            with: first,
        });
        assert_eq!(pool.claim(wanted, &[]), expected);
    }
    let route = subnet("203.0.113.0/24");
    let inside = subnet("203.0.113.64/26");
    let expected = Err(SubnetError::Overlaps {
        subnet: inside,
        with: route,
    });
    assert_eq!(pool.claim(inside, &[route]), expected);
    pool.claim(inside, &[]).unwrap();
    assert_eq!(pool.iter().count(), 2);
}

#[test]
fn many_subnets_in_use_do_not_hide_the_last_free_one() {
    let mut pool = SubnetPool::new([(subnet("10.0.0.0/8"), 24)]).unwrap();
    // One subnet covers the first half: it is passed in one step.
    pool.claim(subnet("10.0.0.0/9"), &[]).unwrap();
    assert_eq!(pool.allocate(Family::V4, &[]), Ok(subnet("10.128.0.0/24")));
    // What is wider than the whole base leaves nothing.
    let wide = [subnet("0.0.0.0/1")];
    assert!(matches!(
        pool.allocate(Family::V4, &wide),
        Err(SubnetError::Exhausted { .. })
    ));
}

#[test]
fn sizes_that_no_base_has_are_refused() {
    let base = subnet("10.0.0.0/16");
    for prefix_len in [8, 33] {
        let expected = Err(SubnetError::BadSize { base, prefix_len });
        assert_eq!(SubnetPool::new([(base, prefix_len)]), expected);
    }
    let mut pool = SubnetPool::new([(base, 24)]).unwrap();
    for size in [8, 33] {
        let got = pool.allocate_sized(Family::V4, size, &[]);
        assert_eq!(got, Err(SubnetError::NoPool { family: Family::V4 }));
    }
}
