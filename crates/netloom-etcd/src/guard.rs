//! Whether the store is still the one that was opened, and has not gone back in time.

use crate::failure::Failure;
use etcd_client::ResponseHeader;
use netloom_core::store::StoreIdentity;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What every answer is held against.
#[derive(Debug)]
pub(crate) struct Guard {
    cluster: u64,
    id: String,
    /// The highest revision that an answer ever carried.
    mark: AtomicU64,
    /// Why nothing is served any more.
    broken: OnceLock<String>,
}

/// How an answer stands to what was seen before its request was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// Not older.
    Fine,
    /// From an earlier revision than one that had been seen.
    Behind,
}

impl Guard {
    /// A store with this cluster id and this id of its content.
    pub(crate) fn new(cluster: u64, id: String, mark: u64) -> Self {
        Self {
            cluster,
            id,
            mark: AtomicU64::new(mark),
            broken: OnceLock::new(),
        }
    }

    pub(crate) fn identity(&self) -> StoreIdentity {
        StoreIdentity(format!("etcd-{:016x}-{}", self.cluster, self.id))
    }

    /// What the record of the id must hold.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn mark(&self) -> u64 {
        // Revisions order themselves; the number guards no other memory.
        self.mark.load(Ordering::Relaxed)
    }

    /// Refuses when the store was found to be another one.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.broken.get() {
            Some(why) => Err(Failure::WrongEpoch(why.clone())),
            None => Ok(()),
        }
    }

    /// From now on nothing is served: what this process knows of the store is no longer true.
    pub(crate) fn give_up(&self, why: String) -> Failure {
        let why = self.broken.get_or_init(|| why).clone();
        tracing::error!("the store is not what it was: {why}");
        Failure::WrongEpoch(why)
    }

    /// Holds an answer against `before`, the mark when its request was made: etcd's answers never
    /// go back in a healthy cluster, except that two answers may cross on their way.
    pub(crate) fn judge(
        &self,
        header: Option<&ResponseHeader>,
        before: u64,
    ) -> Result<(Age, u64), Failure> {
        let Some(header) = header else {
            return Err(Failure::Lost("an answer without a header".into()));
        };
        let revision = u64::try_from(header.revision()).unwrap_or(0);
        if header.cluster_id() != self.cluster {
            return Err(self.give_up(format!(
                "the etcd cluster {:016x} was opened, and {:016x} answers in its place",
                self.cluster,
                header.cluster_id()
            )));
        }
        if revision < before {
            return Ok((Age::Behind, revision));
        }
        self.mark.fetch_max(revision, Ordering::Relaxed);
        Ok((Age::Fine, revision))
    }

    /// A change that was just made got a revision that had been seen before it.
    pub(crate) fn rolled_back(&self, revision: u64, before: u64) -> Failure {
        self.give_up(format!(
            "a change became revision {revision}, but {before} had been seen: the store was put \
             back from an older copy"
        ))
    }

    /// The record of the id is gone, or holds another one.
    pub(crate) fn replaced(&self, found: Option<&str>) -> Failure {
        self.give_up(match found {
            Some(found) => format!("it had the id {}, and now has {found:?}", self.id),
            None => format!(
                "it had the id {}, and now has none: it was emptied",
                self.id
            ),
        })
    }
}
