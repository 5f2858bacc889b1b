//! Which host port each wish gets: pure but for one look at the kernel's range.

use super::options::BridgeOptions;
use crate::ports::KeeperError;
use crate::relay::{Refusal, Reservation};
use netloom_core::{Desired, DesiredEndpoint, DriverError, PublishedPort};
use netloom_types::{EndpointId, Family, HostPorts, PortBinding};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

/// The dynamic ports of RFC 6335, which Docker takes where the kernel's range cannot be read.
const DYNAMIC_PORTS: (u16, u16) = (49_153, 65_535);
/// Where the kernel says which ports it gives to clients.
const EPHEMERAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Where the search for an ephemeral port begins: behind the last one given, so that a port is
/// reused as late as possible.
#[derive(Debug, Default)]
pub(super) struct Cursor(AtomicU32);

/// Bytes that differ from call to call; not for secrets.
pub(super) fn random_bytes() -> [u8; 6] {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    let [a, b, c, d, e, g, ..] = hasher.finish().to_be_bytes();
    [a, b, c, d, e, g]
}

/// One binding with the host addresses that it means, and the ports that it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) binding: PortBinding,
    /// Host address and container address, of one family each.
    pub(super) pairs: Vec<(IpAddr, IpAddr)>,
    pub(super) candidates: Candidates,
}

/// Ports to choose from, in the order of choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidates {
    first: u16,
    last: u16,
    next: u16,
    left: u32,
}

impl Candidates {
    /// The range from `start` on, around its end.
    fn new(first: u16, last: u16, start: u16) -> Self {
        Self {
            first,
            last,
            next: start.clamp(first, last),
            left: u32::from(last.saturating_sub(first)) + 1,
        }
    }
}

impl Iterator for Candidates {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.left = self.left.checked_sub(1)?;
        let port = self.next;
        self.next = if port == self.last {
            self.first
        } else {
            port.saturating_add(1)
        };
        Some(port)
    }
}

/// The host and container addresses that a binding means.
fn pairs(
    options: &BridgeOptions,
    endpoint: &DesiredEndpoint,
    binding: &PortBinding,
) -> Vec<(IpAddr, IpAddr)> {
    let own = endpoint.spec.addresses;
    let (v4, v6) = match binding.host_ip {
        Some(IpAddr::V4(ip)) => (Some(ip), None),
        Some(IpAddr::V6(ip)) => (None, Some(ip)),
        None => match (options.host_binding, options.host_binding_v6) {
            (None, None) => (Some(Ipv4Addr::UNSPECIFIED), Some(Ipv6Addr::UNSPECIFIED)),
            // A chosen address is a wish to be found there and nowhere else.
            (Some(v4), None) if v4.is_unspecified() => (Some(v4), Some(Ipv6Addr::UNSPECIFIED)),
            chosen => chosen,
        },
    };
    let v4 = v4
        .zip(own.ipv4)
        .map(|(host, own)| (IpAddr::V4(host), own.ip()));
    let v6 = v6
        .zip(own.ipv6)
        .map(|(host, own)| (IpAddr::V6(host), own.ip()));
    v4.into_iter().chain(v6).collect()
}

/// The range of ephemeral ports: `FIRST LAST`, as the kernel writes it.
fn ephemeral_range(text: Option<&str>) -> (u16, u16) {
    let mut numbers = text.unwrap_or_default().split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if 0 < first && first <= last => (first, last),
        _ => DYNAMIC_PORTS,
    }
}

pub(super) fn wish(
    options: &BridgeOptions,
    endpoint: &DesiredEndpoint,
    binding: &PortBinding,
    cursor: &Cursor,
) -> Wish {
    let candidates = match binding.host_ports {
        HostPorts::Range { first, last } => Candidates::new(first, last, first),
        HostPorts::Ephemeral => {
            let text = std::fs::read_to_string(EPHEMERAL_RANGE).ok();
            let (first, last) = ephemeral_range(text.as_deref());
            let count = u32::from(last - first) + 1;
            let step = cursor.0.fetch_add(1, Ordering::Relaxed) % count;
            let start = first.saturating_add(u16::try_from(step).unwrap_or(0));
            Candidates::new(first, last, start)
        }
    };
    Wish {
        binding: *binding,
        pairs: pairs(options, endpoint, binding),
        candidates,
    }
}

/// The ports that a binding becomes when its host port is `port`.
fn published<'a>(wish: &'a Wish, port: u16) -> impl Iterator<Item = PublishedPort> + 'a {
    wish.pairs.iter().map(move |(host, own)| PublishedPort {
        protocol: wish.binding.protocol,
        host_ip: *host,
        host_port: port,
        container_ip: *own,
        container_port: wish.binding.container_port,
    })
}

/// What the keeper has to keep for a port; ports of routed networks need nothing from the host.
fn reservation(owner: &EndpointId, port: &PublishedPort) -> Option<Reservation> {
    (port.host_ip != port.container_ip).then(|| Reservation {
        protocol: port.protocol,
        host: SocketAddr::new(port.host_ip, port.host_port),
        target: SocketAddr::new(port.container_ip, port.container_port),
        owner: owner.to_string(),
    })
}

pub(super) fn reservations(owner: &EndpointId, ports: &[PublishedPort]) -> Vec<Reservation> {
    ports
        .iter()
        .filter_map(|port| reservation(owner, port))
        .collect()
}

pub(super) fn all_reservations(desired: &Desired) -> Vec<Reservation> {
    desired
        .endpoints
        .iter()
        .flat_map(|endpoint| reservations(&endpoint.spec.id, &endpoint.ports))
        .collect()
}

pub(super) fn exhausted(wish: &Wish, last: &DriverError) -> DriverError {
    match wish.binding.host_ports {
        HostPorts::Range { first, last: end } if first == end => {
            DriverError::Conflict(last.to_string())
        }
        HostPorts::Range { first, last: end } => DriverError::Exhausted(format!(
            "no port of {first}-{end}/{} is free; the last one tried: {last}",
            wish.binding.protocol
        )),
        HostPorts::Ephemeral => DriverError::Exhausted(format!(
            "no ephemeral port is free for {}; the last one tried: {last}",
            wish.binding.protocol
        )),
    }
}

/// The wishes without those that say the same again; each wish for any port stands for one more.
pub(super) fn without_repeats(wanted: &[PortBinding]) -> Vec<PortBinding> {
    let mut seen = BTreeSet::new();
    wanted
        .iter()
        .filter(|binding| binding.host_ports == HostPorts::Ephemeral || seen.insert(**binding))
        .copied()
        .collect()
}

/// The first reservation that is there before already: two wishes have come to the same port.
pub(super) fn first_repeat(wanted: &[Reservation]) -> Option<usize> {
    let mut seen = BTreeSet::new();
    wanted.iter().position(|port| !seen.insert(port.key()))
}

pub(super) fn chosen_already(index: usize, wanted: &[Reservation]) -> KeeperError {
    match wanted.get(index) {
        Some(port) => KeeperError::Refused {
            index,
            port: Box::new(port.clone()),
            refusal: Refusal::InUse,
            reason: "this container has asked for it twice".into(),
        },
        None => KeeperError::Unavailable {
            socket: "the list of ports".into(),
            reason: format!("it has no entry {index}"),
        },
    }
}

/// All ports that the chosen ones mean, and for each that needs a reservation its wish.
pub(super) fn spread(wishes: &[Wish], chosen: &[u16]) -> (Vec<PublishedPort>, Vec<usize>) {
    let mut ports = Vec::new();
    let mut of_wish = Vec::new();
    for (at, (wish, port)) in wishes.iter().zip(chosen).enumerate() {
        for one in published(wish, *port) {
            ports.push(one);
            of_wish.push(at);
        }
    }
    (ports, of_wish)
}

/// A port of a routed network: opened at the container's own address.
pub(super) fn opened(
    endpoint: &DesiredEndpoint,
    binding: &PortBinding,
    family: Family,
) -> Option<PublishedPort> {
    let own = match family {
        Family::V4 => endpoint.spec.addresses.ipv4,
        Family::V6 => endpoint.spec.addresses.ipv6,
    }?;
    let wanted = binding
        .host_ip
        .is_none_or(|host| Family::of(host) == family);
    wanted.then(|| PublishedPort {
        protocol: binding.protocol,
        host_ip: own.ip(),
        host_port: binding.container_port,
        container_ip: own.ip(),
        container_port: binding.container_port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::testing::{endpoint, network};
    use netloom_types::Protocol;

    fn hosts(options: &[(&str, &str)], host_ip: Option<&str>) -> Vec<String> {
        let mut network = network("a", &["10.9.0.0/24", "fd00:9::/64"]);
        for (key, text) in options {
            network.options.insert((*key).into(), (*text).into());
        }
        let end = endpoint(&network, "e", &["10.9.0.2/24", "fd00:9::2/64"]);
        let binding = PortBinding {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: host_ip.map(|text| text.parse().unwrap()),
            host_ports: HostPorts::Ephemeral,
        };
        let options = BridgeOptions::parse(&network).unwrap();
        let pairs = pairs(&options, &end, &binding);
        pairs
            .into_iter()
            .map(|(host, _)| host.to_string())
            .collect()
    }

    #[test]
    fn host_addresses_are_those_of_the_wish_else_of_the_network_else_all() {
        assert_eq!(hosts(&[], None), ["0.0.0.0", "::"]);
        assert_eq!(hosts(&[], Some("127.0.0.1")), ["127.0.0.1"]);
        assert_eq!(hosts(&[], Some("::")), ["::"]);
        let v4 = ("netloom.host_binding", "127.0.0.1");
        let v6 = ("netloom.host_binding_ipv6", "::1");
        assert_eq!(hosts(&[v4], None), ["127.0.0.1"]);
        assert_eq!(hosts(&[v4, v6], None), ["127.0.0.1", "::1"]);
        assert_eq!(
            hosts(&[("netloom.host_binding", "0.0.0.0")], None),
            ["0.0.0.0", "::"]
        );
        assert_eq!(hosts(&[v4], Some("0.0.0.0")), ["0.0.0.0"]);
    }

    #[test]
    fn every_port_of_a_range_is_tried_once_from_anywhere() {
        let all: Vec<u16> = Candidates::new(5, 8, 7).collect();
        assert_eq!(all, [7, 8, 5, 6]);
        assert_eq!(Candidates::new(9, 9, 0).collect::<Vec<_>>(), [9]);
        assert_eq!(Candidates::new(1, u16::MAX, 1).count(), 65_535);
    }

    #[test]
    fn an_unreadable_range_means_the_dynamic_ports() {
        assert_eq!(ephemeral_range(Some("32768\t60999\n")), (32_768, 60_999));
        for odd in [
            None,
            Some(""),
            Some("x y"),
            Some("9 8"),
            Some("0 5"),
            Some("1 70000"),
        ] {
            assert_eq!(ephemeral_range(odd), DYNAMIC_PORTS, "{odd:?}");
        }
    }
}
