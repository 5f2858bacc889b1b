//! The first word to a store, or the first after it lost everything: a person's.

use crate::records::{EpochRecord, HealRecord, Record, VERSION};
use crate::space::Keys;
use netloom_core::Ids;
use netloom_core::store::{CommitError, Operation, Store, Transaction};
use netloom_types::HostId;
use std::collections::BTreeSet;

/// Initialises a store in which there is no epoch; gives the number of the one that begins.
///
/// `last` is the latest epoch that anybody remembers, 0 for none, and `waiting` are the hosts that
/// must say again what they own before addresses change hands: nobody for a new cluster, all that
/// are remembered for one that lost its store.
///
/// # Errors
/// A conflict `Exists` when the store has an epoch already, or holds an unfinished copy of another one (the
/// key tells), and what a commit says.
///
/// ```
/// use netloom_core::SystemClock;
/// use netloom_store::MemoryStore;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = MemoryStore::new();
/// let ids = SystemClock::new();
/// assert_eq!(netloom_ipam::cluster_init(&store, &ids, 0, []).await?, 1);
/// assert!(netloom_ipam::cluster_init(&store, &ids, 0, []).await.is_err());
/// # Ok::<(), netloom_core::store::CommitError>(())
/// # }).unwrap();
/// ```
pub async fn cluster_init(
    store: &dyn Store,
    ids: &dyn Ids,
    last: u64,
    waiting: impl IntoIterator<Item = HostId>,
) -> Result<u64, CommitError> {
    let number = EpochRecord::after(last).ok_or(CommitError::Invalid(
        "there is no epoch after the last number",
    ))?;
    let operation = ids.operation();
    let waiting: BTreeSet<String> = waiting.into_iter().map(|h| h.as_str().to_owned()).collect();
    let heal = HealRecord {
        version: VERSION,
        operation: operation.as_str().to_owned(),
        epoch: number,
        waiting: waiting.into_iter().collect(),
    };
    let epoch = EpochRecord::Number(number).encode();
    let sent = Transaction::new([
        Operation::Create(Keys::epoch(), epoch),
        Operation::Create(Keys::heal(), heal.encode()),
        // What hosts wrote would be lost in what is copied there.
        Operation::CheckAbsent(Keys::copy()),
    ]);
    match store.commit(sent).await {
        Ok(_) => Ok(number),
        Err(error @ CommitError::Unknown(_)) => {
            let written = store.get(&Keys::heal()).await.ok().flatten();
            let ours = written.is_some_and(|row| row.value == heal.encode());
            if ours { Ok(number) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}
