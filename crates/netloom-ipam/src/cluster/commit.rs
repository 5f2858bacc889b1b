//! The one way by which a host changes the store: behind its fences, and with its own record.

use super::content::only_contents_differ;
use super::judge::Verdict;
use super::member::{Member, State, caused, unavailable};
use crate::pools::contended;
use crate::records::{HOST_VERSION, HostRecord, Record, operation_of};
use crate::registry::{CONFLICTS_MAX, Stored};
use crate::space::Keys;
use netloom_core::store::{
    CommitError, Committed, Key, Operation, StoreError, Transaction, Version, Versioned,
};
use netloom_core::{IpamError, Standing, crash_point};
use std::future::Future;
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

impl RangeError {
    /// As the outcome of a change of which so many former tries, under other operations, met a conflict.
    /// One of them may have happened in a past that the store lost before it was sent again.
    pub(crate) fn after_tries(self, tries: u32) -> Self {
        match self {
            Self::Refused(why) if tries > 0 => Self::Unknown(why),
            other => other,
        }
    }
}

/// What a commit demands of the store, beside its own operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    /// The epoch, and that nobody is waited for.
    Change,
    /// The epoch alone: for what heals.
    Epoch,
}

/// An epoch as it was joined, by number and version: a store that was emptied or put back uses
/// versions again. One that was put back to within this epoch is told by what was seen to be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EpochMark {
    number: u64,
    version: Version,
    losses: u64,
}

impl Member {
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
        self.commit_in(self.epoch(), fence, operation, operations)
            .await
    }

    /// A commit that is for one epoch alone.
    pub(super) async fn commit_in(
        &self,
        epoch: Option<EpochMark>,
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
        let prepared = self.prepare(epoch.as_ref(), fence, operation, operations);
        let (record, before, transaction) = prepared?;
        let write = OwnWrite {
            operation,
            before: Some(before),
        };
        let sent = Sent::note(self, operation);
        let delivered = self.deliver(&write, transaction, deadline).await;
        if let Ok(version) = &delivered {
            // Before it counts as come back, so that a look in between knows whose change it sees.
            let version = version.clone();
            self.went_through(Stored { record, version });
        }
        sent.came_back();
        match delivered {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict { key, .. }) => {
                let error = self.met(fence, &key, epoch.as_ref()).await;
                Err(self.unless_open(operation, epoch.as_ref(), error))
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

    /// Ends what may arrive late, by a commit of nothing: what was sent before has happened by then, or
    /// never will. Who reads the store after it, and does not change it, can go by what was read.
    ///
    /// # Errors
    /// `Unavailable` when the store does not take the commit, or does not say.
    pub(crate) async fn end_late(&self) -> Result<(), IpamError> {
        for _ in 0..CONFLICTS_MAX {
            if !self.is_anything_late() {
                return Ok(());
            }
            let operation = self.operation();
            let nothing = self.commit_behind(Fence::Epoch, &operation, Vec::new());
            match nothing.await {
                Ok(()) => return Ok(()),
                Err(RangeError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended())
    }

    /// The same, where anything can arrive at all: no change counts without an epoch, and a host that was
    /// stopped makes none.
    ///
    /// # Errors
    /// As [`end_late`](Self::end_late).
    pub(crate) async fn end_what_can_arrive(&self) -> Result<(), IpamError> {
        if !self.is_anything_late() || self.is_stopped() || !self.has_epoch().await? {
            return Ok(());
        }
        self.end_late().await
    }

    fn prepare(
        &self,
        epoch: Option<&EpochMark>,
        fence: Fence,
        operation: &str,
        operations: Vec<Operation>,
    ) -> Result<(HostRecord, Version, Transaction), RangeError> {
        let state = self.state();
        if let Standing::Stopped { why } = &state.standing {
            return Err(RangeError::Refused(unavailable(why.clone())));
        }
        let joined = state.joined.as_ref();
        let Some(joined) = joined.filter(|_| Self::epoch_of(&state).as_ref() == epoch) else {
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
                // A store that is not seen to be as it was is sent nothing a second time.
                (Err(_), error) => return Err(error),
                (Ok(Landed::Elsewhere | Landed::NotYet), error) => {
                    if !self.is_as_read(&transaction, deadline).await {
                        return Err(error);
                    }
                    unknown = Some(error);
                }
            }
        }
        Err(unknown.unwrap_or(CommitError::Unknown(None)))
    }

    /// Whether a transaction that is sent again can only do what it was to do: nothing that it checks is
    /// another content of the same version, as in a store that was put back and written since.
    async fn is_as_read(&self, transaction: &Transaction, deadline: Instant) -> bool {
        for operation in &transaction.operations {
            let (Operation::CheckVersion(key, version)
            | Operation::Update(key, _, version)
            | Operation::Delete(key, version)) = operation
            else {
                continue;
            };
            match read_in_time(deadline, self.store.get(key)).await {
                Ok(Some(now)) if only_contents_differ(&now.version, version) => return false,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        true
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
    async fn met(&self, fence: Fence, key: &Key, epoch: Option<&EpochMark>) -> RangeError {
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
            Err(error) => {
                // Who looks longer may find out.
                self.astray.notify_one();
                return RangeError::Refused(error);
            }
        };
        match self.settle(look) {
            Verdict::Join | Verdict::Stale => {}
            // Another host was quicker to say that it asserted; what this one did so far counts.
            Verdict::Assert if fence == Fence::Epoch && self.is_in(epoch) => {
                return RangeError::Conflict;
            }
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
            Some(_) => RangeError::Conflict,
            None => RangeError::Refused(unjoined(&state.standing)),
        }
    }

    fn epoch_of(state: &State) -> Option<EpochMark> {
        let joined = state.joined.as_ref()?;
        Some(EpochMark {
            number: state.memory.epoch,
            version: joined.epoch_version.clone(),
            losses: state.losses,
        })
    }

    /// The epoch that it is in.
    pub(super) fn epoch(&self) -> Option<EpochMark> {
        Self::epoch_of(&self.state())
    }

    /// Whether it is in this epoch still.
    fn is_in(&self, epoch: Option<&EpochMark>) -> bool {
        epoch.is_some() && self.epoch().as_ref() == epoch
    }

    /// A host that may not take part any more cannot find out what became of an operation; nor can
    /// one that joined anew since: its new record tells nothing of what a lost past may have taken.
    fn unless_open(
        &self,
        operation: &str,
        epoch: Option<&EpochMark>,
        error: RangeError,
    ) -> RangeError {
        let is_open = Self::is_open(&self.state(), operation);
        match error {
            RangeError::Refused(why) if is_open || !self.is_in(epoch) => RangeError::Unknown(why),
            other => other,
        }
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
pub(super) struct Sent<'a> {
    member: &'a Member,
    operation: Option<&'a str>,
}

impl<'a> Sent<'a> {
    pub(super) fn note(member: &'a Member, operation: &'a str) -> Self {
        member.state().under_way = Some(operation.to_owned());
        let operation = Some(operation);
        Self { member, operation }
    }

    pub(super) fn came_back(mut self) {
        self.operation = None;
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if let Some(operation) = self.operation {
            self.member.may_have_written(operation);
        }
        self.member.state().under_way = None;
    }
}

#[derive(Debug)]
enum Landed {
    Here(Version),
    NotYet,
    /// Something else was written: this host's other try, a person's word, or another process.
    Elsewhere,
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
