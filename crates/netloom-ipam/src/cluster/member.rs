//! This host as the store knows it.

use super::judge::Me;
use super::memory::Memory;
use super::peers::Peers;
use crate::book::Book;
use crate::event::Event;
use crate::records::{HostRecord, StatusRecord};
use crate::registry::Stored;
use crate::space::Keys;
use netloom_core::store::{CommitError, Store, Version};
use netloom_core::{Ids, IpamError, Standing};
use netloom_types::{BootId, HostId, Subnet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::time::Instant;

/// This host among those that share the store.
#[derive(Debug)]
pub(crate) struct Member {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Keys,
    pub(super) host: HostId,
    pub(super) alone: bool,
    ids: Arc<dyn Ids>,
    /// One commit at a time: each writes this host's record.
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(super) state: Mutex<State>,
    hand_out: AtomicBool,
    book: OnceLock<Arc<Mutex<Book>>>,
    /// Woken when the store is not as it was joined.
    pub(super) astray: tokio::sync::Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) me: Me,
    pub(super) memory: Memory,
    pub(super) standing: Standing,
    pub(super) joined: Option<Joined>,
    pub(super) hosts: Peers,
    /// What others said last, and when that was read.
    pub(super) statuses: BTreeMap<String, StatusRecord>,
    pub(super) heard: Option<Instant>,
    /// Operations that may have written this host's record since it was read last.
    open: Vec<String>,
    /// The operation whose commit is under way: a look may see it before its answer is here.
    pub(super) under_way: Option<String>,
    /// Conflicts in a row: a store that cannot tell which key differed may hide a fence.
    pub(super) conflicts: u32,
    /// How often anything was taken in of the store: a look from before that tells old news.
    pub(super) turns: u64,
    /// How often the store was seen to have lost something of this host, or to be none to take part in.
    pub(super) losses: u64,
    /// Hosts were waited for, or this one was away, and what they said was not compared with what this one holds.
    pub(super) unchecked: bool,
    /// How often what was compared may be undone since.
    pub(super) doubts: u64,
}

/// What a host has yet to compare with its own memory: what the others said until here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unchecked {
    epoch: u64,
    doubts: u64,
}

/// The store as this host joined it.
#[derive(Debug, Clone)]
pub(super) struct Joined {
    pub(super) epoch_version: Version,
    /// None: there is no record of who is waited for.
    pub(super) heal: Option<Version>,
    pub(super) waiting: Vec<String>,
    pub(super) own: Stored<HostRecord>,
}

/// What makes a member.
#[derive(Debug)]
pub(crate) struct Founding {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) host: HostId,
    pub(crate) boot: BootId,
    /// None: the host is alone with its store.
    pub(crate) machine: Option<String>,
    pub(crate) journal: u128,
    pub(crate) memory: Memory,
}

impl Member {
    pub(crate) fn new(founding: Founding) -> Result<Self, IpamError> {
        let me = Me {
            host: founding.host.as_str().to_owned(),
            boot: founding.boot.as_str().to_owned(),
            machine: founding.machine.clone().unwrap_or_default(),
            journal: format!("{:032x}", founding.journal),
            starts: None,
        };
        let state = State {
            me,
            memory: remembered(founding.memory, founding.machine.as_deref())?,
            standing: Standing::Starting {
                why: "the store was not reached yet".to_owned(),
            },
            joined: None,
            hosts: Peers::none(),
            statuses: BTreeMap::new(),
            heard: None,
            open: Vec::new(),
            under_way: None,
            conflicts: 0,
            turns: 0,
            losses: 0,
            // What was lost may not have reached the journal before this host went off.
            unchecked: founding.machine.is_some(),
            doubts: 0,
        };
        Ok(Self {
            keys: Keys::new(&founding.host)?,
            store: founding.store,
            ids: founding.ids,
            host: founding.host,
            alone: founding.machine.is_none(),
            turn: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
            hand_out: AtomicBool::new(false),
            book: OnceLock::new(),
            astray: tokio::sync::Notify::new(),
        })
    }

    /// From now on, what it learns goes into this book's journal.
    pub(crate) fn keep_in(&self, book: &Arc<Mutex<Book>>) {
        let _ = self.book.set(Arc::clone(book));
        self.note_memory();
    }

    /// Notes what it remembers of the store, if that is news to the journal.
    pub(crate) fn note_memory(&self) {
        let memory = self.memory();
        if memory.is_blank() {
            // A first meeting that did not come off leaves no trace.
            return;
        }
        let known = self.book.get().is_some_and(|book| {
            let book = book.lock().unwrap_or_else(PoisonError::into_inner);
            book.table.host == memory
        });
        if !known {
            self.journal(memory);
        }
    }

    pub(crate) fn host(&self) -> &HostId {
        &self.host
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// A new text for the `operation` field of the records of one change.
    pub(crate) fn operation(&self) -> String {
        self.ids.operation().as_str().to_owned()
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What it remembers of the store.
    pub(crate) fn memory(&self) -> Memory {
        self.state().memory.clone()
    }

    /// Whether the store took this start.
    pub(crate) fn has_started(&self) -> bool {
        self.state().me.starts.is_some()
    }

    /// Rule 9: whether new addresses may be handed out now.
    pub(crate) fn may_hand_out(&self) -> Result<(), IpamError> {
        if self.hand_out.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(match self.standing() {
            Standing::Stopped { why } => unavailable(format!("no address is handed out: {why}")),
            Standing::Starting { why } | Standing::Offline { why } => unavailable(format!(
                "no new address is handed out before the store took this start: {why}"
            )),
            Standing::Alone | Standing::Joined | Standing::Healing { .. } => {
                unavailable("no new address is handed out yet; try again".to_owned())
            }
        })
    }

    pub(crate) fn standing(&self) -> Standing {
        self.state().standing.clone()
    }

    /// What is to be looked at, if healing ended and nobody looked yet what it left this host.
    pub(super) fn healed(&self) -> Option<Unchecked> {
        let state = self.state();
        let healed = state.unchecked && matches!(state.standing, Standing::Joined);
        let (epoch, doubts) = (state.memory.epoch, state.doubts);
        healed.then_some(Unchecked { epoch, doubts })
    }

    /// What was left was looked at; a later epoch, or doubt, counts for itself.
    pub(super) fn is_checked(&self, looked_at: Unchecked) {
        let mut state = self.state();
        let (epoch, doubts) = (state.memory.epoch, state.doubts);
        let is_latest = looked_at == Unchecked { epoch, doubts };
        if is_latest && matches!(state.standing, Standing::Joined) {
            state.unchecked = false;
        }
    }

    /// What a look found lost may be in memory again.
    pub(super) fn is_in_doubt(&self) {
        if self.is_alone() {
            return;
        }
        let mut state = self.state();
        state.doubts += 1;
        state.unchecked = true;
    }

    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.state().standing, Standing::Stopped { .. })
    }

    /// Whether nobody looked yet what healing, or the time in which this host was off, left it.
    pub(crate) fn is_unchecked(&self) -> bool {
        self.state().unchecked
    }

    pub(super) fn is_joined(&self) -> bool {
        matches!(self.state().standing, Standing::Joined)
    }

    pub(super) fn is_healing(&self) -> bool {
        matches!(self.state().standing, Standing::Healing { .. })
    }

    /// Members on record as last listed, this one included.
    pub(crate) fn members(&self) -> BTreeSet<String> {
        let state = self.state();
        let mut members: BTreeSet<String> = state.hosts.members().map(str::to_owned).collect();
        members.insert(self.host.as_str().to_owned());
        members
    }

    /// How many those are.
    pub(crate) fn members_count(&self) -> usize {
        self.state().hosts.count_with_own()
    }

    /// Free addresses of a host in a pool by its last status: a hint.
    pub(crate) fn hinted_free(&self, host: &HostId, pool: Subnet) -> Option<u64> {
        let state = self.state();
        let status = state.statuses.get(host.as_str())?;
        let share = status.shares.iter().find(|share| share.subnet == pool)?;
        Some(share.free)
    }

    /// Takes in that the store has this record of this host now.
    pub(super) fn went_through(&self, own: Stored<HostRecord>) {
        let memory = {
            let mut state = self.state();
            self.note_written(&mut state, own);
            state.memory.clone()
        };
        self.journal(memory);
    }

    pub(super) fn note_written(&self, state: &mut State, own: Stored<HostRecord>) {
        state.open.clear();
        state.turns += 1;
        state.conflicts = 0;
        state.memory.counter = own.record.counter;
        state.memory.starts = own.record.starts;
        state.hosts.note_own(&own.record);
        state.memory.mark = state.memory.mark.max(state.hosts.mark());
        if let Some(joined) = &mut state.joined {
            joined.own = own;
            if let Standing::Offline { .. } = state.standing {
                state.standing = self.standing_with(&joined.waiting);
            }
        }
    }

    /// Notes what it remembers of the store. Nobody waits: what follows from a commit is noted
    /// behind it.
    pub(super) fn journal(&self, memory: Memory) {
        if let Some(book) = self.book.get() {
            let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = book.note(Event::HostCounter(memory)) {
                tracing::warn!(%error, "the journal did not take how far the store came");
            }
        }
    }

    pub(super) fn may_have_written(&self, operation: &str) {
        let mut state = self.state();
        if !state.open.iter().any(|open| open == operation) {
            state.open.push(operation.to_owned());
        }
    }

    /// The store did not answer: goes on alone for a while.
    pub(super) fn lost_sight(&self, why: &str) {
        let mut state = self.state();
        if self.alone {
            return;
        }
        let why = why.to_owned();
        match &state.standing {
            Standing::Joined | Standing::Healing { .. } | Standing::Offline { .. } => {
                state.standing = Standing::Offline { why };
            }
            Standing::Starting { .. } => state.standing = Standing::Starting { why },
            Standing::Alone | Standing::Stopped { .. } => {}
        }
    }

    /// Whether an operation may have written this host's record.
    pub(super) fn is_open(state: &State, operation: &str) -> bool {
        state.open.iter().any(|open| open == operation)
    }

    /// Whether a change of this host's may happen yet although nobody waits for it; none can once a
    /// later one went through. Of what a process before this one sent, only the start knows the end.
    pub(crate) fn is_anything_late(&self) -> bool {
        let state = self.state();
        state.joined.is_none() || !state.open.is_empty()
    }

    /// Whether this very process wrote an operation into this host's record, or may have.
    pub(super) fn is_own(state: &State, operation: &str) -> bool {
        state.under_way.as_deref() == Some(operation) || Self::is_open(state, operation)
    }

    pub(super) fn hand_out(&self) {
        self.hand_out.store(true, Ordering::Relaxed);
    }

    pub(super) fn hold_back(&self) {
        self.hand_out.store(false, Ordering::Relaxed);
    }

    /// How a host stands that joined, while these are waited for.
    pub(super) fn standing_with(&self, waiting: &[String]) -> Standing {
        if !waiting.is_empty() {
            let hosts = waiting.iter();
            return Standing::Healing {
                waiting: hosts.filter_map(|h| HostId::new(h.as_str()).ok()).collect(),
            };
        }
        if self.alone {
            Standing::Alone
        } else {
            Standing::Joined
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Each change of it is a few assignments that cannot panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What counts of a journal's memory: a host that leaves its own store for one that is shared
/// begins there as a new one, with its pools.
fn remembered(memory: Memory, machine: Option<&str>) -> Result<Memory, IpamError> {
    match (memory.is_blank(), memory.alone, machine.is_none()) {
        (true, ..) | (false, true, true) | (false, false, false) => Ok(memory),
        (false, true, false) => Ok(Memory::default()),
        (false, false, true) => Err(unavailable(
            "this host's addresses are of a store that hosts share, and are not to be used with \
             a store of its own: set `store` to the shared one again"
                .to_owned(),
        )),
    }
}

pub(super) fn unavailable(what: String) -> IpamError {
    IpamError::Unavailable { what, source: None }
}

pub(super) fn caused(what: &str, error: CommitError) -> IpamError {
    IpamError::Unavailable {
        what: what.to_owned(),
        source: Some(error.into()),
    }
}
