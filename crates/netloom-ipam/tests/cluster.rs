//! Several hosts share one pool through one store.
#![allow(
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use common::group::{HOSTS, Node, at_once, group, joined};
use common::machine::{Machine, initialised, network, pass, take};
use common::{Random, gateway, ip, mac, pool_request, subnet, this};
use netloom_core::{
    Evidence, FindingKind, Ipam, IpamAdmin, IpamError, Reservation, ReservedFor, WantedPool,
};
use netloom_types::InterfaceAddr;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// A pool of 101 addresses: 126 without the gateway and 24 others.
async fn pool_of_101() -> Vec<Node> {
    let nodes = joined(&HOSTS, "192.168.0.0/25").await;
    for last in 2..26 {
        let node = &nodes[last % nodes.len()];
        let request = this(node.pool(), ip(&format!("192.168.0.{last}")), None);
        node.ipam.request_address(request).await.unwrap();
    }
    nodes
}

#[tokio::test(start_paused = true)]
async fn the_gateway_is_the_same_everywhere() {
    let nodes = joined(&HOSTS, "10.9.0.0/16").await;
    for node in &nodes {
        let got = node.ipam.request_address(gateway(node.pool())).await;
        assert_eq!(got.unwrap().to_string(), "10.9.0.1/16");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hosts_own_reference_is_told_from_the_others() {
    let mut nodes = joined(&HOSTS, "10.9.0.0/24").await;
    for node in &mut nodes {
        // It reads what came after it.
        node.reopen().await;
        let view = node.ipam.pools().await.remove(0);
        assert_eq!(view.references.len(), 3);
        assert_eq!(view.own, [node.pool().clone()]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_full_only_when_every_address_is_in_use() {
    for seed in 0..6 {
        let nodes = pool_of_101().await;
        let mut random = Random(seed);
        let mut taken = BTreeSet::new();
        for n in 0..101 {
            // From all alike, mostly from one, or from one alone.
            let who = match seed % 3 {
                0 => random.below(3),
                1 => usize::from(random.below(10) == 0),
                _ => 2,
            };
            let got = nodes[who].take(n).await.unwrap();
            assert!(taken.insert(got), "{got} was handed out twice");
        }
        for node in &nodes {
            let begun = tokio::time::Instant::now();
            let error = node.take(1000).await.unwrap_err();
            assert!(matches!(error, IpamError::Exhausted(_)), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(1));
        }
        // What one gives back, any of them gets.
        let back = *taken.iter().next().unwrap();
        for node in &nodes {
            let holder = nodes.iter().find(|n| holds(n, back)).unwrap();
            holder.give(back).await;
            assert_eq!(node.take(2000).await.unwrap(), back);
        }
    }
}

fn holds(node: &Node, ip: IpAddr) -> bool {
    let all = at_once(node.ipam.addresses(subnet("192.168.0.0/25"))).unwrap();
    all.iter()
        .any(|view| view.ip == ip && view.kind != netloom_core::AddressKind::Auxiliary)
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_does_not_answer_is_named() {
    let nodes = joined(&["h1", "h2"], "10.9.0.0/28").await;
    for n in 0..5 {
        nodes[1].take(n).await.unwrap();
    }
    nodes[1].attend(false);
    let mut last = None;
    for n in 0..20 {
        if let Err(error) = nodes[0].take(n).await {
            last = Some(error);
            break;
        }
    }
    let error = last.unwrap();
    assert!(matches!(error, IpamError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("h2"), "{error}");
    // It is back, and gives what it has.
    nodes[1].attend(true);
    nodes[0].take(99).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_address_is_had_by_name_from_any_host() {
    let nodes = joined(&["h1", "h2"], "10.9.0.0/24").await;
    let got = nodes[0].take(1).await.unwrap();
    // In use at h1: h2 is told by whom.
    let request = this(nodes[1].pool(), got, Some(mac(2)));
    let error = nodes[1].ipam.request_address(request.clone()).await;
    let error = error.unwrap_err();
    assert!(matches!(error, IpamError::InUse(_)), "{error}");
    assert!(error.to_string().contains("h1"), "{error}");
    // Free at h1: h2 gets it.
    nodes[0].give(got).await;
    let had = nodes[1].ipam.request_address(request).await.unwrap();
    assert_eq!(had.ip(), got);
    // Reserved at h2, asked for by h1.
    let kept = ip("10.9.0.77");
    let holder = ReservedFor::Name("db".to_owned());
    let reservation = Reservation { ip: kept, holder };
    nodes[1].ipam.reserve(reservation).await.unwrap();
    let request = this(nodes[0].pool(), kept, Some(mac(3)));
    let error = nodes[0].ipam.request_address(request).await.unwrap_err();
    assert!(error.to_string().contains("db"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_auxiliary_address_is_kept_from_all() {
    let nodes = joined(&["h1", "h2"], "10.9.0.0/28").await;
    let first = nodes[0].take(1).await.unwrap();
    nodes[0].give(first).await;
    // It lies in what h1 owns.
    let request = this(nodes[1].pool(), first, None);
    nodes[1].ipam.request_address(request).await.unwrap();
    let mut taken = BTreeSet::new();
    for n in 0.. {
        match nodes[n % 2].take(n as u32).await {
            Ok(ip) => assert!(taken.insert(ip)),
            Err(error) => {
                assert!(matches!(error, IpamError::Exhausted(_)), "{error}");
                break;
            }
        }
    }
    assert_eq!(taken.len(), 12);
    assert!(!taken.contains(&first));
}

/// A host gives back in another's name, and a container's address where there is none.
#[tokio::test(start_paused = true)]
async fn a_network_keeps_what_somebody_else_gives_back() {
    let mut nodes = joined(&["h1", "h2"], "10.9.0.0/28").await;
    let (kept, theirs) = (ip("10.9.0.9"), nodes[1].pool().clone());
    let request = this(&theirs, kept, None);
    nodes[1].ipam.request_address(request).await.unwrap();
    // It reads what came after it.
    nodes[0].reopen().await;
    for ip in [kept, ip("10.9.0.1")] {
        let of_another = nodes[0].ipam.release_address(&theirs, ip);
        of_another.await.unwrap();
        let of_none = nodes[1].ipam.release_endpoint(&theirs, ip);
        of_none.await.unwrap();
    }
    let mut taken = BTreeSet::new();
    for node in &nodes {
        while let Ok(ip) = node.take(taken.len() as u32).await {
            assert!(taken.insert(ip));
        }
    }
    assert_eq!(taken.len(), 12);
    assert!(!taken.contains(&kept) && !taken.contains(&ip("10.9.0.1")));
    let (endpoint, own) = (*taken.first().unwrap(), nodes[0].pool());
    nodes[0].ipam.release_endpoint(own, endpoint).await.unwrap();
    assert_eq!(nodes[0].take(100).await.unwrap(), endpoint);
}

#[tokio::test(start_paused = true)]
async fn a_range_confines_hand_out_on_every_host() {
    let mut nodes = group(&["h1", "h2"]).await;
    let range = Some(subnet("10.9.0.64/28"));
    let wanted = WantedPool::Exact {
        subnet: subnet("10.9.0.0/24"),
        range,
    };
    for node in &mut nodes {
        let grant = node.ipam.request_pool(pool_request(wanted.clone())).await;
        node.pool = Some(grant.unwrap().id);
    }
    let mut taken = BTreeSet::new();
    for n in 0..16 {
        taken.insert(nodes[n % 2].take(n as u32).await.unwrap());
    }
    let all = (64..80).map(|last| ip(&format!("10.9.0.{last}")));
    assert_eq!(taken, all.collect());
    let error = nodes[0].take(99).await.unwrap_err();
    assert!(matches!(error, IpamError::Exhausted(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn cool_down_order_holds_across_hosts() {
    let nodes = joined(&["h1", "h2"], "10.9.0.0/28").await;
    let mut taken = Vec::new();
    for n in 0..13 {
        taken.push(nodes[0].take(n).await.unwrap());
    }
    // All are in use once; they come back one by one, a second apart.
    for address in &taken {
        nodes[0].host.clock.advance(Duration::from_secs(1));
        nodes[0].give(*address).await;
    }
    // h2 gets a half of them, those that were idle longest.
    for expected in &taken[..3] {
        assert_eq!(nodes[1].take(50).await.unwrap(), *expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_host_does_not_need_comes_back() {
    let nodes = joined(&["h1", "h2"], "10.9.0.0/20").await;
    let mut taken = Vec::new();
    for n in 0..3000 {
        taken.push(nodes[0].take(n).await.unwrap());
    }
    for address in taken {
        nodes[0].give(address).await;
    }
    for _ in 0..4 {
        nodes[0].ipam.keep().await.unwrap();
    }
    // h1 is silent now: h2 gets what it returned without it.
    nodes[0].attend(false);
    for n in 0..2500 {
        nodes[1].take(n).await.unwrap();
    }
}

/// What the engine has on record of endpoints with these addresses.
fn recorded<const N: usize>(ips: [IpAddr; N]) -> Evidence {
    let address = |ip| (InterfaceAddr::new(ip, 24).unwrap(), Some(mac(1)));
    Evidence {
        recorded: ips.map(address).to_vec(),
        ..Evidence::default()
    }
}

const GRACE: Duration = Duration::from_secs(60);

/// Docker gives the addresses of a network of which we are the driver alone; its subnet is that of another host's
/// pool.
#[tokio::test(start_paused = true)]
async fn an_address_in_a_pool_that_only_others_use_is_not_ours() {
    let store = initialised().await;
    let (first, second) = (Machine::new("h1", &store), Machine::new("h2", &store));
    let (one, two) = (first.start().await, second.start().await);
    let theirs = network(&one, "10.9.0.0/24").await.id;
    pass(60).await;
    assert_eq!(two.pools().await.len(), 1);
    let docker = ip("10.9.0.77");
    two.confirm(docker, Some(mac(1))).await.unwrap();
    for _ in 0..3 {
        assert_eq!(two.repair(&recorded([docker])).await.unwrap(), []);
        second.host.clock.advance(GRACE);
    }
    let all: BTreeSet<_> = [docker].into();
    let mut given = BTreeSet::new();
    for n in 0..253 {
        given.insert(take(&one, &theirs, n).await.unwrap());
    }
    assert!(given.is_superset(&all));
}

/// The store is away, without which an address that is in use cannot be taken in.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_mended_hides_nothing_of_what_was_found() {
    let store = initialised().await;
    let first = Machine::new("h1", &store);
    let one = first.start().await;
    let two = Machine::new("h2", &store).start().await;
    let pool = network(&one, "10.9.0.0/24").await.id;
    let theirs = network(&two, "10.9.0.0/24").await.id;
    let (ours, foreign) = (
        take(&one, &pool, 1).await.unwrap(),
        take(&two, &theirs, 2).await.unwrap(),
    );
    one.confirm(ours, Some(mac(1))).await.unwrap();
    store.go_away();
    let evidence = recorded([ours, ours, foreign]);
    for round in 0..3 {
        let found = one.repair(&evidence).await.unwrap();
        let told = |kind| found.iter().filter(|finding| finding.kind == kind).count();
        assert_eq!(told(FindingKind::DuplicateAddress), 1, "round {round}");
        assert_eq!(told(FindingKind::StrayAddress), 1, "round {round}");
        first.host.clock.advance(GRACE);
    }
}
