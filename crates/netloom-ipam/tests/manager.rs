//! Pools and addresses as callers see them.
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print their seed"
)]

mod common;

use common::store::Fault;
use common::{Host, TestStore, any, exact, gateway, ip, mac, network, pool_request, subnet, this};
use netloom_core::{
    AddressKind, AddressSpace, Ipam, IpamAdmin, IpamError, Options, PoolRequest, Reservation,
    ReservedFor, WantedPool,
};
use netloom_ipam::AddressManager;
use netloom_types::{Family, PoolId, Subnet};

fn named(request: PoolRequest, name: &str) -> PoolRequest {
    let options = Options::from([("netloom.network".to_owned(), name.to_owned())]);
    PoolRequest { options, ..request }
}

async fn kinds(ipam: &AddressManager, pool: Subnet) -> Vec<(String, AddressKind)> {
    let views = ipam.addresses(pool).await.unwrap();
    views.iter().map(|v| (v.ip.to_string(), v.kind)).collect()
}

async fn take(ipam: &AddressManager, pool: &PoolId, n: u32) -> String {
    ipam.request_address(any(pool, mac(n)))
        .await
        .unwrap()
        .to_string()
}

#[tokio::test]
async fn a_network_gets_its_gateway_first_and_containers_follow_in_order() {
    let ipam = Host::new(1).start().await;
    let pool = ipam.request_pool(exact("10.9.0.0/16")).await.unwrap().id;
    let first = ipam.request_address(gateway(&pool)).await.unwrap();
    assert_eq!(first.to_string(), "10.9.0.1/16");
    assert_eq!(ipam.request_address(gateway(&pool)).await.unwrap(), first);
    assert_eq!(take(&ipam, &pool, 1).await, "10.9.0.2/16");
    assert_eq!(take(&ipam, &pool, 2).await, "10.9.0.3/16");
    ipam.release_address(&pool, ip("10.9.0.2")).await.unwrap();
    assert_eq!(take(&ipam, &pool, 3).await, "10.9.0.4/16");
}

#[tokio::test]
async fn cool_down_orders_and_never_makes_a_pool_full() {
    let ipam = Host::new(1).start().await;
    let pool = network(&ipam, "10.9.0.0/29").await.id;
    for n in 2..=6 {
        assert_eq!(take(&ipam, &pool, n).await, format!("10.9.0.{n}/29"));
    }
    for last in [4, 2, 5] {
        ipam.release_address(&pool, ip(&format!("10.9.0.{last}")))
            .await
            .unwrap();
    }
    for expected in ["10.9.0.4/29", "10.9.0.2/29", "10.9.0.5/29"] {
        assert_eq!(take(&ipam, &pool, 9).await, expected);
    }
    let error = ipam.request_address(any(&pool, mac(9))).await.unwrap_err();
    assert!(matches!(error, IpamError::Exhausted(_)), "{error}");
}

#[tokio::test]
async fn small_pools_have_no_reserved_addresses() {
    let ipam = Host::new(1).start().await;
    let pair = ipam.request_pool(exact("10.9.0.0/31")).await.unwrap().id;
    assert_eq!(take(&ipam, &pair, 1).await, "10.9.0.0/31");
    assert_eq!(take(&ipam, &pair, 2).await, "10.9.0.1/31");
    let single = ipam.request_pool(exact("10.9.1.7/32")).await.unwrap().id;
    assert_eq!(take(&ipam, &single, 1).await, "10.9.1.7/32");
    assert!(ipam.request_address(any(&single, mac(2))).await.is_err());
}

#[tokio::test]
async fn wide_ipv6_pools_work_to_their_ends() {
    let ipam = Host::new(1).start().await;
    let pool = network(&ipam, "fd00:9::/64").await.id;
    assert_eq!(take(&ipam, &pool, 1).await, "fd00:9::2/64");
    let last = ip("fd00:9::ffff:ffff:ffff:ffff");
    let given = ipam
        .request_address(this(&pool, last, Some(mac(2))))
        .await
        .unwrap();
    assert_eq!(given.ip(), last);
    assert_eq!(ipam.pools().await[0].capacity, u64::MAX);
}

#[tokio::test]
async fn a_range_confines_only_what_is_not_named() {
    let ipam = Host::new(1).start().await;
    let wanted = WantedPool::Exact {
        subnet: subnet("10.9.0.0/16"),
        range: Some(subnet("10.9.8.0/30")),
    };
    let pool = ipam.request_pool(pool_request(wanted)).await.unwrap().id;
    ipam.request_address(gateway(&pool)).await.unwrap();
    for n in 0..4 {
        assert_eq!(take(&ipam, &pool, n).await, format!("10.9.8.{n}/16"));
    }
    assert!(ipam.request_address(any(&pool, mac(9))).await.is_err());
    let outside = this(&pool, ip("10.9.200.1"), Some(mac(9)));
    ipam.request_address(outside).await.unwrap();
    let view = ipam.pools().await.remove(0);
    assert_eq!((view.capacity, view.used), (4, 4));
    assert_eq!(view.range, Some(subnet("10.9.8.0/30")));
    assert_eq!(view.fill.len(), 64);
}

#[tokio::test]
async fn default_pools_differ_avoid_routes_and_end_clearly() {
    let host = Host::new(1);
    host.routes
        .0
        .lock()
        .unwrap()
        .extend([subnet("10.200.1.128/25"), subnet("0.0.0.0/0")]);
    let ipam = host.start().await;
    let mut got = Vec::new();
    let error = loop {
        match ipam
            .request_pool(pool_request(WantedPool::Any(Family::V4)))
            .await
        {
            Ok(grant) => got.push(grant.subnet.to_string()),
            Err(error) => break error,
        }
    };
    assert_eq!(got, ["10.200.0.0/24", "10.200.2.0/24", "10.200.3.0/24"]);
    assert!(matches!(error, IpamError::Exhausted(_)), "{error}");
    let sized = pool_request(WantedPool::Sized(Family::V4, 26));
    assert_eq!(
        ipam.request_pool(sized).await.unwrap().subnet,
        subnet("10.200.1.0/26")
    );
    let six = pool_request(WantedPool::Any(Family::V6));
    assert_eq!(
        ipam.request_pool(six).await.unwrap().subnet,
        subnet("fd00:1::/64")
    );
}

#[tokio::test]
async fn overlaps_are_refused_with_the_other_subnet() {
    let ipam = Host::new(1).start().await;
    let pool = network(&ipam, "10.9.0.0/16").await.id;
    for other in ["10.9.3.0/24", "10.0.0.0/8"] {
        let error = ipam.request_pool(exact(other)).await.unwrap_err();
        assert!(matches!(error, IpamError::InUse(_)));
        let text = error.to_string();
        assert!(
            text.contains("10.9.0.0/16") && text.contains(pool.as_str()),
            "{text}"
        );
    }
    let mut global = exact("10.9.3.0/24");
    global.space = AddressSpace::Global;
    ipam.request_pool(global).await.unwrap();
}

#[tokio::test]
async fn the_same_subnet_is_refused_unless_both_networks_are_one() {
    let ipam = Host::new(1).start().await;
    network(&ipam, "10.9.0.0/16").await;
    let error = ipam.request_pool(exact("10.9.0.0/16")).await.unwrap_err();
    assert!(
        error.to_string().contains("already used on this host"),
        "{error}"
    );
    let other = named(exact("10.9.0.0/16"), "blue");
    assert!(ipam.request_pool(other).await.is_err());
    let blue = named(exact("10.8.0.0/16"), "blue");
    let one = ipam.request_pool(blue.clone()).await.unwrap();
    ipam.request_address(gateway(&one.id)).await.unwrap();
    let two = ipam.request_pool(blue).await.unwrap();
    assert_ne!(one.id, two.id);
    let same = ipam.request_address(gateway(&two.id)).await.unwrap();
    assert_eq!(same.to_string(), "10.8.0.1/16");
    ipam.release_pool(&one.id).await.unwrap();
    assert_eq!(take(&ipam, &two.id, 1).await, "10.8.0.2/16");
    assert!(ipam.request_address(any(&one.id, mac(1))).await.is_err());
    let any_blue = named(pool_request(WantedPool::Any(Family::V4)), "blue");
    assert_eq!(
        ipam.request_pool(any_blue).await.unwrap().subnet,
        subnet("10.8.0.0/16")
    );
}

#[tokio::test]
async fn a_repeat_of_a_pool_request_whose_answer_was_lost_succeeds() {
    let host = Host::new(1);
    let lost = host
        .start()
        .await
        .request_pool(exact("10.9.0.0/16"))
        .await
        .unwrap();
    let ipam = host.start().await;
    let again = ipam.request_pool(exact("10.9.0.0/16")).await.unwrap();
    ipam.request_address(gateway(&again.id)).await.unwrap();
    // Whoever comes second with the other answer is told.
    let error = ipam.request_address(gateway(&lost.id)).await.unwrap_err();
    assert!(matches!(error, IpamError::InUse(_)), "{error}");
}

#[tokio::test]
async fn giving_a_pool_back_frees_what_it_alone_holds() {
    let ipam = Host::new(1).start().await;
    let pool = network(&ipam, "10.9.0.0/24").await.id;
    let aux = ip("10.9.0.77");
    ipam.request_address(this(&pool, aux, None)).await.unwrap();
    ipam.request_address(this(&pool, aux, None)).await.unwrap();
    assert!(
        ipam.request_address(this(&pool, aux, Some(mac(1))))
            .await
            .is_err()
    );
    let expected = [
        ("10.9.0.1".to_owned(), AddressKind::Gateway),
        ("10.9.0.77".to_owned(), AddressKind::Auxiliary),
    ];
    assert_eq!(kinds(&ipam, subnet("10.9.0.0/24")).await, expected);
    ipam.release_pool(&pool).await.unwrap();
    assert!(ipam.pools().await.is_empty());
    ipam.release_pool(&pool).await.unwrap();
    ipam.release_address(&pool, aux).await.unwrap();
    let pool = network(&ipam, "10.9.0.0/24").await.id;
    ipam.request_address(this(&pool, aux, Some(mac(1))))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_gateway_and_auxiliary_addresses_can_be_given_back_one_by_one() {
    let ipam = Host::new(1).start().await;
    let pool = network(&ipam, "10.9.0.0/24").await.id;
    ipam.request_address(this(&pool, ip("10.9.0.9"), None))
        .await
        .unwrap();
    ipam.release_address(&pool, ip("10.9.0.9")).await.unwrap();
    ipam.release_address(&pool, ip("10.9.0.1")).await.unwrap();
    assert_eq!(kinds(&ipam, subnet("10.9.0.0/24")).await, []);
    assert_eq!(ipam.pools().await[0].used, 0);
}

#[tokio::test]
async fn a_repeated_request_without_an_address_gives_another_one() {
    let ipam = Host::new(1).start().await;
    let pool = network(&ipam, "10.9.0.0/24").await.id;
    let one = take(&ipam, &pool, 1).await;
    assert_ne!(take(&ipam, &pool, 1).await, one);
}

#[tokio::test]
async fn a_named_address_is_given_again_only_to_the_one_in_doubt() {
    let ipam = Host::new(1).start().await;
    let pool = network(&ipam, "10.9.0.0/24").await.id;
    let five = ip("10.9.0.5");
    ipam.request_address(this(&pool, five, Some(mac(1))))
        .await
        .unwrap();
    ipam.request_address(this(&pool, five, Some(mac(1))))
        .await
        .unwrap();
    assert!(
        ipam.request_address(this(&pool, five, Some(mac(2))))
            .await
            .is_err()
    );
    ipam.confirm(five, Some(mac(1))).await.unwrap();
    ipam.confirm(five, Some(mac(1))).await.unwrap();
    assert!(
        ipam.request_address(this(&pool, five, Some(mac(1))))
            .await
            .is_err()
    );
    assert!(ipam.confirm(five, Some(mac(2))).await.is_err());
    ipam.confirm(ip("192.0.2.1"), None).await.unwrap();
}

#[tokio::test]
async fn reservations_last_over_restarts_and_go_to_their_holder() {
    let host = Host::new(1);
    let ipam = host.start().await;
    let pool = network(&ipam, "10.9.0.0/24").await.id;
    let keep = |text: &str, holder| Reservation {
        ip: ip(text),
        holder,
    };
    ipam.reserve(keep("10.9.0.50", ReservedFor::Mac(mac(7))))
        .await
        .unwrap();
    ipam.reserve(keep("10.9.0.51", ReservedFor::Name("web".to_owned())))
        .await
        .unwrap();
    ipam.reserve(keep("10.9.0.52", ReservedFor::Explicit))
        .await
        .unwrap();
    let error = ipam
        .reserve(keep("10.9.0.50", ReservedFor::Explicit))
        .await
        .unwrap_err();
    assert!(matches!(error, IpamError::InUse(_)), "{error}");
    assert!(
        ipam.reserve(keep("192.0.2.1", ReservedFor::Explicit))
            .await
            .is_err()
    );
    drop(ipam);
    let ipam = host.start().await;
    for _ in 0..2 {
        assert_eq!(take(&ipam, &pool, 7).await, "10.9.0.50/24");
        let mut web = any(&pool, mac(1));
        web.name = Some("web".to_owned());
        let got = ipam.request_address(web).await.unwrap();
        assert_eq!(got.to_string(), "10.9.0.51/24");
        for text in ["10.9.0.50", "10.9.0.51"] {
            ipam.release_address(&pool, ip(text)).await.unwrap();
        }
    }
    let stranger = this(&pool, ip("10.9.0.50"), Some(mac(8)));
    assert!(ipam.request_address(stranger).await.is_err());
    ipam.request_address(this(&pool, ip("10.9.0.52"), Some(mac(8))))
        .await
        .unwrap();
    for _ in 0..250 {
        match ipam.request_address(any(&pool, mac(9))).await {
            Ok(got) => assert!(!["10.9.0.50", "10.9.0.51"].contains(&&*got.ip().to_string())),
            Err(error) => assert!(matches!(error, IpamError::Exhausted(_)), "{error}"),
        }
    }
    ipam.unreserve(ip("10.9.0.50")).await.unwrap();
    assert!(ipam.unreserve(ip("10.9.0.50")).await.is_err());
    assert_eq!(take(&ipam, &pool, 9).await, "10.9.0.50/24");
}

#[tokio::test]
async fn unknown_outcomes_of_the_store_are_settled_by_looking() {
    for fault in [Fault::UnknownDone, Fault::UnknownLost] {
        let host = Host::new(1);
        let ipam = host.start().await;
        host.store.fail_next([fault]);
        let pool = ipam.request_pool(exact("10.9.0.0/24")).await.unwrap().id;
        host.store.fail_next([fault]);
        ipam.request_address(gateway(&pool)).await.unwrap();
        host.store.fail_next([fault]);
        take(&ipam, &pool, 1).await;
        assert_eq!(
            ipam.pools().await[0].references,
            std::slice::from_ref(&pool)
        );
        host.store.fail_next([fault]);
        ipam.release_pool(&pool).await.unwrap();
        assert!(ipam.pools().await.is_empty());
    }
}

#[tokio::test]
async fn while_the_store_is_away_owned_chunks_serve_on() {
    let host = Host::new(1);
    let ipam = host.start().await;
    let pool = network(&ipam, "10.9.0.0/24").await.id;
    let first = ipam.request_address(any(&pool, mac(1))).await.unwrap();
    host.store.fail_next([Fault::Unavailable; 1000]);
    take(&ipam, &pool, 2).await;
    ipam.release_address(&pool, first.ip()).await.unwrap();
    let error = ipam.request_pool(exact("10.8.0.0/24")).await.unwrap_err();
    assert!(matches!(error, IpamError::Unavailable { .. }), "{error}");
    host.store.clear_faults();
    ipam.request_pool(exact("10.8.0.0/24")).await.unwrap();
}

#[tokio::test]
async fn a_store_that_fails_in_the_middle_leaves_nothing_held() {
    let host = Host::new(1);
    let ipam = host.start().await;
    let pool = ipam.request_pool(exact("10.9.0.0/24")).await.unwrap().id;
    host.store.fail_next([Fault::Unavailable]);
    assert!(ipam.request_address(gateway(&pool)).await.is_err());
    assert_eq!(ipam.pools().await[0].used, 0);
    let again = ipam.request_address(gateway(&pool)).await.unwrap();
    assert_eq!(again.to_string(), "10.9.0.1/24");
}

#[tokio::test]
async fn chunks_are_claimed_once_and_never_deleted() {
    let host = Host::new(1);
    let ipam = host.start().await;
    let pool = network(&ipam, "10.9.0.0/16").await.id;
    let before = host.store.commits();
    for n in 0..1500 {
        take(&ipam, &pool, n).await;
    }
    assert_eq!(host.store.commits() - before, 2);
    ipam.release_pool(&pool).await.unwrap();
    let chunks = |store: &TestStore| {
        let all = store.values().into_iter();
        all.filter(|(key, _)| key.starts_with("chunks/"))
            .collect::<Vec<_>>()
    };
    let old = chunks(&host.store);
    assert_eq!(old.len(), 2);
    let pool = network(&ipam, "10.9.0.0/16").await.id;
    take(&ipam, &pool, 1).await;
    let new = chunks(&host.store);
    assert_eq!(new.len(), 2);
    let text = String::from_utf8(new[0].1.clone()).unwrap();
    assert!(text.contains(r#""generation":2"#), "{text}");
    assert!(text.contains(r#"[1,1,"pool""#), "{text}");
    assert!(text.contains(r#"[2,1023,"owned""#), "{text}");
}

#[tokio::test]
async fn hostile_requests_are_refused_in_words() {
    let ipam = Host::new(1).start().await;
    let pool = network(&ipam, "10.9.0.0/24").await.id;
    let strange = PoolId::new("x").unwrap();
    assert!(ipam.request_address(any(&strange, mac(1))).await.is_err());
    ipam.release_pool(&strange).await.unwrap();
    ipam.release_address(&strange, ip("10.9.0.1"))
        .await
        .unwrap();
    for wanted in ["10.8.0.1", "fd00::1", "10.9.0.0", "10.9.0.255", "10.9.0.1"] {
        for with in [None, Some(mac(1))] {
            let asked = ipam.request_address(this(&pool, ip(wanted), with)).await;
            assert!(asked.is_err(), "{wanted} was given");
        }
    }
    let mut long = any(&pool, mac(1));
    long.name = Some("\u{e9}".repeat(4000));
    ipam.request_address(long).await.unwrap();
    let bad = WantedPool::Exact {
        subnet: subnet("10.7.0.0/24"),
        range: Some(subnet("10.6.0.0/24")),
    };
    assert!(ipam.request_pool(pool_request(bad)).await.is_err());
    let unnamed = named(exact("10.7.0.0/24"), "");
    assert!(ipam.request_pool(unnamed).await.is_err());
}

#[tokio::test]
async fn newer_records_in_the_store_are_refused() {
    let host = Host::new(1);
    network(&host.start().await, "10.9.0.0/24").await;
    let key = "pools/local._host-1/10.9.0.0-24";
    host.store.put(key, br#"{"version":99}"#.to_vec());
    let error = host.start_with(Host::config()).await.unwrap_err();
    assert!(error.to_string().contains("newer release"), "{error}");
}

#[tokio::test]
async fn weave_2809_a_lost_journal_stops_allocation() {
    let host = Host::new(1);
    network(&host.start().await, "10.9.0.0/24").await;
    let mut fresh = host.clone();
    fresh.disk = common::SimDisk::default();
    let error = fresh.start_with(Host::config()).await.unwrap_err();
    assert!(
        error.to_string().contains("another address journal"),
        "{error}"
    );
}

#[tokio::test]
async fn cilium_7517_a_lost_store_stops_allocation() {
    let host = Host::new(1);
    let ipam = host.start().await;
    let pool = network(&ipam, "10.9.0.0/24").await.id;
    take(&ipam, &pool, 1).await;
    drop(ipam);
    let mut fresh = host.clone();
    fresh.store = TestStore::default();
    let error = fresh.start_with(Host::config()).await.unwrap_err();
    assert!(error.to_string().contains("as a whole"), "{error}");
    host.start().await;
}

#[tokio::test]
async fn moby_27404_restart_does_not_reuse() {
    let host = Host::new(1);
    let ipam = host.start().await;
    let pool = network(&ipam, "10.9.0.0/24").await.id;
    let before = [take(&ipam, &pool, 1).await, take(&ipam, &pool, 2).await];
    drop(ipam);
    let ipam = host.start().await;
    for n in 3..200 {
        assert!(!before.contains(&take(&ipam, &pool, n).await));
    }
}

#[tokio::test]
async fn moby_46e290fec6_double_release_changes_nothing() {
    let ipam = Host::new(1).start().await;
    let pool = network(&ipam, "10.9.0.0/29").await.id;
    let got = ipam.request_address(any(&pool, mac(1))).await.unwrap();
    for _ in 0..3 {
        ipam.release_address(&pool, got.ip()).await.unwrap();
    }
    assert_eq!(ipam.pools().await[0].used, 1);
    for n in 0..5 {
        take(&ipam, &pool, n).await;
    }
    assert!(ipam.request_address(any(&pool, mac(9))).await.is_err());
    assert_eq!(ipam.pools().await[0].used, 6);
}

#[tokio::test]
async fn libnetwork_1933_a_full_pool_serves_again_right_after_a_release() {
    let ipam = Host::new(1).start().await;
    let pool = network(&ipam, "10.9.0.0/30").await.id;
    let got = ipam.request_address(any(&pool, mac(1))).await.unwrap();
    for n in 0..5 {
        assert!(ipam.request_address(any(&pool, mac(n))).await.is_err());
        ipam.release_address(&pool, got.ip()).await.unwrap();
        assert_eq!(ipam.request_address(any(&pool, mac(n))).await.unwrap(), got);
    }
}

#[tokio::test]
async fn cilium_10065_a_release_through_another_network_frees_nothing() {
    let ipam = Host::new(1).start().await;
    let blue = named(exact("10.9.0.0/24"), "blue");
    let one = ipam.request_pool(blue.clone()).await.unwrap().id;
    let two = ipam.request_pool(blue).await.unwrap().id;
    let got = ipam.request_address(any(&one, mac(1))).await.unwrap();
    ipam.release_address(&two, got.ip()).await.unwrap();
    let all = kinds(&ipam, subnet("10.9.0.0/24")).await;
    assert_eq!(all, [(got.ip().to_string(), AddressKind::InDoubt)]);
}

#[tokio::test]
async fn weave_3003_named_and_automatic_addresses_come_from_one_book() {
    let ipam = Host::new(1).start().await;
    let pool = network(&ipam, "10.9.0.0/29").await.id;
    ipam.request_address(this(&pool, ip("10.9.0.3"), Some(mac(9))))
        .await
        .unwrap();
    let mut got = Vec::new();
    for n in 0..4 {
        got.push(take(&ipam, &pool, n).await);
    }
    assert_eq!(
        got,
        ["10.9.0.2/29", "10.9.0.4/29", "10.9.0.5/29", "10.9.0.6/29"]
    );
}

/// Each request's future is made, copied to the heap and freed again: with all that few of them wait for
/// inside, these were 10 KB, and a fourth of a request's time.
#[tokio::test]
async fn what_a_request_waits_in_is_small() {
    let ipam = Host::new(1).start().await;
    let pool = network(&ipam, "10.9.0.0/24").await.id;
    let request = ipam.request_address(any(&pool, mac(1)));
    assert!(size_of_val(&*request) <= 1024, "{}", size_of_val(&*request));
    let release = ipam.release_address(&pool, ip("10.9.0.2"));
    assert!(size_of_val(&*release) <= 512, "{}", size_of_val(&*release));
}
