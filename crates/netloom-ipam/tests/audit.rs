//! Journal, runtime, engine and kernel compared: what is found, what is settled, what is mended,
//! and what is left alone.
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print their seed"
)]

mod common;

use common::{Host, any, exact, gateway, ip, mac, network, subnet, this};
use netloom_core::{
    AddressKind, Addresses, Evidence, Finding, FindingKind, Ipam, IpamAdmin, Provider, Repair,
    RuntimeEndpoint, RuntimeNetwork,
};
use netloom_ipam::AddressManager;
use netloom_types::{EndpointId, InterfaceAddr, NetworkId, PoolId};
use std::net::IpAddr;
use std::time::Duration;

const SUBNET: &str = "10.9.0.0/24";
const GRACE: Duration = Duration::from_secs(40);

fn docker(endpoints: Vec<RuntimeEndpoint>) -> RuntimeNetwork {
    RuntimeNetwork {
        id: NetworkId::new("n1").unwrap(),
        name: "blue".to_owned(),
        driver: Provider::Other,
        ipam: Provider::Ours,
        subnets: vec![(subnet(SUBNET), Some(ip("10.9.0.1")))],
        auxiliary: Vec::new(),
        endpoints,
    }
}

fn container(name: &str, address: IpAddr, id: Option<&str>) -> RuntimeEndpoint {
    RuntimeEndpoint {
        id: id.map(|id| EndpointId::new(id).unwrap()),
        container: format!("{name}-id"),
        name: name.to_owned(),
        addresses: Addresses {
            ipv4: Some(InterfaceAddr::new(address, 24).unwrap()),
            ipv6: None,
        },
        mac: None,
    }
}

fn shows(endpoints: Vec<RuntimeEndpoint>) -> Evidence {
    Evidence {
        runtime: Some(vec![docker(endpoints)]),
        ..Evidence::default()
    }
}

fn kinds(findings: &[Finding]) -> Vec<(FindingKind, &str, Repair)> {
    let short = |f: &Finding| f.kind;
    findings
        .iter()
        .map(|f| (short(f), f.subject.as_str(), f.repair))
        .collect()
}

async fn kind_of(ipam: &AddressManager, address: IpAddr) -> Option<AddressKind> {
    let views = ipam.addresses(subnet(SUBNET)).await.unwrap();
    views.iter().find(|v| v.ip == address).map(|v| v.kind)
}

async fn started(host: &Host) -> (AddressManager, PoolId, IpAddr) {
    let ipam = host.start().await;
    let pool = network(&ipam, SUBNET).await.id;
    let got = ipam.request_address(any(&pool, mac(1))).await.unwrap().ip();
    (ipam, pool, got)
}

#[tokio::test]
async fn an_address_in_doubt_is_settled_after_the_window_and_two_sightings_never_before() {
    let host = Host::new(1);
    let (ipam, _, got) = started(&host).await;
    host.clock.advance(Duration::from_secs(3600));
    // The first sighting, however old the request is.
    assert_eq!(ipam.repair(&shows(vec![])).await.unwrap().len(), 1);
    assert_eq!(kind_of(&ipam, got).await, Some(AddressKind::InDoubt));
    host.clock.advance(GRACE - Duration::from_millis(1));
    ipam.audit(&shows(vec![])).await;
    assert_eq!(kind_of(&ipam, got).await, Some(AddressKind::InDoubt));
    host.clock.advance(Duration::from_millis(1));
    assert_eq!(ipam.audit(&shows(vec![])).await, []);
    assert_eq!(kind_of(&ipam, got).await, None);
}

#[tokio::test]
async fn an_address_in_doubt_that_shows_up_once_starts_over() {
    let host = Host::new(1);
    let (ipam, _, got) = started(&host).await;
    ipam.audit(&shows(vec![])).await;
    host.clock.advance(GRACE);
    let with = shows(vec![container("web", got, Some("e1"))]);
    assert_eq!(ipam.audit(&with).await, []);
    assert_eq!(kind_of(&ipam, got).await, Some(AddressKind::Endpoint));
    host.clock.advance(GRACE);
    let findings = ipam.audit(&shows(vec![])).await;
    let expected = [(FindingKind::StrayAddress, "10.9.0.2", Repair::ByRepair)];
    assert_eq!(kinds(&findings), expected);
}

#[tokio::test]
async fn without_the_runtimes_word_nothing_is_settled() {
    let host = Host::new(1);
    let (ipam, _, got) = started(&host).await;
    for _ in 0..5 {
        host.clock.advance(GRACE);
        assert_eq!(ipam.repair(&Evidence::default()).await.unwrap(), []);
    }
    assert_eq!(kind_of(&ipam, got).await, Some(AddressKind::InDoubt));
}

#[tokio::test]
async fn any_one_of_the_sources_keeps_an_address() {
    for source in 0..3 {
        let host = Host::new(1);
        let (ipam, _, got) = started(&host).await;
        ipam.confirm(got, Some(mac(1))).await.unwrap();
        let mut evidence = shows(vec![]);
        let address = InterfaceAddr::new(got, 24).unwrap();
        match source {
            0 => evidence = shows(vec![container("web", got, Some("e1"))]),
            1 => evidence.recorded.push((address, Some(mac(1)))),
            _ => evidence.kernel.push(got),
        }
        for _ in 0..3 {
            assert_eq!(ipam.repair(&evidence).await.unwrap(), [], "source {source}");
            host.clock.advance(GRACE);
        }
        assert!(kind_of(&ipam, got).await.is_some(), "source {source}");
    }
}

#[tokio::test]
async fn a_stray_address_is_named_at_once_and_mended_at_the_second_sighting() {
    let host = Host::new(1);
    let (ipam, pool, got) = started(&host).await;
    ipam.confirm(got, Some(mac(1))).await.unwrap();
    host.clock.advance(Duration::from_secs(5));
    let nothing = shows(vec![]);
    let expected = [(FindingKind::StrayAddress, "10.9.0.2", Repair::ByRepair)];
    assert_eq!(kinds(&ipam.audit(&nothing).await), expected);
    assert_eq!(kinds(&ipam.repair(&nothing).await.unwrap()), expected);
    host.clock.advance(GRACE);
    assert_eq!(kinds(&ipam.audit(&nothing).await), expected);
    let mended = [(FindingKind::StrayAddress, "10.9.0.2", Repair::Done)];
    assert_eq!(kinds(&ipam.repair(&nothing).await.unwrap()), mended);
    assert_eq!(ipam.audit(&nothing).await, []);
    ipam.request_address(this(&pool, got, Some(mac(2))))
        .await
        .unwrap();
}

#[tokio::test]
async fn calico_8_a_released_and_taken_address_is_another_use() {
    let host = Host::new(1);
    let (ipam, pool, got) = started(&host).await;
    ipam.audit(&shows(vec![])).await;
    ipam.release_address(&pool, got).await.unwrap();
    ipam.request_address(this(&pool, got, Some(mac(2))))
        .await
        .unwrap();
    host.clock.advance(GRACE);
    ipam.repair(&shows(vec![])).await.unwrap();
    assert_eq!(kind_of(&ipam, got).await, Some(AddressKind::InDoubt));
}

#[tokio::test]
async fn an_address_that_nobody_handed_out_is_named_and_taken_out_of_use() {
    let host = Host::new(1);
    let (ipam, pool, got) = started(&host).await;
    let stranger = ip("10.9.0.3");
    let mut evidence = shows(vec![container("web", got, Some("e1"))]);
    evidence.kernel = vec![stranger, ip("10.9.0.1"), ip("192.0.2.1")];
    let expected = [(FindingKind::StrayAddress, "10.9.0.3", Repair::ByRepair)];
    assert_eq!(kinds(&ipam.audit(&evidence).await), expected);
    host.clock.advance(GRACE);
    let mended = [(FindingKind::StrayAddress, "10.9.0.3", Repair::Done)];
    assert_eq!(kinds(&ipam.repair(&evidence).await.unwrap()), mended);
    assert_eq!(ipam.audit(&evidence).await, []);
    let next = ipam.request_address(any(&pool, mac(2))).await.unwrap();
    assert_eq!(next.ip(), ip("10.9.0.4"));
}

#[tokio::test]
async fn an_address_that_just_came_back_is_no_finding() {
    let host = Host::new(1);
    let (ipam, pool, got) = started(&host).await;
    let before = shows(vec![container("web", got, Some("e1"))]);
    ipam.audit(&before).await;
    ipam.release_address(&pool, got).await.unwrap();
    // The list was read before the release.
    assert_eq!(ipam.audit(&before).await, []);
}

#[tokio::test]
async fn two_users_of_one_address_are_named_and_left_to_a_person() {
    let host = Host::new(1);
    let (ipam, _, got) = started(&host).await;
    let both = shows(vec![
        container("one", got, Some("e1")),
        container("two", got, Some("e2")),
    ]);
    for _ in 0..3 {
        let findings = ipam.repair(&both).await.unwrap();
        let expected = [(FindingKind::DuplicateAddress, "10.9.0.2", Repair::ByHand)];
        assert_eq!(kinds(&findings), expected);
        assert!(findings[0].detail.contains("one") && findings[0].detail.contains("two"));
        host.clock.advance(GRACE);
    }
}

#[tokio::test]
async fn a_lost_release_of_a_pool_is_found_and_mended() {
    let host = Host::new(1);
    let (ipam, pool, _) = started(&host).await;
    let none = Evidence {
        runtime: Some(Vec::new()),
        ..Evidence::default()
    };
    host.clock.advance(GRACE);
    let findings = ipam.audit(&none).await;
    let stray = [(FindingKind::StrayPool, pool.as_str(), Repair::ByRepair)];
    assert_eq!(kinds(&findings), stray);
    host.clock.advance(GRACE);
    ipam.repair(&none).await.unwrap();
    assert!(ipam.pools().await.is_empty());
    assert_eq!(ipam.audit(&none).await, []);
}

#[tokio::test]
async fn an_answer_about_a_pool_that_never_arrived_is_forgotten_by_itself() {
    let host = Host::new(1);
    let ipam = host.start().await;
    let lost = ipam.request_pool(exact(SUBNET)).await.unwrap();
    let used = ipam.request_pool(exact(SUBNET)).await.unwrap();
    ipam.request_address(gateway(&used.id)).await.unwrap();
    ipam.audit(&shows(vec![])).await;
    host.clock.advance(GRACE);
    ipam.audit(&shows(vec![])).await;
    let pools = ipam.pools().await;
    assert_eq!(pools[0].references, [used.id]);
    assert!(ipam.request_address(gateway(&lost.id)).await.is_err());
}

#[tokio::test]
async fn a_network_that_nobody_here_knows_is_named() {
    let host = Host::new(1);
    let ipam = host.start().await;
    let findings = ipam.audit(&shows(vec![])).await;
    assert_eq!(
        kinds(&findings),
        [(FindingKind::StrayPool, "blue", Repair::ByHand)]
    );
}

#[tokio::test]
async fn errors_name_the_network_once_the_runtime_told_it() {
    let host = Host::new(1);
    let (ipam, _, got) = started(&host).await;
    ipam.audit(&shows(vec![container("web", got, Some("e1"))]))
        .await;
    let error = ipam.request_pool(exact(SUBNET)).await.unwrap_err();
    assert!(error.to_string().contains("network blue"), "{error}");
}

#[tokio::test]
async fn a_named_address_whose_answer_died_with_the_process_is_given_again() {
    let host = Host::new(1);
    let ipam = host.start().await;
    let pool = network(&ipam, SUBNET).await.id;
    let five = ip("10.9.0.5");
    ipam.request_address(this(&pool, five, Some(mac(1))))
        .await
        .unwrap();
    drop(ipam);
    let ipam = host.start().await;
    let again = this(&pool, five, Some(mac(2)));
    let error = ipam.request_address(again.clone()).await.unwrap_err();
    assert!(error.to_string().contains("not settled yet"), "{error}");
    ipam.audit(&shows(vec![])).await;
    ipam.request_address(again).await.unwrap();
    // Should the first one have the answer after all, it is the one to be refused.
    assert!(ipam.confirm(five, Some(mac(1))).await.is_err());
    ipam.confirm(five, Some(mac(2))).await.unwrap();
}

#[tokio::test]
async fn a_pin_of_a_stopped_container_is_no_use_of_the_address() {
    for confirmed in [false, true] {
        let host = Host::new(1);
        let (ipam, pool, got) = started(&host).await;
        if confirmed {
            ipam.confirm(got, Some(mac(1))).await.unwrap();
        }
        // Its release was lost; Docker shows what the container will ask for at its next start.
        let stopped = shows(vec![container("web", got, None)]);
        for _ in 0..3 {
            ipam.repair(&stopped).await.unwrap();
            host.clock.advance(GRACE);
        }
        let again = ipam.request_address(this(&pool, got, Some(mac(2))));
        assert!(again.await.is_ok(), "confirmed: {confirmed}");
    }
}

#[tokio::test]
async fn an_endpoint_that_comes_after_its_address_was_settled_is_refused() {
    let host = Host::new(1);
    let (ipam, _, got) = started(&host).await;
    // dockerd stood still between two calls, and the machine's clocks did not.
    ipam.repair(&shows(vec![])).await.unwrap();
    host.clock.advance(GRACE);
    ipam.repair(&shows(vec![])).await.unwrap();
    assert_eq!(kind_of(&ipam, got).await, None);
    let error = ipam.confirm(got, Some(mac(1))).await.unwrap_err();
    assert!(error.to_string().contains("again"), "{error}");
}

#[tokio::test]
async fn the_roll_back_of_a_refused_endpoint_frees_nobody_elses_address() {
    let host = Host::new(1);
    let ipam = host.start().await;
    let pool = network(&ipam, SUBNET).await.id;
    let five = ip("10.9.0.5");
    let asks = |n| ipam_request(&pool, five, n);
    ipam.request_address(asks(1)).await.unwrap();
    drop(ipam);
    let ipam = host.start().await;
    ipam.audit(&shows(vec![])).await;
    ipam.request_address(asks(2)).await.unwrap();
    ipam.confirm(five, Some(mac(2))).await.unwrap();
    // The first one had the answer after all: it is refused, and dockerd takes it back.
    assert!(ipam.confirm(five, Some(mac(1))).await.is_err());
    ipam.release_address(&pool, five).await.unwrap();
    assert_eq!(kind_of(&ipam, five).await, Some(AddressKind::Endpoint));
    // The next release is the holder's own.
    ipam.release_address(&pool, five).await.unwrap();
    assert_eq!(kind_of(&ipam, five).await, None);
}

#[tokio::test]
async fn of_references_that_nobody_used_none_is_dropped_while_one_may_be_a_networks() {
    let host = Host::new(1);
    let ipam = host.start().await;
    // A network without a gateway, whose first request's answer was lost.
    let pools = [
        ipam.request_pool(exact(SUBNET)).await.unwrap().id,
        ipam.request_pool(exact(SUBNET)).await.unwrap().id,
    ];
    for _ in 0..3 {
        ipam.repair(&shows(vec![])).await.unwrap();
        host.clock.advance(GRACE);
    }
    // Whichever of them the network has, its first container starts, and then the other goes.
    ipam.request_address(any(&pools[1], mac(1))).await.unwrap();
    for _ in 0..2 {
        ipam.repair(&shows(vec![])).await.unwrap();
        host.clock.advance(GRACE);
    }
    assert_eq!(ipam.pools().await[0].references, pools[1..]);
}

fn ipam_request(pool: &PoolId, address: IpAddr, n: u32) -> netloom_core::AddressRequest {
    this(pool, address, Some(mac(n)))
}
