//! Reading our tables back.

use super::batch::{HEADER, Kind, family_of, message};
use super::elements::{Raw, pair_ranges};
use super::layout::{CHAINS, ChainSpec, Keys, SETS, SetSpec, byte_len};
use super::matches::RuleSpec;
use super::{Layer, TABLE};
use crate::KernelError;
use crate::socket::NetlinkSocket;
use crate::wire::{Attributes, Malformed, Received};
use std::collections::BTreeSet;

/// `NFT_SET_ELEM_INTERVAL_END`.
pub(super) const RANGE_END: u32 = 1;
/// `NFTA_SET_ELEM_KEY`, `_DATA`, `_FLAGS`.
pub(super) const ELEMENT_KEY: u16 = 1;
pub(super) const ELEMENT_DATA: u16 = 2;
pub(super) const ELEMENT_FLAGS: u16 = 3;
/// `NFTA_SET_ELEM_LIST_TABLE`, `_SET`, `_ELEMENTS`.
pub(super) const LIST_TABLE: u16 = 1;
pub(super) const LIST_SET: u16 = 2;
pub(super) const LIST_ELEMENTS: u16 = 3;
/// `NFTA_DATA_VALUE`.
pub(super) const DATA_VALUE: u16 = 1;
/// `NF_ACCEPT`, the policy of our base chains.
pub(super) const ACCEPT: u32 = 1;

/// How our tables differ from what they should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Inspection {
    /// Sets that are there and right.
    pub(super) sets: Vec<&'static SetSpec>,
    /// Chains that are there and right.
    pub(super) chains: Vec<&'static ChainSpec>,
    /// Sets or chains that are there and wrong: the tables must be made anew.
    pub(super) wrong: Vec<String>,
    /// What is missing or was changed.
    pub(super) faults: Vec<String>,
    /// Rules of somebody else in our chains.
    pub(super) strays: Vec<String>,
}

impl Inspection {
    /// Whether everything is there and right, and nothing else.
    pub(super) fn is_right(&self) -> bool {
        self.wrong.is_empty() && self.faults.is_empty() && self.strays.is_empty()
    }

    /// Whether nothing at all of ours is there.
    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.chains.is_empty() && self.wrong.is_empty()
    }
}

const LAYERS: [Layer; 2] = [Layer::Inet, Layer::Bridge];

pub(super) fn inspect(
    socket: &mut NetlinkSocket,
    rules: &[RuleSpec],
) -> Result<Inspection, KernelError> {
    let mut found = Inspection::default();
    for layer in LAYERS {
        inspect_sets(socket, layer, &mut found)?;
        inspect_chains(socket, layer, &mut found)?;
        inspect_rules(socket, layer, rules, &mut found)?;
    }
    Ok(found)
}

/// Whether a received object belongs to our table of that layer. A kernel may answer a dump with
/// more than was asked for.
fn is_ours(received: &Received<'_>, attributes: &Attributes<'_>, layer: Layer) -> bool {
    family_of(received) == layer as u8 && attributes.text(1).as_deref() == Some(TABLE)
}

fn inspect_sets(
    socket: &mut NetlinkSocket,
    layer: Layer,
    found: &mut Inspection,
) -> Result<(), KernelError> {
    let list = message(Kind::GetSet, 0, layer).text(1, TABLE);
    let have = dump(socket, &list, "listing sets", |received| {
        if !Kind::NewSet.is(received) {
            return Ok(None);
        }
        let a = received.attributes(HEADER)?;
        let shape = (a.be32(3).unwrap_or(0), a.be32(5), a.be32(7).unwrap_or(0));
        Ok(is_ours(received, &a, layer).then(|| (a.text(2).unwrap_or_default(), shape)))
    })?;
    for set in SETS.iter().filter(|set| set.layer == layer) {
        let len = |fields| u32::try_from(byte_len(fields)).unwrap_or(0);
        let right = (set.flags(), Some(len(set.key)), len(set.value));
        match have.iter().find(|(name, _)| name == set.name) {
            None => found.faults.push(format!("set {} is missing", set.name)),
            Some((_, shape)) if *shape == right => found.sets.push(set),
            Some(_) => found
                .wrong
                .push(format!("set {} has another type", set.name)),
        }
    }
    Ok(())
}

/// Name, hook number, priority, policy.
type ChainShape = (String, Option<(u32, u32)>, Option<u32>);

fn inspect_chains(
    socket: &mut NetlinkSocket,
    layer: Layer,
    found: &mut Inspection,
) -> Result<(), KernelError> {
    let list = message(Kind::GetChain, 0, layer).text(1, TABLE);
    let have = dump(socket, &list, "listing chains", |received| {
        if !Kind::NewChain.is(received) {
            return Ok(None);
        }
        let a = received.attributes(HEADER)?;
        Ok(is_ours(received, &a, layer).then(|| chain_shape(&a)))
    })?;
    for chain in CHAINS.iter().filter(|chain| chain.layer == layer) {
        let right = chain
            .hook
            .map(|hook| (hook.number, hook.priority.cast_unsigned()));
        let policy = chain.hook.map(|_| ACCEPT);
        match have.iter().find(|(name, ..)| name == chain.name) {
            None => found
                .faults
                .push(format!("chain {} is missing", chain.name)),
            Some((_, hook, _)) if *hook != right => {
                let fault = format!("chain {} hangs elsewhere", chain.name);
                found.wrong.push(fault);
            }
            Some((_, _, have)) if *have != policy => {
                let fault = format!("chain {} has another policy", chain.name);
                found.faults.push(fault);
            }
            Some(_) => found.chains.push(chain),
        }
    }
    Ok(())
}

fn chain_shape(a: &Attributes<'_>) -> ChainShape {
    let hook = a.inside(4).and_then(|h| Some((h.be32(1)?, h.be32(2)?)));
    (a.text(3).unwrap_or_default(), hook, a.be32(5))
}

fn inspect_rules(
    socket: &mut NetlinkSocket,
    layer: Layer,
    rules: &[RuleSpec],
    found: &mut Inspection,
) -> Result<(), KernelError> {
    let list = message(Kind::GetRule, 0, layer).text(1, TABLE);
    let have = dump(socket, &list, "listing rules", |received| {
        if !Kind::NewRule.is(received) {
            return Ok(None);
        }
        let a = received.attributes(HEADER)?;
        let comment = a.get(7).and_then(comment).unwrap_or_default();
        Ok(is_ours(received, &a, layer).then(|| (a.text(2).unwrap_or_default(), comment)))
    })?;
    for chain in CHAINS.iter().filter(|chain| chain.layer == layer) {
        let have: Vec<&str> = have
            .iter()
            .filter(|(name, _)| name == chain.name)
            .map(|(_, comment)| comment.as_str())
            .collect();
        let want: Vec<&str> = rules
            .iter()
            .filter(|rule| rule.layer == layer && rule.chain == chain.name)
            .map(|rule| rule.comment)
            .collect();
        if have == want {
            continue;
        }
        let mut rest = have.iter();
        // All of ours are there, in order, and others among them.
        if want.iter().all(|ours| rest.any(|rule| rule == ours)) {
            let stray = format!("chain {} has rules that netloom did not write", chain.name);
            found.strays.push(stray);
        } else {
            let fault = format!("the rules of chain {} were changed", chain.name);
            found.faults.push(fault);
        }
    }
    Ok(())
}

/// The comment in a rule's user data: type 0, length, text (`NFTNL_UDATA_RULE_COMMENT`).
pub(crate) fn comment(mut bytes: &[u8]) -> Option<String> {
    while let [kind, len, rest @ ..] = bytes {
        let value = rest.get(..usize::from(*len))?;
        if *kind == 0 {
            return Some(crate::wire::text(value));
        }
        bytes = rest.get(usize::from(*len)..)?;
    }
    None
}

/// A comment as user data.
pub(super) fn comment_bytes(text: &str) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(text.len().saturating_add(1)).unwrap_or(0)];
    bytes.extend(text.bytes());
    bytes.push(0);
    bytes
}

/// A dump in which a missing table is an empty one.
fn dump<T>(
    socket: &mut NetlinkSocket,
    message: &crate::wire::Message,
    what: &str,
    parse: impl FnMut(&Received<'_>) -> Result<Option<T>, Malformed>,
) -> Result<Vec<T>, KernelError> {
    match socket.dump(message, what, parse) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        other => other,
    }
}

/// Everything that a set holds.
pub(super) fn elements(
    socket: &mut NetlinkSocket,
    set: &'static SetSpec,
) -> Result<Vec<Raw>, KernelError> {
    let list = message(Kind::GetElement, 0, set.layer)
        .text(LIST_TABLE, TABLE)
        .text(LIST_SET, set.name);
    let chunks = dump(socket, &list, "listing set elements", |received| {
        if !Kind::NewElement.is(received) {
            return Ok(None);
        }
        let list = received.attributes(HEADER)?.inside(LIST_ELEMENTS);
        Ok(Some(parse_elements(&list.unwrap_or_default())?))
    })?;
    let all: Vec<Entry> = chunks.into_iter().flatten().collect();
    if set.keys == Keys::Single {
        return Ok(all
            .into_iter()
            .map(|entry| Raw {
                set,
                key: entry.key,
                end: None,
                value: entry.value,
            })
            .collect());
    }
    let (ends, starts): (Vec<_>, Vec<_>) = all.into_iter().partition(|entry| entry.is_end);
    let ends: BTreeSet<Vec<u8>> = ends.into_iter().map(|entry| entry.key).collect();
    let starts = starts.into_iter().map(|e| (e.key, e.value)).collect();
    Ok(pair_ranges(set, starts, &ends))
}

/// What a set holds under the key of `raw`; for a range set, under the key where the range starts.
pub(super) fn find(socket: &mut NetlinkSocket, raw: &Raw) -> Result<Option<Raw>, KernelError> {
    if raw.set.keys == Keys::Ranges {
        let all = elements(socket, raw.set)?;
        return Ok(all.into_iter().find(|have| have.key == raw.key));
    }
    let ask = message(Kind::GetElement, 0, raw.set.layer)
        .text(LIST_TABLE, TABLE)
        .text(LIST_SET, raw.set.name)
        .nested(LIST_ELEMENTS, |m| {
            m.nested(1, |m| {
                m.nested(ELEMENT_KEY, |m| m.bytes(DATA_VALUE, &raw.key))
            })
        });
    let found = socket.exchange(ask, "reading a set element", |received| {
        let list = received.attributes(HEADER)?.inside(LIST_ELEMENTS);
        Ok(parse_elements(&list.unwrap_or_default())?.pop())
    });
    match found {
        Ok(entry) => Ok(entry.map(|entry| Raw {
            set: raw.set,
            key: entry.key,
            end: None,
            value: entry.value,
        })),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) struct Entry {
    key: Vec<u8>,
    pub(super) value: Vec<u8>,
    is_end: bool,
}

pub(crate) fn parse_elements(list: &Attributes<'_>) -> Result<Vec<Entry>, Malformed> {
    let mut all = Vec::new();
    for (_, element) in list.iter() {
        let a = Attributes::parse(element)?;
        let value = |kind| {
            let data = a.inside(kind)?;
            data.get(DATA_VALUE).map(<[u8]>::to_vec)
        };
        all.push(Entry {
            key: value(ELEMENT_KEY).ok_or(Malformed("a set element has no key"))?,
            value: value(ELEMENT_DATA).unwrap_or_default(),
            is_end: a.be32(ELEMENT_FLAGS).unwrap_or(0) & RANGE_END != 0,
        });
    }
    Ok(all)
}
