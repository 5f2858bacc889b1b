//! What passes and what does not, on the real kernel.

mod common;

use common::{Namespace, TRIES, binding, endpoint_spec, ip, name, on_a_host, tcp};
use netloom_core::{DesiredEndpoint, Driver, GatewayService, InterfacePlacement, SandboxRef};
use netloom_linux::{InterfaceSpec, Kernel, KernelStep};
use netloom_types::Protocol;
use std::net::SocketAddr;

#[test]
fn two_containers_talk_and_nothing_stays_when_they_leave() {
    on_a_host(|host| {
        let network = host.network("a1", &["10.9.0.0/24", "fd00:9::/64"], &[]);
        let one = host.container(&network, "e1", &["10.9.0.2/24", "fd00:9::2/64"]);
        let two = host.container(&network, "e2", &["10.9.0.3/24", "fd00:9::3/64"]);
        two.ns.udp_server(7);
        assert_eq!(one.ns.udp("10.9.0.3", 7).as_deref(), Some("10.9.0.2"));
        assert_eq!(one.ns.udp("fd00:9::3", 7).as_deref(), Some("fd00:9::2"));
        assert_eq!(one.attachment.gateway_v4, Some("10.9.0.1".parse().unwrap()));
        assert_eq!(
            one.attachment.gateway_v6,
            Some("fd00:9::1".parse().unwrap())
        );
        host.assert_clean();

        host.leave(&one);
        host.leave(&two);
        host.assert_clean();
        host.delete(&network);
        host.assert_clean();
        let links = host.kernel.links().unwrap();
        assert!(links.iter().all(|link| link.name == "lo"), "{links:#?}");
        assert!(host.kernel.netloom_table().unwrap().elements.is_empty());
    });
}

#[test]
fn networks_are_walled_off_both_ways_and_through_gateways() {
    on_a_host(|host| {
        let red = host.network("a1", &["10.9.0.0/24", "fd00:9::/64"], &[]);
        let blue = host.network("b2", &["10.8.0.0/24", "fd00:8::/64"], &[]);
        let mut one = host.container(&red, "e1", &["10.9.0.2/24", "fd00:9::2/64"]);
        let two = host.container(&blue, "e2", &["10.8.0.2/24", "fd00:8::2/64"]);
        one.ns.udp_server(7);
        one.ns.tcp_server(80);
        two.ns.udp_server(7);
        for to in ["10.8.0.2", "fd00:8::2"] {
            assert_eq!(one.ns.udp_once(to, 7), None, "{to}");
        }
        for to in ["10.9.0.2", "fd00:9::2"] {
            assert_eq!(two.ns.udp_once(to, 7), None, "{to}");
        }
        // A service of the host is there on the own gateway, not on the other network's.
        std::thread::spawn(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:5353").unwrap();
            let mut buffer = [0; 8];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(b"host", from);
            }
        });
        host.publish(&mut one, &[binding(Protocol::Tcp, 8080, 80)]);
        assert_eq!(
            two.ns.tcp_once("10.8.0.1", 8080),
            None,
            "another network's port"
        );
        assert_eq!(two.ns.udp_once("10.9.0.1", 5353), None);
        host.assert_clean();
    });
}

#[test]
fn without_inter_container_traffic_only_the_host_is_reached() {
    on_a_host(|host| {
        let network = host.network("a1", &["10.9.0.0/24"], &[("netloom.icc", "off")]);
        let one = host.container(&network, "e1", &["10.9.0.2/24"]);
        let two = host.container(&network, "e2", &["10.9.0.3/24"]);
        two.ns.udp_server(7);
        assert_eq!(one.ns.udp_once("10.9.0.3", 7), None);
        // Not by way of the host either: a container with its own route to the other.
        one.ns.apply(KernelStep::AddRoute(netloom_linux::RouteSpec {
            destination: "10.9.0.3/32".parse().unwrap(),
            gateway: Some(netloom_linux::NextHop::Via(ip("10.9.0.1"))),
            link: name("eth0"),
            source: None,
            metric: 0,
        }));
        assert_eq!(one.ns.udp_once("10.9.0.3", 7), None);
        // The host reaches both.
        let to = SocketAddr::new(ip("10.9.0.3"), 7);
        assert_eq!(common::udp(to).as_deref(), Some("10.9.0.1"));
        host.assert_clean();
    });
}

#[test]
fn an_internal_network_has_no_way_out_or_in() {
    on_a_host(|host| {
        let outside = host.outside();
        outside.udp_server(7);
        let network = host.internal("a1", &["10.9.0.0/24"]);
        let one = host.container(&network, "e1", &["10.9.0.2/24"]);
        let two = host.container(&network, "e2", &["10.9.0.3/24"]);
        two.ns.udp_server(7);
        assert_eq!(one.attachment.gateway_v4, None);
        assert_eq!(one.attachment.gateway_service, GatewayService::Disabled);
        assert_eq!(one.ns.udp("10.9.0.3", 7).as_deref(), Some("10.9.0.2"));
        one.ns.default_route("eth0", ip("10.9.0.1"));
        assert_eq!(one.ns.udp_once("198.51.100.2", 7), None);
        assert_eq!(outside.udp_once("10.9.0.3", 7), None);
        host.assert_clean();
    });
}

#[test]
fn the_way_out_is_masqueraded_and_the_way_in_closed() {
    on_a_host(|host| {
        let outside = host.outside();
        outside.udp_server(7);
        let network = host.network("a1", &["10.9.0.0/24", "fd00:9::/64"], &[]);
        let one = host.container(&network, "e1", &["10.9.0.2/24", "fd00:9::2/64"]);
        one.ns.udp_server(7);
        assert_eq!(
            one.ns.udp("198.51.100.2", 7).as_deref(),
            Some("198.51.100.1")
        );
        assert_eq!(one.ns.udp("2001:db8::2", 7).as_deref(), Some("2001:db8::1"));
        assert_eq!(outside.udp_once("10.9.0.2", 7), None);
        assert_eq!(outside.udp_once("fd00:9::2", 7), None);
    });
}

#[test]
fn a_routed_network_shows_its_own_addresses_and_opens_only_published_ports() {
    on_a_host(|host| {
        let outside = host.outside();
        outside.udp_server(7);
        let routed = ("netloom.gateway_mode_ipv4", "routed");
        let network = host.network("a1", &["10.9.0.0/24"], &[routed]);
        let mut one = host.container(&network, "e1", &["10.9.0.2/24"]);
        one.ns.tcp_server(80);
        one.ns.tcp_server(81);
        assert_eq!(one.ns.udp("198.51.100.2", 7).as_deref(), Some("10.9.0.2"));
        host.publish(&mut one, &[binding(Protocol::Tcp, 8080, 80)]);
        assert_eq!(outside.tcp("10.9.0.2", 80).as_deref(), Some("198.51.100.2"));
        assert_eq!(outside.tcp_once("10.9.0.2", 81), None);
        host.assert_clean();
        host.revoke(&mut one);
        assert_eq!(outside.tcp_once("10.9.0.2", 80), None);
        host.assert_clean();
    });
}

#[test]
fn a_published_port_is_reached_from_outside_from_inside_and_from_the_host() {
    on_a_host(|host| {
        let outside = host.outside();
        let network = host.network("a1", &["10.9.0.0/24", "fd00:9::/64"], &[]);
        let mut one = host.container(&network, "e1", &["10.9.0.2/24", "fd00:9::2/64"]);
        let two = host.container(&network, "e2", &["10.9.0.3/24", "fd00:9::3/64"]);
        one.ns.tcp_server(80);
        one.ns.udp_server(53);
        let wanted = [
            binding(Protocol::Tcp, 8080, 80),
            binding(Protocol::Udp, 5300, 53),
        ];
        host.publish(&mut one, &wanted);
        assert_eq!(one.endpoint.ports.len(), 4, "two families each");
        assert_eq!(
            outside.tcp("198.51.100.1", 8080).as_deref(),
            Some("198.51.100.2")
        );
        assert_eq!(
            outside.tcp("2001:db8::1", 8080).as_deref(),
            Some("2001:db8::2")
        );
        assert_eq!(
            outside.udp("198.51.100.1", 5300).as_deref(),
            Some("198.51.100.2")
        );
        // Hairpin: from a neighbour, and from the container itself.
        assert!(two.ns.tcp("198.51.100.1", 8080).is_some());
        assert!(one.ns.tcp("198.51.100.1", 8080).is_some());
        // The same where the host routes what br_netfilter turned round on the bridge; again and
        // again, because a redirect by the host would spoil the next connection, and each with one
        // try, since another one might hide that.
        host.apply(KernelStep::SetSysctl {
            key: netloom_linux::SysctlKey::BridgeCallIptables,
            value: 0,
        });
        for turn in 0..4 {
            assert!(
                two.ns.tcp_once("198.51.100.1", 8080).is_some(),
                "turn {turn}"
            );
            assert!(
                one.ns.tcp_once("198.51.100.1", 8080).is_some(),
                "turn {turn}"
            );
        }
        // From the host to an address of its own.
        assert!(tcp("198.51.100.1:8080".parse().unwrap()).is_some());
        host.assert_clean();

        host.revoke(&mut one);
        assert_eq!(outside.tcp_once("198.51.100.1", 8080), None);
        assert_eq!(outside.udp_once("198.51.100.1", 5300), None);
        assert!(host.keeper.held().is_empty());
        host.assert_clean();
    });
}

#[test]
fn a_port_of_a_gone_container_leads_to_its_successor_at_once() {
    on_a_host(|host| {
        let outside = host.outside();
        let network = host.network("a1", &["10.9.0.0/24"], &[]);
        let mut one = host.container(&network, "e1", &["10.9.0.2/24"]);
        one.ns.udp_server(53);
        host.publish(&mut one, &[binding(Protocol::Udp, 5300, 53)]);
        // One client socket for the whole test: its flow must not stick to the first container.
        let (ask, answers) = outside.run(|| {
            let socket = std::net::UdpSocket::bind("198.51.100.2:4000").unwrap();
            let timeout = std::time::Duration::from_millis(400);
            socket.set_read_timeout(Some(timeout)).unwrap();
            (socket.try_clone().unwrap(), socket)
        });
        let question = |tries: usize| {
            let mut buffer = [0; 64];
            // An answer that came too late for the last question is none to this one.
            answers.set_nonblocking(true).unwrap();
            while answers.recv_from(&mut buffer).is_ok() {}
            answers.set_nonblocking(false).unwrap();
            (0..tries).any(|_| {
                ask.send_to(b"?", "198.51.100.1:5300").unwrap();
                answers.recv_from(&mut buffer).is_ok()
            })
        };
        assert!(question(TRIES));
        host.leave(&one);
        assert!(!question(1));
        let mut two = host.container(&network, "e2", &["10.9.0.3/24"]);
        two.ns.udp_server(53);
        host.publish(&mut two, &[binding(Protocol::Udp, 5300, 53)]);
        assert!(question(TRIES));
        host.assert_clean();
    });
}

#[test]
fn a_forged_source_does_not_pass() {
    on_a_host(|host| {
        let network = host.network("a1", &["10.9.0.0/24"], &[]);
        let one = host.container(&network, "e1", &["10.9.0.2/24"]);
        let two = host.container(&network, "e2", &["10.9.0.3/24"]);
        two.ns.run(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:7").unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 8];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(b"!", from);
                }
            });
        });
        one.ns.apply(KernelStep::AddAddress {
            link: name("eth0"),
            address: "10.9.0.99/24".parse().unwrap(),
        });
        let from_once = |source: &'static str| {
            one.ns.run(move || {
                let socket = std::net::UdpSocket::bind((source, 0)).unwrap();
                let timeout = std::time::Duration::from_millis(400);
                socket.set_read_timeout(Some(timeout)).unwrap();
                socket.send_to(b"?", "10.9.0.3:7").unwrap();
                let mut buffer = [0; 8];
                socket.recv_from(&mut buffer).is_ok()
            })
        };
        let from = |source| (0..TRIES).any(|_| from_once(source));
        // The honest one first: it makes the neighbours known to each other.
        assert!(from("10.9.0.2"));
        assert!(!from_once("10.9.0.99"));
        assert!(from("10.9.0.2"));
    });
}

#[test]
fn a_sandbox_that_is_not_there_yet_gets_its_interface_from_the_caller() {
    on_a_host(|host| {
        let network = host.network("a1", &["10.9.0.0/24"], &[]);
        let two = host.container(&network, "e2", &["10.9.0.3/24"]);
        two.ns.udp_server(7);
        let spec = endpoint_spec(&network, "e1", &["10.9.0.2/24"]);
        let mac = host.driver.validate_endpoint(&network, &spec).unwrap().mac;
        let sandbox = SandboxRef {
            id: "later".parse().unwrap(),
            netns: "/nonexistent/netns".into(),
        };
        let endpoint = DesiredEndpoint {
            spec,
            mac,
            sandbox: Some(sandbox.clone()),
            ports: Vec::new(),
        };
        let attachment = host
            .wait(host.driver.join(&network, &endpoint, &sandbox))
            .unwrap();
        let InterfacePlacement::CallerMoves { link, prefix } = &attachment.interface else {
            panic!("{attachment:?}");
        };
        assert_eq!((link.as_str(), prefix.as_str()), ("nlce1e1e1e1e1", "eth"));
        host.desired.endpoints.push(endpoint.clone());
        host.assert_clean();
        // What dockerd does with it.
        let ns = Namespace::new();
        host.apply(KernelStep::MoveLink {
            link: link.clone(),
            namespace: ns.path.clone(),
        });
        host.apply(KernelStep::ConfigureInterface(InterfaceSpec {
            namespace: ns.path.clone(),
            name: link.clone(),
            rename: Some(name("eth0")),
            addresses: vec!["10.9.0.2/24".parse().unwrap()],
            routes: Vec::new(),
            sysctls: Vec::new(),
        }));
        assert_eq!(ns.udp("10.9.0.3", 7).as_deref(), Some("10.9.0.2"));
        host.assert_clean();
        host.wait(host.driver.leave(&network, &endpoint)).unwrap();
        host.desired.endpoints.pop();
        host.desired
            .endpoints
            .retain(|e| e.spec.id != endpoint.spec.id);
        host.assert_clean();
    });
}

#[test]
fn interfaces_of_two_networks_get_successive_names_and_several_subnets_routes() {
    on_a_host(|host| {
        let red = host.network("a1", &["10.9.0.0/24", "10.7.0.0/24"], &[]);
        let blue = host.network("b2", &["10.8.0.0/24"], &[]);
        let one = host.container(&red, "e1", &["10.9.0.2/24"]);
        let two = host.container(&red, "e2", &["10.7.0.2/24"]);
        two.ns.udp_server(7);
        assert_eq!(one.ns.udp("10.7.0.2", 7).as_deref(), Some("10.9.0.2"));
        let second = endpoint_spec(&blue, "e3", &["10.8.0.2/24"]);
        let mac = host.driver.validate_endpoint(&blue, &second).unwrap().mac;
        let sandbox = one.endpoint.sandbox.clone().unwrap();
        let endpoint = DesiredEndpoint {
            spec: second,
            mac,
            sandbox: Some(sandbox.clone()),
            ports: Vec::new(),
        };
        for _repeated in 0..2 {
            let attachment = host
                .wait(host.driver.join(&blue, &endpoint, &sandbox))
                .unwrap();
            assert_eq!(
                attachment.interface,
                InterfacePlacement::Placed { link: name("eth1") }
            );
        }
        host.desired.endpoints.push(endpoint);
        host.assert_clean();
    });
}
