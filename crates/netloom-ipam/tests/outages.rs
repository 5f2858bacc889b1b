//! What goes on by itself after a store was away in the middle, or a holder for good.
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use common::disk::Trouble;
use common::machine::{Machine, initialise, initialised, loner, network, pass, take};
use common::store::Fault;
use common::{TestStore, exact, gateway};
use netloom_core::{ClusterAdmin, Ipam, IpamAdmin, IpamError};
use netloom_types::HostId;

const SUBNET: &str = "10.9.0.0/24";

/// The store is away after each commit of the move in turn; the process goes on, or dies too.
#[tokio::test(start_paused = true)]
async fn a_move_to_a_shared_store_that_was_cut_short_is_finished_and_doubles_nothing() {
    for fault in [Fault::DoneAndAway, Fault::LostAndAway] {
        for (nth, dies) in (0..6).flat_map(|nth| [(nth, false), (nth, true)]) {
            let store = initialised().await;
            let (mut machine, pool, mut given) = loner("h1", SUBNET, 1).await;
            machine.host.store = store.clone();
            store.fail_after(nth, [fault]);
            let mut one = machine.start().await;
            store.clear_faults();
            store.come_back();
            if dies {
                drop(one);
                one = machine.start().await;
            }
            pass(30).await;
            let second = Machine::new("h2", &store).start().await;
            let theirs = network(&second, SUBNET).await.id;
            pass(30).await;
            for n in 100..160 {
                let (host, pool) = if n % 2 == 0 {
                    (&one, &pool)
                } else {
                    (&second, &theirs)
                };
                let ip = take(host, pool, n).await.unwrap();
                assert!(given.insert(ip), "{fault:?} {nth} {dies}: {ip} twice");
            }
            drop(one);
            let one = machine.start().await;
            pass(30).await;
            let ip = take(&one, &pool, 2000).await.unwrap();
            assert!(given.insert(ip), "{fault:?} {nth} {dies}: {ip} twice");
            assert_eq!(netloom_ipam::store_check(&store).await.unwrap(), []);
        }
    }
}

/// The store is away right after it has the pool: what a container gives back meanwhile is free.
#[tokio::test(start_paused = true)]
async fn what_is_given_back_while_a_move_waits_for_the_store_is_free() {
    for nth in 0..8 {
        let store = initialised().await;
        let (mut machine, pool, given) = loner("h1", SUBNET, 1).await;
        machine.host.store = store.clone();
        store.die_after(nth);
        let one = machine.start().await;
        for ip in &given {
            one.release_address(&pool, *ip).await.unwrap();
        }
        store.come_back();
        pass(30).await;
        let known = one.addresses(SUBNET.parse().unwrap()).await.unwrap();
        let in_use: Vec<_> = known
            .iter()
            .filter(|view| given.contains(&view.ip))
            .collect();
        assert!(in_use.is_empty(), "{nth}: {in_use:?}");
    }
}

/// A move waits for a host that is off, and netloomd is restarted meanwhile: what only this host knows of
/// its pools, it knows still.
#[tokio::test(start_paused = true)]
async fn a_move_that_waits_loses_nothing_of_the_pools() {
    let store = TestStore::default();
    initialise(&store, ["h9"]).await;
    let (mut machine, pool, mut given) = loner("h1", SUBNET, 1).await;
    machine.host.store = store.clone();
    let one = machine.start().await;
    pass(120).await;
    drop(one);
    let one = machine.start().await;
    let pools = one.pools().await;
    assert!(pools[0].gateway.is_some(), "{pools:?}");
    pass(120).await;
    let gone = HostId::new("h9").unwrap();
    one.forget(&gone).await.unwrap();
    pass(60).await;
    let gateway = one.request_address(gateway(&pool)).await.unwrap().ip();
    let second = Machine::new("h2", &store).start().await;
    let theirs = second.request_pool(exact(SUBNET)).await.unwrap().id;
    assert!(given.insert(gateway));
    let mut n = 100;
    while let Ok(ip) = take(&second, &theirs, n).await {
        n += 1;
        assert!(given.insert(ip), "{ip} was handed out twice");
    }
    assert!(n > 200, "{n}");
}

/// A removal's answer was lost, and the disk was full when the store showed that it is gone: what was kept of
/// the network meanwhile is nothing that containers get addresses by.
#[tokio::test(start_paused = true)]
async fn a_removed_network_does_not_come_back_with_a_disk_that_was_full() {
    let store = initialised().await;
    let machine = Machine::new("h1", &store);
    let host = machine.start().await;
    let second = Machine::new("h2", &store).start().await;
    network(&second, SUBNET).await;
    let pool = network(&host, SUBNET).await.id;
    let other = network(&host, "10.9.1.0/24").await.id;
    for pool in [&pool, &other] {
        take(&host, pool, 1).await.unwrap();
    }
    pass(60).await;
    store.die_after(1);
    host.release_pool(&pool).await.unwrap_err();
    machine.host.disk.trouble(Trouble::NoSpace);
    take(&host, &other, 2).await.unwrap_err();
    store.come_back();
    pass(60).await;
    store.go_away();
    machine.host.disk.trouble(Trouble::None);
    take(&host, &other, 3).await.unwrap();
    let given = take(&host, &pool, 4).await;
    assert!(given.is_err(), "{given:?}");
}

/// The holder with the most by its last word is off; another one has something to give.
#[tokio::test(start_paused = true)]
async fn a_holder_that_is_off_does_not_keep_others_from_giving() {
    let store = initialised().await;
    let machines = ["h1", "h2", "h3"].map(|name| Machine::new(name, &store));
    let mut hosts = Vec::new();
    let mut pools = Vec::new();
    for machine in &machines {
        let host = machine.start().await;
        pools.push(network(&host, "10.9.0.0/26").await.id);
        hosts.push(host);
    }
    pass(60).await;
    let mut given = Vec::new();
    for n in 0..200 {
        let who = n as usize % 3;
        match take(&hosts[who], &pools[who], n).await {
            Ok(ip) => given.push((who, ip)),
            Err(IpamError::Exhausted(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let own = |who| given.iter().filter(move |(holder, _)| *holder == who);
    for (who, count) in [(2, 9), (1, 4)] {
        for (_, ip) in own(who).take(count) {
            let given_back = hosts[who].release_address(&pools[who], *ip);
            given_back.await.unwrap();
        }
    }
    // All hear what the others have; then the one with the most is off.
    pass(60).await;
    drop(hosts.pop());
    let ip = take(&hosts[0], &pools[0], 1000).await.unwrap();
    assert!(own(1).take(4).any(|(_, given)| *given == ip));
}
