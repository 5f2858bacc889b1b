//! The rules of our inet table. Each has a comment that is unique in its chain, which people read
//! in `nft list ruleset`, and by which we know the rule again.

use super::Layer;
use super::expr::{Base, Compare, Conntrack, Expr, Meta, Nat};
use super::matches::{
    ACCEPT, Chain, DROP, ESTABLISHED_RELATED, ICMP, ICMP6, INVALID, Match, NAME_WORDS, RuleSpec,
    TRANSLATED, V4, V6, compare, conntrack, destination, family, from, icmp, jump, lookup, name_at,
    payload, same_bridge, source, to, to_local, transport, untranslated, words,
};

/// Marks the first packet of a connection that comes back to the bridge it came from, from the
/// forward chain to the postrouting chain and no further. `nl` in ASCII, so that it meets no mark
/// of others, who count from low bits.
const HAIRPIN_MARK: u32 = 0x6e6c_0001;

/// Every rule, in order.
pub(crate) fn all() -> Vec<RuleSpec> {
    [
        raw(),
        prerouting(),
        input(),
        from_container(),
        forward(),
        from_bridge(),
        to_bridge(),
        output(),
        postrouting(),
    ]
    .into_iter()
    .chain(super::guard::chains())
    .flat_map(|chain| chain.rules)
    .collect()
}

/// 127.0.0.0/8: its first byte, of four.
fn to_loopback4(how: Compare) -> Match {
    let mut exprs = family(V4);
    exprs.push(destination(V4, 0));
    exprs.push(Expr::Mask {
        word: 0,
        mask: [255, 0, 0, 0],
    });
    exprs.push(compare(how, &[127, 0, 0, 0]));
    exprs
}

fn to_loopback6(how: Compare) -> Match {
    let mut exprs = family(V6);
    exprs.push(destination(V6, 0));
    exprs.push(compare(how, &std::net::Ipv6Addr::LOCALHOST.octets()));
    exprs
}

fn destination_in(version: u8, set: &'static str) -> Match {
    let mut exprs = family(version);
    exprs.push(destination(version, 0));
    exprs.extend(lookup(set, Compare::Equal));
    exprs
}

fn raw() -> Chain {
    let mut loopback = [0; 16];
    if let Some(start) = loopback.get_mut(..2) {
        start.copy_from_slice(b"lo");
    }
    let from_loopback = vec![
        name_at(Meta::InputName, 0),
        compare(Compare::Equal, &loopback),
    ];
    Chain::new(Layer::Inet, "raw")
        .rule("the host itself", [from_loopback], ACCEPT)
        .rule(
            "IPv4 loopback from outside",
            [to_loopback4(Compare::Equal)],
            DROP,
        )
        .rule(
            "IPv6 loopback from outside",
            [to_loopback6(Compare::Equal)],
            DROP,
        )
        .rule("from our bridges", [from("bridges")], ACCEPT)
        .rule("from trusted links", [from("trusted")], ACCEPT)
        .rule(
            "IPv4 containers directly",
            [destination_in(V4, "direct4")],
            DROP,
        )
        .rule(
            "IPv6 containers directly",
            [destination_in(V6, "direct6")],
            DROP,
        )
}

/// Loads address, protocol and port, and replaces them by what the map says.
fn published(version: u8, map: &'static str, keyed: KeyedBy) -> Match {
    let mut exprs = to_local();
    let at = match keyed {
        KeyedBy::Address => {
            exprs.push(destination(version, 0));
            words(version)
        }
        KeyedBy::PortOnly => 0,
    };
    exprs.push(name_at(Meta::TransportProtocol, at));
    exprs.push(payload(Base::Transport, 2, 2, at.saturating_add(1)));
    exprs.push(Expr::Map { map, word: 0 });
    exprs
}

#[derive(Clone, Copy)]
enum KeyedBy {
    Address,
    PortOnly,
}

fn to_target(version: u8) -> Expr {
    Expr::Nat {
        which: Nat::Destination,
        family: version,
        port: Some(words(version)),
    }
}

fn prerouting() -> Chain {
    use KeyedBy::{Address, PortOnly};
    Chain::new(Layer::Inet, "prerouting")
        .rule(
            "IPv4 ports of one address",
            [family(V4), published(V4, "ports4", Address)],
            to_target(V4),
        )
        .rule(
            "IPv4 ports of any address",
            [family(V4), published(V4, "any4", PortOnly)],
            to_target(V4),
        )
        .rule(
            "IPv6 ports of one address",
            [family(V6), published(V6, "ports6", Address)],
            to_target(V6),
        )
        .rule(
            "IPv6 ports of any address",
            [family(V6), published(V6, "any6", PortOnly)],
            to_target(V6),
        )
}

/// The host's own connections. Loopback addresses are left to the relay process: a packet that
/// was sent to 127.0.0.1 must not leave through a bridge (`route_localnet` stays off).
fn output() -> Chain {
    use KeyedBy::{Address, PortOnly};
    Chain::new(Layer::Inet, "output")
        .rule(
            "IPv4 ports of one address",
            [
                to_loopback4(Compare::Differs),
                published(V4, "ports4", Address),
            ],
            to_target(V4),
        )
        .rule(
            "IPv4 ports of any address",
            [
                to_loopback4(Compare::Differs),
                published(V4, "any4", PortOnly),
            ],
            to_target(V4),
        )
        .rule(
            "IPv6 ports of one address",
            [
                to_loopback6(Compare::Differs),
                published(V6, "ports6", Address),
            ],
            to_target(V6),
        )
        .rule(
            "IPv6 ports of any address",
            [
                to_loopback6(Compare::Differs),
                published(V6, "any6", PortOnly),
            ],
            to_target(V6),
        )
}

fn input() -> Chain {
    Chain::new(Layer::Inet, "input")
        .rule(
            "answers",
            [conntrack(Conntrack::State, ESTABLISHED_RELATED)],
            ACCEPT,
        )
        .rule("from containers", [from("bridges")], jump("from_container"))
}

/// The gateway address that a packet is sent to is that of the bridge it came from, or not.
fn own_gateway(version: u8, how: Compare) -> Match {
    let set = match version {
        V4 => "own4",
        _ => "own6",
    };
    vec![
        name_at(Meta::InputName, 0),
        destination(version, NAME_WORDS),
        Expr::Lookup { set, word: 0, how },
    ]
}

fn from_container() -> Chain {
    Chain::new(Layer::Inet, "from_container")
        .rule("router advertisements", [icmp(ICMP6, 134)], DROP)
        .rule("IPv6 redirects", [icmp(ICMP6, 137)], DROP)
        .rule("IPv4 redirects", [icmp(ICMP, 5)], DROP)
        .rule(
            "IPv4 gateways of other networks",
            [
                destination_in(V4, "gateways4"),
                own_gateway(V4, Compare::Differs),
            ],
            DROP,
        )
        .rule(
            "IPv6 gateways of other networks",
            [
                destination_in(V6, "gateways6"),
                own_gateway(V6, Compare::Differs),
            ],
            DROP,
        )
        .rule(
            "internal: ICMP of the gateway",
            [
                from("internal"),
                family(V4),
                transport(ICMP),
                own_gateway(V4, Compare::Equal),
            ],
            ACCEPT,
        )
        .rule(
            "internal: ICMPv6 of the gateway",
            [
                from("internal"),
                family(V6),
                transport(ICMP6),
                own_gateway(V6, Compare::Equal),
            ],
            ACCEPT,
        )
        .rule(
            "internal: neighbour solicitations",
            [from("internal"), icmp(ICMP6, 135)],
            ACCEPT,
        )
        .rule(
            "internal: neighbour advertisements",
            [from("internal"), icmp(ICMP6, 136)],
            ACCEPT,
        )
        .rule("internal: everything else", [from("internal")], DROP)
}

fn forward() -> Chain {
    Chain::new(Layer::Inet, "forward")
        .rule(
            "answers",
            [conntrack(Conntrack::State, ESTABLISHED_RELATED)],
            ACCEPT,
        )
        .rule(
            "between separate containers",
            [from("separate"), same_bridge(), untranslated()],
            DROP,
        )
        .rule(
            "hairpin",
            [
                conntrack(Conntrack::Status, TRANSLATED),
                same_bridge(),
                vec![Expr::Load {
                    word: 0,
                    value: HAIRPIN_MARK,
                }],
            ],
            Expr::SetMark { word: 0 },
        )
        .rule("within one bridge", [same_bridge()], ACCEPT)
        .rule("from our bridges", [from("bridges")], jump("from_bridge"))
        .rule("to our bridges", [to("bridges")], jump("to_bridge"))
}

fn from_bridge() -> Chain {
    Chain::new(Layer::Inet, "from_bridge")
        .rule("between networks", [to("bridges")], DROP)
        .rule("out of an internal network", [from("internal")], DROP)
        .rule("to bridges of others", [to("foreign")], DROP)
        // What connection tracking cannot place would leave with the container's own address.
        .rule("untracked", [conntrack(Conntrack::State, INVALID)], DROP)
}

/// A container's own address and port that are open without translation.
fn open_port(version: u8, set: &'static str) -> Match {
    let at = NAME_WORDS.saturating_add(words(version));
    vec![
        name_at(Meta::OutputName, 0),
        destination(version, NAME_WORDS),
        name_at(Meta::TransportProtocol, at),
        payload(Base::Transport, 2, 2, at.saturating_add(1)),
        Expr::Lookup {
            set,
            word: 0,
            how: Compare::Equal,
        },
    ]
}

fn to_bridge() -> Chain {
    let translated = || conntrack(Conntrack::Status, TRANSLATED);
    Chain::new(Layer::Inet, "to_bridge")
        .rule("from bridges of others", [from("foreign")], DROP)
        .rule("into an internal network", [to("internal")], DROP)
        .rule("IPv4 unprotected", [family(V4), to("unprotected4")], ACCEPT)
        .rule("IPv6 unprotected", [family(V6), to("unprotected6")], ACCEPT)
        .rule(
            "IPv4 published",
            [family(V4), to("nat4"), translated()],
            ACCEPT,
        )
        .rule(
            "IPv6 published",
            [family(V6), to("nat6"), translated()],
            ACCEPT,
        )
        .rule(
            "IPv4 echo",
            [family(V4), to("routed4"), icmp(ICMP, 8)],
            ACCEPT,
        )
        .rule(
            "IPv6 echo",
            [family(V6), to("routed6"), icmp(ICMP6, 128)],
            ACCEPT,
        )
        .rule(
            "IPv4 open ports",
            [family(V4), to("routed4"), open_port(V4, "open4")],
            ACCEPT,
        )
        .rule(
            "IPv6 open ports",
            [family(V6), to("routed6"), open_port(V6, "open6")],
            ACCEPT,
        )
        .rule(
            "IPv4 open ports from trusted links",
            [
                from("trusted"),
                family(V4),
                to("nat4"),
                open_port(V4, "open4"),
            ],
            ACCEPT,
        )
        .rule(
            "IPv6 open ports from trusted links",
            [
                from("trusted"),
                family(V6),
                to("nat6"),
                open_port(V6, "open6"),
            ],
            ACCEPT,
        )
        .rule("everything else", [], DROP)
}

fn source_in(version: u8, set: &'static str) -> Match {
    let mut exprs = family(version);
    exprs.push(source(version, 0));
    exprs.extend(lookup(set, Compare::Equal));
    exprs
}

fn source_by(version: u8, map: &'static str) -> Match {
    let mut exprs = family(version);
    exprs.push(source(version, 0));
    exprs.push(Expr::Map { map, word: 0 });
    exprs
}

fn postrouting() -> Chain {
    let to_address = |version| Expr::Nat {
        which: Nat::Source,
        family: version,
        port: None,
    };
    Chain::new(Layer::Inet, "postrouting")
        // A container that reaches a neighbour, or itself, through a published port: the answer
        // must come back through the host. The forward chain tells it by a mark, because here the
        // input link is not known for packets that br_netfilter keeps on the bridge.
        .rule(
            "hairpin",
            [
                conntrack(Conntrack::Status, TRANSLATED),
                vec![
                    name_at(Meta::Mark, 0),
                    compare(Compare::Equal, &HAIRPIN_MARK.to_ne_bytes()),
                ],
            ],
            Expr::Masquerade,
        )
        .rule("to our bridges", [to("bridges")], ACCEPT)
        .rule(
            "IPv4 chosen source",
            [source_by(V4, "snat4")],
            to_address(V4),
        )
        .rule(
            "IPv6 chosen source",
            [source_by(V6, "snat6")],
            to_address(V6),
        )
        .rule(
            "IPv4 masquerade",
            [source_in(V4, "masq4")],
            Expr::Masquerade,
        )
        .rule(
            "IPv6 masquerade",
            [source_in(V6, "masq6")],
            Expr::Masquerade,
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::expr::Verdict;
    use crate::nft::layout::{CHAINS, SETS};

    #[test]
    fn every_rule_names_a_chain_and_sets_that_exist() {
        for rule in all() {
            assert!(
                CHAINS
                    .iter()
                    .any(|c| (c.layer, c.name) == (rule.layer, rule.chain)),
                "{}",
                rule.comment
            );
            for expr in &rule.exprs {
                let set = match expr {
                    Expr::Lookup { set, .. } => *set,
                    Expr::Map { map, .. } => *map,
                    Expr::Verdict(Verdict::Jump(chain)) => {
                        assert!(
                            CHAINS
                                .iter()
                                .any(|c| (c.layer, c.name) == (rule.layer, *chain))
                        );
                        continue;
                    }
                    _ => continue,
                };
                assert!(
                    SETS.iter().any(|s| (s.layer, s.name) == (rule.layer, set)),
                    "{set}"
                );
            }
        }
    }

    #[test]
    fn comments_are_unique_within_a_chain() {
        let all = all();
        for (at, one) in all.iter().enumerate() {
            assert!(
                all.iter().skip(at + 1).all(|other| {
                    (one.layer, one.chain, one.comment) != (other.layer, other.chain, other.comment)
                }),
                "{} {}",
                one.chain,
                one.comment
            );
        }
    }

    #[test]
    fn every_set_is_used_by_a_rule() {
        let rules = all();
        for set in SETS {
            let used = rules.iter().filter(|r| r.layer == set.layer).any(|rule| {
                rule.exprs.iter().any(|expr| match expr {
                    Expr::Lookup { set: name, .. } => *name == set.name,
                    Expr::Map { map, .. } => *map == set.name,
                    _ => false,
                })
            });
            assert!(used, "{} is not used", set.name);
        }
    }
}
