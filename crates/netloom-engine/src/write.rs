//! Record writes by compare-and-swap, and what to think when the store does not say whether one
//! happened.

use netloom_core::store::{
    CommitError, Key, Operation, Store, StoreError, Transaction, Version, Versioned,
};
use netloom_core::{ControlError, Ids};
use netloom_types::OperationId;

use crate::record::{RecordError, operation_of};

/// A write of unknown outcome is looked up and tried again so many times. Each try demands the same
/// version as the first, so at most one of them can ever happen, however late.
const TRIES: u32 = 3;

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// It was not; the record stands as it did.
    #[error("the record {key} was not written")]
    Refused {
        key: Key,
        #[source]
        source: CommitError,
    },
    /// Somebody else changed the record, or nobody knows what it is now: it must be read again.
    #[error("the record {key} is not what it was: {why}")]
    Doubtful { key: Key, why: String },
    /// The record itself is not possible.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<WriteError> for ControlError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Record(e) => Self::Invalid(e.to_string()),
            WriteError::Refused {
                source: CommitError::TooLarge,
                key,
            } => Self::Invalid(format!("the record {key} is too large for the store")),
            other => Self::Unavailable {
                what: "the change could not be recorded and was not made: try again, and see \
                       netloomd's log if it stays so"
                    .into(),
                source: Some(Box::new(other)),
            },
        }
    }
}

/// What should become of a record.
pub(crate) enum Change<'a> {
    /// It gets the bytes that this makes for an operation.
    Put(&'a (dyn Fn(&OperationId) -> Result<Vec<u8>, RecordError> + Send + Sync)),
    /// It goes.
    Delete,
}

/// A record after a write.
#[derive(Debug)]
pub(crate) enum Written {
    /// It has this version, by this operation.
    Put(Version, OperationId),
    /// It is gone.
    Gone,
}

/// Writes one record, on condition that it still has version `before` (none: that it is absent).
pub(crate) async fn write(
    store: &dyn Store,
    ids: &dyn Ids,
    key: &Key,
    (before, change): (Option<&Version>, Change<'_>),
) -> Result<Written, WriteError> {
    let mut tried = Vec::new();
    for _ in 0..TRIES {
        let by = ids.operation();
        let operation = match (&change, before) {
            (Change::Put(encode), None) => Operation::Create(key.clone(), encode(&by)?),
            (Change::Put(encode), Some(v)) => {
                Operation::Update(key.clone(), encode(&by)?, v.clone())
            }
            (Change::Delete, Some(v)) => Operation::Delete(key.clone(), v.clone()),
            (Change::Delete, None) => return Ok(Written::Gone),
        };
        tried.push(by.clone());
        let error = match store.commit(Transaction::new([operation])).await {
            Ok(committed) => {
                let version = committed.versions.into_iter().find(|(k, _)| k == key);
                return Ok(match (version, &change) {
                    (Some((_, version)), Change::Put(_)) => Written::Put(version, by),
                    (None, Change::Put(_)) => return doubtful(key, "the store named no version"),
                    (_, Change::Delete) => Written::Gone,
                });
            }
            Err(error @ (CommitError::Unknown(_) | CommitError::Conflict { .. })) => error,
            Err(source) => {
                let key = key.clone();
                return Err(WriteError::Refused { key, source });
            }
        };
        match look(store.get(key).await, &tried, before) {
            Look::Ours(version, operation) => return Ok(Written::Put(version, operation)),
            Look::Gone if matches!(change, Change::Delete) => return Ok(Written::Gone),
            Look::AsBefore => tracing::debug!(%key, %error, "the write did not happen; once more"),
            Look::Gone => return doubtful(key, "it is gone"),
            Look::Foreign => return doubtful(key, "another write changed it"),
            Look::Unreadable(e) => return doubtful(key, &e.to_string()),
        }
    }
    doubtful(key, "the store did not say whether the write happened")
}

fn doubtful<T>(key: &Key, why: &str) -> Result<T, WriteError> {
    Err(WriteError::Doubtful {
        key: key.clone(),
        why: why.into(),
    })
}

/// What a read after an unclear write shows.
enum Look {
    Ours(Version, OperationId),
    AsBefore,
    Gone,
    Foreign,
    Unreadable(StoreError),
}

fn look(
    found: Result<Option<Versioned>, StoreError>,
    tried: &[OperationId],
    before: Option<&Version>,
) -> Look {
    let found = match found {
        Err(error) => return Look::Unreadable(error),
        Ok(None) if before.is_none() => return Look::AsBefore,
        Ok(None) => return Look::Gone,
        Ok(Some(found)) => found,
    };
    if Some(&found.version) == before {
        return Look::AsBefore;
    }
    match operation_of(&found.value) {
        Some(by) if tried.contains(&by) => Look::Ours(found.version, by),
        _ => Look::Foreign,
    }
}
