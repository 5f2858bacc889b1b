//! One host of a run: a process with the real address management, and the load on it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use netloom_core::store::Store;
use netloom_core::{
    AddressKind, AddressRequest, AddressSpace, ClusterAdmin, Ipam, IpamAdmin, IpamError, Options,
    PoolRequest, Purpose, RemoteStoreConfig, Standing, StoreUrl, SystemClock, WantedPool,
};
use netloom_ipam::journal::{DirDisk, Disk};
use netloom_ipam::{AddressManager, ClusterConfig, IpamConfig, NoRoutes, Seams, Sharing};
use netloom_store::EmbeddedStore;
use netloom_stores::SharedStore;
use netloom_types::{BootId, HostId, MacAddr, PoolId, Subnet};
use tokio::time::{Instant, sleep};

use super::clock::{Random, now};
use super::counted::Counted;
use super::load;
use super::planted::{Flaw, FlawedStore, LateDisk};
use super::story::{Diary, Line, Refusal, Story};

/// What a host is told.
#[derive(Debug, Clone)]
pub struct HostArgs {
    /// Its own directory.
    pub dir: PathBuf,
    /// Its number, from 0.
    pub number: u32,
    /// How many hosts there are.
    pub hosts: u32,
    /// The store, or none for one of its own in its directory.
    pub store: Option<StoreUrl>,
    /// Decides what is asked for.
    pub seed: u64,
    /// How many callers ask at once; none: it comes to rest and ends.
    pub callers: u32,
    /// How many pools there are.
    pub pools: u8,
    /// How long the prefix of each is.
    pub prefix: u8,
    /// A planted bug.
    pub flaw: Option<Flaw>,
}

/// The subnet of a pool by its place.
pub(super) fn subnet(pool: usize, prefix: u8) -> Subnet {
    let place = u8::try_from(pool).unwrap_or(u8::MAX);
    Subnet::truncating(IpAddr::from([10, 77, place * 16, 0]), prefix)
}

/// The host's name by its number.
pub(super) fn name(number: u32) -> String {
    format!("host-{number}")
}

pub(super) fn diary_path(dir: &Path) -> PathBuf {
    dir.join("diary")
}

pub(super) fn journal_path(dir: &Path) -> PathBuf {
    dir.join("journal")
}

pub(super) fn progress_path(dir: &Path) -> PathBuf {
    dir.join("progress")
}

/// There while a host has callers.
pub(super) fn ready_path(dir: &Path) -> PathBuf {
    dir.join("ready")
}

pub(super) fn own_store_path(dir: &Path) -> PathBuf {
    dir.join("store.redb")
}

/// A running host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) args: HostArgs,
    pub(super) ipam: Arc<AddressManager>,
    diary: Diary,
    counts: Arc<Counted>,
    held: Mutex<Vec<(usize, IpAddr)>>,
    next_call: AtomicU64,
    operations: AtomicU64,
    commits_before: u64,
    pub(super) pools: Vec<PoolId>,
    pub(super) ends: AtomicBool,
}

/// Runs a host until its standard input ends, which it does with whoever started it.
///
/// # Errors
/// When the host cannot start, or finds no rest.
pub async fn run_host(args: HostArgs) -> anyhow::Result<()> {
    let mut story = Story::read(&diary_path(&args.dir), args.number)?;
    let diary = Diary::open(&diary_path(&args.dir))?;
    let mut note = |line: Line| {
        story.add(&line);
        diary.write(&line)
    };
    note(Line::Life)?;
    let (ipam, counts) = open(&args).await?;
    let tending = tokio::spawn(Arc::clone(&ipam).tend());
    recover(&args, &ipam, &diary, &mut story).await?;
    let pools = pools(&args, &ipam, &diary, &mut story).await?;
    let place = |ip: &IpAddr| {
        let inside = |pool: &usize| subnet(*pool, args.prefix).contains(*ip);
        (0..pools.len()).find(inside).map(|pool| (pool, *ip))
    };
    let host = Arc::new(Host {
        held: Mutex::new(story.held.iter().filter_map(place).collect()),
        next_call: AtomicU64::new(story.next_call()),
        operations: AtomicU64::new(story.tally.operations()),
        commits_before: story.tally.commits,
        ends: AtomicBool::new(false),
        args,
        ipam,
        diary,
        counts,
        pools,
    });
    drop(story);
    if host.args.callers == 0 {
        host.rest().await?;
    } else {
        std::fs::write(ready_path(&host.args.dir), "")?;
        load::run(&host).await?;
    }
    host.tell()?;
    tending.abort();
    Ok(())
}

async fn open(args: &HostArgs) -> anyhow::Result<(Arc<AddressManager>, Arc<Counted>)> {
    let clock = Arc::new(SystemClock::new());
    let own: Arc<dyn Store> = Arc::new(EmbeddedStore::open(own_store_path(&args.dir))?);
    let mut config = IpamConfig::new(HostId::new(name(args.number))?, BootId::new("boot-1")?);
    let (store, mirror) = match &args.store {
        None | Some(StoreUrl::File(_)) => (own, None),
        Some(StoreUrl::Remote(url)) => {
            let mut cluster = ClusterConfig::new(format!("machine-{}", args.number));
            cluster.status_every = Duration::from_secs(1);
            config.sharing = Sharing::Cluster(cluster);
            let shared = SharedStore::new(RemoteStoreConfig::new(url.clone()));
            (Arc::new(shared) as Arc<dyn Store>, Some(own))
        }
    };
    let store = match args.flaw {
        Some(flaw) => Arc::new(FlawedStore::new(store, flaw)) as Arc<dyn Store>,
        None => store,
    };
    let counts = Arc::new(Counted::new(store));
    let disk = DirDisk::open(&journal_path(&args.dir))?;
    let disk: Arc<dyn Disk> = match args.flaw {
        Some(Flaw::LateSync) => Arc::new(LateDisk(disk)),
        _ => Arc::new(disk),
    };
    let seams = Seams {
        disk,
        store: Arc::clone(&counts) as _,
        mirror,
        routes: Arc::new(NoRoutes),
        clock: clock.clone(),
        ids: clock,
    };
    let ipam = AddressManager::open(config, seams)
        .await
        .context("opening address management")?;
    Ok((Arc::new(ipam), counts))
}

/// Compares what callers know with what the journal shows, before anybody asks for more.
async fn recover(
    args: &HostArgs,
    ipam: &AddressManager,
    diary: &Diary,
    story: &mut Story,
) -> anyhow::Result<()> {
    let mut shown = Vec::new();
    for pool in 0..usize::from(args.pools) {
        // A pool that no host has made yet holds nothing.
        let views = ipam.addresses(subnet(pool, args.prefix)).await;
        let used = views.unwrap_or_default().into_iter();
        let used =
            used.filter(|view| matches!(view.kind, AddressKind::Endpoint | AddressKind::InDoubt));
        shown.extend(used.map(|view| view.ip));
    }
    shown.sort_unstable();
    let known = |ip: &IpAddr| shown.binary_search(ip).is_ok();
    let at = now();
    let mut lines = Vec::new();
    for ip in shown.iter().filter(|ip| !story.held.contains(*ip)) {
        lines.push(Line::Found { at, ip: *ip });
    }
    let gone = story.cut_releases().filter(|ip| !known(ip));
    lines.extend(gone.map(|ip| Line::Gone { at, ip }));
    let lost = story.held.iter().filter(|ip| !known(ip));
    lines.extend(lost.map(|ip| Line::Lost { at, ip: *ip }));
    lines.push(Line::Recovered);
    for line in lines {
        diary.write(&line)?;
        story.add(&line);
    }
    Ok(())
}

/// The references to all pools; those that are missing are asked for until they are there.
async fn pools(
    args: &HostArgs,
    ipam: &AddressManager,
    diary: &Diary,
    story: &mut Story,
) -> anyhow::Result<Vec<PoolId>> {
    let mut pools = Vec::new();
    for pool in 0..usize::from(args.pools) {
        if let Some(id) = story.pools.get(&pool) {
            pools.push(PoolId::new(id.clone())?);
            continue;
        }
        let request = PoolRequest {
            space: AddressSpace::Local,
            wanted: WantedPool::Exact {
                subnet: subnet(pool, args.prefix),
                range: None,
            },
            options: Options::new(),
        };
        let id = loop {
            match ipam.request_pool(request.clone()).await {
                Ok(grant) => break grant.id,
                Err(IpamError::Unavailable { .. }) => sleep(AGAIN).await,
                Err(error) => return Err(error.into()),
            }
        };
        let line = Line::Pool {
            pool,
            id: id.as_str().to_owned(),
        };
        diary.write(&line)?;
        story.add(&line);
        let gateway = AddressRequest {
            pool: id.clone(),
            wanted: None,
            purpose: Purpose::Gateway,
            mac: None,
            name: None,
        };
        let ip = loop {
            match ipam.request_address(gateway.clone()).await {
                Ok(gateway) => break gateway.ip(),
                Err(IpamError::Unavailable { .. }) => sleep(AGAIN).await,
                Err(error) => return Err(error.into()),
            }
        };
        diary.write(&Line::Gateway { pool, ip })?;
        pools.push(id);
    }
    Ok(pools)
}

impl Host {
    fn held(&self) -> MutexGuard<'_, Vec<(usize, IpAddr)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many addresses callers have of a pool.
    pub(super) fn held_of(&self, pool: usize) -> usize {
        self.held().iter().filter(|(of, _)| *of == pool).count()
    }

    /// Takes one of them out, for a release.
    pub(super) fn pick(&self, pool: usize, random: &mut Random) -> Option<IpAddr> {
        let mut held = self.held();
        let of_pool: Vec<usize> = held
            .iter()
            .enumerate()
            .filter_map(|(place, (of, _))| (*of == pool).then_some(place))
            .collect();
        let place = *of_pool.get(random.place(of_pool.len()))?;
        Some(held.swap_remove(place).1)
    }

    fn call(&self) -> u64 {
        self.next_call.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks for an address and writes down what came of it.
    pub(super) async fn take(
        &self,
        pool: usize,
        wanted: Option<IpAddr>,
    ) -> anyhow::Result<Result<IpAddr, Refusal>> {
        let call = self.call();
        let [.., b, c, d, e] = call.to_be_bytes();
        let host = u8::try_from(self.args.number).unwrap_or(u8::MAX);
        let request = AddressRequest {
            pool: self.pools.get(pool).context("a pool of the run")?.clone(),
            wanted,
            purpose: Purpose::Endpoint,
            mac: Some(MacAddr::new([2, host, b, c, d, e])),
            name: None,
        };
        let mac = request.mac;
        self.diary.write(&Line::Take {
            call,
            at: now(),
            wanted,
        })?;
        let answer = self.ipam.request_address(request).await;
        let at = now();
        let (line, answer) = match answer {
            Ok(got) => (
                Line::Took {
                    call,
                    at,
                    ip: got.ip(),
                },
                Ok(got.ip()),
            ),
            Err(error) => {
                let why = refusal(&error);
                let told = matches!(why, Refusal::InUse | Refusal::Other);
                let what = told.then(|| error.to_string());
                (
                    Line::Not {
                        call,
                        at,
                        why,
                        what,
                    },
                    Err(why),
                )
            }
        };
        self.diary.write(&line)?;
        if answer != Err(Refusal::Away) {
            self.operations.fetch_add(1, Ordering::Relaxed);
        }
        if let Ok(ip) = answer {
            self.held().push((pool, ip));
            // Half of the callers come to an endpoint.
            if call.is_multiple_of(2) {
                drop(self.ipam.confirm(ip, mac).await);
            }
        }
        Ok(answer)
    }

    /// Gives an address back that was picked.
    pub(super) async fn release(&self, pool: usize, ip: IpAddr) -> anyhow::Result<()> {
        let call = self.call();
        let id = self.pools.get(pool).context("a pool of the run")?;
        self.diary.write(&Line::Release {
            call,
            at: now(),
            ip,
        })?;
        let line = match self.ipam.release_address(id, ip).await {
            Ok(()) => Line::Released { call, at: now() },
            Err(error) => Line::Unclear {
                call,
                at: now(),
                what: error.to_string(),
            },
        };
        self.operations.fetch_add(1, Ordering::Relaxed);
        self.diary.write(&line)?;
        Ok(())
    }

    /// Says how far the run is: to its own file, and to whoever looks on.
    pub(super) fn tell(&self) -> anyhow::Result<()> {
        let (taken, lost) = self.counts.counts();
        self.diary.write(&Line::Commits { taken, lost })?;
        let operations = self.operations.load(Ordering::Relaxed);
        let commits = self.commits_before + taken;
        let text = format!("{operations} {commits}");
        std::fs::write(progress_path(&self.args.dir), text)?;
        Ok(())
    }

    /// Waits until the store is joined and no range is under way, as far as it can be seen.
    async fn rest(&self) -> anyhow::Result<()> {
        let end = Instant::now() + REST_TIME;
        let mut quiet = 0;
        while quiet < QUIET_LOOKS {
            anyhow::ensure!(
                Instant::now() < end,
                "no rest: {:?}",
                self.ipam.cluster().await
            );
            sleep(AGAIN).await;
            let standing = self.ipam.cluster().await.standing;
            let kept = self.ipam.keep().await.is_ok();
            let in_order = kept && matches!(standing, Standing::Joined | Standing::Alone);
            quiet = if in_order { quiet + 1 } else { 0 };
        }
        Ok(())
    }
}

fn refusal(error: &IpamError) -> Refusal {
    match error {
        IpamError::Exhausted(_) => Refusal::Full,
        IpamError::InUse(_) => Refusal::InUse,
        IpamError::Unavailable { .. } => Refusal::Away,
        _ => Refusal::Other,
    }
}

const AGAIN: Duration = Duration::from_millis(500);
/// Longer than any store takes to be joined again.
const REST_TIME: Duration = Duration::from_secs(120);
/// Looks in a row that find everything in order.
const QUIET_LOOKS: u32 = 10;
