//! Beside dockerd's own chains and bridges, which a test makes as dockerd does.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail their test"
)]

mod common;

use common::{Host, Namespace, ip, name, on_a_host};
use netloom_core::{FindingKind, Repair};
use netloom_linux::{
    Direction, InterfaceSpec, Kernel, KernelStep, LinkAlias, Place, PortFlags, VethEnd, VethSpec,
};

/// What dockerd leaves in both families: forwarding is dropped but for what it accepts, and a
/// chain for others comes first.
const DOCKERS_RULES: &str = "
add table FAMILY filter
add chain FAMILY filter DOCKER-USER
add chain FAMILY filter FORWARD { type filter hook forward priority 0; policy drop; }
add rule FAMILY filter FORWARD counter jump DOCKER-USER
add rule FAMILY filter DOCKER-USER counter return
";

#[allow(
    clippy::disallowed_methods,
    reason = "rules of others are made by the program that others use"
)]
fn nft(rules: &str) {
    use std::io::Write;
    let mut nft = std::process::Command::new("nft")
        .args(["-f", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("the tests need the program nft");
    nft.stdin
        .take()
        .unwrap()
        .write_all(rules.as_bytes())
        .unwrap();
    assert!(nft.wait().unwrap().success(), "{rules}");
}

fn docker() {
    nft(&DOCKERS_RULES.replace("FAMILY", "ip"));
    nft(&DOCKERS_RULES.replace("FAMILY", "ip6"));
}

/// A bridge as dockerd makes it, with a container on it that answers on port 7.
#[allow(
    clippy::disallowed_methods,
    reason = "a bridge without a tag is made by the program that others use"
)]
fn dockers_container(host: &Host) -> Namespace {
    const BRIDGE: &str = "br-0123456789ab";
    let made = std::process::Command::new("ip")
        .args(["link", "add", BRIDGE, "type", "bridge"])
        .status()
        .expect("the tests need the program ip");
    assert!(made.success());
    host.apply(KernelStep::SetUp { link: name(BRIDGE) });
    host.apply(KernelStep::AddAddress {
        link: name(BRIDGE),
        address: "172.18.0.1/16".parse().unwrap(),
    });
    let ns = Namespace::new();
    let end = |text| VethEnd {
        name: name(text),
        mac: None,
    };
    host.apply(KernelStep::CreateVeth(VethSpec {
        host: end("veth0"),
        peer: end("eth0"),
        place: Place::Namespace(ns.path.clone()),
        master: Some(name(BRIDGE)),
        flags: PortFlags::default(),
        mtu: None,
        alias: LinkAlias::new("docker's").unwrap(),
    }));
    host.apply(KernelStep::ConfigureInterface(InterfaceSpec {
        namespace: ns.path.clone(),
        name: name("eth0"),
        rename: None,
        addresses: vec!["172.18.0.2/16".parse().unwrap()],
        routes: Vec::new(),
        sysctls: Vec::new(),
    }));
    ns.default_route("eth0", ip("172.18.0.1"));
    ns.udp_server(7);
    ns
}

#[test]
fn traffic_passes_dockers_drop_and_the_accept_comes_back_when_someone_flushed_it() {
    on_a_host(|host| {
        docker();
        let outside = host.outside();
        outside.udp_server(7);
        let network = host.network("a1", &["10.9.0.0/24", "fd00:9::/64"], &[]);
        let one = host.container(&network, "e1", &["10.9.0.2/24", "fd00:9::2/64"]);
        let passes = |to| one.ns.udp(to, 7).is_some();
        assert!(passes("198.51.100.2") && passes("2001:db8::2"));
        assert_eq!(host.kernel.forward_accepts().unwrap().len(), 4);
        host.assert_clean();

        nft("flush chain ip filter DOCKER-USER");
        let blocked = one.ns.udp_once("198.51.100.2", 7);
        assert_eq!(blocked, None, "Docker's drop is in force");
        let found = host.audit();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].kind, FindingKind::MissingRule);
        assert_eq!(found[0].subject, "nl-a1a1a1a1a1a1");
        assert_eq!(host.reconcile()[0].repair, Repair::Done);
        assert!(passes("198.51.100.2"));
        host.assert_clean();

        // Everything flushed, as a person or a restarted firewall does; then dockerd comes back.
        nft("flush ruleset");
        docker();
        host.reconcile();
        host.assert_clean();
        assert!(passes("198.51.100.2") && passes("2001:db8::2"));

        host.leave(&one);
        host.delete(&network);
        assert!(host.kernel.forward_accepts().unwrap().is_empty());
        host.assert_clean();
    });
}

#[test]
fn an_accept_for_a_bridge_without_a_network_is_stray() {
    on_a_host(|host| {
        docker();
        let _network = host.network("a1", &["10.9.0.0/24"], &[]);
        host.apply(KernelStep::AddForwardAccept {
            bridge: name("nl-gone"),
        });
        let found = host.audit();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].kind, FindingKind::StrayRule);
        assert_eq!(found[0].subject, "nl-gone");
        host.reconcile();
        host.assert_clean();
        let accepts = host.kernel.forward_accepts().unwrap();
        assert!(
            accepts
                .iter()
                .any(|accept| accept.direction == Direction::In)
        );
    });
}

#[test]
fn containers_of_docker_and_ours_do_not_meet() {
    on_a_host(|host| {
        // Without Docker's own walls: ours have to hold alone.
        let theirs = dockers_container(host);
        let network = host.network("a1", &["10.9.0.0/24"], &[]);
        let one = host.container(&network, "e1", &["10.9.0.2/24"]);
        one.ns.udp_server(7);
        assert_eq!(one.ns.udp_once("172.18.0.2", 7), None);
        assert_eq!(theirs.udp_once("10.9.0.2", 7), None);
        // The host reaches both.
        assert!(common::udp("172.18.0.2:7".parse().unwrap()).is_some());
        assert!(common::udp("10.9.0.2:7".parse().unwrap()).is_some());
        host.assert_clean();
    });
}
