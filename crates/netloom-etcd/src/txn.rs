//! A transaction of the contract as one of etcd's, and its answer back.

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse, TxnResponse};
use netloom_core::store::{Conflict, Key, Operation, Transaction, Version};

/// A revision that no key ever has: what it is compared with is never equal.
const NEVER: i64 = -1;

/// The version of a value that was last changed by this revision: revisions count all changes of
/// the whole store and never come again.
pub(crate) fn version(revision: i64) -> Version {
    Version::from_bytes(revision.to_be_bytes())
}

/// The revision in a version. One of another store's making has none; neither have numbers that
/// etcd would take for "does not exist".
fn revision(version: &Version) -> i64 {
    match <[u8; 8]>::try_from(version.as_bytes()).map(i64::from_be_bytes) {
        Ok(revision) if revision > 0 => revision,
        _ => NEVER,
    }
}

fn compare(operation: &Operation) -> Compare {
    let key = operation.key().as_str();
    match operation {
        Operation::CheckAbsent(_) | Operation::Create(..) => {
            Compare::create_revision(key, CompareOp::Equal, 0)
        }
        Operation::CheckVersion(_, version)
        | Operation::Update(_, _, version)
        | Operation::Delete(_, version) => {
            Compare::mod_revision(key, CompareOp::Equal, revision(version))
        }
    }
}

fn change(operation: &Operation) -> Option<TxnOp> {
    match operation {
        Operation::CheckAbsent(_) | Operation::CheckVersion(..) => None,
        Operation::Create(key, value) | Operation::Update(key, value, _) => {
            Some(TxnOp::put(key.as_str(), value.as_slice(), None))
        }
        Operation::Delete(key, _) => Some(TxnOp::delete(key.as_str(), None)),
    }
}

/// Whether it changes something, when it happens.
pub(crate) fn changes(transaction: &Transaction) -> bool {
    transaction.operations.iter().any(|op| change(op).is_some())
}

/// All compares, then all changes; or, when one of the compares fails, what the keys are.
pub(crate) fn to_etcd(transaction: &Transaction) -> Txn {
    let operations = || transaction.operations.iter();
    let compares: Vec<_> = operations().map(compare).collect();
    let changes: Vec<_> = operations().filter_map(change).collect();
    let keys: Vec<_> = operations()
        .map(|op| TxnOp::get(op.key().as_str(), Some(crate::link::keys_only())))
        .collect();
    Txn::new().when(compares).and_then(changes).or_else(keys)
}

/// The new version of every key that was written; they share the revision of the transaction.
pub(crate) fn versions(transaction: &Transaction, revision: u64) -> Vec<(Key, Version)> {
    let version = Version::from_bytes(revision.to_be_bytes());
    let written = transaction.operations.iter().filter_map(|op| match op {
        Operation::Create(key, _) | Operation::Update(key, _, _) => Some(key),
        Operation::CheckAbsent(_) | Operation::CheckVersion(..) | Operation::Delete(..) => None,
    });
    written.map(|key| (key.clone(), version.clone())).collect()
}

/// The first key that was not as demanded; `None` when the answer shows none.
pub(crate) fn conflict(transaction: &Transaction, answer: &TxnResponse) -> Option<(Key, Conflict)> {
    let found = answer.op_responses();
    transaction
        .operations
        .iter()
        .zip(&found)
        .find_map(|(operation, found)| {
            let TxnOpResponse::Get(found) = found else {
                return None;
            };
            let found = found.kvs().first().map(etcd_client::KeyValue::mod_revision);
            Some((operation.key().clone(), differs(operation, found)?))
        })
}

fn differs(operation: &Operation, found: Option<i64>) -> Option<Conflict> {
    match operation {
        Operation::CheckAbsent(_) | Operation::Create(..) => found.map(|_| Conflict::Exists),
        Operation::CheckVersion(_, version)
        | Operation::Update(_, _, version)
        | Operation::Delete(_, version) => match found {
            None => Some(Conflict::Absent),
            Some(found) if found != revision(version) => Some(Conflict::VersionDiffers),
            Some(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// etcd takes revision 0 for a key that does not exist: a check of such a version would pass
    /// where the key is absent.
    #[test]
    fn a_version_of_another_store_never_passes_for_an_absent_key() {
        for odd in [vec![], vec![0; 8], vec![0xff; 8], vec![1; 7], vec![0; 16]] {
            assert_eq!(revision(&Version::from_bytes(odd)), NEVER);
        }
        assert_eq!(revision(&version(7)), 7);
    }

    #[test]
    fn the_three_conflicts_are_told_apart() {
        let key = Key::new("a").unwrap();
        let create = Operation::Create(key.clone(), vec![]);
        assert_eq!(differs(&create, Some(3)), Some(Conflict::Exists));
        assert_eq!(differs(&create, None), None);
        let delete = Operation::Delete(key, version(3));
        assert_eq!(differs(&delete, None), Some(Conflict::Absent));
        assert_eq!(differs(&delete, Some(4)), Some(Conflict::VersionDiffers));
        assert_eq!(differs(&delete, Some(3)), None);
    }
}
