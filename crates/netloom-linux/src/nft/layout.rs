//! The sets, maps and chains of our tables.

use super::Layer;

/// What a field of a set's key or value holds. The number of `datatype.h` in nft lets other tools
/// print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Ip4,
    Ip6,
    Mac,
    Protocol,
    Port,
    Name,
}

impl Field {
    /// Bytes of the value itself.
    pub(crate) const fn len(self) -> usize {
        match self {
            Self::Ip4 => 4,
            Self::Ip6 | Self::Name => 16,
            Self::Mac => 6,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }

    /// Bytes within a concatenation: whole words.
    pub(crate) const fn padded(self) -> usize {
        self.len().next_multiple_of(4)
    }

    const fn type_number(self) -> u32 {
        match self {
            Self::Ip4 => 7,
            Self::Ip6 => 8,
            Self::Mac => 9,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Name => 41,
        }
    }
}

/// How a concatenation is numbered by nft: six bits a field.
pub(crate) fn type_number(fields: &[Field]) -> u32 {
    fields
        .iter()
        .fold(0, |number, field| (number << 6) | field.type_number())
}

/// Bytes of a key or value: a single field is not padded, as nft has it.
pub(crate) fn byte_len(fields: &[Field]) -> usize {
    match fields {
        [single] => single.len(),
        many => many.iter().map(|field| field.padded()).sum(),
    }
}

/// Whether a set holds single keys or ranges of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    Single,
    Ranges,
}

/// A set, or a map where `value` is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SetSpec {
    pub(crate) layer: Layer,
    pub(crate) name: &'static str,
    pub(crate) key: &'static [Field],
    pub(crate) value: &'static [Field],
    pub(crate) keys: Keys,
}

/// `NFT_SET_INTERVAL`.
const INTERVAL: u32 = 4;
/// `NFT_SET_MAP`.
const MAP: u32 = 8;

impl SetSpec {
    /// The kernel's flags.
    pub(crate) fn flags(&self) -> u32 {
        let map = if self.value.is_empty() { 0 } else { MAP };
        let interval = match self.keys {
            Keys::Single => 0,
            Keys::Ranges => INTERVAL,
        };
        map | interval
    }
}

const fn set(name: &'static str, key: &'static [Field]) -> SetSpec {
    map(name, key, &[])
}

const fn map(name: &'static str, key: &'static [Field], value: &'static [Field]) -> SetSpec {
    SetSpec {
        layer: Layer::Inet,
        name,
        key,
        value,
        keys: Keys::Single,
    }
}

const fn ranges(spec: SetSpec) -> SetSpec {
    SetSpec {
        keys: Keys::Ranges,
        ..spec
    }
}

const fn at_bridge(spec: SetSpec) -> SetSpec {
    SetSpec {
        layer: Layer::Bridge,
        ..spec
    }
}

use Field::{Ip4, Ip6, Mac, Name, Port, Protocol};

/// Every set and map of ours.
pub(crate) const SETS: &[SetSpec] = &[
    set("bridges", &[Name]),
    set("same", &[Name, Name]),
    set("separate", &[Name]),
    set("internal", &[Name]),
    set("foreign", &[Name]),
    set("trusted", &[Name]),
    set("nat4", &[Name]),
    set("nat6", &[Name]),
    set("routed4", &[Name]),
    set("routed6", &[Name]),
    set("unprotected4", &[Name]),
    set("unprotected6", &[Name]),
    set("open4", &[Name, Ip4, Protocol, Port]),
    set("open6", &[Name, Ip6, Protocol, Port]),
    set("gateways4", &[Ip4]),
    set("gateways6", &[Ip6]),
    set("own4", &[Name, Ip4]),
    set("own6", &[Name, Ip6]),
    map("ports4", &[Ip4, Protocol, Port], &[Ip4, Port]),
    map("ports6", &[Ip6, Protocol, Port], &[Ip6, Port]),
    map("any4", &[Protocol, Port], &[Ip4, Port]),
    map("any6", &[Protocol, Port], &[Ip6, Port]),
    ranges(set("masq4", &[Ip4])),
    ranges(set("masq6", &[Ip6])),
    ranges(map("snat4", &[Ip4], &[Ip4])),
    ranges(map("snat6", &[Ip6], &[Ip6])),
    ranges(set("direct4", &[Ip4])),
    ranges(set("direct6", &[Ip6])),
    at_bridge(set("guarded", &[Name])),
    at_bridge(set("port_mac", &[Name, Mac])),
    at_bridge(set("port4", &[Name, Ip4])),
    at_bridge(set("port6", &[Name, Ip6])),
];

/// Where a base chain sees packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hook {
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    /// `NF_INET_*` or `NF_BR_*`.
    pub(crate) number: u32,
    /// Lower comes first.
    pub(crate) priority: i32,
}

/// A chain; one without a hook is only jumped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChainSpec {
    pub(crate) layer: Layer,
    pub(crate) name: &'static str,
    pub(crate) hook: Option<Hook>,
}

const fn base(name: &'static str, kind: &'static str, number: u32, priority: i32) -> ChainSpec {
    ChainSpec {
        layer: Layer::Inet,
        name,
        hook: Some(Hook {
            kind,
            number,
            priority,
        }),
    }
}

const fn plain(layer: Layer, name: &'static str) -> ChainSpec {
    ChainSpec {
        layer,
        name,
        hook: None,
    }
}

/// `NF_IP_PRI_RAW`, before connection tracking.
const RAW: i32 = -300;
/// `NF_IP_PRI_NAT_DST`.
const DESTINATION_NAT: i32 = -100;
/// Just before `NF_IP_PRI_FILTER` (0), where iptables filters.
const BEFORE_FILTER: i32 = -5;
/// `NF_IP_PRI_NAT_SRC`.
const SOURCE_NAT: i32 = 100;

/// Every chain of ours. Chains that are jumped to come first, so that a rule's target exists.
pub(crate) const CHAINS: &[ChainSpec] = &[
    plain(Layer::Inet, "from_container"),
    plain(Layer::Inet, "from_bridge"),
    plain(Layer::Inet, "to_bridge"),
    base("raw", "filter", 0, RAW),
    base("prerouting", "nat", 0, DESTINATION_NAT),
    base("input", "filter", 1, BEFORE_FILTER),
    base("forward", "filter", 2, BEFORE_FILTER),
    base("output", "nat", 3, DESTINATION_NAT),
    base("postrouting", "nat", 4, SOURCE_NAT),
    plain(Layer::Bridge, "guard_arp"),
    plain(Layer::Bridge, "guard4"),
    plain(Layer::Bridge, "guard6"),
    plain(Layer::Bridge, "guard"),
    ChainSpec {
        layer: Layer::Bridge,
        name: "prerouting",
        // `NF_BR_PRI_NAT_DST_BRIDGED`, before br_netfilter takes the packet to the inet chains.
        hook: Some(Hook {
            kind: "filter",
            number: 0,
            priority: -300,
        }),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_within_a_table() {
        for (at, one) in SETS.iter().enumerate() {
            assert!(
                SETS.iter()
                    .skip(at + 1)
                    .all(|other| (one.layer, one.name) != (other.layer, other.name)),
                "{} is there twice",
                one.name
            );
        }
    }

    #[test]
    fn keys_fit_into_the_sixteen_words_of_the_machine() {
        for set in SETS {
            assert!(byte_len(set.key) <= 64, "{}", set.name);
        }
    }

    #[test]
    fn concatenations_are_numbered_as_nft_does() {
        assert_eq!(type_number(&[Protocol, Port]), 781);
    }
}
