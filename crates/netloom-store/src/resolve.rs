//! What to do when nobody knows whether a change happened.

use netloom_core::store::{
    CommitError, Committed, Conflict, Key, Operation, Store, Transaction, Version, Versioned,
};

/// How often one call sends the same transaction: an unknown outcome means a slow or failing
/// store, and the caller's deadline, not a loop here, says how long to go on.
const TRIES: u32 = 3;

/// What a record shows of an operation that may have changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// It happened: the record carries its id, or what only it can have written.
    Happened,
    /// It did not happen, and no copy of it that is still under way can: the record was changed by
    /// somebody else from what the operation demanded, and would show it if it had come first.
    /// For a key to be created, this needs that the key is never deleted.
    DidNotHappen,
    /// The record was changed, and a later change may have wiped the trace.
    Erased,
}

/// Commits `transaction`, and finds out what became of it when the store does not say.
///
/// The value written must carry an id of the operation, and `trace` looks for it: it gets the
/// value of the transaction's first created, updated or deleted key, once that key's version is
/// another one than the transaction demanded (`None`: the key does not exist).
///
/// While the version is still the demanded one, the very same transaction is sent again: at most
/// one of the copies can win, since the version moves with the first. So the caller never gets
/// "failed" for a change that may yet happen. While the outcome stays `Unknown`, do not carry out
/// another plan in its place: make the same call with the same transaction again. It recognises a
/// copy of an earlier call by its trace; but where the trace can be [`Erased`](Trace::Erased), a
/// `Conflict` from the repeated call says nothing about the earlier copies.
///
/// ```
/// use netloom_core::store::{Key, Operation, Store, Transaction};
/// use netloom_store::{Fault, FaultRates, FaultStore, MemoryStore, Trace, commit_resolving_unknown};
/// use std::sync::Arc;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = FaultStore::new(Arc::new(MemoryStore::new()), FaultRates::default(), 1);
/// store.order(Fault::UnknownAfter);
/// let key = Key::new("blocks/10.0.0.0")?;
/// let create = Operation::Create(key.clone(), b"host-a op-77".to_vec());
/// let committed = commit_resolving_unknown(&store, Transaction::new([create]), |value| {
///     match value {
///         Some(value) if value.ends_with(b"op-77") => Trace::Happened,
///         _ => Trace::DidNotHappen,
///     }
/// })
/// .await?;
/// assert_eq!(committed.versions.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// As [`Store::commit`]. `Unknown` only when the store cannot be read, when the trace was erased,
/// or when it answered none of several tries. When a later change has replaced one of the other
/// written values already, the returned versions leave out that key.
pub async fn commit_resolving_unknown(
    store: &dyn Store,
    transaction: Transaction,
    mut trace: impl FnMut(Option<&[u8]>) -> Trace + Send,
) -> Result<Committed, CommitError> {
    let Some((witness, demanded)) = witness(&transaction) else {
        // Checks alone change nothing: there is nothing to find out.
        return store.commit(transaction).await;
    };
    let mut last_unknown = None;
    for _ in 0..TRIES {
        let refused = match store.commit(transaction.clone()).await {
            Ok(committed) => return Ok(committed),
            Err(CommitError::Unknown(source)) => {
                last_unknown = Some(source);
                None
            }
            Err(CommitError::Conflict { key, conflict }) if last_unknown.is_some() => {
                Some((key, conflict))
            }
            // A copy of an earlier call may be what this one ran into.
            Err(error @ CommitError::Conflict { .. }) => {
                return recognised(store, &transaction, &witness, &mut trace, error).await;
            }
            // Nothing is under way yet, or this copy certainly failed; an earlier one may not have.
            Err(other) if last_unknown.is_none() => return Err(other),
            Err(_) => return Err(CommitError::Unknown(last_unknown.flatten())),
        };
        let now = match store.get(&witness).await {
            Ok(now) => now,
            Err(error) => return Err(CommitError::Unknown(Some(Box::new(error)))),
        };
        if now.as_ref().map(|row| &row.version) != demanded.as_ref() {
            return settle(store, &transaction, (witness, now), &mut trace).await;
        }
        // The first key is untouched, so nothing happened yet.
        match refused {
            // A version that is gone never comes back: no copy can win any more.
            Some((key, conflict @ (Conflict::Absent | Conflict::VersionDiffers))) => {
                return Err(CommitError::Conflict { key, conflict });
            }
            // What exists may be deleted, and then a copy under way may win.
            Some((_, Conflict::Exists)) | None => {}
        }
    }
    Err(CommitError::Unknown(last_unknown.flatten()))
}

/// The first key that the transaction changes, and the version that it demands (`None`: absent).
fn witness(transaction: &Transaction) -> Option<(Key, Option<Version>)> {
    transaction.operations.iter().find_map(|op| match op {
        Operation::CheckAbsent(_) | Operation::CheckVersion(..) => None,
        Operation::Create(key, _) => Some((key.clone(), None)),
        Operation::Update(key, _, version) | Operation::Delete(key, version) => {
            Some((key.clone(), Some(version.clone())))
        }
    })
}

/// A conflict at the first try: stands, unless the record shows this very operation.
async fn recognised(
    store: &dyn Store,
    transaction: &Transaction,
    witness: &Key,
    trace: &mut (impl FnMut(Option<&[u8]>) -> Trace + Send),
    conflict: CommitError,
) -> Result<Committed, CommitError> {
    let Ok(Some(now)) = store.get(witness).await else {
        return Err(conflict);
    };
    match trace(Some(&now.value)) {
        Trace::Happened => settle(store, transaction, (witness.clone(), Some(now)), trace).await,
        Trace::DidNotHappen | Trace::Erased => Err(conflict),
    }
}

/// The witness has moved: says by whom.
async fn settle(
    store: &dyn Store,
    transaction: &Transaction,
    (witness, now): (Key, Option<Versioned>),
    trace: &mut (impl FnMut(Option<&[u8]>) -> Trace + Send),
) -> Result<Committed, CommitError> {
    match trace(now.as_ref().map(|row| row.value.as_slice())) {
        Trace::Happened => {
            let mut versions = Vec::new();
            for operation in &transaction.operations {
                let (Operation::Create(key, value) | Operation::Update(key, value, _)) = operation
                else {
                    continue;
                };
                let row = store
                    .get(key)
                    .await
                    .map_err(|error| CommitError::Unknown(Some(Box::new(error))))?;
                if let Some(row) = row.filter(|row| row.value == *value) {
                    versions.push((key.clone(), row.version));
                }
            }
            Ok(Committed { versions })
        }
        Trace::DidNotHappen => {
            let demands_absence = transaction
                .operations
                .iter()
                .any(|op| matches!(op, Operation::Create(key, _) if *key == witness));
            let conflict = match (&now, demands_absence) {
                (_, true) => Conflict::Exists,
                (None, false) => Conflict::Absent,
                (Some(_), false) => Conflict::VersionDiffers,
            };
            Err(CommitError::Conflict {
                key: witness,
                conflict,
            })
        }
        Trace::Erased => Err(CommitError::Unknown(Some(
            format!("{witness} was changed again since, and shows no trace of this change").into(),
        ))),
    }
}
