//! Packets between containers, the host and an outside machine, through the rules as built.

#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod common;

use common::{
    Container, Namespace, Net, addr, alias, attach, datagram, in_own_namespace, ip, make_net, name,
    output, silence,
};
use netloom_linux::{
    ConntrackFilter, Element, HostAddress, InboundMode, Kernel, KernelStep, LinuxKernel, Place,
    PortFlags, PortMap, Switch, SysctlKey, VethEnd, VethSpec,
};
use netloom_types::{Family, MacAddr, Protocol};
use std::net::{SocketAddr, UdpSocket};

/// A host with two networks of one container each, and a machine on the wire outside.
struct Host {
    kernel: LinuxKernel,
    red: Net,
    blue: Net,
    red1: Container,
    red2: Container,
    blue1: Container,
    outside: Namespace,
}

fn add(element: Element) -> KernelStep {
    KernelStep::AddElement(element)
}

fn published(port: u16, target: &str) -> Element {
    let target: SocketAddr = target.parse().unwrap();
    Element::Port(PortMap {
        host: HostAddress::Any(Family::of(target.ip())),
        protocol: Protocol::Udp,
        port,
        target,
    })
}

/// Puts an outside machine on a wire of the host.
fn make_outside(kernel: &LinuxKernel) -> Namespace {
    let outside = Namespace::new();
    let end = |text: &str| VethEnd {
        name: name(text),
        mac: None,
    };
    let up = |text: &str| KernelStep::SetUp { link: name(text) };
    kernel
        .apply_all(&[
            up("lo"),
            KernelStep::CreateVeth(VethSpec {
                host: end("uplink"),
                peer: end("eth0"),
                place: Place::Namespace(outside.path.clone()),
                master: None,
                flags: PortFlags::default(),
                mtu: None,
                alias: alias("netloom:test"),
            }),
            // Else the host could not solicit the outside machine in the first second.
            KernelStep::SetSysctl {
                key: SysctlKey::AcceptDad(name("uplink")),
                value: 0,
            },
            KernelStep::AddAddress {
                link: name("uplink"),
                address: addr("192.0.2.1/24"),
            },
            KernelStep::AddAddress {
                link: name("uplink"),
                address: addr("2001:db8::1/64"),
            },
            KernelStep::SetSysctl {
                key: SysctlKey::Ipv4Forward,
                value: 1,
            },
            KernelStep::SetSysctl {
                key: SysctlKey::Ipv6ForwardAll,
                value: 1,
            },
        ])
        .unwrap();
    outside.run(|| {
        output("ip", &["addr", "add", "192.0.2.9/24", "dev", "eth0"]);
        output(
            "ip",
            &["addr", "add", "2001:db8::9/64", "dev", "eth0", "nodad"],
        );
        output("ip", &["link", "set", "eth0", "up"]);
        // The way to the containers' addresses themselves, as a hostile neighbour sets it.
        output("ip", &["route", "add", "10.70.0.0/15", "via", "192.0.2.1"]);
        output("ip", &["route", "add", "fd70::/15", "via", "2001:db8::1"]);
    });
    outside
}

fn make_host() -> Host {
    let kernel = LinuxKernel::open().unwrap();
    let outside = make_outside(&kernel);
    let red = make_net(&kernel, "nl-red", "10.70.0.1/24");
    let blue = make_net(&kernel, "nl-blue", "10.71.0.1/24");
    let red1 = attach(&kernel, &red, "nlvr1", "10.70.0.2/24");
    let red2 = attach(&kernel, &red, "nlvr2", "10.70.0.3/24");
    let blue1 = attach(&kernel, &blue, "nlvb1", "10.71.0.2/24");
    Host {
        kernel,
        red,
        blue,
        red1,
        red2,
        blue1,
        outside,
    }
}

fn host_udp(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(common::PATIENCE)).unwrap();
    socket
}

#[test]
fn networks_do_not_reach_each_other_and_neighbours_do() {
    in_own_namespace(|| {
        let host = make_host();
        let red1 = host.red1.namespace.udp("0.0.0.0:1000");
        let red2 = host.red2.namespace.udp("0.0.0.0:1000");
        let blue1 = host.blue1.namespace.udp("0.0.0.0:1000");
        assert_eq!(
            datagram(&red1, &red2, "10.70.0.3:1000"),
            Some(ip("10.70.0.2"))
        );
        assert!(silence(&red1, &blue1, "10.71.0.2:1000"));
        assert!(silence(&blue1, &red1, "10.70.0.2:1000"));
        // Nor through a published port of the other network, at any address of the host.
        host.kernel
            .apply(&add(published(53, "10.71.0.2:1000")))
            .unwrap();
        assert!(silence(&red1, &blue1, "192.0.2.1:53"));
        assert!(silence(&red1, &blue1, "10.71.0.1:53"));
        assert!(host.red1.namespace.connect("10.71.0.2:1").is_err());
        // The test can tell: without our tables the packet arrives.
        host.kernel.apply(&KernelStep::RemoveTable).unwrap();
        assert!(datagram(&red1, &blue1, "10.71.0.2:1000").is_some());
    });
}

#[test]
fn the_gateway_of_another_network_is_not_reached() {
    in_own_namespace(|| {
        let host = make_host();
        let red1 = host.red1.namespace.udp("0.0.0.0:1000");
        let server = host_udp("0.0.0.0:2000");
        assert!(datagram(&red1, &server, "10.70.0.1:2000").is_some());
        assert!(datagram(&red1, &server, "192.0.2.1:2000").is_some());
        assert!(silence(&red1, &server, "10.71.0.1:2000"));
    });
}

#[test]
fn masquerade_gives_the_hosts_address_and_a_chosen_source_wins() {
    in_own_namespace(|| {
        let host = make_host();
        let subnet = host.red.gateway.subnet();
        let red1 = host.red1.namespace.udp("0.0.0.0:1000");
        let server = host.outside.udp("0.0.0.0:2000");
        assert_eq!(
            datagram(&red1, &server, "192.0.2.9:2000"),
            Some(ip("10.70.0.2"))
        );
        host.kernel
            .apply(&add(Element::Masquerade { subnet }))
            .unwrap();
        let red1 = host.red1.namespace.udp("0.0.0.0:1001");
        assert_eq!(
            datagram(&red1, &server, "192.0.2.9:2000"),
            Some(ip("192.0.2.1"))
        );
        let address = ip("192.0.2.77");
        host.kernel
            .apply(&add(Element::SourceNat { subnet, address }))
            .unwrap();
        let red1 = host.red1.namespace.udp("0.0.0.0:1002");
        assert_eq!(datagram(&red1, &server, "192.0.2.9:2000"), Some(address));
    });
}

#[test]
fn a_published_port_is_reached_from_outside_from_the_host_and_from_its_own_network() {
    in_own_namespace(|| {
        let host = make_host();
        let server = host.red1.namespace.udp("0.0.0.0:1000");
        let outside = host.outside.udp("0.0.0.0:3000");
        assert!(silence(&outside, &server, "192.0.2.1:53"));
        assert!(silence(&outside, &server, "10.70.0.2:1000"), "unpublished");
        host.kernel
            .apply(&add(published(53, "10.70.0.2:1000")))
            .unwrap();
        let outside = host.outside.udp("0.0.0.0:3001");
        assert_eq!(
            datagram(&outside, &server, "192.0.2.1:53"),
            Some(ip("192.0.2.9"))
        );
        assert!(datagram(&host_udp("0.0.0.0:0"), &server, "192.0.2.1:53").is_some());
        // Hairpin: a neighbour, and the container itself, through the host's address, whether
        // br_netfilter turns the packet round on the bridge or the host routes it.
        let red2 = host.red2.namespace.udp("0.0.0.0:1000");
        let own = host.red1.namespace.udp("0.0.0.0:1001");
        let gateway = Some(ip("10.70.0.1"));
        for (call, hairpin) in [(0, Switch::Off), (1, Switch::On)] {
            let flags = PortFlags {
                hairpin: Some(hairpin),
                ..PortFlags::default()
            };
            host.kernel
                .apply_all(&[
                    KernelStep::SetSysctl {
                        key: SysctlKey::BridgeCallIptables,
                        value: call,
                    },
                    // With br_netfilter the packet to the container itself leaves by the port it
                    // came from.
                    KernelStep::SetPortFlags {
                        link: host.red1.host_end.clone(),
                        flags,
                    },
                    KernelStep::FlushConntrack {
                        family: Family::V4,
                        filter: ConntrackFilter::default(),
                    },
                ])
                .unwrap();
            assert_eq!(datagram(&red2, &server, "192.0.2.1:53"), gateway, "{call}");
            assert_eq!(datagram(&own, &server, "192.0.2.1:53"), gateway, "{call}");
        }
        // Loopback is the relay's: no rule of ours may send it into a bridge.
        assert!(silence(&host_udp("127.0.0.1:0"), &server, "127.0.0.1:53"));
    });
}

#[test]
fn tcp_answers_come_back_through_a_published_port() {
    in_own_namespace(|| {
        let host = make_host();
        let listener = host.red1.namespace.listen("0.0.0.0:80");
        host.kernel
            .apply(&add(Element::Port(PortMap {
                host: HostAddress::One(ip("192.0.2.1")),
                protocol: Protocol::Tcp,
                port: 8080,
                target: "10.70.0.2:80".parse().unwrap(),
            })))
            .unwrap();
        host.outside.connect("192.0.2.1:8080").unwrap();
        host.red2.namespace.connect("192.0.2.1:8080").unwrap();
        assert!(host.blue1.namespace.connect("192.0.2.1:8080").is_err());
        drop(listener);
    });
}

#[test]
fn routed_networks_open_only_what_is_listed() {
    in_own_namespace(|| {
        let host = make_host();
        let bridge = || host.red.bridge.clone();
        let mode = |mode| Element::Inbound {
            bridge: bridge(),
            family: Family::V4,
            mode,
        };
        host.kernel
            .apply_all(&[
                KernelStep::DeleteElement(mode(InboundMode::Nat)),
                add(mode(InboundMode::Routed)),
                add(Element::Open {
                    bridge: bridge(),
                    address: ip("10.70.0.2"),
                    protocol: Protocol::Udp,
                    port: 1000,
                }),
            ])
            .unwrap();
        let open = host.red1.namespace.udp("0.0.0.0:1000");
        let closed = host.red1.namespace.udp("0.0.0.0:1001");
        let outside = host.outside.udp("0.0.0.0:3000");
        assert!(datagram(&outside, &open, "10.70.0.2:1000").is_some());
        assert!(silence(&outside, &closed, "10.70.0.2:1001"));
        host.kernel
            .apply(&add(mode(InboundMode::Unprotected)))
            .unwrap();
        assert!(datagram(&outside, &closed, "10.70.0.2:1001").is_some());
        // Addressing containers of a protected subnet directly needs a trusted link.
        let subnet = host.red.gateway.subnet();
        host.kernel.apply(&add(Element::Direct { subnet })).unwrap();
        assert!(silence(&outside, &open, "10.70.0.2:1000"));
        host.kernel
            .apply(&add(Element::Trusted(name("uplink"))))
            .unwrap();
        assert!(datagram(&outside, &open, "10.70.0.2:1000").is_some());
    });
}

#[test]
fn nothing_leaves_or_enters_an_internal_network() {
    in_own_namespace(|| {
        let host = make_host();
        let server = host.outside.udp("0.0.0.0:2000");
        let gateway = host_udp("0.0.0.0:2000");
        let red1 = host.red1.namespace.udp("0.0.0.0:1000");
        let red2 = host.red2.namespace.udp("0.0.0.0:1000");
        assert!(datagram(&red1, &server, "192.0.2.9:2000").is_some());
        host.kernel
            .apply_all(&[
                add(Element::Internal(host.red.bridge.clone())),
                add(published(53, "10.70.0.2:1000")),
            ])
            .unwrap();
        let red1 = {
            drop(red1);
            host.red1.namespace.udp("0.0.0.0:1000")
        };
        let flush = KernelStep::FlushConntrack {
            family: Family::V4,
            filter: ConntrackFilter::default(),
        };
        host.kernel.apply(&flush).unwrap();
        assert!(silence(&red1, &server, "192.0.2.9:2000"));
        assert!(silence(&red1, &gateway, "10.70.0.1:2000"));
        assert!(silence(&red1, &gateway, "192.0.2.1:2000"));
        assert!(datagram(&red1, &red2, "10.70.0.3:1000").is_some());
        let outside = host.outside.udp("0.0.0.0:3000");
        assert!(silence(&outside, &red1, "192.0.2.1:53"));
    });
}

#[test]
fn a_foreign_bridge_and_ours_are_apart() {
    in_own_namespace(|| {
        let host = make_host();
        // The uplink plays the bridge of someone else.
        host.kernel
            .apply(&add(Element::Foreign(name("uplink"))))
            .unwrap();
        host.kernel
            .apply(&add(published(53, "10.70.0.2:1000")))
            .unwrap();
        let red1 = host.red1.namespace.udp("0.0.0.0:1000");
        let outside = host.outside.udp("0.0.0.0:2000");
        assert!(silence(&red1, &outside, "192.0.2.9:2000"));
        assert!(silence(&outside, &red1, "192.0.2.1:53"));
    });
}

#[test]
fn isolated_ports_do_not_reach_each_other_on_the_bridge_nor_through_the_host() {
    in_own_namespace(|| {
        let host = make_host();
        let red1 = host.red1.namespace.udp("0.0.0.0:1000");
        let red2 = host.red2.namespace.udp("0.0.0.0:1000");
        let isolated = PortFlags {
            isolated: Some(Switch::On),
            ..PortFlags::default()
        };
        for port in [&host.red1.host_end, &host.red2.host_end] {
            let link = port.clone();
            host.kernel
                .apply(&KernelStep::SetPortFlags {
                    link,
                    flags: isolated,
                })
                .unwrap();
        }
        host.kernel
            .apply(&add(Element::Separate(host.red.bridge.clone())))
            .unwrap();
        assert!(silence(&red1, &red2, "10.70.0.3:1000"));
        host.red1.namespace.run(|| {
            output("ip", &["route", "add", "10.70.0.3/32", "via", "10.70.0.1"]);
        });
        assert!(silence(&red1, &red2, "10.70.0.3:1000"));
        let server = host_udp("0.0.0.0:2000");
        assert!(datagram(&red1, &server, "10.70.0.1:2000").is_some());
    });
}

#[test]
fn a_guarded_port_sends_only_with_its_own_addresses() {
    in_own_namespace(|| {
        let host = make_host();
        let port = || host.red1.host_end.clone();
        let own = ip("10.70.0.2");
        host.kernel
            .apply_all(&[
                add(Element::Guarded(port())),
                add(Element::PortMac {
                    port: port(),
                    mac: host.red1.mac,
                }),
                add(Element::PortAddress {
                    port: port(),
                    address: own,
                }),
            ])
            .unwrap();
        let red1 = host.red1.namespace.udp("10.70.0.2:1000");
        let red2 = host.red2.namespace.udp("0.0.0.0:1000");
        assert_eq!(datagram(&red1, &red2, "10.70.0.3:1000"), Some(own));
        // Another address of the subnet, taken without being asked.
        host.red1.namespace.run(|| {
            output("ip", &["addr", "add", "10.70.0.99/24", "dev", "eth0"]);
        });
        let thief = host.red1.namespace.udp("10.70.0.99:1000");
        assert!(silence(&thief, &red2, "10.70.0.3:1000"));
        // Its ARP does not get out either, so nobody can be made to send there.
        assert!(silence(&red2, &thief, "10.70.0.99:1000"));
        // Another MAC.
        let mac = host.red1.mac.to_string();
        host.red1.namespace.run(|| {
            output(
                "ip",
                &["link", "set", "eth0", "address", "02:99:99:99:99:99"],
            );
        });
        assert!(silence(&red1, &red2, "10.70.0.3:1000"));
        host.red1.namespace.run(move || {
            output("ip", &["link", "set", "eth0", "address", &mac]);
        });
        assert_eq!(datagram(&red1, &red2, "10.70.0.3:1000"), Some(own));
        // The test can tell: without the guard the thief is heard.
        host.kernel
            .apply(&KernelStep::DeleteElement(Element::Guarded(port())))
            .unwrap();
        assert_eq!(
            datagram(&thief, &red2, "10.70.0.3:1000"),
            Some(ip("10.70.0.99"))
        );
    });
}

#[test]
fn a_guarded_port_sends_only_with_its_own_ipv6_addresses() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        let _outside = make_outside(&kernel);
        let net = make_net(&kernel, "nl-six", "fd70::1/64");
        let one = attach(&kernel, &net, "nlv1", "fd70::2/64");
        let two = attach(&kernel, &net, "nlv2", "fd70::3/64");
        let port = || one.host_end.clone();
        kernel
            .apply_all(&[
                add(Element::Guarded(port())),
                add(Element::PortMac {
                    port: port(),
                    mac: one.mac,
                }),
                add(Element::PortAddress {
                    port: port(),
                    address: ip("fd70::2"),
                }),
            ])
            .unwrap();
        let from = one.namespace.udp("[fd70::2]:1000");
        let to = two.namespace.udp("[::]:1000");
        assert_eq!(datagram(&from, &to, "[fd70::3]:1000"), Some(ip("fd70::2")));
        one.namespace.run(|| {
            output(
                "ip",
                &["addr", "add", "fd70::99/64", "dev", "eth0", "nodad"],
            );
        });
        let thief = one.namespace.udp("[fd70::99]:1000");
        assert!(silence(&thief, &to, "[fd70::3]:1000"));
        assert!(silence(&to, &thief, "[fd70::99]:1000"));
    });
}

#[test]
fn ipv6_is_published_masqueraded_and_isolated_like_ipv4() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        let outside = make_outside(&kernel);
        let red = make_net(&kernel, "nl-red", "fd70::1/64");
        let blue = make_net(&kernel, "nl-blue", "fd71::1/64");
        let red1 = attach(&kernel, &red, "nlv1", "fd70::2/64");
        let red2 = attach(&kernel, &red, "nlv2", "fd70::3/64");
        let blue1 = attach(&kernel, &blue, "nlv3", "fd71::2/64");
        let subnet = red.gateway.subnet();
        kernel
            .apply_all(&[
                add(Element::Masquerade { subnet }),
                add(published(53, "[fd70::2]:1000")),
            ])
            .unwrap();
        let server = red1.namespace.udp("[::]:1000");
        let away = outside.udp("[::]:3000");
        assert_eq!(
            datagram(&server, &away, "[2001:db8::9]:3000"),
            Some(ip("2001:db8::1"))
        );
        let other = outside.udp("[::]:3001");
        assert_eq!(
            datagram(&other, &server, "[2001:db8::1]:53"),
            Some(ip("2001:db8::9"))
        );
        let near = red2.namespace.udp("[::]:1000");
        assert_eq!(
            datagram(&near, &server, "[2001:db8::1]:53"),
            Some(ip("fd70::1"))
        );
        let blue = blue1.namespace.udp("[::]:1000");
        assert!(silence(&blue, &server, "[fd70::2]:1000"));
        assert!(silence(&blue, &server, "[2001:db8::1]:53"));
        assert!(silence(&other, &blue, "[fd71::2]:1000"));
    });
}

#[test]
fn a_flow_follows_its_port_to_another_container_once_its_entries_are_flushed() {
    in_own_namespace(|| {
        let host = make_host();
        let old = host.red1.namespace.udp("0.0.0.0:1000");
        let new = host.red2.namespace.udp("0.0.0.0:1000");
        let client = host.outside.udp("0.0.0.0:3000");
        host.kernel
            .apply(&add(published(53, "10.70.0.2:1000")))
            .unwrap();
        assert!(datagram(&client, &old, "192.0.2.1:53").is_some());
        host.kernel
            .apply_all(&[
                KernelStep::DeleteElement(published(53, "10.70.0.2:1000")),
                add(published(53, "10.70.0.3:1000")),
            ])
            .unwrap();
        assert!(
            silence(&client, &new, "192.0.2.1:53"),
            "decided once per flow"
        );
        let flush = |port| KernelStep::FlushConntrack {
            family: Family::V4,
            filter: ConntrackFilter {
                protocol: Some(Protocol::Udp),
                original_port: Some(port),
                reply_source: Some(ip("10.70.0.2")),
                ..ConntrackFilter::default()
            },
        };
        use netloom_linux::Applied;
        assert_eq!(host.kernel.apply(&flush(54)).unwrap(), Applied::AlreadySo);
        assert_eq!(host.kernel.apply(&flush(53)).unwrap(), Applied::Changed);
        assert!(datagram(&client, &new, "192.0.2.1:53").is_some());
    });
}

#[test]
fn traffic_passes_a_forward_chain_that_drops_like_dockers() {
    in_own_namespace(|| {
        let host = make_host();
        output("iptables", &["-N", "DOCKER-USER"]);
        output("iptables", &["-P", "FORWARD", "DROP"]);
        output("iptables", &["-A", "FORWARD", "-j", "DOCKER-USER"]);
        let server = host.outside.udp("0.0.0.0:2000");
        let red1 = host.red1.namespace.udp("0.0.0.0:1000");
        assert!(silence(&red1, &server, "192.0.2.9:2000"));
        for bridge in [&host.red.bridge, &host.blue.bridge] {
            let bridge = bridge.clone();
            host.kernel
                .apply(&KernelStep::AddForwardAccept { bridge })
                .unwrap();
        }
        assert!(datagram(&red1, &server, "192.0.2.9:2000").is_some());
        let blue1 = host.blue1.namespace.udp("0.0.0.0:1000");
        assert!(silence(&red1, &blue1, "10.71.0.2:1000"));
        // With br_netfilter calling iptables for bridged frames, neighbours still meet.
        let call = KernelStep::SetSysctl {
            key: SysctlKey::BridgeCallIptables,
            value: 1,
        };
        host.kernel.apply(&call).unwrap();
        let red2 = host.red2.namespace.udp("0.0.0.0:1000");
        assert!(datagram(&red1, &red2, "10.70.0.3:1000").is_some());
    });
}

#[test]
fn router_advertisements_and_dhcp_replies_of_containers_are_dropped() {
    in_own_namespace(|| {
        let host = make_host();
        let port = || host.red1.host_end.clone();
        host.kernel
            .apply_all(&[
                add(Element::Guarded(port())),
                add(Element::PortMac {
                    port: port(),
                    mac: host.red1.mac,
                }),
                add(Element::PortAddress {
                    port: port(),
                    address: ip("10.70.0.2"),
                }),
            ])
            .unwrap();
        let dhcp = host.red1.namespace.udp("0.0.0.0:67");
        let plain = host.red1.namespace.udp("0.0.0.0:66");
        let client = host.red2.namespace.udp("0.0.0.0:68");
        assert!(datagram(&plain, &client, "10.70.0.3:68").is_some());
        assert!(silence(&dhcp, &client, "10.70.0.3:68"));
        assert_ne!(host.red1.mac, MacAddr::new([0; 6]));
    });
}

/// Prints what attaching costs on this machine; asserts nothing about time.
#[test]
fn costs_of_attaching_are_shown() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        let net = make_net(&kernel, "nl-red", "10.70.0.1/16");
        let mut containers = Vec::new();
        for round in 0..2_u32 {
            #[allow(
                clippy::disallowed_methods,
                reason = "a measurement that is only shown"
            )]
            let begin = std::time::Instant::now();
            for at in 0..50 {
                let address = format!("10.70.{}.{}/16", round + 1, at + 1);
                let host_end = format!("nlv{round}-{at}");
                containers.push(attach(&kernel, &net, &host_end, &address));
            }
            let each = begin.elapsed() / 50;
            println!(
                "attach with {} there, namespace included: {each:?}",
                round * 50
            );
        }
        let links: Vec<_> = containers.iter().map(|c| c.host_end.clone()).collect();
        #[allow(
            clippy::disallowed_methods,
            reason = "a measurement that is only shown"
        )]
        let begin = std::time::Instant::now();
        kernel.apply(&KernelStep::DeleteLinks { links }).unwrap();
        println!("delete 100 pairs together: {:?}", begin.elapsed());
    });
}
