//! `AddressManager` as one of many hosts.

use super::job::{Job, Pattern, Random};
use super::worker::{Caller, Step, begin};
use async_trait::async_trait;
use netloom_core::store::Store;
use netloom_core::{
    AddressRequest, AddressSpace, Ipam, IpamError, Options, PoolRequest, Purpose, SystemClock,
    WantedPool,
};
use netloom_ipam::journal::DirDisk;
use netloom_ipam::{AddressManager, ClusterConfig, IpamConfig, NoRoutes, Seams, Sharing};
use netloom_store::EmbeddedStore;
use netloom_types::{BootId, HostId, MacAddr, PoolId};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A manager with its background, as in the daemon, and its reference to the pool.
pub(super) async fn open(
    job: &Job,
    store: Arc<dyn Store>,
    pattern: Pattern,
) -> anyhow::Result<(Arc<AddressManager>, PoolId)> {
    let clock = Arc::new(SystemClock::new());
    let mut config = IpamConfig::new(
        HostId::new(format!("host-{}", job.host))?,
        BootId::new("boot")?,
    );
    let mut mirror: Option<Arc<dyn Store>> = None;
    if job.store.is_shared() {
        let machine = format!("machine-{}", job.host);
        config.sharing = Sharing::Cluster(ClusterConfig::new(machine));
        mirror = Some(Arc::new(EmbeddedStore::open(
            job.directory.join("mirror.redb"),
        )?));
    }
    let seams = Seams {
        disk: Arc::new(DirDisk::open(&job.directory.join("journal"))?),
        store,
        mirror,
        routes: Arc::new(NoRoutes),
        clock: Arc::clone(&clock) as _,
        ids: clock,
    };
    let manager = Arc::new(AddressManager::open(config, seams).await?);
    tokio::spawn(Arc::clone(&manager).tend());
    let request = PoolRequest {
        space: AddressSpace::Local,
        wanted: WantedPool::Exact {
            subnet: pattern.subnet(),
            range: None,
        },
        options: Options::new(),
    };
    let pool = manager.request_pool(request).await?.id;
    Ok((manager, pool))
}

/// The callers of one host. With half of the pool in use, this host's part of it is filled first
/// and then thinned out at random.
pub(super) async fn callers(
    job: &Job,
    manager: &Arc<AddressManager>,
    pool: &PoolId,
    pattern: Pattern,
) -> anyhow::Result<Vec<Box<dyn Caller>>> {
    let part = FRESH.0 << pattern.host_bits();
    let part = Arc::new(AtomicUsize::new(part / FRESH.1 / job.hosts));
    let mut callers: Vec<Addresses> = (0..job.callers)
        .map(|caller| Addresses {
            manager: Arc::clone(manager),
            pool: pool.clone(),
            pattern,
            random: Random::new(seed(job.host, caller)),
            live: Vec::new(),
            part: Arc::clone(&part),
        })
        .collect();
    if pattern == Pattern::Half {
        fill(job, &mut callers).await?;
    }
    Ok(callers.into_iter().map(|c| Box::new(c) as _).collect())
}

/// In many tasks, which share the syncs.
async fn fill(job: &Job, callers: &mut Vec<Addresses>) -> anyhow::Result<()> {
    let part = (1 << Pattern::Half.host_bits()) / job.hosts;
    let mut first = callers.pop();
    let Some(filler) = first.as_mut() else {
        return Ok(());
    };
    let tasks: Vec<_> = (0..FILLERS)
        .map(|n| {
            let mut filler = filler.clone();
            filler.random = Random::new(seed(job.host, 1000 + n));
            tokio::spawn(async move { filler.fill_and_thin(part / FILLERS).await })
        })
        .collect();
    let mut live = Vec::new();
    for task in tasks {
        live.extend(task.await??);
    }
    callers.extend(first);
    let count = callers.len();
    for (place, caller) in callers.iter_mut().enumerate() {
        caller.live = live.iter().skip(place).step_by(count).copied().collect();
    }
    Ok(())
}

/// One caller of a host.
#[derive(Debug, Clone)]
struct Addresses {
    manager: Arc<AddressManager>,
    pool: PoolId,
    pattern: Pattern,
    random: Random,
    live: Vec<IpAddr>,
    /// What this host may still take of an empty pool.
    part: Arc<AtomicUsize>,
}

impl Addresses {
    async fn allocate(&self) -> Result<IpAddr, IpamError> {
        let request = AddressRequest {
            pool: self.pool.clone(),
            wanted: None,
            purpose: Purpose::Endpoint,
            mac: Some(MacAddr::new([2, 0x42, 1, 2, 3, 4])),
            name: None,
        };
        Ok(self.manager.request_address(request).await?.ip())
    }

    fn may_take(&self) -> bool {
        let left = |left: usize| left.checked_sub(1);
        let order = Ordering::Relaxed;
        self.part.fetch_update(order, order, left).is_ok()
    }

    async fn release(&self, ip: IpAddr) -> Result<(), IpamError> {
        self.manager.release_address(&self.pool, ip).await
    }

    /// Takes nearly its part, and gives back at random until half of the part is left.
    async fn fill_and_thin(&mut self, part: usize) -> anyhow::Result<Vec<IpAddr>> {
        let mut live = Vec::with_capacity(part);
        for _ in 0..part * FILLED.0 / FILLED.1 {
            live.push(self.allocate().await?);
        }
        while live.len() > part / 2 {
            let ip = live.swap_remove(self.random.below(live.len()));
            self.release(ip).await?;
        }
        Ok(live)
    }
}

#[async_trait]
impl Caller for Addresses {
    async fn step(&mut self) -> anyhow::Result<Step> {
        if self.pattern == Pattern::Half && !self.live.is_empty() {
            let place = self.random.below(self.live.len());
            let ip = self.live.swap_remove(place);
            self.release(ip).await?;
        }
        if self.pattern == Pattern::Fresh && !self.may_take() {
            return Ok(Step::Over);
        }
        let begun = begin();
        let ip = self.allocate().await?;
        let took = begun.elapsed();
        match self.pattern {
            Pattern::Fresh => {}
            Pattern::Half => self.live.push(ip),
            Pattern::Churn => self.release(ip).await?,
        }
        Ok(Step::Took(took))
    }
}

fn seed(host: usize, caller: usize) -> u64 {
    let number = 42 + host * 10_000 + caller;
    u64::try_from(number).unwrap_or(42)
}

/// Of an empty pool, all hosts together take so much at the most: a turn must not end in a search for the
/// last addresses.
const FRESH: (usize, usize) = (15, 16);
const FILLERS: usize = 32;
/// The rest stays with the hosts that hold a reserve.
const FILLED: (usize, usize) = (96, 100);
