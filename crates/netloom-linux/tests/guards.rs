//! Containers that claim to be someone else.

#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod common;

use common::host::{add, make_host, make_outside};
use common::{Container, attach, datagram, in_own_namespace, ip, make_net, output, silence};
use netloom_linux::{Element, Kernel, KernelStep, LinuxKernel};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::os::fd::{AsRawFd, OwnedFd};

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
fn dhcp_replies_of_containers_are_dropped() {
    in_own_namespace(|| {
        let host = make_host();
        guard(&host.kernel, &host.red1, "10.70.0.2");
        let dhcp = host.red1.namespace.udp("0.0.0.0:67");
        let plain = host.red1.namespace.udp("0.0.0.0:66");
        let client = host.red2.namespace.udp("0.0.0.0:68");
        assert!(datagram(&plain, &client, "10.70.0.3:68").is_some());
        assert!(silence(&dhcp, &client, "10.70.0.3:68"));
    });
}

fn guard(kernel: &LinuxKernel, container: &Container, address: &str) {
    let port = || container.host_end.clone();
    kernel
        .apply_all(&[
            add(Element::Guarded(port())),
            add(Element::PortMac {
                port: port(),
                mac: container.mac,
            }),
            add(Element::PortAddress {
                port: port(),
                address: ip(address),
            }),
        ])
        .unwrap();
}

/// A socket for whole ICMPv6 messages inside a container.
fn icmp6(container: &Container) -> OwnedFd {
    container.namespace.run(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::IcmpV6;
        let fd = socket(AddressFamily::Inet6, SockType::Raw, flags, protocol).unwrap();
        let patience = TimeVal::new(0, 250_000);
        setsockopt(&fd, sockopt::ReceiveTimeout, &patience).unwrap();
        fd
    })
}

/// Whether a message of this type to a container's address is heard there.
fn heard(from: &OwnedFd, to: &OwnedFd, address: &str, kind: u8) -> bool {
    let address: std::net::SocketAddrV6 = address.parse().unwrap();
    let mut message = [0; 40];
    message[0] = kind;
    let target = SockaddrIn6::from(address);
    sendto(from.as_raw_fd(), &message, &target, MsgFlags::empty()).unwrap();
    let mut buffer = [0; 100];
    // Discovery of the neighbour is heard, too.
    while let Ok(len) = recv(to.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        if len == message.len() && buffer[0] == kind {
            return true;
        }
    }
    false
}

#[test]
fn router_advertisements_and_redirects_of_containers_are_dropped() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        let net = make_net(&kernel, "nl-six", "fd70::1/64");
        let one = attach(&kernel, &net, "nlv1", "fd70::2/64");
        let two = attach(&kernel, &net, "nlv2", "fd70::3/64");
        let (from, to) = (icmp6(&one), icmp6(&two));
        let hears = |kind| (0..20).any(|_| heard(&from, &to, "[fd70::3]:0", kind));
        // Router advertisement, redirect, and 200, which is for experiments (RFC 4443).
        assert!(hears(134) && hears(137) && hears(200));
        guard(&kernel, &one, "fd70::2");
        assert!(hears(200));
        assert!(!heard(&from, &to, "[fd70::3]:0", 134));
        assert!(!heard(&from, &to, "[fd70::3]:0", 137));
    });
}
