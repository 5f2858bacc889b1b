//! The raw write, and what is ours.

use super::figures::{Figure, Label, Laps, Turn};
use super::{Subject, peers};
use crate::heap;
use netloom_core::{
    AddressRequest, AddressSpace, Ipam, Options, PoolRequest, Purpose, SystemClock, WantedPool,
};
use netloom_ipam::journal::{DirDisk, Disk, Fold, Journal, JournalOptions};
use netloom_ipam::{AddressManager, IpamConfig, NoRoutes, Seams};
use netloom_store::EmbeddedStore;
use netloom_types::{BootId, HostId, MacAddr, PoolId};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// All subjects, the raw write first.
pub(super) fn all(directory: &Path) -> anyhow::Result<Vec<Box<dyn Subject>>> {
    let mut subjects: Vec<Box<dyn Subject>> = vec![Box::new(Raw::new(directory)?)];
    for callers in [1, 8, 64] {
        subjects.push(Box::new(JournalThreads::new(directory, callers)?));
    }
    for callers in [8, 64] {
        subjects.push(Box::new(JournalTasks::new(directory, callers)?));
    }
    for callers in [1, 8, 64] {
        subjects.push(Box::new(Addresses::new(directory, callers)?));
    }
    for callers in [1, 64] {
        subjects.push(Box::new(peers::Redb::new(directory, callers)?));
        subjects.push(Box::new(peers::Fjall::new(directory, callers)?));
    }
    Ok(subjects)
}

/// Overwrites prepared blocks one after another, each with a sync: the floor of durability.
struct Raw {
    file: File,
    next: u64,
}

impl Raw {
    fn new(directory: &Path) -> anyhow::Result<Self> {
        let file = File::create(directory.join("raw"))?;
        for block in 0..RAW_BLOCKS {
            file.write_all_at(&[0; RAW_BLOCK], block * RAW_BLOCK as u64)?;
        }
        file.sync_all()?;
        Ok(Self { file, next: 0 })
    }
}

impl Subject for Raw {
    fn take_turn(&mut self, turn: Turn) -> anyhow::Result<Figure> {
        let block = [7u8; RAW_BLOCK];
        let mut laps = Laps::begin(turn);
        loop {
            self.next = (self.next + 1) % RAW_BLOCKS;
            self.file
                .write_all_at(&block, self.next * RAW_BLOCK as u64)?;
            self.file.sync_data()?;
            if !laps.lap() {
                break;
            }
        }
        let label = Label {
            subject: "raw-write",
            pattern: "single",
            callers: 1,
        };
        Ok(Figure::of(label, vec![laps]))
    }
}

/// Events that add up to nothing, so that the log alone is measured.
#[derive(Debug, Default)]
struct Nothing;

impl Fold for Nothing {
    fn apply(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn dump(&self, _: &mut dyn FnMut(&[u8])) {}
}

fn journal(directory: &Path, name: &str) -> anyhow::Result<Journal> {
    let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(&directory.join(name))?);
    let ids = Arc::new(SystemClock::new());
    let (journal, Nothing) = Journal::open(disk, ids, JournalOptions::default())?;
    Ok(journal)
}

/// The journal with callers that are threads.
struct JournalThreads {
    journal: Journal,
    label: Label,
}

impl JournalThreads {
    fn new(directory: &Path, callers: usize) -> anyhow::Result<Self> {
        Ok(Self {
            journal: journal(directory, &format!("journal-threads-{callers}"))?,
            label: Label {
                subject: "netloom-journal",
                pattern: if callers == 1 { "single" } else { "threads" },
                callers,
            },
        })
    }

    fn caller(&self, turn: Turn) -> anyhow::Result<Laps> {
        let mut laps = Laps::begin(turn);
        loop {
            self.journal.append(&[&EVENT])?.wait()?;
            if !laps.lap() {
                return Ok(laps);
            }
        }
    }
}

impl Subject for JournalThreads {
    fn take_turn(&mut self, turn: Turn) -> anyhow::Result<Figure> {
        if self.label.callers == 1 {
            let before = heap::calls();
            let laps = self.caller(turn)?;
            let (calls, count) = (heap::calls() - before, laps.count());
            return Ok(Figure::of(self.label, vec![laps]).with_heap(calls, count));
        }
        let this = &*self;
        let laps = std::thread::scope(|scope| {
            let spawn = |_| scope.spawn(move || this.caller(turn));
            let callers: Vec<_> = (0..this.label.callers).map(spawn).collect();
            callers.into_iter().map(peers::joined).collect()
        });
        Ok(Figure::of(self.label, peers::whole(laps)?))
    }
}

/// The journal with callers that are tasks of one runtime, as in the daemon.
struct JournalTasks {
    journal: Arc<Journal>,
    runtime: tokio::runtime::Runtime,
    label: Label,
}

impl JournalTasks {
    fn new(directory: &Path, callers: usize) -> anyhow::Result<Self> {
        Ok(Self {
            journal: Arc::new(journal(directory, &format!("journal-tasks-{callers}"))?),
            runtime: runtime()?,
            label: Label {
                subject: "netloom-journal",
                pattern: "group",
                callers,
            },
        })
    }
}

impl Subject for JournalTasks {
    fn take_turn(&mut self, turn: Turn) -> anyhow::Result<Figure> {
        let spawn = |_| {
            let journal = Arc::clone(&self.journal);
            self.runtime.spawn(async move {
                let mut laps = Laps::begin(turn);
                loop {
                    journal.append(&[&EVENT])?.durable().await?;
                    if !laps.lap() {
                        return anyhow::Ok(laps);
                    }
                }
            })
        };
        let callers: Vec<_> = (0..self.label.callers).map(spawn).collect();
        let mut laps = Vec::new();
        for caller in callers {
            laps.push(self.runtime.block_on(caller)??);
        }
        Ok(Figure::of(self.label, laps))
    }
}

/// Addresses of a /8 through the trait, each acknowledged as durable.
struct Addresses {
    manager: Arc<AddressManager>,
    pool: PoolId,
    runtime: tokio::runtime::Runtime,
    label: Label,
}

impl Addresses {
    fn new(directory: &Path, callers: usize) -> anyhow::Result<Self> {
        let directory = directory.join(format!("addresses-{callers}"));
        std::fs::create_dir_all(&directory)?;
        let runtime = runtime()?;
        let (manager, pool) = runtime.block_on(open_manager(&directory))?;
        Ok(Self {
            manager: Arc::new(manager),
            pool,
            runtime,
            label: Label {
                subject: "netloom-ipam",
                pattern: if callers == 1 { "single" } else { "group" },
                callers,
            },
        })
    }
}

async fn open_manager(directory: &Path) -> anyhow::Result<(AddressManager, PoolId)> {
    let clock = Arc::new(SystemClock::new());
    let seams = Seams {
        disk: Arc::new(DirDisk::open(&directory.join("journal"))?),
        store: Arc::new(EmbeddedStore::open(directory.join("store.redb"))?),
        mirror: None,
        routes: Arc::new(NoRoutes),
        clock: Arc::clone(&clock) as _,
        ids: clock,
    };
    let config = IpamConfig::new(HostId::new("bench")?, BootId::new("boot")?);
    let manager = AddressManager::open(config, seams).await?;
    let wanted = WantedPool::Exact {
        subnet: "10.0.0.0/8".parse()?,
        range: None,
    };
    let request = PoolRequest {
        space: AddressSpace::Local,
        wanted,
        options: Options::new(),
    };
    let pool = manager.request_pool(request).await?.id;
    Ok((manager, pool))
}

async fn ask(manager: &AddressManager, pool: PoolId, turn: Turn) -> anyhow::Result<Laps> {
    let mut laps = Laps::begin(turn);
    loop {
        let request = AddressRequest {
            pool: pool.clone(),
            wanted: None,
            purpose: Purpose::Endpoint,
            mac: Some(MacAddr::new([2, 0x42, 1, 2, 3, 4])),
            name: None,
        };
        manager.request_address(request).await?;
        if !laps.lap() {
            return Ok(laps);
        }
    }
}

impl Subject for Addresses {
    fn take_turn(&mut self, turn: Turn) -> anyhow::Result<Figure> {
        if self.label.callers == 1 {
            let before = heap::calls();
            let asked = ask(&self.manager, self.pool.clone(), turn);
            let laps = self.runtime.block_on(asked)?;
            let (calls, count) = (heap::calls() - before, laps.count());
            return Ok(Figure::of(self.label, vec![laps]).with_heap(calls, count));
        }
        let spawn = |_| {
            let (manager, pool) = (Arc::clone(&self.manager), self.pool.clone());
            self.runtime
                .spawn(async move { ask(&manager, pool, turn).await })
        };
        let callers: Vec<_> = (0..self.label.callers).map(spawn).collect();
        let mut laps = Vec::new();
        for caller in callers {
            laps.push(self.runtime.block_on(caller)??);
        }
        Ok(Figure::of(self.label, laps))
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_time()
        .build()?)
}

/// What a block device writes at least, as a rule.
pub(super) const RAW_BLOCK: usize = 4096;
/// 8 MiB: as a segment of the journal.
const RAW_BLOCKS: u64 = 2048;
/// An address event with a link address has 47 bytes.
const EVENT: [u8; 48] = [5; 48];
/// As many as the smallest host that is measured has processors.
const WORKERS: usize = 2;
