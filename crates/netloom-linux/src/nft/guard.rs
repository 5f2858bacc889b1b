//! The rules of our bridge table: who a frame may claim to come from.

use super::Layer;
use super::expr::{Base, Compare, Expr, Meta};
use super::matches::{
    ACCEPT, Chain, DROP, ICMP6, Match, NAME_WORDS, V4, V6, compare, from, icmp, jump, name_at,
    payload, source, transport, udp_from,
};

/// Every rule, in order.
pub(super) fn chains() -> [Chain; 4] {
    [guard(), guard_arp(), guard4(), guard6()]
}

/// The port's name and what was loaded behind it, in a set or not.
fn port_with(load: Expr, set: &'static str, how: Compare) -> Match {
    vec![
        name_at(Meta::InputName, 0),
        load,
        Expr::Lookup { set, word: 0, how },
    ]
}

/// EtherType numbers (IEEE 802). Rules name the protocol even where the chain is for one only:
/// without it, other tools print header fields as bare offsets, and cannot read them back.
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

fn ether_type(number: u16) -> Match {
    vec![
        name_at(Meta::Protocol, 0),
        compare(Compare::Equal, &number.to_be_bytes()),
    ]
}

fn guard() -> Chain {
    let mut chain = Chain::new(Layer::Bridge, "prerouting").rule(
        "guarded ports",
        [from("guarded")],
        jump("guard"),
    );
    let guard = Chain::new(Layer::Bridge, "guard")
        .rule(
            "source MAC of someone else",
            [port_with(
                payload(Base::Ethernet, 6, 6, NAME_WORDS),
                "port_mac",
                Compare::Differs,
            )],
            DROP,
        )
        .rule("ARP", [ether_type(ARP)], jump("guard_arp"))
        .rule("IPv4", [ether_type(IPV4)], jump("guard4"))
        .rule("IPv6", [ether_type(IPV6)], jump("guard6"));
    chain.rules.extend(guard.rules);
    chain
}

/// RFC 826: sender's hardware address at 8, sender's protocol address at 14.
fn guard_arp() -> Chain {
    let probe = vec![
        payload(Base::Network, 14, 4, 0),
        compare(Compare::Equal, &[0; 4]),
    ];
    Chain::new(Layer::Bridge, "guard_arp")
        .rule(
            "ARP for another MAC",
            [
                ether_type(ARP),
                port_with(
                    payload(Base::Network, 8, 6, NAME_WORDS),
                    "port_mac",
                    Compare::Differs,
                ),
            ],
            DROP,
        )
        .rule("ARP probe", [ether_type(ARP), probe], ACCEPT)
        .rule(
            "own ARP",
            [
                ether_type(ARP),
                port_with(
                    payload(Base::Network, 14, 4, NAME_WORDS),
                    "port4",
                    Compare::Equal,
                ),
            ],
            ACCEPT,
        )
        .rule("ARP for another address", [], DROP)
}

fn guard4() -> Chain {
    Chain::new(Layer::Bridge, "guard4")
        .rule("DHCP replies", [udp_from(67)], DROP)
        .rule(
            "own IPv4",
            [
                ether_type(IPV4),
                port_with(source(V4, NAME_WORDS), "port4", Compare::Equal),
            ],
            ACCEPT,
        )
        .rule("IPv4 source of someone else", [], DROP)
}

/// fe80::/10 at `offset`, in the first of four words.
fn link_local(base: Base, offset: u32, how: Compare) -> Match {
    vec![
        payload(base, offset, 4, 0),
        Expr::Mask {
            word: 0,
            mask: [0xff, 0xc0, 0, 0],
        },
        compare(how, &[0xfe, 0x80, 0, 0]),
    ]
}

fn guard6() -> Chain {
    let unspecified = vec![source(V6, 0), compare(Compare::Equal, &[0; 16])];
    Chain::new(Layer::Bridge, "guard6")
        .rule("router advertisements", [icmp(ICMP6, 134)], DROP)
        .rule("IPv6 redirects", [icmp(ICMP6, 137)], DROP)
        .rule("DHCPv6 replies", [udp_from(547)], DROP)
        // RFC 4861 section 4.4: the target address lies at 8 of the ICMPv6 message.
        .rule(
            "advertisement of another address",
            [
                ether_type(IPV6),
                icmp(ICMP6, 136),
                link_local(Base::Transport, 8, Compare::Differs),
                port_with(
                    payload(Base::Transport, 8, 16, NAME_WORDS),
                    "port6",
                    Compare::Differs,
                ),
            ],
            DROP,
        )
        .rule(
            "own IPv6",
            [
                ether_type(IPV6),
                port_with(source(V6, NAME_WORDS), "port6", Compare::Equal),
            ],
            ACCEPT,
        )
        .rule(
            "link-local",
            [
                ether_type(IPV6),
                link_local(Base::Network, 8, Compare::Equal),
            ],
            ACCEPT,
        )
        // Duplicate address detection and multicast listener reports come from no address.
        .rule(
            "unspecified",
            [ether_type(IPV6), unspecified, transport(ICMP6)],
            ACCEPT,
        )
        .rule("IPv6 source of someone else", [], DROP)
}
