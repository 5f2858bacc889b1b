//! Moving all of address management to another store.

use crate::records::{EpochRecord, HealRecord, Record, VERSION};
use crate::space::Keys;
use netloom_core::Ids;
use netloom_core::store::{
    CommitError, Key, Operation, Store, StoreError, TRANSACTION_BYTES_MAX, TRANSACTION_OPS_MAX,
    Transaction, Version, Versioned,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why a store was not copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// One of both could not be read. The copy can be made again, and goes on.
    #[error("a store could not be read; copy again, and it goes on where it was")]
    Read(#[from] StoreError),
    /// One of both did not take a change. The copy can be made again, and goes on.
    #[error("a store did not take a change; copy again, and it goes on where it was")]
    Commit(#[from] CommitError),
    /// They are not two stores between which this copy can be made.
    #[error("{0}")]
    Refused(String),
    /// The copy is not what was copied.
    #[error(
        "the copy differs at {0}: something else writes into the new store; empty it, and copy again"
    )]
    Differs(Key),
}

/// What a copy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Records.
    pub records: u64,
    /// The epoch in which the new store begins.
    pub epoch: u64,
}

/// `copy` in the new store, until the copy is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CopyRecord {
    version: u32,
    operation: String,
    /// The store that is copied, as it names itself.
    from: String,
    /// The epoch that it was in.
    epoch: u64,
}

impl Record for CopyRecord {}

/// Copies address management from one store to another. The old one is fenced first: from then on
/// no host can change it, and each is told where it went, `to_url`. The new one begins with the
/// next epoch, once all is there. A copy that was interrupted is made again with the same
/// arguments, and goes on.
///
/// # Errors
/// By what can be done about it.
pub async fn store_copy(
    from: &dyn Store,
    to: &dyn Store,
    to_url: &str,
    ids: &dyn Ids,
) -> Result<Copied, CopyError> {
    let identity = from.identity().await?.0;
    if identity == to.identity().await?.0 {
        return Err(CopyError::Refused(
            "both are one store; name another one to copy to".to_owned(),
        ));
    }
    let epoch = match begin(from, to, &identity, to_url, ids).await? {
        Begun::Done(epoch) => {
            let records = 0;
            return Ok(Copied { records, epoch });
        }
        Begun::At(epoch) => epoch,
    };
    fence(from, to_url).await?;
    let mut records = 0;
    for directory in COPIED {
        let directory = Key::new(directory).expect("it consists of small letters");
        records += copy_directory(from, to, &directory).await?;
    }
    for directory in COPIED {
        let directory = Key::new(directory).expect("it consists of small letters");
        verify(from, to, &directory).await?;
    }
    let epoch = finish(from, to, epoch, ids).await?;
    Ok(Copied { records, epoch })
}

enum Begun {
    /// The copy is complete already.
    Done(u64),
    /// It is under way; the old store was in this epoch.
    At(u64),
}

/// Notes in the new store what is copied there, while it is empty.
async fn begin(
    from: &dyn Store,
    to: &dyn Store,
    identity: &str,
    to_url: &str,
    ids: &dyn Ids,
) -> Result<Begun, CopyError> {
    let there = epoch_of(to).await?;
    let here = epoch_of(from).await?;
    let moved = matches!(&here, Some((EpochRecord::Moved(url), _)) if url == to_url);
    if let Some((there, _)) = there {
        return match there {
            EpochRecord::Number(number) if moved => Ok(Begun::Done(number)),
            _ => Err(CopyError::Refused(
                "the store to copy to is in use: it has an epoch; name an empty one".to_owned(),
            )),
        };
    }
    if let Some(row) = to.get(&Keys::copy()).await? {
        let under_way = CopyRecord::decode(&row.value).map_err(StoreError::Corrupt)?;
        if under_way.from != identity {
            return Err(CopyError::Refused(format!(
                "the store to copy to holds an unfinished copy of {}; empty it first",
                under_way.from
            )));
        }
        return Ok(Begun::At(under_way.epoch));
    }
    let epoch = match here {
        Some((EpochRecord::Number(number), _)) => number,
        Some((EpochRecord::Moved(url), _)) => {
            return Err(CopyError::Refused(format!(
                "the store to copy was left for {url} already"
            )));
        }
        None => {
            return Err(CopyError::Refused(
                "the store to copy has no epoch: there is nothing in it".to_owned(),
            ));
        }
    };
    for directory in COPIED {
        let directory = Key::new(directory).expect("it consists of small letters");
        if let Some((key, _)) = to.list(&directory).await?.into_iter().next() {
            return Err(CopyError::Refused(format!(
                "the store to copy to is not empty: it holds {key}; name an empty one"
            )));
        }
    }
    let record = CopyRecord {
        version: VERSION,
        operation: ids.operation().as_str().to_owned(),
        from: identity.to_owned(),
        epoch,
    };
    // Somebody may initialise it meanwhile.
    let still_empty = Operation::CheckAbsent(Keys::epoch());
    let begins = Operation::Create(Keys::copy(), record.encode());
    send(to, vec![still_empty, begins]).await?;
    Ok(Begun::At(epoch))
}

/// From here on nobody changes the old store: every change checks its epoch.
async fn fence(from: &dyn Store, to_url: &str) -> Result<(), CopyError> {
    for _ in 0..TRIES {
        match epoch_of(from).await? {
            Some((EpochRecord::Moved(url), _)) if url == to_url => return Ok(()),
            Some((EpochRecord::Number(_), version)) => {
                let moved = EpochRecord::Moved(to_url.to_owned()).encode();
                let update = Operation::Update(Keys::epoch(), moved, version);
                match from.commit(Transaction::new([update])).await {
                    Ok(_) => return Ok(()),
                    // Read again: it may be done, or be another epoch by now.
                    Err(CommitError::Conflict { .. } | CommitError::Unknown(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            _ => {
                return Err(CopyError::Refused(
                    "the store to copy was left for another one meanwhile".to_owned(),
                ));
            }
        }
    }
    Err(CommitError::Unknown(None).into())
}

async fn copy_directory(
    from: &dyn Store,
    to: &dyn Store,
    directory: &Key,
) -> Result<u64, CopyError> {
    let there: BTreeMap<Key, Versioned> = to.list(directory).await?.into_iter().collect();
    let rows = from.list(directory).await?;
    let count = rows.len() as u64;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for (key, row) in rows {
        let size = key.as_str().len() + row.value.len();
        let write = match there.get(&key) {
            Some(known) if known.value == row.value => continue,
            Some(known) => Operation::Update(key, row.value, known.version.clone()),
            None => Operation::Create(key, row.value),
        };
        if batch.len() == TRANSACTION_OPS_MAX || bytes + size > TRANSACTION_BYTES_MAX {
            send(to, core::mem::take(&mut batch)).await?;
            bytes = 0;
        }
        batch.push(write);
        bytes += size;
    }
    if !batch.is_empty() {
        send(to, batch).await?;
    }
    Ok(count)
}

async fn verify(from: &dyn Store, to: &dyn Store, directory: &Key) -> Result<(), CopyError> {
    let values = |rows: Vec<(Key, Versioned)>| -> BTreeMap<Key, Vec<u8>> {
        rows.into_iter()
            .map(|(key, row)| (key, row.value))
            .collect()
    };
    let here = values(from.list(directory).await?);
    let there = values(to.list(directory).await?);
    let differs = here
        .iter()
        .find(|(key, value)| there.get(*key) != Some(*value));
    let extra = there.keys().find(|key| !here.contains_key(*key));
    match differs.map(|(key, _)| key).or(extra) {
        None => Ok(()),
        Some(key) => Err(CopyError::Differs(key.clone())),
    }
}

/// Opens the new store to hosts; gives its epoch.
async fn finish(
    from: &dyn Store,
    to: &dyn Store,
    epoch: u64,
    ids: &dyn Ids,
) -> Result<u64, CopyError> {
    // Hosts may have begun others between the note of that one and the fence.
    let (waiting, last) = match from.get(&Keys::heal()).await? {
        None => (Vec::new(), epoch),
        Some(row) => {
            let heal = HealRecord::decode(&row.value).map_err(StoreError::Corrupt)?;
            (heal.waiting, heal.epoch.max(epoch))
        }
    };
    let next = EpochRecord::after(last).ok_or(CommitError::Invalid(
        "there is no epoch after the last number",
    ))?;
    let heal = HealRecord {
        version: VERSION,
        operation: ids.operation().as_str().to_owned(),
        epoch: next,
        waiting,
    };
    let Some(mark) = to.get(&Keys::copy()).await? else {
        // An answer that was lost: it is complete.
        return Ok(next);
    };
    let last = vec![
        Operation::Create(Keys::epoch(), EpochRecord::Number(next).encode()),
        Operation::Create(Keys::heal(), heal.encode()),
        Operation::Delete(Keys::copy(), mark.version),
    ];
    send(to, last).await?;
    Ok(next)
}

/// A change whose outcome is not told ends the copy, which can be made again.
async fn send(to: &dyn Store, operations: Vec<Operation>) -> Result<(), CopyError> {
    to.commit(Transaction::new(operations)).await?;
    Ok(())
}

async fn epoch_of(store: &dyn Store) -> Result<Option<(EpochRecord, Version)>, StoreError> {
    let Some(row) = store.get(&Keys::epoch()).await? else {
        return Ok(None);
    };
    let record = EpochRecord::decode(&row.value).map_err(StoreError::Corrupt)?;
    Ok(Some((record, row.version)))
}

/// What is copied: hints and messages between hosts are not.
const COPIED: [&str; 5] = ["chunks", "hosts", "pools", "references", "spaces"];
/// Tries to fence a store in which an epoch begins at the same time.
const TRIES: u32 = 8;
