//! Comparing the journal with what the runtime, the engine and the kernel show. Pure: it looks and
//! names, and changes nothing.

use crate::book::Book;
use crate::event::SlotState;
use crate::records::ReferenceState;
use crate::sightings::Subject;
use crate::space::{PoolKey, Reference};
use netloom_core::{Evidence, Provider, RuntimeNetwork, Timestamp};
use netloom_types::{MacAddr, Subnet};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// Something that the truths disagree about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// In use by the journal, and nobody shows it.
    Unused(Use),
    /// In doubt by the journal, and somebody shows it.
    Attested(Use),
    /// Shown, and free by the journal.
    Unrecorded {
        pool: PoolKey,
        ip: IpAddr,
        mac: Option<MacAddr>,
        by: String,
        /// Whether it came back lately: the view of it may just be old.
        lately_released: bool,
    },
    /// Shown by several at once.
    Duplicate { ip: IpAddr, by: Vec<String> },
    /// A reference that no network of the runtime accounts for.
    Reference {
        reference: Reference,
        state: ReferenceState,
        granted: Timestamp,
    },
    /// A network that relies on address management here, which knows nothing of it.
    UnknownNetwork { name: String, subnet: Subnet },
}

/// One use of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) pool: u32,
    pub(crate) index: u128,
    pub(crate) operation: u64,
    pub(crate) ip: IpAddr,
    pub(crate) state: SlotState,
    pub(crate) since: Timestamp,
    pub(crate) name: Option<Box<str>>,
}

impl Trouble {
    /// What must be seen twice before this is mended.
    pub(crate) fn subject(&self) -> Option<Subject> {
        match self {
            Self::Unused(used) => Some(Subject::Unused(used.operation)),
            Self::Unrecorded { ip, .. } => Some(Subject::Unrecorded(*ip)),
            Self::Reference { reference, .. } => Some(Subject::Reference(*reference)),
            Self::Attested(_) | Self::Duplicate { .. } | Self::UnknownNetwork { .. } => None,
        }
    }
}

/// All that the truths disagree about, in order of address.
pub(crate) fn survey(book: &Book, evidence: &Evidence) -> Vec<Trouble> {
    let shown = Shown::new(evidence);
    let mut found = Vec::new();
    for live in book.pools.values() {
        let Some(ledger) = book.table.pools.get(&live.number) else {
            continue;
        };
        let mut indices: Vec<_> = ledger.slots.keys().copied().collect();
        indices.sort_unstable();
        for index in indices {
            let (Some(slot), Some(ip)) = (ledger.slots.get(&index), live.key.subnet.nth(index))
            else {
                continue;
            };
            let used = || Use {
                pool: live.number,
                index,
                operation: slot.operation,
                ip,
                state: slot.state,
                since: slot.since,
                name: slot.name.clone(),
            };
            match (shown.any(ip), slot.state) {
                (true, SlotState::InDoubt) => found.push(Trouble::Attested(used())),
                // Without the runtime's word nobody knows what other drivers do with it.
                (false, _) if evidence.runtime.is_some() => found.push(Trouble::Unused(used())),
                (true | false, _) => {}
            }
        }
    }
    found.extend(unrecorded(book, &shown));
    found.extend(shown.duplicates(book));
    if let Some(networks) = &evidence.runtime {
        found.extend(stray_references(book, networks));
        found.extend(unknown_networks(book, networks));
    }
    found
}

/// The networks' names by their subnets.
pub(crate) fn names(evidence: &Evidence) -> BTreeMap<Subnet, String> {
    let networks = evidence.runtime.iter().flatten().filter(is_ours);
    networks
        .flat_map(|network| {
            network
                .subnets
                .iter()
                .map(move |(s, _)| (*s, network.name.clone()))
        })
        .collect()
}

/// Who shows which address.
struct Shown {
    /// In use now, each with the one who shows it; the kernel's without a name.
    live: BTreeMap<IpAddr, (Option<MacAddr>, String)>,
    /// By source and address: all that show it.
    users: HashMap<(Source, IpAddr), Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Source {
    Runtime,
    Recorded,
    Kernel,
}

impl Shown {
    fn new(evidence: &Evidence) -> Self {
        let mut shown = Self {
            live: BTreeMap::new(),
            users: HashMap::new(),
        };
        for network in evidence.runtime.iter().flatten().filter(is_ours) {
            for endpoint in &network.endpoints {
                for address in endpoint.addresses.iter() {
                    // What a stopped container will ask for is not in use: taken for a use, it
                    // would stand in the way of that very container.
                    if endpoint.id.is_none() {
                        continue;
                    }
                    let who = format!("container {} on {}", endpoint.name, network.name);
                    shown.add(Source::Runtime, address.ip(), endpoint.mac, who);
                }
            }
        }
        for (address, mac) in &evidence.recorded {
            let link = mac.map_or_else(String::new, |m| format!(" with {m}"));
            let who = format!("a recorded endpoint{link}");
            shown.add(Source::Recorded, address.ip(), *mac, who);
        }
        for ip in &evidence.kernel {
            shown.add(Source::Kernel, *ip, None, "a link of the kernel".to_owned());
        }
        shown
    }

    fn add(&mut self, source: Source, ip: IpAddr, mac: Option<MacAddr>, who: String) {
        self.users
            .entry((source, ip))
            .or_default()
            .push(who.clone());
        self.live.entry(ip).or_insert((mac, who));
    }

    fn any(&self, ip: IpAddr) -> bool {
        self.live.contains_key(&ip)
    }

    /// Addresses that one source shows more than once. A shared pool's gateway stands on every
    /// bridge by design.
    fn duplicates(&self, book: &Book) -> Vec<Trouble> {
        let mut twice: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        for ((_, ip), who) in &self.users {
            let ours = book.pools.iter().find(|(key, _)| key.subnet.contains(*ip));
            let counts = ours.is_some_and(|(_, live)| live.gateway != Some(*ip));
            let known = twice.get(ip).map_or(1, Vec::len);
            if counts && who.len() > known {
                twice.insert(*ip, who.clone());
            }
        }
        let named = twice.into_iter();
        named
            .map(|(ip, by)| Trouble::Duplicate { ip, by })
            .collect()
    }
}

fn is_ours(network: &&RuntimeNetwork) -> bool {
    network.ipam == Provider::Ours
}

fn unrecorded(book: &Book, shown: &Shown) -> Vec<Trouble> {
    let mut found = Vec::new();
    for (ip, (mac, by)) in &shown.live {
        // What lies in a pool that only others use is of a network whose addresses Docker gives.
        let holders: Vec<_> = book
            .pools
            .iter()
            .filter(|(key, live)| key.subnet.contains(*ip) && !live.references.own().is_empty())
            .collect();
        let mut cooling = false;
        let recorded = holders.iter().any(|(key, live)| {
            let index = key.subnet.index_of(*ip).unwrap_or_default();
            let ledger = book.table.pools.get(&live.number);
            cooling |= ledger.is_some_and(|l| l.cooling.contains(index));
            live.gateway == Some(*ip)
                || live.is_auxiliary(*ip)
                || ledger.is_some_and(|l| l.slots.contains_key(&index))
        });
        if let (false, Some((key, _))) = (recorded, holders.first()) {
            found.push(Trouble::Unrecorded {
                pool: **key,
                ip: *ip,
                mac: *mac,
                by: by.clone(),
                lately_released: cooling,
            });
        }
    }
    found
}

/// References that outnumber the runtime's networks. As long as one network uses the pool, only
/// references that nobody used can be told to be stray.
fn stray_references(book: &Book, networks: &[RuntimeNetwork]) -> Vec<Trouble> {
    let mut found = Vec::new();
    for live in book.pools.values() {
        let uses = |n: &&RuntimeNetwork| n.subnets.iter().any(|(s, _)| *s == live.key.subnet);
        let count = networks.iter().filter(is_ours).filter(uses).count();
        let own = live.references.own();
        let surplus = own.len().saturating_sub(count);
        let used = own.values().filter(|r| r.state == ReferenceState::Used);
        // A network that never asked for an address may have any of the unused ones.
        let accounted = used.count() >= count;
        let told = |r: &ReferenceState| match r {
            ReferenceState::Offered => accounted,
            ReferenceState::Used => count == 0,
        };
        let strays = own.iter().filter(|(_, r)| told(&r.state)).take(surplus);
        found.extend(strays.map(|(nonce, r)| Trouble::Reference {
            reference: Reference {
                pool: live.key,
                nonce: *nonce,
            },
            state: r.state,
            granted: Timestamp(r.granted),
        }));
    }
    found
}

fn unknown_networks(book: &Book, networks: &[RuntimeNetwork]) -> Vec<Trouble> {
    let known: BTreeSet<_> = book.pools.keys().map(|key| key.subnet).collect();
    let ours = networks.iter().filter(is_ours);
    ours.flat_map(|network| {
        let strange = network.subnets.iter().filter(|(s, _)| !known.contains(s));
        strange.map(|(subnet, _)| Trouble::UnknownNetwork {
            name: network.name.clone(),
            subnet: *subnet,
        })
    })
    .collect()
}
