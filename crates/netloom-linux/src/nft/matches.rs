//! Conditions that rules are put together from, and rules put together to chains.

use super::Layer;
use super::expr::{Base, Compare, Conntrack, Expr, Meta, Verdict};

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleSpec {
    pub(crate) layer: Layer,
    pub(crate) chain: &'static str,
    pub(crate) comment: &'static str,
    pub(crate) exprs: Vec<Expr>,
}

/// Words that an interface name takes.
pub(super) const NAME_WORDS: u32 = 4;
/// `NFPROTO_IPV4`.
pub(super) const V4: u8 = 2;
/// `NFPROTO_IPV6`.
pub(super) const V6: u8 = 10;
/// IANA protocol numbers.
pub(super) const ICMP: u8 = 1;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP6: u8 = 58;
/// `RTN_LOCAL`.
pub(super) const LOCAL: u32 = 2;
/// `NF_CT_STATE_INVALID_BIT`.
pub(super) const INVALID: u32 = 1;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED)`.
pub(super) const ESTABLISHED_RELATED: u32 = 2 | 4;
/// `IPS_DST_NAT`.
pub(super) const TRANSLATED: u32 = 32;

/// A rule's condition: expressions in a row.
pub(super) type Match = Vec<Expr>;

pub(super) fn name_at(key: Meta, word: u32) -> Expr {
    Expr::Meta { key, word }
}

pub(super) fn in_set(key: Meta, set: &'static str) -> Match {
    vec![
        name_at(key, 0),
        Expr::Lookup {
            set,
            word: 0,
            how: Compare::Equal,
        },
    ]
}

pub(super) fn from(set: &'static str) -> Match {
    in_set(Meta::InputName, set)
}

pub(super) fn to(set: &'static str) -> Match {
    in_set(Meta::OutputName, set)
}

/// Input and output are the same bridge of ours.
pub(super) fn same_bridge() -> Match {
    vec![
        name_at(Meta::InputName, 0),
        name_at(Meta::OutputName, NAME_WORDS),
        Expr::Lookup {
            set: "same",
            word: 0,
            how: Compare::Equal,
        },
    ]
}

pub(super) fn compare(how: Compare, value: &[u8]) -> Expr {
    Expr::Compare {
        how,
        word: 0,
        value: value.to_vec(),
    }
}

pub(super) fn family(number: u8) -> Match {
    vec![
        name_at(Meta::NetworkFamily, 0),
        compare(Compare::Equal, &[number]),
    ]
}

pub(super) fn transport(protocol: u8) -> Match {
    vec![
        name_at(Meta::TransportProtocol, 0),
        compare(Compare::Equal, &[protocol]),
    ]
}

/// An ICMP or ICMPv6 message of a type.
pub(super) fn icmp(protocol: u8, kind: u8) -> Match {
    let mut exprs = transport(protocol);
    exprs.push(payload(Base::Transport, 0, 1, 0));
    exprs.push(compare(Compare::Equal, &[kind]));
    exprs
}

/// A UDP datagram from a port.
pub(super) fn udp_from(port: u16) -> Match {
    let mut exprs = transport(UDP);
    exprs.push(payload(Base::Transport, 0, 2, 0));
    exprs.push(compare(Compare::Equal, &port.to_be_bytes()));
    exprs
}

pub(super) fn payload(base: Base, offset: u32, len: u32, word: u32) -> Expr {
    Expr::Payload {
        base,
        offset,
        len,
        word,
    }
}

/// The address of an IP header: offset and bytes.
pub(super) fn source(version: u8, word: u32) -> Expr {
    match version {
        V4 => payload(Base::Network, 12, 4, word),
        _ => payload(Base::Network, 8, 16, word),
    }
}

pub(super) fn destination(version: u8, word: u32) -> Expr {
    match version {
        V4 => payload(Base::Network, 16, 4, word),
        _ => payload(Base::Network, 24, 16, word),
    }
}

/// Words that an address takes.
pub(super) fn words(version: u8) -> u32 {
    match version {
        V4 => 1,
        _ => 4,
    }
}

pub(super) fn conntrack(key: Conntrack, bits: u32) -> Match {
    vec![
        Expr::Conntrack { key, word: 0 },
        Expr::Mask {
            word: 0,
            mask: bits.to_ne_bytes(),
        },
        compare(Compare::Differs, &[0; 4]),
    ]
}

/// The destination of the connection was not changed by us.
pub(super) fn untranslated() -> Match {
    vec![
        Expr::Conntrack {
            key: Conntrack::Status,
            word: 0,
        },
        Expr::Mask {
            word: 0,
            mask: TRANSLATED.to_ne_bytes(),
        },
        compare(Compare::Equal, &[0; 4]),
    ]
}

pub(super) fn to_local() -> Match {
    vec![
        Expr::DestinationType { word: 0 },
        compare(Compare::Equal, &LOCAL.to_ne_bytes()),
    ]
}

pub(super) fn lookup(set: &'static str, how: Compare) -> Match {
    vec![Expr::Lookup { set, word: 0, how }]
}

/// Rules of one chain under construction.
pub(super) struct Chain {
    layer: Layer,
    name: &'static str,
    pub(super) rules: Vec<RuleSpec>,
}

impl Chain {
    pub(super) fn new(layer: Layer, name: &'static str) -> Self {
        Self {
            layer,
            name,
            rules: Vec::new(),
        }
    }

    /// Adds a rule: every match must hold, then `end` happens.
    pub(super) fn rule<const N: usize>(
        mut self,
        comment: &'static str,
        matches: [Match; N],
        end: Expr,
    ) -> Self {
        let mut exprs: Vec<Expr> = matches.into_iter().flatten().collect();
        if end == Expr::Verdict(Verdict::Drop) {
            exprs.push(Expr::Counter);
        }
        exprs.push(end);
        self.rules.push(RuleSpec {
            layer: self.layer,
            chain: self.name,
            comment,
            exprs,
        });
        self
    }
}

pub(super) const ACCEPT: Expr = Expr::Verdict(Verdict::Accept);
pub(super) const DROP: Expr = Expr::Verdict(Verdict::Drop);

pub(super) fn jump(chain: &'static str) -> Expr {
    Expr::Verdict(Verdict::Jump(chain))
}
