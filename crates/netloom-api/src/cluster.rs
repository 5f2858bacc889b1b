//! The wire types of the group of hosts that share a store.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a host stands to its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StandingKind {
    /// One host with a store of its own.
    Alone,
    /// The store answers, and ranges of addresses may change hands.
    Joined,
    /// The store lost its past; hosts are waited for that have not asserted their ranges yet.
    Healing,
    /// The store does not answer; the host goes on from the ranges that it owns.
    Offline,
    /// The host has not got its own record yet since it started, and hands out nothing new.
    Starting,
    /// The host may not take part; a person decides.
    Stopped,
}

/// The group of hosts as the answering one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cluster {
    /// The host that answers.
    pub host: String,
    /// The store's address, without secrets.
    pub url: String,
    /// Which store it is, as it names itself; none when it was never reached.
    pub store: Option<String>,
    /// The epoch that the host joined; 0 before it joined one.
    pub epoch: u64,
    /// How the host stands to the store.
    pub standing: StandingKind,
    /// Why, and what to do, where that is not plain.
    pub why: Option<String>,
    /// The hosts that are waited for while the store heals.
    pub waiting: Vec<String>,
}

/// What initialising a store did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Initialised {
    /// The epoch that begins.
    pub epoch: u64,
}

/// Whether a host may take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Membership {
    /// It may.
    Member,
    /// It was declared gone for ever.
    Forgotten,
}

/// A host on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Its id.
    pub id: String,
    /// Whether it is the one that answers.
    pub here: bool,
    /// Whether it may take part.
    pub membership: Membership,
    /// Its boot when it last started.
    pub boot: String,
    /// How many times it started.
    pub starts: u64,
    /// How many changes of ranges it committed.
    pub counter: u64,
    /// When it last spoke, by its own clock: milliseconds since the Unix epoch. A hint.
    pub last_heard_ms: Option<u64>,
    /// What it has of each pool, as it last said. A hint.
    pub shares: Vec<Share>,
}

/// What a host has of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    /// The pool.
    pub subnet: String,
    /// Addresses that it owns.
    pub owned: u64,
    /// Of these, how many it could hand out.
    pub free: u64,
}

/// A person's word that a host is gone for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetHost {
    /// The host's id, once more: what it owned is handed out to others from here on.
    pub host: String,
}

/// What forgetting a host did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forgotten {
    /// Addresses that came back, by pool.
    pub freed: Vec<Freed>,
}

/// Addresses that came back to one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Freed {
    /// The pool.
    pub subnet: String,
    /// How many.
    pub addresses: u64,
}

/// No request body's content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}
