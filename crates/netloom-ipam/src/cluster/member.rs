//! This host as the store knows it, and the one way by which it changes the store.

use super::judge::{Me, Verdict, mark_of};
use super::memory::Memory;
use crate::book::Book;
use crate::event::Event;
use crate::records::{HOST_VERSION, HostRecord, HostState, Record, StatusRecord, operation_of};
use crate::registry::Stored;
use crate::space::Keys;
use netloom_core::store::{
    CommitError, Committed, Key, Operation, Store, StoreError, Transaction, Version, Versioned,
};
use netloom_core::{Ids, IpamError, Standing, crash_point};
use netloom_types::{BootId, HostId, Subnet};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Why a change of addresses or pools is not known to have happened.
#[derive(Debug)]
pub(crate) enum RangeError {
    /// Somebody else changed it first: read again and decide anew.
    Conflict,
    /// It may happen yet, until this host's next commit.
    Unknown(IpamError),
    /// It did not happen.
    Refused(IpamError),
}

/// What a commit demands of the store, beside its own operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    /// The epoch, and that nobody is waited for.
    Change,
    /// The epoch alone: for what heals.
    Epoch,
}

/// This host among those that share the store.
#[derive(Debug)]
pub(crate) struct Member {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Keys,
    pub(super) host: HostId,
    pub(super) alone: bool,
    ids: Arc<dyn Ids>,
    /// One commit at a time: each writes this host's record.
    turn: tokio::sync::Mutex<()>,
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
    pub(super) hosts: BTreeMap<String, HostRecord>,
    pub(super) statuses: BTreeMap<String, StatusRecord>,
    /// Operations that may have written this host's record since it was read last.
    open: Vec<String>,
    /// Conflicts in a row: a store that cannot tell which key differed may hide a fence.
    conflicts: u32,
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
            memory: founding.memory,
            standing: Standing::Starting {
                why: "the store was not reached yet".to_owned(),
            },
            joined: None,
            hosts: BTreeMap::new(),
            statuses: BTreeMap::new(),
            open: Vec::new(),
            conflicts: 0,
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

    /// Members on record as last listed, this one included.
    pub(crate) fn hosts(&self) -> Vec<HostId> {
        let state = self.state();
        let members = state
            .hosts
            .values()
            .filter(|record| record.state == HostState::Member);
        let mut hosts: Vec<HostId> = members
            .filter_map(|record| HostId::new(record.host.as_str()).ok())
            .collect();
        if !hosts.contains(&self.host) {
            hosts.push(self.host.clone());
        }
        hosts.sort_unstable();
        hosts
    }

    /// Free addresses of a host in a pool by its last status: a hint.
    pub(crate) fn hinted_free(&self, host: &HostId, pool: Subnet) -> Option<u64> {
        let state = self.state();
        let status = state.statuses.get(host.as_str())?;
        let share = status.shares.iter().find(|share| share.subnet == pool)?;
        Some(share.free)
    }

    /// Rule 5: commits up to eleven operations with the epoch, the check that nobody is waited
    /// for, and this host's own record, whose counter grows by one. An unknown outcome is settled
    /// by looking for `operation` in the own record, which nothing else writes.
    pub(crate) async fn commit(
        &self,
        operation: &str,
        operations: Vec<Operation>,
    ) -> Result<(), RangeError> {
        self.commit_behind(Fence::Change, operation, operations)
            .await
    }

    pub(super) async fn commit_behind(
        &self,
        fence: Fence,
        operation: &str,
        operations: Vec<Operation>,
    ) -> Result<(), RangeError> {
        let deadline = Instant::now() + COMMIT_TIME;
        let Ok(_one_at_a_time) = timeout_at(deadline, self.turn.lock()).await else {
            return Err(RangeError::Refused(unavailable(
                "the store is slow, and other changes of this host wait for it; try again"
                    .to_owned(),
            )));
        };
        let (record, before, transaction) = self.prepare(fence, operation, operations)?;
        let write = OwnWrite {
            operation,
            before: Some(before),
        };
        let sent = Sent::note(self, operation);
        let delivered = self.deliver(&write, transaction, deadline).await;
        sent.came_back();
        match delivered {
            Ok(version) => {
                self.went_through(Stored { record, version });
                Ok(())
            }
            Err(CommitError::Conflict { key, .. }) => {
                let error = self.met(fence, &key).await;
                Err(self.unless_open(operation, error))
            }
            Err(error @ CommitError::Unknown(_)) => {
                let why = "the store does not say whether the change happened; try again";
                self.lost_sight(why);
                Err(RangeError::Unknown(caused(why, error)))
            }
            Err(error) => {
                let why = "the store did not take the change; nothing was handed out";
                if matches!(error, CommitError::Unavailable(_)) {
                    self.lost_sight("the store is not available");
                }
                Err(RangeError::Refused(caused(why, error)))
            }
        }
    }

    fn prepare(
        &self,
        fence: Fence,
        operation: &str,
        operations: Vec<Operation>,
    ) -> Result<(HostRecord, Version, Transaction), RangeError> {
        let state = self.state();
        if let Standing::Stopped { why } = &state.standing {
            return Err(RangeError::Refused(unavailable(why.clone())));
        }
        let Some(joined) = &state.joined else {
            return Err(RangeError::Refused(unjoined(&state.standing)));
        };
        if fence == Fence::Change && !joined.waiting.is_empty() {
            return Err(RangeError::Refused(healing(&joined.waiting)));
        }
        let own = &joined.own;
        let record = HostRecord {
            version: HOST_VERSION,
            operation: operation.to_owned(),
            counter: own.record.counter + 1,
            ..own.record.clone()
        };
        let epoch = Operation::CheckVersion(Keys::epoch(), joined.epoch_version.clone());
        let counted = Operation::Update(self.keys.host(), record.encode(), own.version.clone());
        let mut all = vec![counted, epoch];
        if fence == Fence::Change {
            all.push(match &joined.heal {
                Some(version) => Operation::CheckVersion(Keys::heal(), version.clone()),
                None => Operation::CheckAbsent(Keys::heal()),
            });
        }
        all.extend(operations);
        Ok((record, own.version.clone(), Transaction::new(all)))
    }

    /// Sends a transaction that writes this host's record until it is known what became of it, or
    /// time is up; gives the record's new version. Of several copies only one can ever win, since
    /// the record's version moves with the first.
    pub(super) async fn deliver(
        &self,
        write: &OwnWrite<'_>,
        transaction: Transaction,
        deadline: Instant,
    ) -> Result<Version, CommitError> {
        let mut unknown = None;
        for _ in 0..SENDS_MAX {
            crash_point!("ipam.store.before_commit");
            let outcome = in_time(deadline, self.store.commit(transaction.clone())).await;
            crash_point!("ipam.store.after_commit");
            let refused = match outcome {
                Ok(committed) => match self.version_in(committed) {
                    Some(version) => return Ok(version),
                    // A backend that settled it by itself may not know the versions.
                    None => CommitError::Unknown(None),
                },
                Err(error @ (CommitError::Unknown(_) | CommitError::Conflict { .. })) => error,
                // Behind an unknown outcome even a plain refusal leaves the first copy open.
                Err(error) => return Err(unknown.unwrap_or(error)),
            };
            if let CommitError::Conflict { .. } = refused
                && unknown.is_none()
            {
                return Err(refused);
            }
            self.may_have_written(write.operation);
            match (self.landed(write, deadline).await, refused) {
                (Ok(Landed::Here(version)), _) => return Ok(version),
                (Ok(_), CommitError::Conflict { key, conflict }) => {
                    return Err(CommitError::Conflict { key, conflict });
                }
                (Err(_), conflict @ CommitError::Conflict { .. }) => {
                    return Err(unknown.unwrap_or(conflict));
                }
                (Ok(Landed::Elsewhere) | Ok(Landed::NotYet) | Err(_), error) => {
                    unknown = Some(error);
                }
            }
        }
        Err(unknown.unwrap_or(CommitError::Unknown(None)))
    }

    fn version_in(&self, committed: Committed) -> Option<Version> {
        let own = self.keys.host();
        let found = committed.versions.into_iter().find(|(key, _)| *key == own);
        found.map(|(_, version)| version)
    }

    /// Looks for what an own write left.
    async fn landed(&self, write: &OwnWrite<'_>, deadline: Instant) -> Result<Landed, StoreError> {
        let own = read_in_time(deadline, self.store.get(&self.keys.host())).await?;
        let now = own.as_ref().map(|row| &row.version);
        if now == write.before.as_ref() {
            return Ok(Landed::NotYet);
        }
        if let Some(Versioned { value, version }) = own
            && operation_of(&value).as_deref() == Some(write.operation)
        {
            return Ok(Landed::Here(version));
        }
        Ok(Landed::Elsewhere)
    }

    /// A commit met something else than it demanded.
    async fn met(&self, fence: Fence, key: &Key) -> RangeError {
        let conflicts = {
            let mut state = self.state();
            state.conflicts += 1;
            state.conflicts
        };
        let fences = [Keys::epoch(), Keys::heal(), self.keys.host()];
        if !fences.contains(key) && !conflicts.is_multiple_of(CONFLICTS_HIDDEN) {
            return RangeError::Conflict;
        }
        let look = match self.glance().await {
            Ok(look) => look,
            Err(error) => return RangeError::Refused(error),
        };
        match self.settle(look) {
            Verdict::Join => {}
            _ => {
                self.astray.notify_one();
                return RangeError::Refused(unjoined(&self.standing()));
            }
        }
        let state = self.state();
        match &state.joined {
            Some(joined) if fence == Fence::Change && !joined.waiting.is_empty() => {
                self.astray.notify_one();
                RangeError::Refused(healing(&joined.waiting))
            }
            _ => RangeError::Conflict,
        }
    }

    /// Takes in that the store has this record of this host now.
    pub(super) fn went_through(&self, own: Stored<HostRecord>) {
        let memory = {
            let mut state = self.state();
            let state = &mut *state;
            state.open.clear();
            state.conflicts = 0;
            state.memory.counter = own.record.counter;
            state.memory.starts = own.record.starts;
            let host = own.record.host.clone();
            state.hosts.insert(host, own.record.clone());
            let mark = mark_of(&state.hosts);
            state.memory.mark = state.memory.mark.max(mark);
            if let Some(joined) = &mut state.joined {
                joined.own = own;
                if let Standing::Offline { .. } = state.standing {
                    state.standing = standing_of(self.alone, &joined.waiting);
                }
            }
            state.memory.clone()
        };
        self.journal(memory);
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

    fn may_have_written(&self, operation: &str) {
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

    /// A host that may not take part any more cannot find out what became of an operation.
    fn unless_open(&self, operation: &str, error: RangeError) -> RangeError {
        let state = self.state();
        match error {
            RangeError::Refused(why) if Self::is_open(&state, operation) => {
                RangeError::Unknown(why)
            }
            other => other,
        }
    }

    /// Whether an operation may have written this host's record.
    pub(super) fn is_open(state: &State, operation: &str) -> bool {
        state.open.iter().any(|open| open == operation)
    }

    pub(super) fn let_hand_out(&self, may: bool) {
        self.hand_out.store(may, Ordering::Relaxed);
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Each change of it is a few assignments that cannot panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write of this host's record, to be recognised.
#[derive(Debug)]
pub(super) struct OwnWrite<'a> {
    pub(super) operation: &'a str,
    /// The version that it replaces; none: it makes the record.
    pub(super) before: Option<Version>,
}

/// A write that is under way. Whoever waits for it may be dropped in the middle, with the caller's
/// connection; then nobody else saw what became of it.
struct Sent<'a> {
    member: &'a Member,
    operation: Option<&'a str>,
}

impl<'a> Sent<'a> {
    fn note(member: &'a Member, operation: &'a str) -> Self {
        let operation = Some(operation);
        Self { member, operation }
    }

    fn came_back(mut self) {
        self.operation = None;
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if let Some(operation) = self.operation {
            self.member.may_have_written(operation);
        }
    }
}

#[derive(Debug)]
enum Landed {
    Here(Version),
    NotYet,
    /// Something else was written: this host's other try, a person's word, or another process.
    Elsewhere,
}

pub(super) fn standing_of(alone: bool, waiting: &[String]) -> Standing {
    if !waiting.is_empty() {
        let hosts = waiting.iter();
        return Standing::Healing {
            waiting: hosts.filter_map(|h| HostId::new(h.as_str()).ok()).collect(),
        };
    }
    if alone {
        Standing::Alone
    } else {
        Standing::Joined
    }
}

/// Gives up in time; then nobody knows.
pub(super) async fn in_time<T>(
    deadline: Instant,
    call: impl Future<Output = Result<T, CommitError>>,
) -> Result<T, CommitError> {
    match timeout_at(deadline, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(CommitError::Unknown(Some("it took too long".into()))),
    }
}

pub(super) async fn read_in_time<T>(
    deadline: Instant,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match timeout_at(deadline, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError::Unavailable(Some("it took too long".into()))),
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

fn unjoined(standing: &Standing) -> IpamError {
    unavailable(match standing {
        Standing::Stopped { why } => why.clone(),
        Standing::Offline { why } | Standing::Starting { why } => {
            format!("this host has not joined the store: {why}")
        }
        Standing::Healing { .. } | Standing::Joined | Standing::Alone => {
            "the store changed under this host, which joins it again; try again".to_owned()
        }
    })
}

pub(super) fn healing(waiting: &[String]) -> IpamError {
    unavailable(format!(
        "the store lost its past, and these hosts have not said yet what they own: {}; start them, \
         or forget those that will not come back (`netloom host forget`)",
        waiting.join(", ")
    ))
}

/// All of one commit: a plugin call is answered within five seconds.
const COMMIT_TIME: Duration = Duration::from_secs(3);
/// Sends of one change whose outcome stays unknown.
const SENDS_MAX: u32 = 4;
/// After so many conflicts in a row the fences are looked at.
const CONFLICTS_HIDDEN: u32 = 3;
