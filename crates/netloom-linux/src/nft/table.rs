//! Making, mending, changing and removing our tables.

use super::batch::{self, Batch, Kind, MAKE, generation, message};
use super::elements::{Raw, encode, fold};
use super::expr::LIST_ELEMENT;
use super::inspect::{
    self, ACCEPT, DATA_VALUE, ELEMENT_DATA, ELEMENT_FLAGS, ELEMENT_KEY, Inspection, LIST_ELEMENTS,
    LIST_SET, LIST_TABLE, RANGE_END, comment_bytes,
};
use super::layout::{CHAINS, ChainSpec, SETS, SetSpec, byte_len, type_number};
use super::matches::RuleSpec;
use super::rules;
use super::{Layer, TABLE};
use crate::socket::{NetlinkSocket, refused};
use crate::wire::{APPEND, EXCLUSIVE, Message};
use crate::{Applied, Element, KernelError, TableSnapshot, TableState};
use nix::libc;

/// How often a change is tried when others change the ruleset at the same time.
const TRIES: u32 = 8;

/// Our tables and the socket to them.
#[derive(Debug)]
pub(crate) struct Table {
    socket: NetlinkSocket,
    rules: Vec<RuleSpec>,
}

/// A change of one element.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ElementChange<'a> {
    Add(&'a Element),
    Delete(&'a Element),
}

impl<'a> ElementChange<'a> {
    fn element(self) -> &'a Element {
        match self {
            Self::Add(element) | Self::Delete(element) => element,
        }
    }
}

/// One entry of a set to add or delete, and the change that it belongs to.
#[derive(Debug)]
struct Pending {
    change: usize,
    adds: bool,
    raw: Raw,
}

impl Table {
    pub(crate) fn open() -> Result<Self, KernelError> {
        Ok(Self {
            socket: batch::open()?,
            rules: rules::all(),
        })
    }

    /// The socket, for other tables.
    pub(crate) fn socket(&mut self) -> &mut NetlinkSocket {
        &mut self.socket
    }

    /// Makes our tables, or mends what is missing or changed; elements that are there stay.
    pub(crate) fn ensure(&mut self) -> Result<Applied, KernelError> {
        let what = "making the netloom tables";
        for _ in 0..TRIES {
            // A transaction of someone else between reading and writing fails the write.
            let read_at = generation(&mut self.socket)?;
            let found = inspect::inspect(&mut self.socket, &self.rules)?;
            if found.is_right() {
                return Ok(Applied::AlreadySo);
            }
            let batch = self.mending(&found);
            match batch.commit(&mut self.socket, Some(read_at), what) {
                Ok(()) => return Ok(Applied::Changed),
                Err(KernelError::Disturbed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(KernelError::Disturbed { what: what.into() })
    }

    fn mending(&self, found: &Inspection) -> Batch {
        let mut batch = Batch::default();
        // A set or chain of another form cannot be changed in place; then everything is made
        // anew in the same transaction, and whoever owns elements adds them again.
        let anew = !found.wrong.is_empty();
        for layer in [Layer::Inet, Layer::Bridge] {
            batch.push(message(Kind::NewTable, MAKE, layer).text(1, TABLE));
            if anew {
                batch.push(message(Kind::DeleteTable, 0, layer).text(1, TABLE));
                batch.push(message(Kind::NewTable, MAKE, layer).text(1, TABLE));
            }
        }
        for (id, set) in (1_u32..).zip(SETS) {
            if anew || !found.sets.contains(&set) {
                batch.push(new_set(set, id));
            }
        }
        for chain in CHAINS {
            // Adding a chain that is there does nothing but set its policy.
            batch.push(new_chain(chain));
            batch.push(
                message(Kind::DeleteRule, 0, chain.layer)
                    .text(1, TABLE)
                    .text(2, chain.name),
            );
        }
        for rule in &self.rules {
            batch.push(new_rule(rule));
        }
        batch
    }

    /// Removes our tables.
    pub(crate) fn remove(&mut self) -> Result<Applied, KernelError> {
        let mut applied = Applied::AlreadySo;
        for layer in [Layer::Inet, Layer::Bridge] {
            let mut batch = Batch::default();
            batch.push(message(Kind::DeleteTable, 0, layer).text(1, TABLE));
            match batch.commit(&mut self.socket, None, "removing the netloom tables") {
                Ok(()) => applied = Applied::Changed,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(applied)
    }

    pub(crate) fn snapshot(&mut self) -> Result<TableSnapshot, KernelError> {
        for _ in 0..TRIES {
            let before = generation(&mut self.socket)?;
            let found = inspect::inspect(&mut self.socket, &self.rules)?;
            let mut all = Vec::new();
            for set in &found.sets {
                all.extend(inspect::elements(&mut self.socket, set)?);
            }
            if generation(&mut self.socket)? != before {
                continue; // what was read may be half of two states
            }
            let state = if found.is_empty() {
                TableState::Absent
            } else if found.is_right() {
                TableState::Complete
            } else {
                let Inspection {
                    wrong,
                    faults,
                    strays,
                    ..
                } = found;
                TableState::Damaged {
                    faults: wrong.into_iter().chain(faults).collect(),
                    strays,
                }
            };
            let (elements, strangers) = fold(&all);
            return Ok(TableSnapshot {
                state,
                elements,
                strangers,
            });
        }
        Err(KernelError::Disturbed {
            what: "reading the netloom tables".into(),
        })
    }

    /// Adds and deletes elements in one transaction. On failure nothing was changed, and the
    /// place of the change to blame is told.
    ///
    /// What is already as wanted would fail the whole transaction, so it is taken out and the
    /// rest is sent again; this way every change learns whether it changed anything.
    pub(crate) fn change(
        &mut self,
        changes: &[ElementChange<'_>],
    ) -> Result<Vec<Applied>, (usize, KernelError)> {
        let mut pending = Vec::new();
        for (change, what) in changes.iter().enumerate() {
            let raws = encode(what.element()).ok_or_else(|| (change, two_families(*what)))?;
            let adds = matches!(what, ElementChange::Add(_));
            pending.extend(raws.into_iter().map(|raw| Pending { change, adds, raw }));
        }
        self.spare_others(&mut pending)?;
        let all = pending.len();
        // Every round takes at least one entry out.
        for _ in 0..=all {
            let answers = self
                .send(&pending)
                .map_err(|error| (first_change(&pending), error))?;
            let mut settled = Vec::new();
            for (at, acknowledgement) in answers {
                let errno = acknowledgement.errno;
                let (Some(entry), true) = (pending.get(at), errno != 0) else {
                    continue;
                };
                let clash = errno == libc::EEXIST || errno == libc::EBUSY;
                if entry.adds && clash {
                    self.same_or_conflict(entry, changes)
                        .map_err(|error| (entry.change, error))?;
                    settled.push(at);
                } else if !entry.adds && errno == libc::ENOENT {
                    settled.push(at);
                } else {
                    let what = describe(changes, entry.change);
                    let change = entry.change;
                    return Err(match refused(acknowledgement, &what) {
                        Err(KernelError::NotFound { .. }) => (change, no_table()),
                        Err(error) => (change, error),
                        Ok(()) => continue,
                    });
                }
            }
            if settled.is_empty() {
                let mut applied = vec![Applied::AlreadySo; changes.len()];
                for entry in &pending {
                    if let Some(applied) = applied.get_mut(entry.change) {
                        *applied = Applied::Changed;
                    }
                }
                return Ok(applied);
            }
            take_out(&mut pending, &settled);
        }
        Err((
            first_change(&pending),
            KernelError::Disturbed {
                what: "changing elements of the netloom tables".into(),
            },
        ))
    }

    /// Takes out the deletions of keys that lead elsewhere by now: the kernel deletes by key
    /// alone, and a late deletion must not hit the port's new owner.
    fn spare_others(&mut self, pending: &mut Vec<Pending>) -> Result<(), (usize, KernelError)> {
        let mut spared = Vec::new();
        for (at, entry) in pending.iter().enumerate() {
            if entry.adds || entry.raw.value.is_empty() {
                continue;
            }
            let same_key = |other: &Pending| {
                other.adds && (other.raw.set, &other.raw.key) == (entry.raw.set, &entry.raw.key)
            };
            if pending.iter().take(at).any(same_key) {
                continue; // added in this very transaction
            }
            let have = inspect::find(&mut self.socket, &entry.raw)
                .map_err(|error| (entry.change, error))?;
            if have.is_some_and(|have| have.value != entry.raw.value) {
                spared.push(at);
            }
        }
        take_out(pending, &spared);
        Ok(())
    }

    fn send(
        &mut self,
        pending: &[Pending],
    ) -> Result<Vec<(usize, crate::wire::Acknowledgement)>, KernelError> {
        let mut batch = Batch::default();
        for entry in pending {
            batch.push(element_message(entry));
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        batch.send(
            &mut self.socket,
            None,
            "changing elements of the netloom tables",
        )
    }

    /// An entry with the same key is there: fine for a set, and for a map with the same value.
    fn same_or_conflict(
        &mut self,
        entry: &Pending,
        changes: &[ElementChange<'_>],
    ) -> Result<(), KernelError> {
        let conflict = |difference: &str| KernelError::Conflict {
            what: describe(changes, entry.change),
            difference: difference.into(),
        };
        if entry.raw.value.is_empty() && entry.raw.set.keys == super::layout::Keys::Single {
            return Ok(());
        }
        match inspect::find(&mut self.socket, &entry.raw)? {
            Some(have) if have == entry.raw => Ok(()),
            Some(have) if have.value != entry.raw.value => {
                Err(conflict("the same key leads elsewhere"))
            }
            Some(_) => Err(conflict("a range that begins there ends elsewhere")),
            None => Err(conflict("it overlaps another range")),
        }
    }
}

fn take_out(pending: &mut Vec<Pending>, places: &[usize]) {
    let mut at = 0_usize;
    pending.retain(|_| {
        let keep = !places.contains(&at);
        at = at.saturating_add(1);
        keep
    });
}

fn first_change(pending: &[Pending]) -> usize {
    pending.first().map_or(0, |entry| entry.change)
}

fn describe(changes: &[ElementChange<'_>], at: usize) -> String {
    match changes.get(at) {
        Some(ElementChange::Add(element)) => format!("adding {element}"),
        Some(ElementChange::Delete(element)) => format!("deleting {element}"),
        None => "changing elements".into(),
    }
}

fn two_families(change: ElementChange<'_>) -> KernelError {
    KernelError::Unsupported {
        what: change.element().to_string(),
        reason: "its addresses are of two families".into(),
    }
}

fn no_table() -> KernelError {
    KernelError::NotFound {
        what: "table inet netloom".into(),
    }
}

fn element_message(entry: &Pending) -> Message {
    let (kind, flags) = if entry.adds {
        (Kind::NewElement, MAKE | EXCLUSIVE)
    } else {
        (Kind::DeleteElement, 0)
    };
    let raw = &entry.raw;
    message(kind, flags, raw.set.layer)
        .text(LIST_TABLE, TABLE)
        .text(LIST_SET, raw.set.name)
        .nested(LIST_ELEMENTS, |m| {
            let m = m.nested(LIST_ELEMENT, |m| {
                let m = m.nested(ELEMENT_KEY, |m| m.bytes(DATA_VALUE, &raw.key));
                if raw.value.is_empty() || !entry.adds {
                    return m;
                }
                m.nested(ELEMENT_DATA, |m| m.bytes(DATA_VALUE, &raw.value))
            });
            m.when(raw.end.as_ref(), |m, end| {
                m.nested(LIST_ELEMENT, |m| {
                    m.nested(ELEMENT_KEY, |m| m.bytes(DATA_VALUE, end))
                        .be32(ELEMENT_FLAGS, RANGE_END)
                })
            })
        })
}

/// User data of a set for nft: its keys are in the host's byte order
/// (`NFTNL_UDATA_SET_KEYBYTEORDER`, four bytes, `BYTEORDER_HOST_ENDIAN`), without which nft prints
/// interface names as empty.
const HOST_ORDER: [u8; 6] = {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};

fn names_only(set: &SetSpec) -> Option<()> {
    (set.key == [super::layout::Field::Name]).then_some(())
}

fn new_set(set: &SetSpec, id: u32) -> Message {
    let len = |fields| u32::try_from(byte_len(fields)).unwrap_or(0);
    let message = message(Kind::NewSet, MAKE, set.layer)
        .text(1, TABLE)
        .text(2, set.name)
        .be32(3, set.flags())
        .be32(4, type_number(set.key))
        .be32(5, len(set.key))
        .be32(10, id)
        .when(names_only(set), |m, ()| m.bytes(13, &HOST_ORDER));
    if set.value.is_empty() {
        return message;
    }
    message
        .be32(6, type_number(set.value))
        .be32(7, len(set.value))
}

fn new_chain(chain: &ChainSpec) -> Message {
    message(Kind::NewChain, MAKE, chain.layer)
        .text(1, TABLE)
        .text(3, chain.name)
        .when(chain.hook, |m, hook| {
            m.nested(4, |m| {
                m.be32(1, hook.number)
                    .be32(2, hook.priority.cast_unsigned())
            })
            .be32(5, ACCEPT)
            .text(7, hook.kind)
        })
}

fn new_rule(rule: &RuleSpec) -> Message {
    message(Kind::NewRule, MAKE | APPEND, rule.layer)
        .text(1, TABLE)
        .text(2, rule.chain)
        .nested(4, |m| rule.exprs.iter().fold(m, |m, expr| expr.write(m)))
        .bytes(7, &comment_bytes(rule.comment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HostAddress, PortMap};
    use netloom_types::{Family, Protocol};

    /// One attribute: length, kind, value (whole words).
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_published_port_has_the_bytes_of_the_kernels_header_files() {
        const NESTED: u16 = 0x8000;
        let element = Element::Port(PortMap {
            host: HostAddress::Any(Family::V4),
            protocol: Protocol::Tcp,
            port: 80,
            target: "10.1.0.2:8080".parse().unwrap(),
        });
        let raw = encode(&element).unwrap().remove(0);
        let pending = Pending {
            change: 0,
            adds: true,
            raw,
        };
        let bytes = element_message(&pending).finish(7).unwrap();
        let key = attribute(1, &[6, 0, 0, 0, 0, 80, 0, 0]);
        let data = attribute(1, &[10, 1, 0, 2, 0x1f, 0x90, 0, 0]);
        let parts = [attribute(1 | NESTED, &key), attribute(2 | NESTED, &data)];
        let entry = attribute(1 | NESTED, &parts.concat());
        let body = [
            vec![1, 0, 0, 0], // inet
            attribute(1, b"netloom\0"),
            attribute(2, b"any4\0"),
            attribute(3 | NESTED, &entry),
        ]
        .concat();
        let mut golden = u32::try_from(16 + body.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        golden.extend(0x0a0c_u16.to_ne_bytes()); // NFT_MSG_NEWSETELEM
        golden.extend(0x0601_u16.to_ne_bytes()); // CREATE, EXCL, REQUEST
        golden.extend(7_u32.to_ne_bytes());
        golden.extend([0; 4]);
        golden.extend(body);
        assert_eq!(bytes, golden);
    }
}
