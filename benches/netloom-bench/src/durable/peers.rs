//! Embedded stores, asked to make one small value durable per operation.

use super::Subject;
use super::figures::{Figure, Label, Laps, Turn};
use fjall::{KeyspaceCreateOptions, PersistMode};
use redb::TableDefinition;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

const TABLE: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("addresses");
const VALUE: [u8; 48] = [5; 48];

/// redb: a B-tree; a transaction per operation, synced.
pub(super) struct Redb {
    database: redb::Database,
    next: AtomicU64,
    label: Label,
}

impl Redb {
    pub(super) fn new(directory: &Path, callers: usize) -> anyhow::Result<Self> {
        let database = redb::Database::create(directory.join(format!("redb-{callers}")))?;
        Ok(Self {
            database,
            next: AtomicU64::new(0),
            label: label("redb", callers),
        })
    }

    fn put(&self) -> anyhow::Result<()> {
        let transaction = self.database.begin_write()?;
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        transaction.open_table(TABLE)?.insert(key, &VALUE[..])?;
        transaction.commit()?;
        Ok(())
    }
}

impl Subject for Redb {
    fn take_turn(&mut self, turn: Turn) -> anyhow::Result<Figure> {
        threads(self.label, turn, &|| self.put())
    }
}

/// fjall: a log-structured tree; a write per operation, synced.
pub(super) struct Fjall {
    database: fjall::Database,
    keyspace: fjall::Keyspace,
    next: AtomicU64,
    label: Label,
}

impl Fjall {
    pub(super) fn new(directory: &Path, callers: usize) -> anyhow::Result<Self> {
        let path = directory.join(format!("fjall-{callers}"));
        let database = fjall::Database::builder(path).open()?;
        let keyspace = database.keyspace("addresses", KeyspaceCreateOptions::default)?;
        Ok(Self {
            database,
            keyspace,
            next: AtomicU64::new(0),
            label: label("fjall", callers),
        })
    }

    fn put(&self) -> anyhow::Result<()> {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        batch.insert(&self.keyspace, key.to_be_bytes(), VALUE);
        batch.commit()?;
        Ok(())
    }
}

impl Subject for Fjall {
    fn take_turn(&mut self, turn: Turn) -> anyhow::Result<Figure> {
        threads(self.label, turn, &|| self.put())
    }
}

fn label(subject: &'static str, callers: usize) -> Label {
    Label {
        subject,
        pattern: if callers == 1 { "single" } else { "threads" },
        callers,
    }
}

/// As many threads as callers, each doing `put` again and again.
fn threads(
    label: Label,
    turn: Turn,
    put: &(dyn Fn() -> anyhow::Result<()> + Sync),
) -> anyhow::Result<Figure> {
    let laps = std::thread::scope(|scope| {
        let caller = move || {
            let mut laps = Laps::begin(turn);
            loop {
                put()?;
                if !laps.lap() {
                    return anyhow::Ok(laps);
                }
            }
        };
        let callers: Vec<_> = (0..label.callers).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().map(joined).collect()
    });
    Ok(Figure::of(label, whole(laps)?))
}

/// What a caller's thread found.
pub(super) fn joined(caller: ScopedJoinHandle<'_, anyhow::Result<Laps>>) -> anyhow::Result<Laps> {
    caller
        .join()
        .unwrap_or_else(|_| Err(anyhow::anyhow!("a caller panicked")))
}

/// All of the callers' laps, or the first failure.
pub(super) fn whole(laps: Vec<anyhow::Result<Laps>>) -> anyhow::Result<Vec<Laps>> {
    laps.into_iter().collect()
}
