//! Specifications for this crate's own tests.

use netloom_core::{
    Addresses, DesiredEndpoint, EndpointSpec, NetworkSpec, Options, Reach, SandboxRef, SubnetSpec,
};
use netloom_types::{Family, InterfaceAddr, MacAddr, Subnet};
use std::collections::BTreeMap;

/// A network of these subnets, each with its first address as gateway.
pub(crate) fn network(id: &str, subnets: &[&str]) -> NetworkSpec {
    NetworkSpec {
        id: id.repeat(12).parse().unwrap(),
        driver: "bridge".into(),
        subnets: subnets.iter().map(|text| subnet(text)).collect(),
        reach: Reach::External,
        options: Options::new(),
    }
}

fn subnet(text: &str) -> SubnetSpec {
    let subnet: Subnet = text.parse().unwrap();
    SubnetSpec {
        subnet,
        gateway: subnet.nth(1),
        auxiliary: BTreeMap::new(),
    }
}

/// An endpoint with these addresses, joined to a sandbox at a path that does not exist.
pub(crate) fn endpoint(network: &NetworkSpec, id: &str, addresses: &[&str]) -> DesiredEndpoint {
    let mut own = Addresses::default();
    for text in addresses {
        let address: InterfaceAddr = text.parse().unwrap();
        match address.family() {
            Family::V4 => own.ipv4 = Some(address),
            Family::V6 => own.ipv6 = Some(address),
        }
    }
    DesiredEndpoint {
        mac: own
            .iter()
            .next()
            .map_or(MacAddr::new([2, 0, 0, 0, 0, 1]), |a| {
                MacAddr::from_ip(a.ip())
            }),
        spec: EndpointSpec {
            id: id.repeat(10).parse().unwrap(),
            network: network.id.clone(),
            addresses: own,
            mac: None,
            ports: Vec::new(),
            exposed: Vec::new(),
            options: Options::new(),
        },
        sandbox: Some(SandboxRef {
            id: "sandbox".parse().unwrap(),
            netns: "/nonexistent/netns".into(),
        }),
        ports: Vec::new(),
    }
}
