//! Changes of hands when the store is silent, the process dies, or a host is slow.
#![allow(
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use common::group::{HOSTS, Node, at_once, joined};
use common::store::Fault;
use common::{Random, any, ip, mac, seed, subnet, this};
use netloom_core::{AddressKind, Ipam, IpamAdmin, IpamError};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

const SUBNET: &str = "10.9.0.0/26";

/// Takes until the pool is full, from hosts in turn; 61 are left beside the gateway.
async fn fill(nodes: &[Node]) -> BTreeSet<IpAddr> {
    let mut taken = BTreeSet::new();
    for n in 0..200 {
        match nodes[n % nodes.len()].take(n as u32).await {
            Ok(ip) => assert!(taken.insert(ip), "{ip} was handed out twice"),
            Err(IpamError::Exhausted(_)) => return taken,
            Err(error) => panic!("{error}"),
        }
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn no_silence_of_the_store_loses_or_doubles_an_address() {
    for fault in [Fault::UnknownDone, Fault::UnknownLost, Fault::Unavailable] {
        for nth in 0..40 {
            let nodes = joined(&HOSTS, SUBNET).await;
            let mut held = BTreeSet::new();
            for n in 0..12 {
                held.insert(nodes[n % 3].take(n as u32).await.unwrap());
            }
            let store = &nodes[0].host.store;
            store.fail_after(nth, [fault, fault, fault, fault, fault, fault]);
            for n in 12..40 {
                if let Ok(ip) = nodes[n % 3].take(n as u32).await {
                    assert!(held.insert(ip), "{ip} was handed out twice");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            store.clear_faults();
            for node in &nodes {
                node.ipam.keep().await.unwrap();
            }
            for n in 40..140 {
                match nodes[n % 3].take(n as u32).await {
                    Ok(ip) => assert!(held.insert(ip), "{ip} was handed out twice"),
                    Err(IpamError::Exhausted(_)) => break,
                    Err(error) => panic!("{fault:?} after {nth}: {error}"),
                }
            }
            assert_eq!(held.len(), 61, "{fault:?} after {nth}");
        }
    }
}

/// Each commit in turn is the last one before the store is away for longer than anybody waits.
#[tokio::test(start_paused = true)]
async fn no_outcome_that_stays_unknown_loses_or_doubles_an_address() {
    for fault in [Fault::DoneAndAway, Fault::LostAndAway] {
        for nth in 0..40 {
            let nodes = joined(&HOSTS, SUBNET).await;
            let mut held = BTreeSet::new();
            // The first two have all of it, and give some back: the third must ask.
            for n in 0..61u32 {
                held.insert(nodes[n as usize % 2].take(n).await.unwrap());
            }
            for node in &nodes[..2] {
                for back in own(node).into_iter().skip(9) {
                    node.give(back).await;
                    held.remove(&back);
                }
            }
            let store = &nodes[0].host.store;
            store.fail_after(nth, [fault]);
            for n in 100..130 {
                let who = if n % 4 == 0 { n as usize % 2 } else { 2 };
                if let Ok(ip) = nodes[who].take(n).await {
                    assert!(held.insert(ip), "{ip} was handed out twice");
                }
            }
            store.clear_faults();
            store.come_back();
            for node in &nodes {
                node.ipam.keep().await.unwrap();
            }
            for n in 200..300 {
                match nodes[n % 3].take(n as u32).await {
                    Ok(ip) => assert!(held.insert(ip), "{ip} was handed out twice"),
                    Err(IpamError::Exhausted(_)) => break,
                    Err(error) => panic!("{fault:?} after {nth}: {error}"),
                }
            }
            assert_eq!(held.len(), 61, "{fault:?} after {nth}");
        }
    }
}

fn own(node: &Node) -> Vec<IpAddr> {
    let views = at_once(node.ipam.addresses(subnet(SUBNET))).unwrap();
    let in_use = |kind| matches!(kind, AddressKind::Endpoint | AddressKind::InDoubt);
    let views = views.into_iter().filter(|view| in_use(view.kind));
    views.map(|view| view.ip).collect()
}

#[tokio::test(start_paused = true)]
async fn a_death_at_any_time_loses_or_doubles_no_address() {
    for round in 0..30 {
        let mut nodes = joined(&HOSTS, SUBNET).await;
        let mut held: BTreeMap<IpAddr, usize> = BTreeMap::new();
        let mut random = Random(seed() ^ round);
        for n in 0..120u32 {
            let who = random.below(3);
            match random.below(8) {
                0 if n % 2 == 0 => nodes[who].reopen().await,
                0 => nodes[who].lose_power(&mut random).await,
                1 | 2 => {
                    if let Some((ip, owner)) = held.pop_first() {
                        nodes[owner].give(ip).await;
                    }
                }
                3 => {
                    // Dropped in the middle, as when dockerd's connection breaks.
                    let request = any(nodes[who].pool(), mac(n));
                    let ipam = std::sync::Arc::clone(&nodes[who].ipam);
                    let asked = tokio::spawn(async move { ipam.request_address(request).await });
                    for _ in 0..random.below(12) {
                        tokio::task::yield_now().await;
                    }
                    asked.abort();
                    if let Ok(Ok(got)) = asked.await {
                        assert_eq!(held.insert(got.ip(), who), None, "{got} twice");
                    }
                }
                _ => match nodes[who].take(n).await {
                    Ok(ip) => assert_eq!(held.insert(ip, who), None, "{ip} twice"),
                    Err(error) => assert!(!matches!(error, IpamError::Invalid(_)), "{error}"),
                },
            }
        }
        for node in &nodes {
            node.ipam.keep().await.unwrap();
        }
        // All that is in use anywhere, and what is still to be had, is the whole pool.
        for n in 1000..1100 {
            match nodes[n as usize % 3].take(n).await {
                Ok(ip) => assert_eq!(held.insert(ip, 9), None, "{ip} twice"),
                Err(IpamError::Exhausted(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let mut in_use = BTreeSet::new();
        for node in &nodes {
            for view in node.ipam.addresses(subnet(SUBNET)).await.unwrap() {
                if matches!(view.kind, AddressKind::Endpoint | AddressKind::InDoubt) {
                    assert!(in_use.insert(view.ip), "{} is in two journals", view.ip);
                }
            }
        }
        assert_eq!(in_use.len(), 61);
        assert!(held.keys().all(|ip| in_use.contains(ip)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_stops_no_host_that_owns_addresses() {
    let nodes = joined(&["h1", "h2"], "10.9.0.0/20").await;
    for node in &nodes {
        node.take(1).await.unwrap();
        node.ipam.keep().await.unwrap();
    }
    let store = nodes[0].host.store.clone();
    store.go_away();
    for node in &nodes {
        // The reserve.
        for n in 0..63 {
            node.take(n).await.unwrap();
        }
    }
    let mut error = None;
    for n in 0..2000 {
        if let Err(found) = nodes[0].take(n).await {
            error = Some(found);
            break;
        }
    }
    let error = error.unwrap();
    assert!(matches!(error, IpamError::Unavailable { .. }), "{error}");
    store.come_back();
    nodes[0].take(3000).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn hosts_that_ask_each_other_at_once_all_get_an_answer() {
    let nodes = joined(&HOSTS, SUBNET).await;
    let mut tasks = Vec::new();
    for n in 0..75u32 {
        let node = &nodes[n as usize % 3];
        let (ipam, request) = (std::sync::Arc::clone(&node.ipam), any(node.pool(), mac(n)));
        tasks.push(tokio::spawn(
            async move { ipam.request_address(request).await },
        ));
    }
    let mut taken = BTreeSet::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(got) => assert!(taken.insert(got.ip()), "{got} was handed out twice"),
            Err(error) => assert!(
                matches!(
                    error,
                    IpamError::Exhausted(_) | IpamError::Unavailable { .. }
                ),
                "{error}"
            ),
        }
    }
    for n in 100..200 {
        match nodes[n as usize % 3].take(n).await {
            Ok(ip) => assert!(taken.insert(ip), "{ip} was handed out twice"),
            Err(IpamError::Exhausted(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(taken.len(), 61);
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_came_too_late_is_found() {
    let nodes = joined(&["h1", "h2"], "10.9.0.0/28").await;
    // h1 has all 13 of them; half come back.
    let mut taken = Vec::new();
    for n in 0..13 {
        taken.push(nodes[0].take(n).await.unwrap());
    }
    for ip in taken.drain(..6) {
        nodes[0].give(ip).await;
    }
    // The asker is gone before it is answered.
    let request = this(nodes[1].pool(), ip("10.9.0.2"), Some(mac(50)));
    let ipam = std::sync::Arc::clone(&nodes[1].ipam);
    nodes[0].attend(false);
    let asked = tokio::spawn(async move { ipam.request_address(request).await });
    while nodes[0]
        .host
        .store
        .values()
        .iter()
        .all(|(key, _)| !key.starts_with("wants/"))
    {
        tokio::task::yield_now().await;
    }
    asked.abort();
    nodes[0].attend(true);
    nodes[0].ipam.on_change().await.unwrap();
    nodes[0].attend(false);
    // h1 is silent now, and yet h2 gets what it was offered.
    assert_eq!(nodes[1].take(60).await.unwrap(), ip("10.9.0.2"));
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_costs_no_more_than_a_second() {
    let nodes = joined(&HOSTS, SUBNET).await;
    assert_eq!(fill(&nodes).await.len(), 61);
    let begun = tokio::time::Instant::now();
    let error = nodes[1].take(999).await.unwrap_err();
    assert!(matches!(error, IpamError::Exhausted(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(1));
}
