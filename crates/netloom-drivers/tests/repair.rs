//! Faults planted by hand: the audit names exactly them, and the reconciler mends them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail their test"
)]

mod common;

use common::{Container, Host, Namespace, binding, name, network_spec, on_a_host};
use netloom_core::{Driver, FindingKind as Kind, Repair};
use netloom_linux::{
    BridgeSpec, Element, HostAddress, Kernel, KernelStep, LinkAlias, PortMap, RouteSpec, SysctlKey,
};
use netloom_types::{Family, Protocol};

const BRIDGE: &str = "nl-a1a1a1a1a1a1";
const LINK: &str = "nlve1e1e1e1e1";

/// A network of two containers, one with a published port.
fn populated(host: &mut Host) -> (Container, Container) {
    let network = host.network("a1", &["10.9.0.0/24", "fd00:9::/64"], &[]);
    let mut one = host.container(&network, "e1", &["10.9.0.2/24", "fd00:9::2/64"]);
    let two = host.container(&network, "e2", &["10.9.0.3/24", "fd00:9::3/64"]);
    one.ns.udp_server(7);
    host.publish(&mut one, &[binding(Protocol::Udp, 5300, 7)]);
    (one, two)
}

/// Plants a fault; it must be named once and alone, mended, and traffic must flow again.
fn planted(plant: impl FnOnce(&mut Host) + Send + 'static, kind: Kind, subject: &'static str) {
    on_a_host(move |host| {
        let outside = host.outside();
        let (one, two) = populated(host);
        host.assert_clean();
        plant(host);
        let found = host.audit();
        let seen: Vec<_> = found.iter().map(|f| (f.kind, f.subject.as_str())).collect();
        assert_eq!(seen, [(kind, subject)], "{found:#?}");
        assert_eq!(found[0].repair, Repair::ByRepair);
        let mended = host.reconcile();
        assert_eq!(mended.len(), 1, "{mended:#?}");
        assert_eq!(mended[0].repair, Repair::Done, "{mended:#?}");
        host.assert_clean();
        assert!(two.ns.udp("10.9.0.2", 7).is_some());
        assert!(two.ns.udp("fd00:9::2", 7).is_some());
        assert!(outside.udp("198.51.100.1", 5300).is_some());
        drop(one);
    });
}

#[test]
fn a_table_that_someone_deleted() {
    let plant = |host: &mut Host| host.apply(KernelStep::RemoveTable);
    planted(plant, Kind::MissingRule, "inet netloom");
}

#[test]
fn a_bridge_that_someone_deleted() {
    let plant = |host: &mut Host| host.apply(KernelStep::DeleteLink { link: name(BRIDGE) });
    planted(plant, Kind::MissingBridge, BRIDGE);
}

#[test]
fn a_bridge_with_another_mtu() {
    let plant = |host: &mut Host| {
        host.apply(KernelStep::SetMtu {
            link: name(BRIDGE),
            mtu: 1400,
        });
    };
    planted(plant, Kind::WrongMtu, BRIDGE);
}

#[test]
fn a_link_with_another_mtu() {
    let plant = |host: &mut Host| {
        host.apply(KernelStep::SetMtu {
            link: name(LINK),
            mtu: 1400,
        });
    };
    planted(plant, Kind::WrongMtu, LINK);
}

#[test]
fn a_link_out_of_its_bridge() {
    let plant = |host: &mut Host| host.apply(KernelStep::ClearMaster { link: name(LINK) });
    planted(plant, Kind::WrongSetting, LINK);
}

#[test]
fn a_link_set_down() {
    let plant = |host: &mut Host| host.apply(KernelStep::SetDown { link: name(LINK) });
    planted(plant, Kind::WrongSetting, LINK);
}

#[test]
fn a_link_that_someone_deleted_while_its_container_lives() {
    let plant = |host: &mut Host| host.apply(KernelStep::DeleteLink { link: name(LINK) });
    planted(plant, Kind::MissingLink, LINK);
}

#[test]
fn a_gateway_address_that_someone_removed() {
    let plant = |host: &mut Host| {
        host.apply(KernelStep::DeleteAddress {
            link: name(BRIDGE),
            address: "10.9.0.1/24".parse().unwrap(),
        });
    };
    planted(plant, Kind::WrongSetting, BRIDGE);
}

#[test]
fn router_advertisements_accepted_on_a_bridge() {
    let plant = |host: &mut Host| {
        host.apply(KernelStep::SetSysctl {
            key: SysctlKey::AcceptRa(name(BRIDGE)),
            value: 2,
        });
    };
    planted(plant, Kind::WrongSetting, BRIDGE);
}

#[test]
fn forwarding_that_someone_turned_off() {
    let plant = |host: &mut Host| {
        host.apply(KernelStep::SetSysctl {
            key: SysctlKey::Ipv4Forward,
            value: 0,
        });
    };
    planted(plant, Kind::ForwardingOff, "net/ipv4/ip_forward");
}

#[test]
fn a_bridge_of_ours_that_no_record_knows() {
    let plant = |host: &mut Host| {
        host.apply(KernelStep::CreateBridge(BridgeSpec {
            name: name("nl-0123456789ab"),
            mac: None,
            mtu: None,
            alias: LinkAlias::new("netloom:0123456789ab").unwrap(),
        }));
    };
    planted(plant, Kind::StrayLink, "nl-0123456789ab");
}

#[test]
fn an_element_that_no_record_asks_for() {
    let plant = |host: &mut Host| {
        host.apply(KernelStep::AddElement(Element::Port(PortMap {
            host: HostAddress::Any(Family::V4),
            protocol: Protocol::Tcp,
            port: 9999,
            target: "10.9.0.77:80".parse().unwrap(),
        })));
    };
    planted(
        plant,
        Kind::StrayElement,
        "port 9999/tcp on every IPv4 address to 10.9.0.77:80",
    );
}

#[test]
fn an_element_that_someone_removed() {
    let plant = |host: &mut Host| {
        host.apply(KernelStep::DeleteElement(Element::Masquerade {
            subnet: "10.9.0.0/24".parse().unwrap(),
        }));
    };
    planted(plant, Kind::MissingElement, "masquerade of 10.9.0.0/24");
}

#[test]
fn what_others_change_is_told() {
    on_a_host(|host| {
        let (_one, _two) = populated(host);
        let monitor = host.kernel.monitor().unwrap();
        let vandal = netloom_linux::LinuxKernel::open().unwrap();
        vandal.apply(&KernelStep::RemoveTable).unwrap();
        let mut told = None;
        netloom_drivers::watch_kernel(monitor, |change| {
            told = told.or(change);
            match change {
                Some(_) => std::ops::ControlFlow::Break(()),
                None => std::ops::ControlFlow::Continue(()),
            }
        })
        .unwrap();
        assert_eq!(told, Some(netloom_linux::Change::Ruleset));
    });
}

#[test]
fn a_published_port_that_nobody_keeps() {
    on_a_host(|host| {
        let _containers = populated(host);
        host.keeper.forget();
        let found = host.kinds();
        assert_eq!(found, [Kind::UnreservedPort, Kind::UnreservedPort]);
        host.reconcile();
        host.assert_clean();
    });
}

#[test]
fn a_route_of_the_host_into_the_subnet_needs_a_person() {
    on_a_host(|host| {
        let _outside = host.outside();
        let _containers = populated(host);
        let route = RouteSpec {
            destination: "10.9.0.128/25".parse().unwrap(),
            gateway: None,
            link: name("wire0"),
            source: None,
            metric: 0,
        };
        host.apply(KernelStep::AddRoute(route));
        let found = host.audit();
        let [finding] = found.as_slice() else {
            panic!("{found:#?}");
        };
        assert_eq!(finding.kind, Kind::OverlappingRoute);
        assert_eq!(finding.repair, Repair::ByHand);
        // And a new network is not put there in the first place.
        let new = network_spec("c3", &["198.51.100.0/25"], &[]);
        let error = host.driver.validate_network(&new, &[]).unwrap_err();
        assert!(
            error.to_string().contains("198.51.100.0/24 by wire0"),
            "{error}"
        );
    });
}

#[test]
fn a_container_that_died_with_its_namespace_needs_a_person() {
    on_a_host(|host| {
        let (_one, _two) = populated(host);
        // The end of a namespace takes the pair with it, at a moment of the kernel's choice.
        host.apply(KernelStep::DeleteLink { link: name(LINK) });
        let gone = host.desired.endpoints.iter_mut().next().unwrap();
        gone.sandbox.as_mut().unwrap().netns = "/nonexistent".into();
        let found = host.reconcile();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].kind, Kind::MissingLink);
        assert_eq!(found[0].repair, Repair::ByHand);
    });
}

#[test]
fn everything_is_gone_after_a_reboot_and_comes_back() {
    on_a_host(|host| {
        let network = host.network("a1", &["10.9.0.0/24"], &[]);
        host.apply(KernelStep::RemoveTable);
        host.apply(KernelStep::DeleteLink { link: name(BRIDGE) });
        host.apply(KernelStep::SetSysctl {
            key: SysctlKey::Ipv4Forward,
            value: 0,
        });
        host.reconcile();
        host.assert_clean();
        let one = host.container(&network, "e1", &["10.9.0.2/24"]);
        one.ns.udp_server(7);
        let to = "10.9.0.2:7".parse().unwrap();
        assert!(common::udp(to).is_some());
    });
}

#[test]
fn a_bridge_that_the_operator_made_is_used_and_never_deleted() {
    on_a_host(|host| {
        host.apply(KernelStep::CreateBridge(BridgeSpec {
            name: name("lan0"),
            mac: None,
            mtu: None,
            alias: LinkAlias::new("mine").unwrap(),
        }));
        let named = [("netloom.bridge.name", "lan0")];
        let network = host.network("a1", &["10.9.0.0/24"], &named);
        let one = host.container(&network, "e1", &["10.9.0.2/24"]);
        one.ns.udp_server(7);
        assert!(common::udp("10.9.0.2:7".parse().unwrap()).is_some());
        host.assert_clean();
        host.leave(&one);
        host.delete(&network);
        host.assert_clean();
        let lan = host.kernel.link(&name("lan0")).unwrap().unwrap();
        assert_eq!(lan.alias.as_deref(), Some("mine"));
    });
}

#[test]
fn names_and_subnets_of_others_are_refused() {
    on_a_host(|host| {
        let _ns = Namespace::new();
        let first = host.network("a1", &["10.9.0.0/24"], &[]);
        let overlapping = network_spec("b2", &["10.9.0.0/16"], &[]);
        let error = host
            .driver
            .validate_network(&overlapping, std::slice::from_ref(&first))
            .unwrap_err();
        assert!(error.to_string().contains("a1a1a1a1a1a1"), "{error}");
        let same_bridge = network_spec("b2", &["10.8.0.0/24"], &[("netloom.bridge.name", BRIDGE)]);
        assert!(
            host.driver
                .validate_network(&same_bridge, std::slice::from_ref(&first))
                .is_err()
        );
        // The same network again is no conflict with itself.
        host.driver
            .validate_network(&first, std::slice::from_ref(&first))
            .unwrap();
        host.wait(host.driver.create_network(&first)).unwrap();
        host.assert_clean();
    });
}
