//! Our two nftables tables.
//!
//! Rules are written once and stay; networks, containers and ports are elements of sets and maps.
//! So an attach costs the same whether there are ten containers or ten thousand, and a transaction
//! never touches what belongs to another container.
//!
//! ```text
//!                         table inet netloom
//!
//!  from a wire ──► raw (-300)         127.0.0.0/8, ::1 from outside: drop
//!  or a bridge     │                  to @direct4/6, not from @bridges, @trusted: drop
//!                  ▼
//!                 prerouting (-100)   to a local address: dnat by @ports4/6, @any4/6
//!                  │
//!        ┌─────────┴──────────┐
//!        ▼ to the host        ▼ through the host
//!       input (-5)           forward (-5)
//!        established: accept  established: accept
//!                             within one of @separate, untranslated: drop
//!        from @bridges:       translated, within one bridge (@same): mark as hairpin
//!        from_container       within one bridge: accept
//!                             from @bridges: from_bridge ── to another of @bridges: drop
//!         RA, redirect: drop                                from @internal: drop
//!         other network's                                   to @foreign: drop
//!         gateway: drop                                     invalid: drop, else on
//!         from @internal:     to @bridges:   to_bridge ──── from @foreign: drop
//!         ICMP of the own                                   to @internal: drop
//!         gateway, else drop                                @unprotected4/6: accept
//!                                                           @nat4/6 and translated: accept
//!                                                           @routed4/6: echo, @open4/6: accept
//!                             │                             else: drop
//!  from the host ─► output    │
//!                  (-100)     │   not to 127.0.0.0/8, ::1: dnat as prerouting
//!                        │    ▼
//!                        └► postrouting (100)  marked as hairpin: masquerade
//!                                              to @bridges: as it is
//!                                              from @snat4/6: that source
//!                                              from @masq4/6: masquerade
//!
//!                         table bridge netloom
//!
//!  frame from a port ─► prerouting (-300)   port in @guarded: guard
//!                         guard        source MAC not in @port_mac: drop
//!                         guard_arp    sender not in @port_mac, @port4: drop (probes pass)
//!                         guard4       DHCP replies: drop; source not in @port4: drop
//!                         guard6       RA, redirect, DHCPv6 replies: drop; advertised address or
//!                                      source not in @port6: drop (link-local and :: pass)
//! ```
//!
//! What `nft list ruleset` prints of it can be read back by `nft -f`, but for one rule ("advertisement
//! of another address"): nft before it learned `icmpv6 taddr` prints that field as a bare offset.
//! An operator who saves the whole ruleset leaves our tables out; they are made anew anyway.
//!
//! The priorities: raw before connection tracking, translation where the kernel expects it, the
//! filters at -5, just before iptables' own, so that our drop comes first. An accept of ours
//! decides nothing for the chains of others; that is why [`forward`] adds rules to DOCKER-USER.

pub(crate) mod batch;
pub(crate) mod elements;
pub(crate) mod expr;
pub(crate) mod forward;
mod guard;
pub(crate) mod inspect;
pub(crate) mod layout;
mod matches;
pub(crate) mod rules;
pub(crate) mod table;

/// The family of a table (`NFPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Layer {
    Inet = 1,
    Ip = 2,
    Bridge = 7,
    Ip6 = 10,
}

/// The name of our tables.
pub(crate) const TABLE: &str = "netloom";
