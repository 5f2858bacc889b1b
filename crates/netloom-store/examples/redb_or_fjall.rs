//! What the embedded store's engine costs, beside its rival and beside the disk itself.
//!
//! `cargo run --release -p netloom-store --example redb_or_fjall -- DIRECTORY`
//!
//! The same work for each engine, in rounds that take turns, so that a disk that is busy for a
//! while is busy for all: a durable transaction reads one row, checks it, writes it (300 bytes)
//! and writes the mark. Printed is the median of the rounds and its ratio to the raw disk. The last
//! line is the whole `EmbeddedStore` on its chosen engine, committer thread included.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measuring program: it reads the clock, prints, and may stop at any error"
)]

use netloom_core::store::{Key, Operation, Store, Transaction};
use netloom_store::EmbeddedStore;
use redb::{ReadableDatabase, ReadableTable};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEYS: usize = 2_000;
const VALUE: [u8; 300] = [7; 300];
const ROUNDS: usize = 9;
const COMMITS: usize = 100;
const READS: usize = 20_000;
const GROUP: usize = 32;
const CALLERS: usize = 64;

const ROWS: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("rows");

trait Engine {
    fn commit(&self, keys: &[String]);
    fn read(&self, key: &str) -> usize;
}

struct Redb(redb::Database);

impl Redb {
    fn open(path: &Path) -> Self {
        Self(redb::Database::create(path).unwrap())
    }
}

impl Engine for Redb {
    fn commit(&self, keys: &[String]) {
        let write = self.0.begin_write().unwrap();
        let mut rows = write.open_table(ROWS).unwrap();
        for key in keys {
            let _ = rows.get(key.as_str()).unwrap();
            rows.insert(key.as_str(), VALUE.as_slice()).unwrap();
        }
        rows.insert("mark", [1; 8].as_slice()).unwrap();
        drop(rows);
        write.commit().unwrap();
    }

    fn read(&self, key: &str) -> usize {
        let read = self.0.begin_read().unwrap();
        let row = read.open_table(ROWS).unwrap().get(key).unwrap();
        row.map_or(0, |row| row.value().len())
    }
}

struct Fjall {
    database: fjall::Database,
    rows: fjall::Keyspace,
}

impl Fjall {
    fn open(path: &Path) -> Self {
        let database = fjall::Database::builder(path).open().unwrap();
        let rows = database
            .keyspace("rows", fjall::KeyspaceCreateOptions::default)
            .unwrap();
        Self { database, rows }
    }
}

impl Engine for Fjall {
    fn commit(&self, keys: &[String]) {
        let mut batch = self
            .database
            .batch()
            .durability(Some(fjall::PersistMode::SyncData));
        for key in keys {
            let _ = self.rows.get(key).unwrap();
            batch.insert(&self.rows, key.as_str(), VALUE.as_slice());
        }
        batch.insert(&self.rows, "mark", [1_u8; 8].as_slice());
        batch.commit().unwrap();
    }

    fn read(&self, key: &str) -> usize {
        self.rows.get(key).unwrap().map_or(0, |row| row.len())
    }
}

fn key(n: usize) -> String {
    format!("networks/{:08x}/endpoints/{n:08x}", n / 50)
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        std::fs::copy(from, to).unwrap();
        return;
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

fn size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    if path.is_file() {
        return path.metadata().unwrap().blocks() * 512;
    }
    let entries = std::fs::read_dir(path).unwrap();
    entries.map(|entry| size(&entry.unwrap().path())).sum()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Microseconds per lone commit, per transaction in a group, and per read.
#[derive(Default)]
struct Measured {
    lone: Vec<f64>,
    grouped: Vec<f64>,
    read: Vec<f64>,
}

impl Measured {
    fn round(&mut self, engine: &dyn Engine, round: usize) {
        let at = |n: usize| key((n * 7919 + round * 31) % KEYS);
        let per = |time: Duration, count: usize| time.as_secs_f64() * 1e6 / count as f64;
        let lone = time(|| (0..COMMITS).for_each(|n| engine.commit(&[at(n)])));
        self.lone.push(per(lone, COMMITS));
        let group = |n: usize| (0..GROUP).map(|k| at(n * GROUP + k)).collect::<Vec<_>>();
        let grouped = time(|| (0..COMMITS).for_each(|n| engine.commit(&group(n))));
        self.grouped.push(per(grouped, COMMITS * GROUP));
        let keys: Vec<_> = (0..READS).map(at).collect();
        let mut bytes = 0;
        let read = time(|| {
            for key in &keys {
                bytes += engine.read(key);
            }
        });
        assert!(bytes > READS, "the rows are there");
        self.read.push(per(read, READS));
    }

    fn print(self, name: &str, raw: f64) {
        let (lone, grouped, read) = (median(self.lone), median(self.grouped), median(self.read));
        println!(
            "{name:6} lone commit {lone:7.1} us ({:4.2}x raw)  in groups of {GROUP} {grouped:6.2} us \
             ({:4.2}x raw)  read {read:5.2} us",
            lone / raw,
            grouped / raw
        );
    }
}

/// The store as its users see it: updates of own keys, by some callers at once.
fn embedded(store: &Arc<EmbeddedStore>, callers: usize, commits: usize) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let caller = |store: Arc<EmbeddedStore>, n: usize| async move {
        let key = Key::new(format!("callers/{n}")).unwrap();
        for _ in 0..commits {
            let key = key.clone();
            let operation = match store.get(&key).await.unwrap() {
                None => Operation::Create(key, VALUE.to_vec()),
                Some(row) => Operation::Update(key, VALUE.to_vec(), row.version),
            };
            store.commit(Transaction::new([operation])).await.unwrap();
        }
    };
    let spent = time(|| {
        let spawn = |n| runtime.spawn(caller(Arc::clone(store), n));
        let tasks: Vec<_> = (0..callers).map(spawn).collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
    spent.as_secs_f64() * 1e6 / (callers * commits) as f64
}

/// Fills the store with the rows that the bare engines have.
fn fill(store: &EmbeddedStore) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let rows: Vec<_> = (0..KEYS).map(key).collect();
    for some in rows.chunks(16) {
        let create =
            |key: &String| Operation::Create(Key::new(key.clone()).unwrap(), VALUE.to_vec());
        let creates = Transaction::new(some.iter().map(create));
        runtime.block_on(store.commit(creates)).unwrap();
    }
}

fn main() {
    let root = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let dir = tempfile::tempdir_in(root).unwrap();
    let (redb_path, fjall_path) = (dir.path().join("redb"), dir.path().join("fjall"));
    let (redb, fjall) = (Redb::open(&redb_path), Fjall::open(&fjall_path));
    let all: Vec<_> = (0..KEYS).map(key).collect();
    redb.commit(&all);
    fjall.commit(&all);

    let file = File::create(dir.path().join("raw")).unwrap();
    file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let mut raw = Vec::new();
    let (mut by_redb, mut by_fjall) = (Measured::default(), Measured::default());
    let store_path = dir.path().join("store.redb");
    let store = Arc::new(EmbeddedStore::open(&store_path).unwrap());
    fill(&store);
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let one = |n: usize| {
            file.write_all_at(&[1; 512], (n as u64 % 2048) * 512)
                .unwrap();
            file.sync_data().unwrap();
        };
        raw.push(time(|| (0..COMMITS).for_each(one)).as_secs_f64() * 1e6 / COMMITS as f64);
        by_redb.round(&redb, round);
        by_fjall.round(&fjall, round);
        alone.push(embedded(&store, 1, COMMITS));
        together.push(embedded(&store, CALLERS, COMMITS));
    }
    let raw = median(raw);
    println!("raw    512 bytes, fdatasync {raw:7.1} us");
    by_redb.print("redb", raw);
    by_fjall.print("fjall", raw);

    let (alone, together) = (median(alone), median(together));
    println!(
        "EmbeddedStore: one caller {alone:.1} us ({:.2}x raw), {CALLERS} callers {together:.2} us \
         a transaction ({:.2}x raw)",
        alone / raw,
        together / raw
    );

    // A copy of the files of an open database is what a killed process leaves.
    let (redb_copy, fjall_copy) = (dir.path().join("redb2"), dir.path().join("fjall2"));
    let store_copy = dir.path().join("store2");
    copy(&store_path, &store_copy);
    copy(&redb_path, &redb_copy);
    copy(&fjall_path, &fjall_copy);
    let redb_open = time(|| drop(Redb::open(&redb_copy)));
    let fjall_open = time(|| drop(Fjall::open(&fjall_copy)));
    let store_open = time(|| drop(EmbeddedStore::open(&store_copy).unwrap()));
    println!(
        "open and close after a kill: redb {redb_open:.1?}, fjall {fjall_open:.1?}, \
         EmbeddedStore with every row checked {store_open:.1?}"
    );
    println!(
        "bytes on disk for {KEYS} rows of {} bytes: redb {}, fjall {}",
        VALUE.len(),
        size(&redb_path),
        size(&fjall_path)
    );
}
