//! The embedded store on a disk that loses power, fails, or is slow.

use super::*;
use crate::random::Random;
use netloom_core::store::Operation;
use redb::StorageBackend;
use std::io;
use std::sync::{Condvar, Mutex};

/// A disk in memory. Bytes are durable once synced; what was written since may survive a loss of
/// power in any part.
#[derive(Debug, Clone, Default)]
struct Disk {
    state: Arc<(Mutex<DiskState>, Condvar)>,
}

#[derive(Debug, Default)]
struct DiskState {
    durable: Vec<u8>,
    seen: Vec<u8>,
    pending: Vec<Change>,
    /// The power goes after so many further calls.
    power_for: Option<u64>,
    honesty: Honesty,
    sync_waits: bool,
    syncs: u64,
}

/// What a sync does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Honesty {
    #[default]
    Honest,
    Fails,
    Lies,
}

#[derive(Debug, Clone)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

/// The unit that a disk writes wholly or not at all.
const SECTOR: usize = 512;

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Bytes(at, new) => {
                // The write that made the file longer may be the one that was lost.
                bytes.resize(bytes.len().max(at + new.len()), 0);
                bytes[*at..at + new.len()].copy_from_slice(new);
            }
        }
    }

    fn sectors(&self) -> Vec<Self> {
        match self {
            Self::Length(_) => vec![self.clone()],
            Self::Bytes(at, new) => new
                .chunks(SECTOR)
                .enumerate()
                .map(|(n, sector)| Self::Bytes(at + n * SECTOR, sector.to_vec()))
                .collect(),
        }
    }
}

impl Disk {
    fn with<T>(&self, change: impl FnOnce(&mut DiskState) -> T) -> T {
        let result = change(&mut self.state.0.lock().unwrap());
        self.state.1.notify_all();
        result
    }

    /// The same disk when the power is back: each unsynced sector is there or not.
    fn after_power_loss(&self, random: &mut Random) -> Self {
        let mut bytes = self.with(|disk| disk.durable.clone());
        let pending = self.with(|disk| disk.pending.clone());
        // Sometimes everything, sometimes nothing, else any part of it.
        let keep = random.below(5);
        for sector in pending.iter().flat_map(Change::sectors) {
            if random.below(4) < keep {
                sector.apply(&mut bytes);
            }
        }
        if file::is_unfinished_content(&bytes) {
            bytes.clear();
        }
        let disk = Self::default();
        disk.with(|state| {
            state.seen.clone_from(&bytes);
            state.durable = bytes;
        });
        disk
    }

    fn open(&self) -> Result<EmbeddedStore, String> {
        let database = redb::Database::builder()
            .create_with_backend(self.clone())
            .map_err(|error| error.to_string())?;
        let meta = file::begin(&database).map_err(|_| "it does not begin".to_owned())?;
        EmbeddedStore::start(database, meta).map_err(|error| error.to_string())
    }
}

impl DiskState {
    fn power(&mut self) -> io::Result<()> {
        match &mut self.power_for {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the power is off")),
            Some(calls) => {
                *calls -= 1;
                Ok(())
            }
        }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        self.power()?;
        change.apply(&mut self.seen);
        self.pending.push(change);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|disk| disk.seen.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        self.with(|disk| match disk.seen.get(at..at + out.len()) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        self.with(|disk| disk.change(Change::Length(length)))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        self.with(|disk| disk.change(Change::Bytes(at, data.to_vec())))
    }

    fn sync_data(&self) -> io::Result<()> {
        let (disk, woken) = &*self.state;
        let mut disk = woken
            .wait_while(disk.lock().unwrap(), |disk| disk.sync_waits)
            .unwrap();
        disk.power()?;
        disk.syncs += 1;
        match disk.honesty {
            Honesty::Honest => {}
            Honesty::Fails => return Err(io::Error::other("Input/output error")),
            Honesty::Lies => return Ok(()),
        }
        disk.durable = disk.seen.clone();
        disk.pending.clear();
        Ok(())
    }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// Writes `number` under two keys at once.
async fn write(store: &EmbeddedStore, number: u64) -> Result<Committed, CommitError> {
    let value = || number.to_be_bytes().to_vec();
    let unavailable = |_| CommitError::Unavailable(None);
    let mut operations = Vec::new();
    for key in [key("twins/a"), key("twins/b")] {
        operations.push(match store.get(&key).await.map_err(unavailable)? {
            None => Operation::Create(key, value()),
            Some(row) => Operation::Update(key, value(), row.version),
        });
    }
    store.commit(Transaction::new(operations)).await
}

/// The number under both keys, and the number of changes that the store counts.
async fn read(store: &EmbeddedStore) -> (u64, u64) {
    let mut numbers = Vec::new();
    for key in [key("twins/a"), key("twins/b")] {
        let row = store.get(&key).await.unwrap();
        numbers.push(row.map_or(0, |row| u64::from_be_bytes(row.value.try_into().unwrap())));
    }
    assert_eq!(numbers[0], numbers[1], "half a transaction is there");
    (numbers[0], store.sighting().unwrap().mark)
}

/// Runs until the power goes, which may be while opening; returns the last acknowledged number.
async fn run_until_power_goes(disk: &Disk, mut acknowledged: u64, calls: u64) -> u64 {
    disk.with(|disk| disk.power_for = Some(calls));
    let Ok(store) = disk.open() else {
        return acknowledged;
    };
    while write(&store, acknowledged + 1).await.is_ok() {
        acknowledged += 1;
    }
    acknowledged
}

/// Loses power several times, also in the middle of the recovery; says what was lost or halved.
async fn lose_power(seed: u64, honesty: Honesty) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut disk = Disk::default();
    let mut acknowledged = 0;
    for cut in 0..4 {
        disk.with(|disk| disk.honesty = honesty);
        let calls = random.below(120) as u64;
        acknowledged = run_until_power_goes(&disk, acknowledged, calls).await;
        disk = disk.after_power_loss(&mut random);
        // Looked at through a copy, so that the next cut meets the unrepaired file.
        let copy = disk.after_power_loss(&mut random);
        let store = copy.open();
        let store = store.map_err(|error| format!("seed {seed}, cut {cut}: {error}"))?;
        let (number, mark) = read(&store).await;
        // The one that was under way may have happened.
        if !(acknowledged..=acknowledged + 1).contains(&number) || mark != number {
            return Err(format!(
                "seed {seed}, cut {cut}: {acknowledged} acknowledged, {number} there, mark {mark}"
            ));
        }
        acknowledged = number;
    }
    Ok(())
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_nothing_is_half_after_a_loss_of_power() {
    for seed in 0..80 {
        lose_power(seed, Honesty::Honest).await.unwrap();
    }
}

/// The test above can fail: it finds what a disk that does not sync does to a store.
#[tokio::test]
async fn a_disk_that_lies_about_syncs_is_found_out() {
    let mut lost = Vec::new();
    for seed in 0..20 {
        lost.extend(lose_power(seed, Honesty::Lies).await.err());
    }
    assert!(!lost.is_empty());
}

#[tokio::test]
async fn a_failed_sync_leaves_the_outcome_unknown_and_closes_the_store() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    write(&store, 1).await.unwrap();
    let mut watch = store.watch(&key("twins")).await.unwrap();
    disk.with(|disk| disk.honesty = Honesty::Fails);
    let failed = write(&store, 2).await.unwrap_err();
    assert!(
        matches!(failed, CommitError::Unknown(Some(_))),
        "{failed:?}"
    );
    disk.with(|disk| disk.honesty = Honesty::Honest);
    let create = Operation::Create(key("b"), vec![]);
    let later = store.commit(Transaction::new([create])).await.unwrap_err();
    let CommitError::Unavailable(Some(cause)) = &later else {
        panic!("{later:?}");
    };
    assert!(cause.to_string().contains("Input/output error"), "{cause}");
    assert!(cause.to_string().contains("restart"), "{cause}");
    let unavailable = |error| matches!(error, Some(StoreError::Unavailable(_)));
    assert!(unavailable(store.get(&key("b")).await.err()));
    assert!(unavailable(store.list(&key("b")).await.err()));
    assert!(unavailable(store.watch(&key("b")).await.err()));
    assert!(unavailable(watch.changed().await.err()));
    assert!(unavailable(store.sighting().err()));
    drop(store);
    let (number, _) = read(&disk.open().unwrap()).await;
    assert!(number == 1 || number == 2, "{number}");
}

#[tokio::test]
async fn callers_who_come_while_the_disk_is_busy_share_one_write() {
    const CALLERS: u64 = 100;
    let disk = Disk::default();
    let store = Arc::new(disk.open().unwrap());
    disk.with(|disk| disk.sync_waits = true);
    let spawn = |n: u64| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let create = Operation::Create(key(&format!("k/{n}")), vec![]);
            store.commit(Transaction::new([create])).await
        })
    };
    let tasks: Vec<_> = (0..CALLERS).map(spawn).collect();
    // The runtime has one thread: after this, every task has put its transaction into the queue.
    tokio::task::yield_now().await;
    let before = disk.with(|disk| {
        disk.sync_waits = false;
        disk.syncs
    });
    let mut versions = std::collections::HashSet::new();
    for task in tasks {
        let committed = task.await.unwrap().unwrap();
        versions.extend(committed.versions.into_iter().map(|(_, version)| version));
    }
    assert_eq!(
        versions.len() as u64,
        CALLERS,
        "each has a version of its own"
    );
    let syncs = disk.with(|disk| disk.syncs) - before;
    // Whoever came first was written alone; the others waited for that, and went together.
    assert!(syncs <= 2 * 2, "{CALLERS} callers took {syncs} syncs");
}

#[tokio::test]
async fn every_acknowledgement_comes_after_a_sync() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    for number in 1..20 {
        write(&store, number).await.unwrap();
        let only_synced = Disk::default();
        let bytes = disk.with(|disk| disk.durable.clone());
        only_synced.with(|disk| disk.seen = bytes);
        let found = read(&only_synced.open().unwrap()).await;
        assert_eq!(found, (number, number));
    }
    let syncs = disk.with(|disk| disk.syncs);
    let stale = Operation::CheckAbsent(key("twins/a"));
    store.commit(Transaction::new([stale])).await.unwrap_err();
    let check = Operation::CheckAbsent(key("none"));
    store.commit(Transaction::new([check])).await.unwrap();
    assert_eq!(
        disk.with(|disk| disk.syncs),
        syncs,
        "a check wrote to the disk"
    );
}

#[tokio::test]
async fn dropping_the_store_writes_what_waits() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    disk.with(|disk| disk.sync_waits = true);
    {
        let commit = write(&store, 1);
        let given_up = tokio::time::timeout(std::time::Duration::ZERO, commit).await;
        assert!(given_up.is_err(), "the disk was held");
    }
    disk.with(|disk| disk.sync_waits = false);
    drop(store);
    assert_eq!(read(&disk.open().unwrap()).await, (1, 1));
}

#[tokio::test]
async fn a_store_put_back_from_a_copy_is_noticed_and_makes_no_version_twice() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    write(&store, 1).await.unwrap();
    let copy = disk.after_power_loss(&mut Random::new(1));
    let lost = write(&store, 2).await.unwrap();
    let seen = store.sighting().unwrap();
    drop(store);
    let store = copy.open().unwrap();
    let now = store.sighting().unwrap();
    assert!(matches!(
        seen.precedes(&now),
        Err(StoreError::WrongEpoch(_))
    ));
    let again = write(&store, 2).await.unwrap();
    assert_eq!(store.sighting().unwrap().mark, seen.mark);
    assert_ne!(lost.versions, again.versions, "a lost version came back");
}
