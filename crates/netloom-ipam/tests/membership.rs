//! Hosts that come, go, are copied and forgotten, and stores that are away or left for others.
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print their seed"
)]

mod common;

use common::machine::*;
use common::store::Fault;
use common::{TestStore, exact, gateway, ip, mac, subnet};
use netloom_core::{ClusterAdmin, Ipam, IpamAdmin, IpamError, Membership, Standing};
use netloom_ipam::{AddressManager, Sharing};
use netloom_types::HostId;
use std::collections::BTreeSet;
use std::sync::Arc;

#[tokio::test(start_paused = true)]
async fn an_empty_store_waits_for_a_person() {
    let store = TestStore::default();
    let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
    let (first, second) = (one.start().await, two.start().await);
    pass(60).await;
    assert!(store.values().is_empty(), "a daemon wrote into it");
    let refused = first.request_pool(exact("10.9.0.0/24")).await.unwrap_err();
    assert!(is_unavailable(&refused, "cluster init"), "{refused}");
    let view = first.cluster().await;
    assert!(
        matches!(view.standing, Standing::Starting { .. }),
        "{view:?}"
    );

    assert_eq!(first.initialise().await.unwrap(), 1);
    let again = second.initialise().await.unwrap_err();
    assert!(matches!(again, IpamError::InUse(_)), "{again}");
    let pool = network(&first, "10.9.0.0/24").await.id;
    take(&first, &pool, 1).await.unwrap();
    pass(60).await;
    let pool = network(&second, "10.9.0.0/24").await.id;
    take(&second, &pool, 2).await.unwrap();
    let hosts = first.hosts().await.unwrap();
    let names: Vec<_> = hosts.iter().map(|h| (h.host.as_str(), h.here)).collect();
    assert_eq!(names, [("h1", true), ("h2", false)]);
    assert!(
        hosts
            .iter()
            .all(|h| h.membership == Membership::Member && h.counter > 0)
    );
}

#[tokio::test(start_paused = true)]
async fn hosts_tell_what_they_have() {
    let store = initialised().await;
    let one = Machine::new("h1", &store).start().await;
    let pool = network(&one, "10.9.0.0/24").await.id;
    take(&one, &pool, 1).await.unwrap();
    pass(60).await;
    let view = one.hosts().await.unwrap().remove(0);
    assert!(view.last_heard.is_some());
    let share = &view.shares[0];
    assert_eq!(share.subnet, subnet("10.9.0.0/24"));
    assert_eq!(share.owned - share.free, 1);
}

#[tokio::test(start_paused = true)]
async fn the_second_process_of_one_host_fences_the_first() {
    let store = initialised().await;
    let machine = Machine::new("h1", &store);
    let one = machine.start().await;
    let pool = network(&one, "10.9.0.0/16").await.id;
    take(&one, &pool, 1).await.unwrap();
    let copy = machine.copy().start().await;
    take(&copy, &pool, 2).await.unwrap();
    let refused = one.request_pool(exact("10.8.0.0/24")).await.unwrap_err();
    assert!(is_unavailable(&refused, "another process"), "{refused}");
    let refused = take(&one, &pool, 3).await.unwrap_err();
    assert!(is_unavailable(&refused, "another process"), "{refused}");
    assert!(matches!(
        one.cluster().await.standing,
        Standing::Stopped { .. }
    ));
    pass(60).await;
    take(&copy, &pool, 4).await.unwrap();
    assert!(take(&one, &pool, 5).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_copy_on_another_machine_is_refused() {
    let store = initialised().await;
    let machine = Machine::new("h1", &store);
    let one = machine.start().await;
    let pool = network(&one, "10.9.0.0/24").await.id;
    let mut copy = machine.copy();
    copy.machine = "another";
    let copy = copy.start().await;
    let refused = take(&copy, &pool, 1).await.unwrap_err();
    assert!(is_unavailable(&refused, "another machine"), "{refused}");
    pass(60).await;
    take(&one, &pool, 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn addresses_of_a_silent_host_come_back_by_a_persons_word_only() {
    let store = initialised().await;
    let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
    let first = one.start().await;
    let second = two.start().await;
    let pools = [
        network(&first, "10.9.0.0/29").await.id,
        network(&second, "10.9.0.0/29").await.id,
    ];
    let mut given = BTreeSet::new();
    given.insert(take(&second, &pools[1], 1).await.unwrap());
    drop(second);
    pass(3600).await;
    let mut n = 10;
    let last = loop {
        n += 1;
        match take(&first, &pools[0], n).await {
            Ok(ip) => assert!(given.insert(ip), "{ip} twice"),
            Err(error) => break error,
        }
    };
    assert!(last.to_string().contains("h2"), "{last}");
    assert!(
        given.len() < 5 || matches!(last, IpamError::Unavailable { .. }),
        "{last}"
    );
    let stranger = HostId::new("h9").unwrap();
    let unknown = first.forget(&stranger).await.unwrap_err();
    assert!(matches!(unknown, IpamError::NotFound(_)), "{unknown}");
    let gone = HostId::new("h2").unwrap();
    let forgotten = first.forget(&gone).await.unwrap();
    assert_eq!(forgotten.freed.len(), 1);
    assert!(forgotten.freed[0].1 >= 1);
    take(&first, &pools[0], 99).await.unwrap();
    // Never again under this id.
    let back = two.start().await;
    let refused = take(&back, &pools[1], 1).await.unwrap_err();
    assert!(is_unavailable(&refused, "forgotten"), "{refused}");
    pass(60).await;
    let hosts = first.hosts().await.unwrap();
    assert_eq!(hosts[1].membership, Membership::Forgotten);
}

#[tokio::test(start_paused = true)]
async fn a_host_starts_and_serves_what_it_has_while_the_store_is_away() {
    let store = initialised().await;
    let machine = Machine::new("h1", &store);
    let one = machine.start().await;
    let pool = network(&one, "10.9.0.0/24").await.id;
    let kept = take(&one, &pool, 1).await.unwrap();
    let other = take(&one, &pool, 2).await.unwrap();
    pass(60).await;
    store.go_away();
    // Running: goes on from its ranges.
    take(&one, &pool, 3).await.unwrap();
    drop(one);
    let one = machine.start().await;
    let refused = take(&one, &pool, 4).await.unwrap_err();
    assert!(is_unavailable(&refused, "store"), "{refused}");
    one.confirm(kept, Some(mac(1))).await.unwrap();
    one.release_address(&pool, other).await.unwrap();
    assert_eq!(one.pools().await[0].subnet, subnet("10.9.0.0/24"));
    assert_eq!(one.pools().await[0].gateway, Some(ip("10.9.0.1")));
    pass(60).await;
    store.come_back();
    pass(60).await;
    let next = take(&one, &pool, 5).await.unwrap();
    assert_ne!(next, kept);
    assert_eq!(one.cluster().await.standing, Standing::Joined);
}

#[tokio::test(start_paused = true)]
async fn whatever_the_store_does_not_say_nothing_is_lost() {
    let faults = [Fault::UnknownDone, Fault::UnknownLost, Fault::Unavailable];
    for fault in faults {
        for at in 0..12 {
            let store = initialised().await;
            let machine = Machine::new("h1", &store);
            let one = machine.start().await;
            let mut given = BTreeSet::new();
            store.fail_next((0..at).map(|_| Fault::UnknownDone).chain([fault; 4]));
            let mut pool = None;
            for n in 0..60 {
                if pool.is_none() {
                    pool = one.request_pool(exact("10.9.0.0/25")).await.ok();
                }
                if let Some(grant) = &pool
                    && let Ok(ip) = take(&one, &grant.id, n).await
                {
                    assert!(given.insert(ip), "{ip} twice");
                }
            }
            store.clear_faults();
            pass(30).await;
            let pool = match pool {
                Some(grant) => grant.id,
                None => one.request_pool(exact("10.9.0.0/25")).await.unwrap().id,
            };
            drop(one);
            let one = machine.start().await;
            for n in 100..226 {
                match take(&one, &pool, n).await {
                    Ok(ip) => assert!(given.insert(ip), "{ip} twice"),
                    Err(error) => assert!(given.len() >= 125, "{} given: {error}", given.len()),
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_cluster_moves_to_another_store() {
    let old = initialised().await;
    let mut machine = Machine::new("h1", &old);
    let one = machine.start().await;
    let pool = network(&one, "10.9.0.0/16").await.id;
    let mut given = BTreeSet::new();
    given.insert(take(&one, &pool, 1).await.unwrap());
    let new = TestStore::default();
    let ids = netloom_core::SystemClock::new();
    let copied = netloom_ipam::store_copy(&old, &new, "etcd://b/n", &ids).await;
    assert!(copied.is_err(), "two stores that call themselves one");
    new.call("another");
    // It is interrupted at each step, and made again.
    let mut copied = None;
    for at in 0..20 {
        new.fail_next(
            (0..at % 3)
                .map(|_| Fault::UnknownDone)
                .chain([Fault::Unavailable]),
        );
        let tried = netloom_ipam::store_copy(&old, &new, "etcd://b/n", &ids).await;
        new.clear_faults();
        if let Ok(done) = tried {
            copied = Some(done);
            break;
        }
    }
    let copied = match copied {
        Some(copied) => copied,
        None => netloom_ipam::store_copy(&old, &new, "etcd://b/n", &ids)
            .await
            .unwrap(),
    };
    assert_eq!(copied.epoch, 2);
    assert_eq!(netloom_ipam::store_check(&new).await.unwrap(), []);
    pass(60).await;
    // Fenced: it says where the store went, and goes on from what it owns.
    given.insert(take(&one, &pool, 2).await.unwrap());
    let refused = one.request_pool(exact("10.8.0.0/24")).await.unwrap_err();
    assert!(is_unavailable(&refused, "etcd://b/n"), "{refused}");
    drop(one);
    machine.host.store = new;
    let one = machine.start().await;
    assert_eq!(one.cluster().await.epoch, 2);
    for n in 10..1200 {
        assert!(given.insert(take(&one, &pool, n).await.unwrap()));
    }
}

/// A copy is interrupted before it has fenced the old store, whose hosts heal it meanwhile.
#[tokio::test(start_paused = true)]
async fn a_copy_that_is_made_again_begins_after_all_epochs_of_the_old_store() {
    let old = initialised().await;
    let one = Machine::new("h1", &old).start().await;
    let before = old.snapshot();
    network(&one, "10.9.0.0/16").await;
    let new = TestStore::default();
    new.call("another");
    let ids = netloom_core::SystemClock::new();
    old.fail_next([Fault::Unavailable]);
    let copied = netloom_ipam::store_copy(&old, &new, "etcd://b/n", &ids).await;
    assert!(copied.is_err(), "it was not fenced");
    let begun = netloom_ipam::cluster_init(&new, &ids, 0, []).await;
    assert!(begun.is_err(), "it holds a copy that is not finished");
    old.restore(&before);
    pass(60).await;
    assert_eq!(one.cluster().await.epoch, 2);
    let copied = netloom_ipam::store_copy(&old, &new, "etcd://b/n", &ids).await;
    assert_eq!(copied.unwrap().epoch, 3);
}

#[tokio::test(start_paused = true)]
async fn a_check_finds_what_does_not_fit() {
    let store = initialised().await;
    let one = Machine::new("h1", &store).start().await;
    let pool = network(&one, "10.9.0.0/24").await.id;
    take(&one, &pool, 1).await.unwrap();
    pass(10).await;
    assert_eq!(netloom_ipam::store_check(&store).await.unwrap(), []);
    let dump = netloom_ipam::store_dump(&store).await.unwrap();
    assert!(
        dump.iter()
            .any(|(key, _)| key.as_str() == "pools/global/10.9.0.0-24")
    );
    let good = store.snapshot();
    let spoil = |key: &str, from: &str, to: &str| {
        let values = store.values();
        let (_, value) = values.iter().find(|(k, _)| k.starts_with(key)).unwrap();
        let text = String::from_utf8(value.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        let key = values
            .iter()
            .find(|(k, _)| k.starts_with(key))
            .unwrap()
            .0
            .clone();
        store.put(&key, text.replace(from, to).into_bytes());
    };
    for (key, from, to) in [
        ("epoch", "1", "moved:zk://h/n"),
        ("hosts/h1", "member", "forgotten"),
        ("hosts/h1", "\"host\":\"h1\"", "\"host\":\"h2\""),
        ("chunks/global/10.9.0.0-24/0/00", "\"h1\"", "\"h7\""),
        (
            "chunks/global/10.9.0.0-24/0/00",
            "\"generation\":1",
            "\"generation\":9",
        ),
        ("pools/global/10.9.0.0-24", "active", "released"),
        ("pools/global/10.9.0.0-24", "version", "verse"),
        ("pools/global/10.9.0.0-24", "10.9.0.1", "10.9.0.9"),
        ("heal", "[]", "[\"h1\"]"),
    ] {
        spoil(key, from, to);
        let found = netloom_ipam::store_check(&store).await.unwrap();
        assert!(!found.is_empty(), "{key}: {from} became {to}");
        store.restore(&good);
    }
    store.put("pools/global/10.9.0.0-16", {
        let values = store.values();
        let pool = values
            .iter()
            .find(|(k, _)| k.starts_with("pools/"))
            .unwrap();
        pool.1.clone()
    });
    let found = netloom_ipam::store_check(&store).await.unwrap();
    assert!(found[0].what.contains("overlaps"), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_host_with_a_store_of_its_own_moves_to_one_that_is_shared() {
    let store = initialised().await;
    let (mut machine, pool, mut given) = loner("h1", "10.9.0.0/16", 1).await;
    machine.host.store = store.clone();
    // At first it cannot reach it, and goes on with what it has.
    store.go_away();
    drop(machine.start().await);
    store.come_back();
    let one = machine.start().await;
    let second = Machine::new("h2", &store).start().await;
    pass(60).await;
    let theirs = network(&second, "10.9.0.0/16").await.id;
    for n in 100..1300 {
        let (host, pool) = if n % 2 == 0 {
            (&one, &pool)
        } else {
            (&second, &theirs)
        };
        let ip = take(host, pool, n).await.unwrap();
        assert!(given.insert(ip), "{ip} twice");
    }
    drop(one);
    let one = machine.start().await;
    assert!(given.insert(take(&one, &pool, 2000).await.unwrap()));
    let gateway = one.request_address(gateway(&pool)).await.unwrap();
    assert_eq!(gateway.ip(), ip("10.9.0.1"));
    let pools = one.pools().await;
    assert_eq!(pools.len(), 1, "{pools:?}");
    assert_eq!(netloom_ipam::store_check(&store).await.unwrap(), []);
    one.release_pool(&pool).await.unwrap();
    // And not back: what the store gave is no store's of its own.
    drop(one);
    let mut config = machine.config();
    config.sharing = Sharing::Alone;
    let mut seams = machine.host.seams();
    seams.store = Arc::new(machine.mirror.clone());
    assert!(AddressManager::open(config, seams).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_brings_pools_in_use_elsewhere_is_refused_with_their_list() {
    let store = initialised().await;
    let first = Machine::new("h1", &store).start().await;
    network(&first, "10.9.0.0/16").await;
    let (mut machine, pool, given) = loner("h2", "10.9.7.0/24", 1).await;
    machine.host.store = store.clone();
    let two = machine.start().await;
    let refused = take(&two, &pool, 100).await.unwrap_err();
    assert!(
        is_unavailable(&refused, "10.9.7.0/24 here overlaps 10.9.0.0/16 of h1"),
        "{refused}"
    );
    // What runs goes on, and can be removed, which ends the conflict.
    for ip in given {
        two.release_address(&pool, ip).await.unwrap();
    }
    two.release_pool(&pool).await.unwrap();
    drop(two);
    let two = machine.start().await;
    assert_eq!(two.cluster().await.standing, Standing::Joined);
    let pool = network(&two, "10.9.0.0/16").await.id;
    take(&two, &pool, 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a17_what_a_host_owns_is_not_taken_because_it_is_off() {
    let store = initialised().await;
    let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
    let (first, second) = (one.start().await, two.start().await);
    let pools = [
        network(&first, "10.9.0.0/26").await.id,
        network(&second, "10.9.0.0/26").await.id,
    ];
    let kept = take(&second, &pools[1], 1).await.unwrap();
    drop(second);
    pass(6 * 3600).await;
    let mut taken = BTreeSet::new();
    while let Ok(ip) = take(&first, &pools[0], 100 + u32::try_from(taken.len()).unwrap()).await {
        assert!(taken.insert(ip));
    }
    assert!(!taken.contains(&kept));
    let second = two.start().await;
    let again = take(&second, &pools[1], 2).await.unwrap();
    assert!(again != kept && !taken.contains(&again));
}
