//! A host with networks, containers and an outside machine.

use super::{Container, Namespace, Net, PATIENCE, addr, alias, attach, make_net, name, output};
use netloom_linux::{
    Element, HostAddress, Kernel, KernelStep, LinuxKernel, Place, PortFlags, PortMap, SysctlKey,
    VethEnd, VethSpec,
};
use netloom_types::{Family, Protocol};
use std::net::{SocketAddr, UdpSocket};

/// A host with two networks of one container each, and a machine on the wire outside.
pub struct Host {
    pub kernel: LinuxKernel,
    pub red: Net,
    pub blue: Net,
    pub red1: Container,
    pub red2: Container,
    pub blue1: Container,
    pub outside: Namespace,
}

pub fn add(element: Element) -> KernelStep {
    KernelStep::AddElement(element)
}

pub fn published(port: u16, target: &str) -> Element {
    let target: SocketAddr = target.parse().unwrap();
    Element::Port(PortMap {
        host: HostAddress::Any(Family::of(target.ip())),
        protocol: Protocol::Udp,
        port,
        target,
    })
}

/// Puts an outside machine on a wire of the host.
pub fn make_outside(kernel: &LinuxKernel) -> Namespace {
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

pub fn make_host() -> Host {
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

pub fn host_udp(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}
