//! A transaction in Consul's words, and what its answer means.

use crate::rows::{Row, Stamp, encode};
use netloom_core::store::{CommitError, Committed, Conflict, Key, Operation, Transaction, Version};
use serde::{Deserialize, Serialize};

/// One operation on the wire.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wire<'a> {
    #[serde(rename = "KV")]
    words: Words<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Words<'a> {
    verb: &'static str,
    key: &'a str,
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    flags: u64,
}

/// What Consul says of a transaction.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    results: Option<Vec<Told>>,
    errors: Option<Vec<Wrong>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    #[serde(rename = "KV")]
    row: Option<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wrong {
    op_index: u64,
    what: String,
}

/// Why a transaction did not happen, in Consul's words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal<'a> {
    /// This key was not as demanded.
    Conflict(&'a Key, Conflict),
    /// The token may not.
    Denied(String),
    /// This operation failed, and the words do not say how the key differs.
    Unclear(&'a Operation, String),
    /// The words do not even say which operation.
    Nonsense,
}

/// A transaction on its way.
///
/// Every operation becomes a check and, where it changes something, a compare-and-swap behind it:
/// the check's refusal says how the key differs, and a `delete-cas` alone would succeed on an
/// absent key. So sixteen operations become thirty-two, half of what old Consul allows.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    transaction: &'a Transaction,
    /// The flags of every value written: another number for each commit, since Consul skips a
    /// write that would change nothing, and the version would stay.
    flags: u64,
    wire: Vec<Wire<'a>>,
    /// Which operation each one on the wire belongs to.
    owners: Vec<&'a Operation>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(transaction: &'a Transaction, flags: u64) -> Result<Self, CommitError> {
        let mut request = Self {
            transaction,
            flags,
            wire: Vec::new(),
            owners: Vec::new(),
        };
        for operation in &transaction.operations {
            let demanded = match operation {
                Operation::CheckAbsent(_) | Operation::Create(..) => 0,
                Operation::CheckVersion(_, version)
                | Operation::Update(_, _, version)
                | Operation::Delete(_, version) => index_of(version)?,
            };
            let check = match demanded {
                0 => "check-not-exists",
                _ => "check-index",
            };
            request.push(operation, (check, demanded), None);
            match operation {
                Operation::CheckAbsent(_) | Operation::CheckVersion(..) => {}
                Operation::Create(_, value) | Operation::Update(_, value, _) => {
                    request.push(operation, ("cas", demanded), Some(encode(value)));
                }
                Operation::Delete(..) => request.push(operation, ("delete-cas", demanded), None),
            }
        }
        Ok(request)
    }

    fn push(
        &mut self,
        operation: &'a Operation,
        (verb, index): (&'static str, u64),
        value: Option<String>,
    ) {
        self.owners.push(operation);
        self.wire.push(Wire {
            words: Words {
                verb,
                key: operation.key().as_str(),
                index,
                value,
                flags: self.flags,
            },
        });
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        serde_json::to_vec(&self.wire).expect("texts and numbers are always JSON")
    }

    /// What an answer of status 200 tells: the new versions, and the index of the change if one
    /// was written. `None` when it does not tell what happened.
    pub(crate) fn committed(&self, body: &[u8]) -> Option<(Committed, Option<u64>)> {
        let said: Said = serde_json::from_slice(body).ok()?;
        if said.errors.is_some_and(|errors| !errors.is_empty()) {
            return None;
        }
        let told = said.results.unwrap_or_default();
        let mut versions = Vec::new();
        let mut change = None;
        for operation in &self.transaction.operations {
            let (Operation::Create(key, _) | Operation::Update(key, ..)) = operation else {
                continue;
            };
            // The check's result stands before the write's, with the state before.
            let rows = told.iter().rev().filter_map(|told| told.row.as_ref());
            let stamp = rows
                .filter(|row| row.key == key.as_str())
                .map(Row::stamp)
                .find(|stamp| stamp.flags == self.flags)?;
            // All of it is one entry of the log.
            if *change.get_or_insert(stamp.index) != stamp.index {
                return None;
            }
            versions.push((key.clone(), stamp.version()));
        }
        Some((Committed { versions }, change))
    }

    /// What an answer of status 409 tells: nothing happened, and why.
    pub(crate) fn refusal(&self, body: &[u8]) -> Refusal<'a> {
        let errors = serde_json::from_slice::<Said>(body)
            .ok()
            .and_then(|said| said.errors)
            .unwrap_or_default();
        if let Some(denied) = errors.iter().find(|wrong| is_denial(&wrong.what)) {
            return Refusal::Denied(denied.what.chars().take(WORDS_MAX).collect());
        }
        let first = errors.iter().min_by_key(|wrong| wrong.op_index);
        let owner = first.and_then(|wrong| {
            let at = usize::try_from(wrong.op_index).ok()?;
            Some((*self.owners.get(at)?, wrong))
        });
        match owner {
            None => Refusal::Nonsense,
            Some((operation, wrong)) => match conflict(operation, &wrong.what) {
                Some(conflict) => Refusal::Conflict(operation.key(), conflict),
                None => {
                    let what = wrong.what.chars().take(WORDS_MAX).collect();
                    Refusal::Unclear(operation, what)
                }
            },
        }
    }
}

/// How much of Consul's words is kept for people.
const WORDS_MAX: usize = 300;

fn index_of(version: &Version) -> Result<u64, CommitError> {
    match Stamp::of(version) {
        Some(stamp) => Ok(stamp.index),
        None => Err(CommitError::Invalid("a version is not one of Consul's")),
    }
}

fn is_denial(what: &str) -> bool {
    what.starts_with("Permission denied") || what.starts_with("ACL ")
}

/// The words of Consul 1.8 (`agent/consul/state/kvs.go`, `txn.go`). Other words are no guess: the
/// key is then read to see how it differs.
fn conflict(operation: &Operation, what: &str) -> Option<Conflict> {
    let name = format!("key {:?}", operation.key().as_str());
    match operation {
        Operation::CheckAbsent(_) | Operation::Create(..) => {
            (what == format!("{name} exists")).then_some(Conflict::Exists)
        }
        Operation::CheckVersion(..) | Operation::Update(..) | Operation::Delete(..) => {
            if what == format!("failed to check index, {name} doesn't exist") {
                return Some(Conflict::Absent);
            }
            what.starts_with(&format!(
                "failed index check for {name}, current modify index "
            ))
            .then_some(Conflict::VersionDiffers)
        }
    }
}

/// How a key that was read now differs from what an operation demanded, when Consul did not say;
/// `None` when it is as demanded, so that something else must have been wrong.
pub(crate) fn judge(operation: &Operation, now: Option<&Version>) -> Option<Conflict> {
    match (operation, now) {
        (Operation::CheckAbsent(_) | Operation::Create(..), now) => now.map(|_| Conflict::Exists),
        (_, None) => Some(Conflict::Absent),
        (
            Operation::CheckVersion(_, demanded)
            | Operation::Update(_, _, demanded)
            | Operation::Delete(_, demanded),
            Some(now),
        ) => (now != demanded).then_some(Conflict::VersionDiffers),
    }
}
