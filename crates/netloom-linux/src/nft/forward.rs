//! Accept rules in Docker's own chain.
//!
//! dockerd sets the policy of iptables' FORWARD chain to drop and accepts only what belongs to its
//! own bridges. An accept in a chain of ours does not override that, so each bridge of ours gets
//! `-i BRIDGE -j ACCEPT` and `-o BRIDGE -j ACCEPT` in DOCKER-USER, the chain that dockerd leaves to
//! others. They stand behind the rules that the operator wrote there, so that a drop of his holds
//! for our containers, too, and before the closing RETURN that older versions of dockerd keep.
//! Isolation is not lost: our own forward chain came first.

use super::Layer;
use super::batch::{Batch, HEADER, Kind, MAKE, generation, message};
use super::expr::{Compare, Expr, Meta, Verdict};
use super::inspect::{comment, comment_bytes};
use crate::socket::NetlinkSocket;
use crate::wire::{APPEND, Attributes, Malformed, Message, Received, text};
use crate::{AcceptNeed, Applied, Direction, ForwardAccept, KernelError};
use netloom_types::{Family, LinkName};

const FILTER: &str = "filter";
const CHAIN: &str = "DOCKER-USER";
/// Marks our rules; iptables prints it as `--comment`.
const COMMENT: &str = "netloom";
/// How often a change is tried when others change the ruleset at the same time.
const TRIES: u32 = 8;
/// Where the kernel lists the tables that legacy iptables has in use.
const LEGACY_TABLES: &str = "/proc/net/ip_tables_names";

const FAMILIES: [(Family, Layer); 2] = [(Family::V4, Layer::Ip), (Family::V6, Layer::Ip6)];

/// A rule of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    handle: u64,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Ours(LinkName, Direction),
    /// A RETURN for everything, as dockerd writes it at the end.
    Closing,
    Other,
}

/// The accepts that are there.
pub(crate) fn list(socket: &mut NetlinkSocket) -> Result<Vec<ForwardAccept>, KernelError> {
    let mut all = Vec::new();
    for (family, layer) in FAMILIES {
        for rule in rules(socket, layer)? {
            if let What::Ours(bridge, direction) = rule.what {
                all.push(ForwardAccept {
                    family,
                    bridge,
                    direction,
                });
            }
        }
    }
    Ok(all)
}

/// The families that have the chain, or legacy iptables in force instead.
pub(crate) fn need(socket: &mut NetlinkSocket) -> Result<AcceptNeed, KernelError> {
    let mut families = Vec::new();
    for (family, layer) in FAMILIES {
        if chain_exists(socket, layer)? {
            families.push(family);
        }
    }
    if families.is_empty() && legacy_filter()? {
        return Ok(AcceptNeed::LegacyIptables);
    }
    Ok(AcceptNeed::Chains(families))
}

/// Adds the accepts of a bridge, in each family that has the chain.
pub(crate) fn add(socket: &mut NetlinkSocket, bridge: &LinkName) -> Result<Applied, KernelError> {
    let what = format!("accepting {bridge} in {CHAIN}");
    let mut applied = Applied::AlreadySo;
    let mut chains = 0_usize;
    for (_, layer) in FAMILIES {
        if !chain_exists(socket, layer)? {
            continue;
        }
        chains = chains.saturating_add(1);
        let changed = retry(socket, &what, |socket| {
            let rules = rules(socket, layer)?;
            let closing = rules.iter().find(|rule| rule.what == What::Closing);
            let closing = closing.map(|rule| rule.handle);
            let mut batch = Batch::default();
            for direction in [Direction::In, Direction::Out] {
                let ours = What::Ours(bridge.clone(), direction);
                if rules.iter().all(|rule| rule.what != ours) {
                    batch.push(new_rule(layer, bridge, direction, closing));
                }
            }
            Ok(batch)
        })?;
        if changed == Applied::Changed {
            applied = Applied::Changed;
        }
    }
    if chains == 0 && legacy_filter()? {
        return Err(KernelError::LegacyIptables {
            bridge: bridge.clone(),
        });
    }
    Ok(applied)
}

/// Deletes the accepts of a bridge.
pub(crate) fn delete(
    socket: &mut NetlinkSocket,
    bridge: &LinkName,
) -> Result<Applied, KernelError> {
    let what = format!("removing the accepts of {bridge} from {CHAIN}");
    let mut applied = Applied::AlreadySo;
    for (_, layer) in FAMILIES {
        let changed = retry(socket, &what, |socket| {
            let mut batch = Batch::default();
            for rule in rules(socket, layer)? {
                if matches!(&rule.what, What::Ours(name, _) if name == bridge) {
                    batch.push(
                        message(Kind::DeleteRule, 0, layer)
                            .text(1, FILTER)
                            .text(2, CHAIN)
                            .be64(3, rule.handle),
                    );
                }
            }
            Ok(batch)
        })?;
        if changed == Applied::Changed {
            applied = Applied::Changed;
        }
    }
    Ok(applied)
}

/// Reads, plans and commits, again when the ruleset changed in between.
fn retry(
    socket: &mut NetlinkSocket,
    what: &str,
    mut plan: impl FnMut(&mut NetlinkSocket) -> Result<Batch, KernelError>,
) -> Result<Applied, KernelError> {
    for _ in 0..TRIES {
        let read_at = generation(socket)?;
        let batch = plan(socket)?;
        if batch.is_empty() {
            return Ok(Applied::AlreadySo);
        }
        match batch.commit(socket, Some(read_at), what) {
            Ok(()) => return Ok(Applied::Changed),
            Err(KernelError::Disturbed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(KernelError::Disturbed {
        what: what.to_owned(),
    })
}

fn chain_exists(socket: &mut NetlinkSocket, layer: Layer) -> Result<bool, KernelError> {
    let ask = message(Kind::GetChain, 0, layer)
        .text(1, FILTER)
        .text(3, CHAIN);
    match socket.exchange(ask, "looking for DOCKER-USER", |_| Ok(Some(()))) {
        Ok(found) => Ok(found.is_some()),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

fn rules(socket: &mut NetlinkSocket, layer: Layer) -> Result<Vec<Rule>, KernelError> {
    let list = message(Kind::GetRule, 0, layer)
        .text(1, FILTER)
        .text(2, CHAIN);
    match socket.dump(&list, "listing DOCKER-USER", parse) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        other => other,
    }
}

pub(crate) fn parse(received: &Received<'_>) -> Result<Option<Rule>, Malformed> {
    if !Kind::NewRule.is(received) {
        return Ok(None);
    }
    let a = received.attributes(HEADER)?;
    if a.text(1).as_deref() != Some(FILTER) || a.text(2).as_deref() != Some(CHAIN) {
        return Ok(None);
    }
    let handle = a.be64(3).ok_or(Malformed("a rule has no handle"))?;
    let what = classify(&a).unwrap_or(What::Other);
    Ok(Some(Rule { handle, what }))
}

fn classify(rule: &Attributes<'_>) -> Option<What> {
    let mut direction = None;
    let mut bridge = None;
    let mut verdict = None;
    for (_, element) in rule.inside(4)?.iter() {
        let expr = Attributes::parse(element).ok()?;
        let data = expr.inside(2).unwrap_or_default();
        match expr.text(1)?.as_str() {
            "counter" => {}
            "meta" if direction.is_none() => {
                direction = Some(match data.be32(2)? {
                    key if key == Meta::InputName as u32 => Direction::In,
                    key if key == Meta::OutputName as u32 => Direction::Out,
                    _ => return None,
                });
            }
            "cmp" if bridge.is_none() && data.be32(2)? == Compare::Equal as u32 => {
                let value = data.inside(3)?.get(1)?;
                bridge = Some(LinkName::new(text(value)).ok()?);
            }
            "immediate" => verdict = data.inside(2)?.inside(2)?.be32(1),
            _ => return None,
        }
    }
    let ours = rule.get(7).and_then(comment).as_deref() == Some(COMMENT);
    let return_code = RETURN.cast_unsigned();
    match (direction, bridge, verdict?) {
        (Some(direction), Some(bridge), ACCEPT) if ours => Some(What::Ours(bridge, direction)),
        (None, None, code) if code == return_code => Some(What::Closing),
        _ => None,
    }
}

/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// `NFT_RETURN`.
const RETURN: i32 = -5;

/// The rule in the form of iptables-nft: an exact name is compared up to its NUL.
fn new_rule(layer: Layer, bridge: &LinkName, direction: Direction, before: Option<u64>) -> Message {
    let key = match direction {
        Direction::In => Meta::InputName,
        Direction::Out => Meta::OutputName,
    };
    let mut name = bridge.as_str().as_bytes().to_vec();
    name.push(0);
    let exprs = [
        Expr::Meta { key, word: 0 },
        Expr::Compare {
            how: Compare::Equal,
            word: 0,
            value: name,
        },
        Expr::Counter,
        Expr::Verdict(Verdict::Accept),
    ];
    // Without APPEND a rule goes before the one at the position.
    let flags = match before {
        Some(_) => MAKE,
        None => MAKE | APPEND,
    };
    message(Kind::NewRule, flags, layer)
        .text(1, FILTER)
        .text(2, CHAIN)
        .nested(4, |m| exprs.iter().fold(m, |m, expr| expr.write(m)))
        .when(before, |m, handle| m.be64(6, handle))
        .bytes(7, &comment_bytes(COMMENT))
}

/// Whether legacy iptables filters on this host: then the rules of dockerd are out of our reach.
fn legacy_filter() -> Result<bool, KernelError> {
    match std::fs::read_to_string(LEGACY_TABLES) {
        Ok(names) => Ok(names.lines().any(|name| name == FILTER)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(KernelError::io(format!("reading {LEGACY_TABLES}"), error)),
    }
}
