//! Pools of addresses: what is reserved, what is handed out, in every prefix length.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use netloom_alloc::{
    AddressPool, AddressState, AllocateError, Policy, PoolError, ReleaseError, Role, Side,
};
use netloom_types::Subnet;
use std::collections::BTreeSet;
use std::net::IpAddr;

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn take_all(pool: &mut AddressPool) -> Vec<IpAddr> {
    std::iter::from_fn(|| pool.allocate().ok()).collect()
}

#[test]
fn small_subnets_hand_out_all_but_their_own_addresses() {
    for (text, count, first) in [
        ("10.0.0.0/29", 6, "10.0.0.1"),
        ("10.0.0.4/30", 2, "10.0.0.5"),
        ("10.0.0.4/31", 2, "10.0.0.4"),
        ("10.0.0.4/32", 1, "10.0.0.4"),
        ("fd00::/125", 7, "fd00::1"),
        ("fd00::4/126", 3, "fd00::5"),
        ("fd00::4/127", 2, "fd00::4"),
        ("fd00::4/128", 1, "fd00::4"),
    ] {
        let mut pool = AddressPool::new(subnet(text));
        assert_eq!(pool.free(), count, "{text}");
        let all = take_all(&mut pool);
        assert_eq!(all.len() as u128, count, "{text}");
        assert_eq!(all.first(), Some(&ip(first)), "{text}");
        assert_eq!(pool.allocated(), count);
        assert_eq!(pool.iter().collect::<Vec<_>>(), all);
        assert_eq!(pool.free(), 0);
        assert_eq!(
            pool.allocate(),
            Err(AllocateError::Exhausted {
                range: subnet(text)
            })
        );
    }
}

#[test]
fn every_prefix_length_allocates_releases_and_comes_back() {
    let lengths = (0..=32).map(|len| Subnet::truncating(ip("10.255.3.7"), len));
    let wide = (0..=128).map(|len| Subnet::truncating(ip("fd12:3456::7:9"), len));
    for subnet in lengths.chain(wide) {
        let mut pool = AddressPool::new(subnet);
        let got = pool.allocate().unwrap();
        assert!(subnet.contains(got), "{got} of {subnet}");
        assert_eq!(pool.state(got), AddressState::Allocated);
        assert_eq!(
            AddressPool::restore(&pool.snapshot(), subnet),
            Ok(pool.clone()),
            "{subnet}"
        );
        let size = subnet.size_saturating();
        let reserved = pool.reserved().count() as u128;
        // ::/0 has one address more than can be counted.
        let expected = if subnet.prefix_len() == 0 && size == u128::MAX {
            u128::MAX - 1
        } else {
            size - reserved - 1
        };
        assert_eq!(pool.free(), expected, "{subnet}");
        pool.release(got).unwrap();
        assert_eq!(
            pool.release(got),
            Err(ReleaseError::NotAllocated {
                block: Subnet::host(got)
            })
        );
        assert!(
            pool.bytes_held() <= 2_300_000,
            "{subnet}: {}",
            pool.bytes_held()
        );
    }
}

#[test]
fn reserved_addresses_are_neither_handed_out_nor_released() {
    let mut pool = AddressPool::builder(subnet("10.9.0.0/29"))
        .gateway(ip("10.9.0.1"))
        .auxiliary(ip("10.9.0.3"))
        .build()
        .unwrap();
    let all = take_all(&mut pool);
    assert_eq!(
        all,
        ["10.9.0.2", "10.9.0.4", "10.9.0.5", "10.9.0.6"].map(ip)
    );
    for (address, role) in [
        ("10.9.0.0", Role::Network),
        ("10.9.0.1", Role::Gateway),
        ("10.9.0.3", Role::Auxiliary),
        ("10.9.0.7", Role::Broadcast),
    ] {
        let ip = ip(address);
        assert_eq!(
            pool.allocate_at(ip),
            Err(AllocateError::Reserved { ip, role })
        );
        assert_eq!(pool.release(ip), Err(ReleaseError::Reserved { ip, role }));
        assert_eq!(pool.state(ip), AddressState::Reserved(role));
    }
    assert_eq!(pool.allocated(), 4);
    pool.unreserve(ip("10.9.0.3")).unwrap();
    assert_eq!(pool.allocate(), Ok(ip("10.9.0.3")));
    assert!(
        pool.unreserve(ip("10.9.0.0")).is_err(),
        "the network address stays reserved"
    );
    assert!(
        pool.unreserve(ip("10.9.0.2")).is_err(),
        "an allocated address is not reserved"
    );
}

#[test]
fn a_range_bounds_what_is_not_asked_for_by_name() {
    let mut pool = AddressPool::builder(subnet("10.9.0.0/16"))
        .range(subnet("10.9.255.248/29"))
        .build()
        .unwrap();
    assert_eq!(pool.free(), 7, "the range ends with the broadcast address");
    pool.allocate_at(ip("10.9.1.1")).unwrap();
    assert_eq!(
        pool.allocate_at(ip("10.9.1.1")),
        Err(AllocateError::AlreadyAllocated {
            block: subnet("10.9.1.1/32")
        })
    );
    assert_eq!(take_all(&mut pool).len(), 7);
    assert_eq!(pool.allocate_in(subnet("10.9.1.0/31")), Ok(ip("10.9.1.0")));
    assert!(matches!(
        pool.allocate_in(subnet("10.9.1.0/31")),
        Err(AllocateError::Exhausted { .. })
    ));
    assert_eq!(pool.allocated_in(subnet("10.9.1.0/24")), 2);
}

#[test]
fn what_lies_outside_is_refused_by_name() {
    let base = subnet("10.9.0.0/16");
    let mut pool = AddressPool::new(base);
    let (stranger, block) = (ip("10.10.0.1"), subnet("10.10.0.1/32"));
    assert_eq!(
        pool.allocate_at(stranger),
        Err(AllocateError::OutOfPool {
            block,
            subnet: base
        })
    );
    assert_eq!(
        pool.release(stranger),
        Err(ReleaseError::OutOfPool {
            block,
            subnet: base
        })
    );
    assert_eq!(pool.state(stranger), AddressState::OutOfPool);
    assert_eq!(pool.state(ip("fd00::1")), AddressState::OutOfPool);
    let range = subnet("10.0.0.0/8");
    let built = AddressPool::builder(base).range(range).build();
    assert_eq!(
        built,
        Err(PoolError::RangeOutside {
            range,
            subnet: base
        })
    );
    let twice = AddressPool::builder(base)
        .gateway(ip("10.9.0.1"))
        .auxiliary(ip("10.9.0.1"));
    let error = twice.build().unwrap_err();
    assert!(
        matches!(
            error,
            PoolError::Reservation {
                role: Role::Auxiliary,
                ..
            }
        ),
        "{error}"
    );
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn blocks_are_all_or_nothing() {
    for base in ["10.9.0.0/16", "fd00:9::/48"] {
        let base = subnet(base);
        let full = base.family().bits();
        let mut pool = AddressPool::new(base);
        // The block with the network address is never whole.
        let block = pool.allocate_block(full - 6).unwrap();
        assert_eq!(Some(block.first()), base.nth(64));
        let inside = block.first();
        assert!(matches!(
            pool.allocate_at(inside),
            Err(AllocateError::AlreadyAllocated { .. })
        ));
        pool.release(inside).unwrap();
        assert_eq!(
            pool.release_block(block),
            Err(ReleaseError::NotAllocated { block })
        );
        assert_eq!(pool.allocated(), 63, "a refused release changes nothing");
        pool.allocate_block_at(Subnet::host(inside)).unwrap();
        pool.release_block(block).unwrap();
        let whole = pool.allocate_block_at(base);
        assert!(matches!(
            whole,
            Err(AllocateError::Reserved {
                role: Role::Network,
                ..
            })
        ));
        assert!(matches!(
            pool.release_block(base),
            Err(ReleaseError::Reserved { .. })
        ));
        let too_large = pool.allocate_block(base.prefix_len());
        assert!(
            matches!(too_large, Err(AllocateError::NoBlock { .. })),
            "{too_large:?}"
        );
        assert!(pool.allocate_block(base.prefix_len() - 1).is_err());
        assert!(pool.allocate_block(200).is_err());
        assert_eq!(pool.allocated(), 0);
    }
}

#[test]
fn two_pools_differ_where_one_has_what_the_other_lacks() {
    for base in ["10.9.0.0/20", "fd00:9::/64"] {
        let mut journal = AddressPool::new(subnet(base));
        let common: BTreeSet<_> = (0..200).map(|_| journal.allocate().unwrap()).collect();
        let mut kernel = journal.clone();
        let lost = *common.iter().nth(77).unwrap();
        kernel.release(lost).unwrap();
        let leaked = kernel.allocate().unwrap();
        let found: Vec<_> = journal.difference(&kernel).collect();
        assert_eq!(found, [(lost, Side::Left), (leaked, Side::Right)]);
    }
}

#[test]
fn random_starts_differ_by_seed_and_repeat_by_seed() {
    let draw = |seed| {
        let policy = Policy::RandomStart { seed };
        let mut pool = AddressPool::builder(subnet("fd00::/64"))
            .policy(policy)
            .build()
            .unwrap();
        (0..8).map(|_| pool.allocate().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn all_kinds_can_be_sent_and_shared() {
    fn check<T: Send + Sync>() {}
    check::<AddressPool>();
    check::<netloom_alloc::AtomicBitmap>();
    check::<netloom_alloc::Bitmap>();
    check::<netloom_alloc::SparseBitmap>();
    check::<netloom_alloc::SubnetPool>();
}

/// The same calls on both forms of one pool, random ones with a printed seed.
#[test]
fn a_sparse_pool_answers_as_a_dense_one_does() {
    for (seed, text) in [
        (1, "10.9.0.4/32"),
        (2, "10.9.0.4/31"),
        (3, "10.9.0.0/30"),
        (4, "10.9.0.0/24"),
        (5, "10.9.0.0/18"),
    ] {
        println!("seed {seed}");
        let subnet = subnet(text);
        let mut dense = AddressPool::new(subnet);
        let mut sparse = AddressPool::builder(subnet).sparse().build().unwrap();
        let mut state: u64 = seed;
        let mut below = |limit: u128| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            u128::from(state >> 33) % limit
        };
        for _ in 0..20_000 {
            let first = subnet.nth(below(subnet.size_saturating())).unwrap();
            let host_bits = u8::try_from(below(u128::from(subnet.host_bits()) + 1)).unwrap();
            let block = Subnet::truncating(first, 32 - host_bits);
            match below(6) {
                0 | 1 => assert_eq!(sparse.allocate(), dense.allocate()),
                2 => assert_eq!(sparse.allocate_at(first), dense.allocate_at(first)),
                3 => assert_eq!(sparse.release(first), dense.release(first)),
                4 => assert_eq!(
                    sparse.allocate_block_at(block),
                    dense.allocate_block_at(block)
                ),
                _ => assert_eq!(sparse.release_block(block), dense.release_block(block)),
            }
            assert_eq!(sparse.allocated_in(block), dense.allocated_in(block));
        }
        assert!(sparse.iter().eq(dense.iter()), "{text}");
        let restored = AddressPool::restore(&sparse.snapshot(), subnet);
        assert_eq!(restored, Ok(sparse));
    }
    let lone = subnet("fd00::4/128");
    let mut pool = AddressPool::builder(lone).sparse().build().unwrap();
    assert_eq!(take_all(&mut pool), [ip("fd00::4")]);
    assert_eq!(AddressPool::restore(&pool.snapshot(), lone), Ok(pool));
}
