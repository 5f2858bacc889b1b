//! Gateways in stores that lose their past: what is one stays one, and what was one is not again.
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print their seed"
)]

mod common;

use common::machine::*;
use common::store::{Fault, Snapshot, TestStore};
use common::{exact, gateway, ip, mac, subnet, this};
use netloom_core::store::Operation;
use netloom_core::{
    AddressKind, AddressRequest, AddressView, ClusterAdmin, Ipam, IpamAdmin, IpamError, Standing,
};
use std::collections::BTreeSet;

/// The store went back to before the gateway was chosen; its holder says it again, also if it is
/// started anew before it has.
#[tokio::test(start_paused = true)]
async fn a_gateway_outlives_a_store_that_lost_it() {
    for restarted in [false, true] {
        gateway_outlives(restarted.then_some(Restarted)).await;
    }
}

struct Restarted;

/// The store goes back, under a process that runs, or between its end and the next one's start.
async fn healed(
    store: &TestStore,
    snapshot: &Snapshot,
    machine: &Machine,
    process: Process,
    restarted: Option<Restarted>,
) -> Process {
    let process = match restarted {
        None => {
            store.restore(snapshot);
            process
        }
        Some(Restarted) => {
            drop(process);
            store.restore(snapshot);
            machine.start().await
        }
    };
    pass(120).await;
    process
}

async fn gateway_outlives(restarted: Option<Restarted>) {
    let store = initialised().await;
    let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
    let (mut first, second) = (one.start().await, two.start().await);
    let pool = first.request_pool(exact("10.9.0.0/24")).await.unwrap().id;
    let snapshot = store.snapshot();
    let mut wish = gateway(&pool);
    wish.wanted = Some(ip("10.9.0.77"));
    first.request_address(wish).await.unwrap();
    pass(60).await;
    first = healed(&store, &snapshot, &one, first, restarted).await;
    assert_eq!(first.cluster().await.standing, Standing::Joined);
    let there = second.request_pool(exact("10.9.0.0/24")).await.unwrap().id;
    let same = second.request_address(gateway(&there)).await.unwrap();
    assert_eq!(same.ip(), ip("10.9.0.77"));
}

/// A store went back to when a container's address was the gateway: it stays the container's host's.
#[tokio::test(start_paused = true)]
async fn a_gateway_of_before_that_became_a_containers_address_is_its_hosts() {
    let store = initialised().await;
    let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
    let (first, second) = (one.start().await, two.start().await);
    let old = network(&first, "10.9.0.0/24").await.id;
    let pool = second.request_pool(exact("10.9.0.0/24")).await.unwrap().id;
    pass(60).await;
    let snapshot = store.snapshot();
    first.release_address(&old, ip("10.9.0.1")).await.unwrap();
    first.release_pool(&old).await.unwrap();
    let mut later = gateway(&pool);
    later.wanted = Some(ip("10.9.0.9"));
    second.request_address(later).await.unwrap();
    let wish = || this(&pool, ip("10.9.0.1"), Some(mac(1)));
    second.request_address(wish()).await.unwrap();
    second.confirm(ip("10.9.0.1"), Some(mac(1))).await.unwrap();
    store.restore(&snapshot);
    pass(120).await;
    assert_eq!(second.cluster().await.standing, Standing::Joined);
    assert_eq!(netloom_ipam::store_check(&store).await.unwrap(), []);
    second.release_address(&pool, ip("10.9.0.1")).await.unwrap();
    second.request_address(wish()).await.unwrap();
}

/// A store that lost its past calls what a container has the gateway of another host: the container's
/// return is its own.
#[tokio::test(start_paused = true)]
async fn what_a_container_gives_back_is_free_also_where_the_store_calls_it_the_gateway() {
    let store = initialised().await;
    let host = Machine::new("h1", &store).start().await;
    let pool = host.request_pool(exact("10.9.0.0/24")).await.unwrap().id;
    let given = take(&host, &pool, 1).await.unwrap();
    let records = store.values().into_iter();
    let (key, record) = records
        .clone()
        .find(|(key, _)| key.starts_with("pools/"))
        .unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    record["gateway"] = given.to_string().into();
    store.put(&key, serde_json::to_vec(&record).unwrap());
    pass(60).await;
    let known = || async { host.addresses(subnet("10.9.0.0/24")).await.unwrap() };
    let kinds = |views: Vec<AddressView>| views.iter().map(|view| view.kind).collect::<Vec<_>>();
    assert_eq!(
        kinds(known().await),
        [AddressKind::Gateway, AddressKind::Endpoint]
    );
    host.release_address(&pool, given).await.unwrap();
    assert_eq!(kinds(known().await), [AddressKind::Gateway]);
}

/// A gateway was given back, the answer got lost, another host took another one, and the store went
/// back to in between: there is one gateway.
#[tokio::test(start_paused = true)]
async fn a_gateway_whose_return_was_not_answered_is_not_said_again() {
    for (leaver, taker) in [("h1", "h2"), ("h2", "h1")] {
        gateway_is_not_said_again(leaver, taker, None).await;
        gateway_is_not_said_again(leaver, taker, Some(Restarted)).await;
    }
}

async fn gateway_is_not_said_again(
    leaver: &'static str,
    taker: &'static str,
    restarted: Option<Restarted>,
) {
    let store = initialised().await;
    let (one, two) = (Machine::new(leaver, &store), Machine::new(taker, &store));
    let (mut first, second) = (one.start().await, two.start().await);
    let mut wish = gateway(&first.request_pool(exact("10.9.0.0/24")).await.unwrap().id);
    wish.wanted = Some(ip("10.9.0.9"));
    first.request_address(wish.clone()).await.unwrap();
    let left = wish.pool.clone();
    wish.pool = second.request_pool(exact("10.9.0.0/24")).await.unwrap().id;
    pass(60).await;
    store.fail_next([Fault::DoneAndAway]);
    first.release_pool(&left).await.unwrap_err();
    store.come_back();
    let snapshot = store.snapshot();
    wish.wanted = Some(ip("10.9.0.7"));
    second.request_address(wish).await.unwrap();
    first = healed(&store, &snapshot, &one, first, restarted).await;
    for host in [&first, &second] {
        assert_eq!(host.cluster().await.standing, Standing::Joined);
    }
    first.release_pool(&left).await.unwrap();
    let there = first.request_pool(exact("10.9.0.0/24")).await.unwrap().id;
    let same = first.request_address(gateway(&there)).await.unwrap();
    assert_eq!(same.ip(), ip("10.9.0.7"), "{leaver} left");
}

/// Its return failed or was not answered, the store went on for a while, and then went back to before it
/// was chosen: nobody here needs it any more, and others may choose another one.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_was_to_be_given_back_is_not_said_to_a_store_that_lost_it() {
    for fault in [Fault::Unavailable, Fault::DoneAndAway] {
        for restarted in [false, true] {
            let restarted = restarted.then_some(Restarted);
            let store = initialised().await;
            let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
            let (mut first, second) = (one.start().await, two.start().await);
            let mut wish = gateway(&first.request_pool(exact("10.9.0.0/24")).await.unwrap().id);
            let left = wish.pool.clone();
            let snapshot = store.snapshot();
            wish.wanted = Some(ip("10.9.0.9"));
            first.request_address(wish.clone()).await.unwrap();
            pass(60).await;
            store.fail_next([fault]);
            first.release_pool(&left).await.unwrap_err();
            if fault == Fault::Unavailable {
                store.clear_faults();
                pass(60).await;
            }
            store.come_back();
            first = healed(&store, &snapshot, &one, first, restarted).await;
            for host in [&first, &second] {
                assert_eq!(host.cluster().await.standing, Standing::Joined);
            }
            wish.pool = second.request_pool(exact("10.9.0.0/24")).await.unwrap().id;
            wish.wanted = Some(ip("10.9.0.7"));
            second.request_address(wish).await.unwrap();
        }
    }
}

/// Its return failed, and it was asked for again: it is in use, and outlives a store that lost it.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_asked_for_again_is_said_again() {
    for restarted in [false, true] {
        let store = initialised().await;
        let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
        let (mut first, second) = (one.start().await, two.start().await);
        let mut wish = gateway(&first.request_pool(exact("10.9.0.0/24")).await.unwrap().id);
        let snapshot = store.snapshot();
        wish.wanted = Some(ip("10.9.0.200"));
        first.request_address(wish.clone()).await.unwrap();
        store.fail_next([Fault::Unavailable]);
        first.release_pool(&wish.pool).await.unwrap_err();
        store.clear_faults();
        first.request_address(wish.clone()).await.unwrap();
        pass(60).await;
        first = healed(
            &store,
            &snapshot,
            &one,
            first,
            restarted.then_some(Restarted),
        )
        .await;
        assert_eq!(first.cluster().await.standing, Standing::Joined);
        let there = second.request_pool(exact("10.9.0.0/24")).await.unwrap().id;
        let same = second.request_address(gateway(&there)).await.unwrap();
        assert_eq!(same.ip(), ip("10.9.0.200"));
    }
}

/// A network's removal was refused, and the store was emptied before anybody used it on: its gateway is
/// nobody's any more, so nobody goes on with it.
#[tokio::test(start_paused = true)]
async fn a_network_whose_gateway_went_with_the_store_is_not_used_on() {
    for restarted in [None, Some(Restarted)] {
        let store = initialised().await;
        let machine = Machine::new("h1", &store);
        let mut host = machine.start().await;
        let pool = network(&host, "10.9.0.0/28").await.id;
        take(&host, &pool, 1).await.unwrap();
        store.fail_next([Fault::Unavailable]);
        host.release_pool(&pool).await.unwrap_err();
        store.clear_faults();
        store.wipe();
        initialise(&store, ["h1"]).await;
        pass(120).await;
        if restarted.is_some() {
            drop(host);
            host = machine.start().await;
        }
        let refused = take(&host, &pool, 2).await.unwrap_err();
        assert!(matches!(refused, IpamError::NotFound(_)), "{refused:?}");
        assert!(refused.to_string().contains("make it again"), "{refused}");
        host.release_pool(&pool).await.unwrap();
        let again = network(&host, "10.9.0.0/28").await.id;
        let given = take(&host, &again, 3).await.unwrap();
        assert_ne!(given, ip("10.9.0.1"));
    }
}

/// A network's removal was refused, it is used on, also by the next process, and the store is emptied: its
/// gateway stays its gateway.
#[tokio::test(start_paused = true)]
async fn a_gateway_of_a_network_that_was_to_be_removed_is_handed_out_to_nobody() {
    for restarted in [None, Some(Restarted)] {
        gateway_of_one_that_was_to_be_removed(restarted).await;
    }
}

async fn gateway_of_one_that_was_to_be_removed(restarted: Option<Restarted>) {
    let store = initialised().await;
    let machine = Machine::new("h1", &store);
    let mut host = machine.start().await;
    let pool = network(&host, "10.9.0.0/28").await.id;
    let mut given = BTreeSet::from([ip("10.9.0.1"), take(&host, &pool, 1).await.unwrap()]);
    store.fail_next([Fault::Unavailable]);
    host.release_pool(&pool).await.unwrap_err();
    store.clear_faults();
    if restarted.is_some() {
        drop(host);
        host = machine.start().await;
    }
    given.insert(take(&host, &pool, 2).await.unwrap());
    pass(60).await;
    store.wipe();
    initialise(&store, ["h1"]).await;
    pass(120).await;
    while let Ok(ip) = take(&host, &pool, 100 + given.len() as u32).await {
        assert!(given.insert(ip), "{ip} was handed out twice");
    }
    assert_eq!(given.len(), 14);
}

/// The same of a network that never had a gateway: it lost nothing.
#[tokio::test(start_paused = true)]
async fn a_network_without_a_gateway_is_used_on_after_its_removal_was_refused() {
    for restarted in [None, Some(Restarted)] {
        let store = initialised().await;
        let machine = Machine::new("h1", &store);
        let mut host = machine.start().await;
        let pool = host.request_pool(exact("10.9.0.0/28")).await.unwrap().id;
        take(&host, &pool, 1).await.unwrap();
        store.fail_next([Fault::Unavailable]);
        host.release_pool(&pool).await.unwrap_err();
        if restarted.is_some() {
            drop(host);
            host = machine.start().await;
        }
        take(&host, &pool, 2).await.unwrap();
        // From then on as any other one: the next process needs no store for it.
        pass(60).await;
        drop(host);
        let host = machine.start().await;
        store.go_away();
        take(&host, &pool, 3).await.unwrap();
    }
}

/// Whatever is asked for but the gateway, the network is not used on.
#[tokio::test(start_paused = true)]
async fn an_auxiliary_address_does_not_bring_a_lost_gateway_back() {
    let store = initialised().await;
    let host = Machine::new("h1", &store).start().await;
    let pool = network(&host, "10.9.0.0/28").await.id;
    take(&host, &pool, 1).await.unwrap();
    store.fail_next([Fault::Unavailable]);
    host.release_pool(&pool).await.unwrap_err();
    store.wipe();
    initialise(&store, ["h1"]).await;
    pass(120).await;
    let auxiliary = this(&pool, ip("10.9.0.9"), None);
    let refused = host.request_address(auxiliary).await.unwrap_err();
    assert!(matches!(refused, IpamError::NotFound(_)), "{refused:?}");
    take(&host, &pool, 2).await.unwrap_err();
    host.request_address(gateway(&pool)).await.unwrap();
    take(&host, &pool, 3).await.unwrap();
}

/// Its gateway went with the store, and is asked for again by no name: it is the one that its containers have.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_went_with_the_store_comes_back_as_it_was() {
    let store = initialised().await;
    let host = Machine::new("h1", &store).start().await;
    let pool = host.request_pool(exact("10.9.0.0/28")).await.unwrap().id;
    let first = AddressRequest {
        wanted: Some(ip("10.9.0.9")),
        ..gateway(&pool)
    };
    host.request_address(first).await.unwrap();
    take(&host, &pool, 1).await.unwrap();
    store.fail_next([Fault::Unavailable]);
    host.release_pool(&pool).await.unwrap_err();
    store.wipe();
    initialise(&store, ["h1"]).await;
    pass(120).await;
    let again = host.request_address(gateway(&pool)).await.unwrap();
    assert_eq!(again.ip(), ip("10.9.0.9"));
}

/// A removal happened unheard, another host made the network with another gateway, and the store was put
/// back: of two gateways the one that counts is the other host's.
#[tokio::test(start_paused = true)]
async fn a_network_whose_gateway_another_hosts_one_replaced_is_not_used_on() {
    let store = initialised().await;
    let first = Machine::new("h1", &store).start().await;
    let second = Machine::new("h2", &store).start().await;
    let pool = network(&first, "10.9.0.0/28").await.id;
    take(&first, &pool, 1).await.unwrap();
    let before = store.snapshot();
    store.fail_next([Fault::DoneAndAway]);
    first.release_pool(&pool).await.unwrap_err();
    store.come_back();
    let theirs = second.request_pool(exact("10.9.0.0/28")).await.unwrap().id;
    let other = AddressRequest {
        wanted: Some(ip("10.9.0.7")),
        ..gateway(&theirs)
    };
    second.request_address(other).await.unwrap();
    store.restore(&before);
    pass(120).await;
    let refused = take(&first, &pool, 2).await.unwrap_err();
    assert!(matches!(refused, IpamError::NotFound(_)), "{refused:?}");
    take(&second, &theirs, 3).await.unwrap();
}

/// What an emptied store does not show is said again by its host: nobody is told to make it anew.
#[tokio::test(start_paused = true)]
async fn a_gateway_is_asked_for_again_before_the_loss_was_noticed() {
    let store = initialised().await;
    let host = Machine::new("h1", &store).start().await;
    let pool = network(&host, "10.9.0.0/28").await.id;
    store.wipe();
    initialise(&store, ["h1"]).await;
    let early = host.request_address(gateway(&pool)).await.unwrap_err();
    assert!(matches!(early, IpamError::Unavailable { .. }), "{early:?}");
    pass(60).await;
    let again = host.request_address(gateway(&pool)).await.unwrap();
    assert_eq!(again.ip(), ip("10.9.0.1"));
}

/// A network is used on after its removal was refused, and the store goes away in the moment in which its host
/// notes that: the gateway counts again, or it does not, and is never forgotten.
#[tokio::test(start_paused = true)]
async fn a_gateway_is_not_forgotten_between_two_steps_of_going_on() {
    let store = initialised().await;
    let machine = Machine::new("h1", &store);
    let shared = store.clone();
    machine.mirror.after_commit(move |operations| {
        let is_noted = |o: &Operation| matches!(o, Operation::Delete(key, _) if key.as_str().starts_with("let-go/"));
        if operations.iter().any(is_noted) {
            shared.go_away();
        }
    });
    let host = machine.start().await;
    let pool = network(&host, "10.9.0.0/28").await.id;
    take(&host, &pool, 1).await.unwrap();
    store.fail_next([Fault::Unavailable]);
    host.release_pool(&pool).await.unwrap_err();
    store.clear_faults();
    let _ = take(&host, &pool, 2).await;
    host.release_pool(&pool).await.unwrap_err();
    store.come_back();
    store.wipe();
    initialise(&store, ["h1"]).await;
    pass(120).await;
    for n in 3..20 {
        if let Ok(given) = take(&host, &pool, n).await {
            assert_ne!(given, ip("10.9.0.1"));
        }
    }
}
