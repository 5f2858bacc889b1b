//! What the model's world consists of: one store, a few hosts, and what containers hold.
//!
//! Numbers that only ever grow (versions of chunks, counters of hosts) are kept relative to what the
//! store holds now, see [`World::settle`]: so the world is finite although the protocol runs for
//! ever, and the walk needs no limit on the number of commits.

use std::hash::{Hash, Hasher};

/// At most this many hosts.
pub(super) const HOSTS: usize = 3;
/// At most this many chunks.
pub(super) const CHUNKS: usize = 2;
/// Addresses of one chunk: two, so that it can be split.
pub(super) const WIDTH: usize = 2;

/// A set of hosts or of addresses, one bit each.
pub(super) type Set = u8;

/// The set of one element.
pub(super) fn one(element: u8) -> Set {
    1 << element
}

/// The elements of a set.
pub(super) fn each(set: Set) -> impl Iterator<Item = u8> {
    (0..8).filter(move |element| set & one(*element) != 0)
}

/// The subsets of a set that are not empty.
pub(super) fn subsets(set: Set) -> impl Iterator<Item = Set> {
    (1..=set).filter(move |subset| subset & !set == 0)
}

/// The addresses of a chunk.
pub(super) fn span(chunk: u8) -> Set {
    0b11 << (chunk * 2)
}

/// What a chunk's record says of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Run {
    /// No run: anyone may claim it.
    Nobody,
    /// Its owner hands it out, or is about to adopt it.
    Owned(u8),
    /// Given to a host that has not adopted it yet.
    Offered(u8),
}

impl Run {
    pub(super) fn names(self, host: u8) -> bool {
        self == Self::Owned(host) || self == Self::Offered(host)
    }
}

/// The record of a chunk. Its version stands for the generation too: both grow with every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Chunk {
    pub(super) version: i8,
    pub(super) runs: [Run; WIDTH],
}

/// Everything the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Store {
    pub(super) epoch: u8,
    /// Hosts that have not asserted their ranges in this epoch.
    pub(super) heal: Set,
    pub(super) forgotten: Set,
    /// The counter in each host's record.
    pub(super) counters: [i8; HOSTS],
    pub(super) chunks: [Chunk; CHUNKS],
}

/// What a commit does to a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// Addresses that are nobody's become the sender's.
    Claim,
    /// Addresses whose run names the sender, although its journal does not know them.
    Adopt,
    /// A leaving range is offered to a host.
    Offer(u8),
    /// A leaving range becomes nobody's.
    Return,
    /// A leaving range gets a new generation and stays: the fence of rule 6.
    Keep,
}

/// One commit: all that its checks compare and its operations write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Commit {
    pub(super) kind: Kind,
    pub(super) chunk: u8,
    /// The addresses that change hands.
    pub(super) range: Set,
    /// The chunk's runs as the sender read them.
    pub(super) read: [Run; WIDTH],
    /// The chunk's runs as the sender writes them.
    pub(super) runs: [Run; WIDTH],
    /// The version of the chunk that the sender read.
    pub(super) version: i8,
    /// The sender's own counter as it knows it.
    pub(super) counter: i8,
    pub(super) epoch: u8,
}

/// How far a commit is, as its sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Phase {
    /// On its way; the sender waits.
    Sent,
    /// It happened and the sender was told; the journal does not say so yet.
    Won,
    /// On its way, but an older commit of the same host has arrived meanwhile: the own record is no
    /// longer as the sender knows it, and the operation id in it is the older one's.
    Overtaken,
    /// No answer: it may have happened, may still happen, or never will.
    Unknown,
}

/// One host: its journal, its memory, and what its containers hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Host {
    /// Journal: ranges that it owns, leaving ones included.
    pub(super) owned: Set,
    /// Journal: ranges that are being given away.
    pub(super) leaving: Set,
    /// Journal: addresses that were handed out.
    pub(super) busy: Set,
    /// Journal: the counter of its last commit.
    pub(super) counter: i8,
    /// Journal: the epoch that it joined.
    pub(super) epoch: u8,
    /// Memory: the commit that is not finished.
    pub(super) open: Option<(Commit, Phase)>,
    /// Memory: what it hands out from although the journal does not say so: planted bugs only.
    pub(super) early_owned: Set,
    /// Memory: handed out although the journal does not say so: planted bugs only.
    pub(super) early_busy: Set,
    /// Kernel: addresses that containers of this host use. Outlives the daemon.
    pub(super) held: Set,
    /// Network: an earlier commit that nobody waits for and that may still arrive.
    pub(super) ghost: Option<Commit>,
}

/// The operator's command `forget`, on its way through the chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Forgetting {
    pub(super) host: u8,
    /// Chunks whose runs are still to be freed.
    pub(super) left: Set,
}

/// How many faults of each kind are still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Faults {
    pub(super) crashes: u8,
    pub(super) timeouts: u8,
    pub(super) forgets: u8,
    pub(super) rollbacks: u8,
}

/// The past that the store may go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Past {
    pub(super) store: Store,
    /// Writes since then.
    pub(super) writes: u8,
}

/// A state of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct World {
    pub(super) store: Store,
    pub(super) hosts: [Host; HOSTS],
    /// Daemons that run and have committed their own record since they started (rule 9).
    pub(super) ready: Set,
    /// Hosts that have written their ranges again in this epoch.
    pub(super) asserted: Set,
    /// Machines that really are no more, whatever the store says.
    pub(super) gone: Set,
    pub(super) forgetting: Option<Forgetting>,
    pub(super) past: Option<Past>,
    pub(super) faults: Faults,
    pub(super) history: History,
}

/// What becomes of a commit whose checks no longer fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// It is refused whenever it arrives, so it may be forgotten at once.
    IsRefused,
    /// Planted bugs only: a check is missing, and it may yet happen.
    MayHappen,
}

/// What the properties must remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum History {
    /// The store has kept all that it was told.
    Straight,
    /// The store went back, and nobody has begun a new epoch yet.
    WentBack,
    /// An epoch has begun since.
    Healed,
    /// One host handed one address out twice.
    Doubled,
}

impl World {
    pub(super) fn host(&self, host: u8) -> &Host {
        self.hosts
            .get(usize::from(host))
            .expect("a host of the model")
    }

    pub(super) fn host_mut(&mut self, host: u8) -> &mut Host {
        self.hosts
            .get_mut(usize::from(host))
            .expect("a host of the model")
    }

    pub(super) fn is_ready(&self, host: u8) -> bool {
        self.ready & one(host) != 0
    }

    pub(super) fn is_gone(&self, host: u8) -> bool {
        self.gone & one(host) != 0
    }

    /// A host whose journal proves that the store went back: its own record is older than it knows.
    pub(super) fn is_witness(&self, host: u8) -> bool {
        let state = self.host(host);
        let told = match state.open {
            Some((commit, Phase::Won)) => commit.counter + 1,
            _ => state.counter,
        };
        !self.is_gone(host)
            && !self.store.is_forgotten(host)
            && state.epoch == self.store.epoch
            && self.store.counter(host) < told
    }

    /// Brings the world to its normal form: what can never matter again is taken out, and growing
    /// numbers become distances from what the store holds.
    pub(super) fn settle(&mut self, late: Late) {
        let store = self.store;
        let past = self.past.map(|past| past.store);
        let running = self.ready;
        let ready = |host| running & one(host) != 0;
        for (host, state) in (0u8..).zip(&mut self.hosts) {
            let now = store.counter(host);
            let floor = past.map_or(0, |past| past.counter(host) - now).min(0) - 1;
            state.counter = (state.counter - now).max(floor);
            if past.is_none() && !ready(host) {
                // It takes what the store says when it starts.
                state.counter = state.counter.max(0);
            }
            let relative = |mut commit: Commit| {
                let version = store.chunk(commit.chunk).version;
                let low = past.map_or(0, |past| past.chunk(commit.chunk).version - version);
                commit.version = (commit.version - version).max(low.min(0) - 1);
                commit.counter = (commit.counter - now).max(floor);
                if commit.version < 0 && past.is_none() {
                    commit.read = commit.runs;
                }
                commit
            };
            state.open = state.open.map(|(commit, phase)| (relative(commit), phase));
            // A ghost does not outlive a rollback, so what is too old now is too old for ever.
            state.ghost = state.ghost.map(relative).filter(|ghost| {
                late == Late::MayHappen
                    || ghost.version >= 0
                        && ghost.counter >= 0
                        && ghost.epoch == store.epoch
                        && !store.is_forgotten(host)
            });
            if past.is_none() && late == Late::IsRefused {
                state.open = state.open.filter(|(commit, phase)| {
                    // A claim that must be refused leaves no trace: as if its sender knew.
                    let stale = commit.version < 0 && *phase == Phase::Sent;
                    !(stale && commit.counter >= 0 && commit.kind.leaves_no_trace())
                });
            }
        }
        if let Some(past) = &mut self.past {
            past.store.relative_to(&store);
        }
        self.store.relative_to(&store);
    }

    /// The addresses whose run says what `is` asks for.
    pub(super) fn runs(&self, is: impl Fn(Run) -> bool) -> Set {
        self.store.runs(is)
    }
}

impl Host {
    /// A host that owns nothing and has asked for nothing.
    pub(super) const NEW: Self = Self {
        owned: 0,
        leaving: 0,
        busy: 0,
        counter: 0,
        epoch: 0,
        open: None,
        early_owned: 0,
        early_busy: 0,
        held: 0,
        ghost: None,
    };
}

impl Kind {
    /// Whether a refusal lets the sender be as if it had never asked.
    fn leaves_no_trace(self) -> bool {
        matches!(self, Self::Claim | Self::Adopt)
    }
}

impl Store {
    pub(super) fn counter(&self, host: u8) -> i8 {
        *self
            .counters
            .get(usize::from(host))
            .expect("a host of the model")
    }

    pub(super) fn counter_mut(&mut self, host: u8) -> &mut i8 {
        self.counters
            .get_mut(usize::from(host))
            .expect("a host of the model")
    }

    pub(super) fn chunk(&self, chunk: u8) -> &Chunk {
        self.chunks
            .get(usize::from(chunk))
            .expect("a chunk of the model")
    }

    pub(super) fn chunk_mut(&mut self, chunk: u8) -> &mut Chunk {
        self.chunks
            .get_mut(usize::from(chunk))
            .expect("a chunk of the model")
    }

    pub(super) fn is_forgotten(&self, host: u8) -> bool {
        self.forgotten & one(host) != 0
    }

    pub(super) fn is_healing(&self, host: u8) -> bool {
        self.heal & one(host) != 0
    }

    /// The addresses whose run says what `is` asks for.
    pub(super) fn runs(&self, is: impl Fn(Run) -> bool) -> Set {
        let all = self.chunks.iter().flat_map(|chunk| chunk.runs);
        (0u8..)
            .zip(all)
            .filter(|(_, run)| is(*run))
            .fold(0, |set, (address, _)| set | one(address))
    }

    /// A chunk's runs with `range` changed.
    pub(super) fn with(&self, chunk: u8, range: Set, to: Run) -> [Run; WIDTH] {
        let mut runs = self.chunk(chunk).runs;
        for (slot, run) in (0u8..).zip(&mut runs) {
            if range & span(chunk) & one(chunk * 2 + slot) != 0 {
                *run = to;
            }
        }
        runs
    }

    fn relative_to(&mut self, now: &Self) {
        for (counter, now) in self.counters.iter_mut().zip(now.counters) {
            *counter -= now;
        }
        for (chunk, now) in self.chunks.iter_mut().zip(now.chunks) {
            chunk.version -= now.version;
        }
    }
}

/// Two worlds that differ only in how hosts are called, or in which of a chunk's two addresses is
/// which, are one for the walk: the fingerprint is that of a representative. The states themselves
/// keep their names, so that a history can be told.
impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        super::symmetry::representative(self).fields().hash(hasher);
    }
}

impl World {
    fn fields(&self) -> impl Hash + '_ {
        (
            (&self.store, &self.hosts, self.ready, self.asserted),
            (self.gone, self.forgetting, &self.past),
            (self.faults, self.history),
        )
    }
}
