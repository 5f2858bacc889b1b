//! The seam between people and the group of hosts that share a store.

use crate::IpamError;
use async_trait::async_trait;
use netloom_types::{HostId, Subnet};

/// Whether a host may take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Membership {
    /// It may.
    Member,
    /// A person declared it gone for ever; its id is never accepted again.
    Forgotten,
}

/// One host on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// Its id.
    pub host: HostId,
    /// Whether it may take part.
    pub membership: Membership,
    /// Its boot when it last started.
    pub boot: String,
    /// How many times it started.
    pub starts: u64,
    /// How many changes of ranges it committed.
    pub counter: u64,
    /// When it last spoke, by its own clock, in milliseconds since the Unix epoch: a hint.
    pub last_heard: Option<u64>,
    /// What it owns and has free in each pool, as it last said: a hint.
    pub shares: Vec<ShareView>,
    /// Whether this is the host that answers.
    pub here: bool,
}

/// What a host has of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareView {
    /// The pool.
    pub subnet: Subnet,
    /// Addresses in ranges that it owns.
    pub owned: u64,
    /// Of these, how many it could hand out.
    pub free: u64,
}

/// How this host stands to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// One host with a store of its own.
    Alone,
    /// The store answers, and ranges may change hands.
    Joined,
    /// The store lost its past; these hosts have not asserted their ranges yet.
    Healing {
        /// The hosts that are waited for.
        waiting: Vec<HostId>,
    },
    /// The store does not answer; this host goes on from the ranges that it owns.
    Offline {
        /// What it said last.
        why: String,
    },
    /// This host has not got its own record yet since it started, and hands out nothing new.
    Starting {
        /// What it waits for.
        why: String,
    },
    /// This host may not take part: it was forgotten, another process uses its identity, or the
    /// store is not one that it may join. A person decides.
    Stopped {
        /// Why, and what to do.
        why: String,
    },
}

/// The group of hosts as this one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// Which store it is, as it names itself; none when it was never reached.
    pub store: Option<String>,
    /// The epoch that this host joined.
    pub epoch: u64,
    /// How this host stands to it.
    pub standing: Standing,
}

/// What forgetting a host did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Addresses that came back, by pool.
    pub freed: Vec<(Subnet, u64)>,
}

/// Management of the group of hosts, for people.
#[async_trait]
pub trait ClusterAdmin: core::fmt::Debug + Send + Sync {
    /// How this host stands to the others.
    async fn cluster(&self) -> ClusterView;

    /// Initialises the store for the first time, or again after it lost everything: a person's word
    /// that this is the store to be used. Tells the epoch that begins; it is later than every one
    /// that this host remembers.
    ///
    /// # Errors
    /// `InUse` when the store has an epoch already, `Invalid` when this host is alone,
    /// `Unavailable`.
    async fn initialise(&self) -> Result<u64, IpamError>;

    /// All hosts on record, forgotten ones included, ordered by id.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn hosts(&self) -> Result<Vec<HostView>, IpamError>;

    /// Declares a host gone for ever and frees what it owned. Safe only if it is: what it hands
    /// out afterwards may be handed out twice.
    ///
    /// # Errors
    /// `NotFound` for an unknown host, `Invalid` for this one, `Unavailable`.
    async fn forget(&self, host: &HostId) -> Result<Forgotten, IpamError>;
}
