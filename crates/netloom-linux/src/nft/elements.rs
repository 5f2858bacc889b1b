//! Typed elements as bytes of our sets, and back.

use super::layout::{Field, Keys, SETS, SetSpec};
use crate::rt::ip_of;
use crate::wire::text;
use crate::{Element, HostAddress, InboundMode, PortMap};
use netloom_types::{Family, LinkName, MacAddr, Protocol, Subnet};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// An element as one of our sets holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) set: &'static SetSpec,
    pub(crate) key: Vec<u8>,
    /// The first key behind a range; none when the range ends with the address space.
    pub(crate) end: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
}

/// One field of a key or value.
#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    Name(&'a LinkName),
    Ip(IpAddr),
    Mac(MacAddr),
    Protocol(Protocol),
    Port(u16),
}

fn bytes_of(parts: &[Part<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    for part in parts {
        let start = bytes.len();
        match part {
            Part::Name(name) => bytes.extend(name.as_str().bytes()),
            Part::Ip(IpAddr::V4(ip)) => bytes.extend(ip.octets()),
            Part::Ip(IpAddr::V6(ip)) => bytes.extend(ip.octets()),
            Part::Mac(mac) => bytes.extend(mac.octets()),
            Part::Protocol(protocol) => bytes.push(protocol.number()),
            Part::Port(port) => bytes.extend(port.to_be_bytes()),
        }
        let field = match part {
            Part::Name(_) => Field::Name.len(),
            _ => bytes.len().saturating_sub(start).next_multiple_of(4),
        };
        // A single field stands unpadded, but every single key of ours has whole words anyway.
        bytes.resize(start.saturating_add(field), 0);
    }
    bytes
}

/// The set of that name; the name with 4 or 6 behind it where there is one per family.
fn spec(name: &str) -> Option<&'static SetSpec> {
    SETS.iter().find(|set| set.name == name)
}

fn by_family(stem: &str, family: Family) -> Option<&'static SetSpec> {
    let digit = match family {
        Family::V4 => '4',
        Family::V6 => '6',
    };
    SETS.iter()
        .find(|set| set.name.strip_suffix(digit) == Some(stem))
}

fn single(set: Option<&'static SetSpec>, key: &[Part<'_>], value: &[Part<'_>]) -> Option<Raw> {
    Some(Raw {
        set: set?,
        key: bytes_of(key),
        end: None,
        value: bytes_of(value),
    })
}

fn range(stem: &str, subnet: Subnet, value: &[Part<'_>]) -> Option<Raw> {
    Some(Raw {
        set: by_family(stem, subnet.family())?,
        key: bytes_of(&[Part::Ip(subnet.first())]),
        end: next_address(subnet.last()).map(|ip| bytes_of(&[Part::Ip(ip)])),
        value: bytes_of(value),
    })
}

fn next_address(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(ip) => u128::from(ip).checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}

fn previous_address(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).checked_sub(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(ip) => u128::from(ip).checked_sub(1).map(|n| IpAddr::V6(n.into())),
    }
}

/// What the sets hold for an element; none when its parts are of two families.
pub(crate) fn encode(element: &Element) -> Option<Vec<Raw>> {
    use Part::{Ip, Mac, Name, Port, Protocol};
    let one = |raw: Option<Raw>| raw.map(|raw| vec![raw]);
    match element {
        Element::Bridge(link) => Some(vec![
            single(spec("bridges"), &[Name(link)], &[])?,
            single(spec("same"), &[Name(link), Name(link)], &[])?,
        ]),
        Element::Separate(link) => one(single(spec("separate"), &[Name(link)], &[])),
        Element::Internal(link) => one(single(spec("internal"), &[Name(link)], &[])),
        Element::Foreign(link) => one(single(spec("foreign"), &[Name(link)], &[])),
        Element::Trusted(link) => one(single(spec("trusted"), &[Name(link)], &[])),
        Element::Inbound {
            bridge,
            family,
            mode,
        } => one(single(
            by_family(mode_stem(*mode), *family),
            &[Name(bridge)],
            &[],
        )),
        Element::Open {
            bridge,
            address,
            protocol,
            port,
        } => one(single(
            by_family("open", Family::of(*address)),
            &[Name(bridge), Ip(*address), Protocol(*protocol), Port(*port)],
            &[],
        )),
        Element::Gateway { bridge, address } => {
            let family = Family::of(*address);
            Some(vec![
                single(by_family("gateways", family), &[Ip(*address)], &[])?,
                single(by_family("own", family), &[Name(bridge), Ip(*address)], &[])?,
            ])
        }
        Element::Port(map) => one(encode_port(map)),
        Element::Masquerade { subnet } => one(range("masq", *subnet, &[])),
        Element::SourceNat { subnet, address } if subnet.family() == Family::of(*address) => {
            one(range("snat", *subnet, &[Ip(*address)]))
        }
        Element::SourceNat { .. } => None,
        Element::Direct { subnet } => one(range("direct", *subnet, &[])),
        Element::Guarded(port) => one(single(spec("guarded"), &[Name(port)], &[])),
        Element::PortMac { port, mac } => {
            one(single(spec("port_mac"), &[Name(port), Mac(*mac)], &[]))
        }
        Element::PortAddress { port, address } => one(single(
            by_family("port", Family::of(*address)),
            &[Name(port), Ip(*address)],
            &[],
        )),
    }
}

fn encode_port(map: &PortMap) -> Option<Raw> {
    let PortMap {
        host,
        protocol,
        port,
        target,
    } = map;
    if host.family() != Family::of(target.ip()) {
        return None;
    }
    let value = [Part::Ip(target.ip()), Part::Port(target.port())];
    let tail = [Part::Protocol(*protocol), Part::Port(*port)];
    match host {
        HostAddress::Any(family) => single(by_family("any", *family), &tail, &value),
        HostAddress::One(ip) => {
            let [protocol, port] = tail;
            let key = [Part::Ip(*ip), protocol, port];
            single(by_family("ports", Family::of(*ip)), &key, &value)
        }
    }
}

fn mode_stem(mode: InboundMode) -> &'static str {
    match mode {
        InboundMode::Nat => "nat",
        InboundMode::Routed => "routed",
        InboundMode::Unprotected => "unprotected",
    }
}

/// A reader of one key or value.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, field: Field) -> Option<&'a [u8]> {
        let value = self.bytes.get(..field.len())?;
        self.bytes = self.bytes.get(field.padded()..).unwrap_or_default();
        Some(value)
    }

    fn name(&mut self) -> Option<LinkName> {
        LinkName::new(text(self.take(Field::Name)?)).ok()
    }

    fn ip(&mut self, family: Family) -> Option<IpAddr> {
        let field = match family {
            Family::V4 => Field::Ip4,
            Family::V6 => Field::Ip6,
        };
        ip_of(self.take(field)?).ok()
    }

    fn mac(&mut self) -> Option<MacAddr> {
        let bytes = self.take(Field::Mac)?;
        <[u8; 6]>::try_from(bytes).ok().map(MacAddr::new)
    }

    fn protocol(&mut self) -> Option<Protocol> {
        Protocol::from_number(*self.take(Field::Protocol)?.first()?)
    }

    fn port(&mut self) -> Option<u16> {
        let bytes = self.take(Field::Port)?;
        <[u8; 2]>::try_from(bytes).ok().map(u16::from_be_bytes)
    }
}

/// The element that a set's entry belongs to; none for one that we cannot have written.
pub(crate) fn decode(raw: &Raw) -> Option<Element> {
    let name = raw.set.name;
    let (stem, family) = match name.strip_suffix('4') {
        Some(stem) => (stem, Family::V4),
        None => match name.strip_suffix('6') {
            Some(stem) => (stem, Family::V6),
            None => (name, Family::V4),
        },
    };
    let mut key = Fields { bytes: &raw.key };
    let inbound = |bridge: Option<LinkName>, mode| {
        Some(Element::Inbound {
            bridge: bridge?,
            family,
            mode,
        })
    };
    match stem {
        "bridges" => key.name().map(Element::Bridge),
        "separate" => key.name().map(Element::Separate),
        "internal" => key.name().map(Element::Internal),
        "foreign" => key.name().map(Element::Foreign),
        "trusted" => key.name().map(Element::Trusted),
        "nat" => inbound(key.name(), InboundMode::Nat),
        "routed" => inbound(key.name(), InboundMode::Routed),
        "unprotected" => inbound(key.name(), InboundMode::Unprotected),
        "open" => Some(Element::Open {
            bridge: key.name()?,
            address: key.ip(family)?,
            protocol: key.protocol()?,
            port: key.port()?,
        }),
        "own" => Some(Element::Gateway {
            bridge: key.name()?,
            address: key.ip(family)?,
        }),
        "ports" | "any" => decode_port(raw, family),
        "masq" => decode_range(raw).map(|subnet| Element::Masquerade { subnet }),
        "direct" => decode_range(raw).map(|subnet| Element::Direct { subnet }),
        "snat" => Some(Element::SourceNat {
            subnet: decode_range(raw)?,
            address: Fields { bytes: &raw.value }.ip(family)?,
        }),
        "guarded" => key.name().map(Element::Guarded),
        "port_mac" => Some(Element::PortMac {
            port: key.name()?,
            mac: key.mac()?,
        }),
        "port" => Some(Element::PortAddress {
            port: key.name()?,
            address: key.ip(family)?,
        }),
        _ => None,
    }
}

fn decode_port(raw: &Raw, family: Family) -> Option<Element> {
    let mut key = Fields { bytes: &raw.key };
    let mut value = Fields { bytes: &raw.value };
    let host = if raw.set.name.starts_with("any") {
        HostAddress::Any(family)
    } else {
        HostAddress::One(key.ip(family)?)
    };
    Some(Element::Port(PortMap {
        host,
        protocol: key.protocol()?,
        port: key.port()?,
        target: SocketAddr::new(value.ip(family)?, value.port()?),
    }))
}

/// The subnet of a range; none when the range is not one subnet.
fn decode_range(raw: &Raw) -> Option<Subnet> {
    let first = ip_of(&raw.key).ok()?;
    let last = match &raw.end {
        Some(end) => previous_address(ip_of(end).ok()?)?,
        None => match first {
            IpAddr::V4(_) => IpAddr::V4(u32::MAX.into()),
            IpAddr::V6(_) => IpAddr::V6(u128::MAX.into()),
        },
    };
    let bits = Family::of(first).bits();
    (0..=bits)
        .filter_map(|len| Subnet::new(first, len).ok())
        .find(|subnet| subnet.last() == last)
}

/// Everything that all sets hold, as elements and as descriptions of what is not ours.
///
/// An element that lives in two sets counts only when it is in both: then adding it again mends
/// it. What is in the second set alone is a stranger.
pub(crate) fn fold(all: &[Raw]) -> (BTreeSet<Element>, Vec<String>) {
    let mut elements = BTreeSet::new();
    let mut strangers = Vec::new();
    let has = |raw: &Raw| all.iter().any(|have| have == raw);
    let mut companions: Vec<Raw> = Vec::new();
    for raw in all.iter().filter(|raw| !is_companion(raw.set.name)) {
        let Some(element) = decode(raw) else {
            strangers.push(describe(raw));
            continue;
        };
        let parts = encode(&element).unwrap_or_default();
        if !parts.contains(raw) {
            // For instance a name with bytes behind its NUL.
            strangers.push(describe(raw));
        } else if parts.iter().all(has) {
            companions.extend(parts.into_iter().filter(|p| is_companion(p.set.name)));
            elements.insert(element);
        }
    }
    for raw in all.iter().filter(|raw| is_companion(raw.set.name)) {
        if !companions.contains(raw) {
            strangers.push(describe(raw));
        }
    }
    (elements, strangers)
}

/// Sets whose entries only accompany those of another set.
fn is_companion(set: &str) -> bool {
    matches!(set, "same" | "gateways4" | "gateways6")
}

fn describe(raw: &Raw) -> String {
    let hex: String = raw.key.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("set {}: key {hex}", raw.set.name)
}

/// Pairs the entries of a range set: a start belongs to the nearest end behind it.
pub(crate) fn pair_ranges(
    set: &'static SetSpec,
    starts: Vec<(Vec<u8>, Vec<u8>)>,
    ends: &BTreeSet<Vec<u8>>,
) -> Vec<Raw> {
    debug_assert_eq!(set.keys, Keys::Ranges);
    starts
        .into_iter()
        .map(|(key, value)| Raw {
            set,
            end: ends.iter().find(|end| **end > key).cloned(),
            key,
            value,
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::nft::layout::byte_len;
    use proptest::prelude::*;

    #[allow(clippy::too_many_lines, reason = "one of each, as a list")]
    pub(crate) fn samples() -> Vec<Element> {
        let link = |text: &str| LinkName::new(text).unwrap();
        let subnet = |text: &str| text.parse::<Subnet>().unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let port = |host, port, target: &str| {
            Element::Port(PortMap {
                host,
                protocol: Protocol::Tcp,
                port,
                target: target.parse().unwrap(),
            })
        };
        let b = || link("nl-0123456789ab");
        let mut all = vec![
            Element::Bridge(b()),
            Element::Internal(b()),
            Element::Separate(b()),
            Element::Foreign(link("docker0")),
            Element::Trusted(link("eth1")),
            Element::Masquerade {
                subnet: subnet("10.1.0.0/16"),
            },
            Element::Masquerade {
                subnet: subnet("10.2.0.0/16"),
            },
            Element::Masquerade {
                subnet: subnet("255.255.255.0/24"),
            },
            Element::Masquerade {
                subnet: subnet("fd00:1::/64"),
            },
            Element::SourceNat {
                subnet: subnet("10.1.0.0/16"),
                address: ip("192.0.2.9"),
            },
            Element::SourceNat {
                subnet: subnet("fd00:1::/64"),
                address: ip("2001:db8::9"),
            },
            Element::Direct {
                subnet: subnet("10.1.0.0/16"),
            },
            Element::Direct {
                subnet: subnet("fd00:1::/64"),
            },
            Element::Guarded(link("nlv0")),
            Element::PortMac {
                port: link("nlv0"),
                mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
            },
            port(HostAddress::Any(Family::V4), 80, "10.1.0.2:8080"),
            port(HostAddress::Any(Family::V6), 80, "[fd00:1::2]:8080"),
            port(HostAddress::One(ip("192.0.2.1")), 81, "10.1.0.2:8080"),
            port(HostAddress::One(ip("2001:db8::1")), 81, "[fd00:1::2]:8080"),
        ];
        for address in [ip("10.1.0.1"), ip("fd00:1::1")] {
            all.push(Element::Gateway {
                bridge: b(),
                address,
            });
            all.push(Element::PortAddress {
                port: link("nlv0"),
                address,
            });
            all.push(Element::Open {
                bridge: b(),
                address,
                protocol: Protocol::Udp,
                port: 53,
            });
        }
        for family in [Family::V4, Family::V6] {
            for mode in [
                InboundMode::Nat,
                InboundMode::Routed,
                InboundMode::Unprotected,
            ] {
                all.push(Element::Inbound {
                    bridge: b(),
                    family,
                    mode,
                });
            }
        }
        all
    }

    #[test]
    fn elements_survive_the_way_into_the_sets_and_back() {
        let raws: Vec<Raw> = samples().iter().flat_map(|e| encode(e).unwrap()).collect();
        for raw in &raws {
            assert_eq!(raw.key.len(), byte_len(raw.set.key), "{}", raw.set.name);
            assert_eq!(raw.value.len(), byte_len(raw.set.value), "{}", raw.set.name);
        }
        let (elements, strangers) = fold(&raws);
        assert_eq!(elements, samples().into_iter().collect());
        assert!(strangers.is_empty(), "{strangers:?}");
    }

    #[test]
    fn half_an_element_does_not_count_and_its_other_half_is_a_stranger() {
        let raws = encode(&Element::Bridge(LinkName::new("b0").unwrap())).unwrap();
        assert!(fold(&raws[..1]).0.is_empty());
        assert_eq!(fold(&raws[1..]).1.len(), 1);
    }

    #[test]
    fn parts_of_two_families_are_refused() {
        let mixed = Element::Port(PortMap {
            host: HostAddress::Any(Family::V6),
            protocol: Protocol::Tcp,
            port: 80,
            target: "10.0.0.1:80".parse().unwrap(),
        });
        assert!(encode(&mixed).is_none());
    }

    proptest! {
        #[test]
        fn keys_of_others_never_panic(
            set in 0..SETS.len(),
            key in proptest::collection::vec(any::<u8>(), 0..70),
            value in proptest::collection::vec(any::<u8>(), 0..40),
            end in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        ) {
            let raw = Raw { set: &SETS[set], key, end, value };
            let _ = fold(&[raw]);
        }
    }
}
