//! What the kernel shows that drivers do not look at: the way out of the host.

use netloom_core::{Finding, FindingKind, NetworkSpec, Reach};
use netloom_linux::{Kernel, KernelError, Link, Route};
use std::collections::BTreeMap;

use super::by_hand;

/// Looks at the kernel; the second list names what could not be looked at.
pub(super) fn examine(
    kernel: &dyn Kernel,
    networks: &[NetworkSpec],
) -> (Vec<Finding>, Vec<String>) {
    let look = || -> Result<Vec<Finding>, KernelError> {
        let (links, routes) = (kernel.links()?, kernel.routes()?);
        Ok(narrow_ways_out(networks, &links, &routes))
    };
    match look() {
        Ok(findings) => (findings, Vec::new()),
        Err(error) => (Vec::new(), vec![format!("the kernel: {error}")]),
    }
}

/// Networks whose packets are larger than what a default route's link takes: large answers get
/// lost wherever ICMP is filtered.
fn narrow_ways_out(networks: &[NetworkSpec], links: &[Link], routes: &[Route]) -> Vec<Finding> {
    let by_index: BTreeMap<_, _> = links.iter().map(|link| (link.index, link)).collect();
    let narrowest = routes
        .iter()
        .filter(|route| route.destination.prefix_len() == 0)
        .filter_map(|route| by_index.get(&route.link?))
        .min_by_key(|link| link.mtu);
    let Some(uplink) = narrowest else {
        return Vec::new();
    };
    let bridge_of = |network: &NetworkSpec| {
        let tag = format!("netloom:{}", network.id);
        links
            .iter()
            .find(|link| {
                let bridge = link.kind.as_deref() == Some("bridge");
                bridge && link.alias.as_deref() == Some(tag.as_str())
            })
            .filter(|_| network.reach == Reach::External)
    };
    networks
        .iter()
        .filter_map(|network| Some((network, bridge_of(network)?)))
        .filter(|(_, bridge)| bridge.mtu > uplink.mtu)
        .map(|(network, bridge)| {
            by_hand(
                FindingKind::WrongMtu,
                network.id.as_str(),
                format!(
                    "packets of this network have up to {} bytes, the way out by {} takes {}",
                    bridge.mtu, uplink.name, uplink.mtu
                ),
                format!(
                    "make the network again with `-o netloom.mtu={}`, or raise the MTU of {}",
                    uplink.mtu, uplink.name
                ),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use netloom_linux::{AdminState, Carrier, LinkIndex};

    fn link(index: u32, name: &str, mtu: u32) -> Link {
        Link {
            index: LinkIndex(index),
            name: name.into(),
            kind: None,
            state: AdminState::Up,
            carrier: Carrier::On,
            mac: None,
            mtu,
            master: None,
            peer: None,
            peer_namespace: None,
            alias: None,
            altnames: vec![],
            group: 0,
        }
    }

    #[test]
    fn a_network_wider_than_the_way_out_is_named() {
        let network = |id: &str, reach| NetworkSpec {
            id: id.parse().unwrap(),
            driver: "bridge".into(),
            subnets: vec![],
            reach,
            options: BTreeMap::new(),
        };
        let bridge = |index, id: &str, mtu| Link {
            kind: Some("bridge".into()),
            alias: Some(format!("netloom:{id}")),
            ..link(index, "nl-x", mtu)
        };
        let links = [
            link(1, "eth0", 1400),
            link(9, "eth1", 1500),
            bridge(2, "wide", 1500),
            bridge(3, "fits", 1400),
            bridge(4, "inner", 1500),
        ];
        let default = |link| Route {
            destination: "0.0.0.0/0".parse().unwrap(),
            gateway: None,
            link: Some(LinkIndex(link)),
            table: 254,
            metric: 0,
        };
        let networks = [
            network("wide", Reach::External),
            network("fits", Reach::External),
            network("inner", Reach::Internal),
        ];
        let found = narrow_ways_out(&networks, &links, &[default(1), default(9)]);
        let subjects: Vec<_> = found.iter().map(|f| f.subject.as_str()).collect();
        assert_eq!(subjects, ["wide"]);
        assert_eq!(narrow_ways_out(&networks, &links, &[default(9)]), []);
        assert_eq!(narrow_ways_out(&networks, &links, &[]), []);
    }
}
