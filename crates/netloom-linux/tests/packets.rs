//! Packets between containers, the host and an outside machine, through the rules as built.

#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod common;

use common::host::{add, host_udp, make_host, make_outside, published};
use common::{Namespace, attach, datagram, in_own_namespace, ip, make_net, name, output, silence};
use netloom_linux::{
    Applied, ConntrackFilter, Element, HostAddress, InboundMode, Kernel, KernelStep, LinuxKernel,
    PortFlags, PortMap, Switch, SysctlKey,
};
use netloom_types::{Family, Protocol};

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
        // The first packets may come before the bridge forwards.
        let answers = |from: &Namespace| (0..20).any(|_| from.connect("192.0.2.1:8080").is_ok());
        assert!(answers(&host.outside) && answers(&host.red2.namespace));
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
