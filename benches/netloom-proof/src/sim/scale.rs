//! Many hosts at once: what a power cut, and the loss of half of the hosts, ask of the store.
//!
//! The same code on the same simulated store as in the runs of seeds, on a network without trouble.

use super::disk::{Lie, SimDisk};
use super::ground::{Common, Ground};
use super::host::{Host, Parts};
use super::link::{Link, OwnStore, Weather};
use super::random::Random;
use super::trace::Trace;
use super::world::{Hold, World};
use netloom_core::{
    AddressRequest, AddressSpace, Ipam, IpamError, Options, PoolRequest, Purpose, WantedPool,
};
use netloom_ipam::{AddressManager, cluster_init};
use netloom_types::{PoolId, Subnet};
use serde::Serialize;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How large it is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Size {
    /// Hosts.
    pub hosts: usize,
    /// Containers on each.
    pub containers: usize,
    /// Milliseconds over which hosts come up after the power is back.
    pub boot_spread_ms: u64,
}

/// One second.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Second {
    /// Seconds since the beginning of the phase.
    pub second: u64,
    /// Reads that reached the store.
    pub reads: u64,
    /// Records that they found.
    pub rows: u64,
    /// Commits that reached it.
    pub commits: u64,
    /// Containers with an address.
    pub served: u64,
}

/// One part of the story.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// Its name.
    pub name: &'static str,
    /// What the store saw, second by second.
    pub seconds: Vec<Second>,
    /// Until every container had an address, in milliseconds; none if that did not come.
    pub served_after_ms: Option<u64>,
    /// Calls that failed and were made again.
    pub retries: u64,
}

/// What it came to.
#[derive(Debug, Clone, Serialize)]
pub struct ScaleReport {
    /// How large it was.
    pub size: Size,
    /// First start, start after a power cut, half of the hosts dead.
    pub phases: Vec<Phase>,
    /// Addresses that were handed out twice: none.
    pub duplicates: usize,
    /// Bytes of records in the store.
    pub store_bytes: u64,
    /// Bytes of a host's journal files, on average.
    pub journal_bytes_per_host: u64,
    /// Bytes of what a host keeps of the store, on average.
    pub mirror_bytes_per_host: u64,
}

struct Fleet {
    size: Size,
    ground: Arc<Ground>,
    world: Arc<World>,
    hosts: Vec<Arc<Host>>,
    served: AtomicU64,
    retries: AtomicU64,
    subnet: Subnet,
}

/// One host comes up, or takes over containers.
#[derive(Debug)]
struct Start {
    place: usize,
    wait: Duration,
    old: Vec<IpAddr>,
}

/// Lives through the three phases, and tells of each second.
pub fn run_scale(size: Size, seed: u64, seen: impl FnMut(&'static str, &Second)) -> ScaleReport {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without input and output needs nothing that can fail");
    runtime.block_on(live(size, seed, seen))
}

async fn live(size: Size, seed: u64, mut seen: impl FnMut(&'static str, &Second)) -> ScaleReport {
    let mut random = Random::new(seed);
    let world = Arc::new(World::new(Arc::new(Trace::new(false))));
    let ground = Arc::new(Ground::new(None, None));
    let store = OwnStore(Arc::clone(&ground));
    let ids = super::clock::SimIds::new(random.fork());
    let begun = cluster_init(&store, &ids, 0, []).await;
    debug_assert!(begun.is_ok());
    let common = Arc::new(Common::default());
    let hosts = (0..size.hosts).map(|number| {
        let link = Link::new(0, Arc::clone(&ground), None, random.fork());
        link.set_climate(Weather {
            slow: 1000,
            slowest: 2,
            ..Weather::FAIR
        });
        Arc::new(Host::new(Parts {
            number,
            name: format!("h{number}"),
            disk: SimDisk::new(Lie::None),
            link,
            mirror: Ground::one_of_many(&common),
            world: Arc::clone(&world),
            status_every: Duration::from_secs(5),
            random: random.fork(),
        }))
    });
    let fleet = Arc::new(Fleet {
        hosts: hosts.collect(),
        size,
        ground,
        world,
        served: AtomicU64::new(0),
        retries: AtomicU64::new(0),
        subnet: "10.0.0.0/8".parse().expect("it is a subnet"),
    });
    let all: Vec<usize> = (0..size.hosts).collect();
    let rollout = fleet.starts(&all, Vec::new(), fleet.rollout(), &mut random);
    let first = fleet.phase("first start", rollout, &mut seen).await;
    let held = fleet.lose_all_power();
    let boots = fleet.starts(&all, held, size.boot_spread_ms, &mut random);
    let again = fleet.phase("power cut", boots, &mut seen).await;
    let rest = fleet.lose_half();
    let moves = fleet.starts(&rest, Vec::new(), size.boot_spread_ms, &mut random);
    let half = fleet
        .phase("half of the hosts dead", moves, &mut seen)
        .await;
    fleet.report(vec![first, again, half])
}

impl Fleet {
    /// When each of these hosts begins, within so many milliseconds, and what its containers held.
    fn starts(
        &self,
        hosts: &[usize],
        mut held: Vec<Vec<IpAddr>>,
        spread: u64,
        random: &mut Random,
    ) -> Vec<Start> {
        let start = |place: &usize| Start {
            place: *place,
            wait: random.millis(0, spread),
            old: held.get_mut(*place).map(std::mem::take).unwrap_or_default(),
        };
        hosts.iter().map(start).collect()
    }

    /// Starts what does not run, and on each host as many containers as belong there.
    async fn phase(
        self: &Arc<Self>,
        name: &'static str,
        starts: Vec<Start>,
        mut seen: impl FnMut(&'static str, &Second),
    ) -> Phase {
        let begun = Instant::now();
        let (before, retries) = (self.served.load(Ordering::Relaxed), self.count_retries());
        let goal = before + u64::try_from(starts.len() * self.size.containers).unwrap_or(u64::MAX);
        for start in starts {
            let fleet = Arc::clone(self);
            tokio::spawn(async move { fleet.populate(start).await });
        }
        let mut seconds = Vec::new();
        let mut work = self.ground.work();
        let mut served_after_ms = None;
        let mut quiet = 0;
        for second in 0..SECONDS_MAX {
            sleep(Duration::from_secs(1)).await;
            let (now, served) = (self.ground.work(), self.served.load(Ordering::Relaxed));
            let work_done = Second {
                second,
                reads: now.reads - work.reads,
                rows: now.rows - work.rows,
                commits: now.commits - work.commits,
                served,
            };
            seen(name, &work_done);
            seconds.push(work_done);
            work = now;
            if served >= goal {
                let after = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                served_after_ms.get_or_insert(after);
                quiet += 1;
            }
            if quiet > QUIET_SECONDS {
                break;
            }
        }
        Phase {
            name,
            seconds,
            served_after_ms,
            retries: self.count_retries() - retries,
        }
    }

    /// People bring hosts in one by one: no more than these in a second, or each would have to write
    /// the pool's one record again and again.
    fn rollout(&self) -> u64 {
        let hosts = u64::try_from(self.size.hosts).unwrap_or(u64::MAX);
        self.size.boot_spread_ms.max(hosts * MS_PER_NEW_HOST)
    }

    fn count_retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// dockerd comes up, gives back what its dead containers had, and starts them.
    async fn populate(&self, start: Start) {
        let Start { place, wait, old } = start;
        let Some(host) = self.hosts.get(place) else {
            return;
        };
        sleep(wait).await;
        host.start();
        let pool = self.network(host).await;
        for ip in old {
            let release = |ipam: Arc<AddressManager>| {
                let pool = pool.clone();
                async move { ipam.release_address(&pool, ip).await }
            };
            self.until_done(host, release).await;
            self.world.gives(place, ip);
        }
        for _ in 0..self.size.containers {
            let mac = self.world.mac();
            let take = |ipam: Arc<AddressManager>| {
                let request = AddressRequest {
                    pool: pool.clone(),
                    wanted: None,
                    purpose: Purpose::Endpoint,
                    mac: Some(mac),
                    name: None,
                };
                async move { ipam.request_address(request).await }
            };
            let ip = self.until_done(host, take).await.ip();
            let hold = Hold {
                host: place,
                pool: 0,
                mac,
            };
            self.world.took(ip, hold);
            let confirm =
                |ipam: Arc<AddressManager>| async move { ipam.confirm(ip, Some(mac)).await };
            self.until_done(host, confirm).await;
            self.served.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn network(&self, host: &Arc<Host>) -> PoolId {
        if let Some(network) = host.network(0) {
            return network.id;
        }
        let wanted = WantedPool::Exact {
            subnet: self.subnet,
            range: None,
        };
        let make = |ipam: Arc<AddressManager>| {
            let request = PoolRequest {
                space: AddressSpace::Local,
                wanted: wanted.clone(),
                options: Options::new(),
            };
            async move { ipam.request_pool(request).await }
        };
        let id = self.until_done(host, make).await.id;
        let gateway = |ipam: Arc<AddressManager>| {
            let request = AddressRequest {
                pool: id.clone(),
                wanted: None,
                purpose: Purpose::Gateway,
                mac: None,
                name: None,
            };
            async move { ipam.request_address(request).await }
        };
        self.until_done(host, gateway).await;
        host.add_network(0, id.clone());
        id
    }

    /// As dockerd does: again after a while.
    async fn until_done<T, F>(&self, host: &Host, call: impl Fn(Arc<AddressManager>) -> F) -> T
    where
        F: Future<Output = Result<T, IpamError>>,
    {
        loop {
            match host.call("call", &call).await {
                Some(Ok(done)) => return done,
                Some(Err(_)) => {
                    self.retries.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_secs(1)).await;
                }
                None => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn lose_all_power(&self) -> Vec<Vec<IpAddr>> {
        self.hosts.iter().for_each(|host| host.cut_power());
        self.served.store(0, Ordering::Relaxed);
        let mut held = vec![Vec::new(); self.hosts.len()];
        for (ip, hold) in &self.world.facts().held {
            if let Some(own) = held.get_mut(hold.host) {
                own.push(*ip);
            }
        }
        held
    }

    /// Every second host dies; its containers are to run on the others.
    fn lose_half(&self) -> Vec<usize> {
        let half = |host: &&Arc<Host>| host.number % 2 == 1;
        self.hosts.iter().filter(half).for_each(|host| host.kill());
        let rest = self.hosts.iter().filter(|host| !half(host));
        rest.map(|host| host.number).collect()
    }

    fn report(&self, phases: Vec<Phase>) -> ScaleReport {
        let bytes = |ground: &Ground| -> u64 {
            let rows = ground.rows("").into_iter();
            let sizes = rows.map(|(key, value)| key.as_str().len() + value.len());
            u64::try_from(sizes.sum::<usize>()).unwrap_or(u64::MAX)
        };
        let count = u64::try_from(self.hosts.len()).unwrap_or(u64::MAX).max(1);
        let journals: u64 = self.hosts.iter().map(|host| host.disk.bytes()).sum();
        let mirrors: u64 = self.hosts.iter().map(|host| bytes(&host.mirror)).sum();
        ScaleReport {
            size: self.size,
            phases,
            duplicates: self.world.facts().violations.len(),
            store_bytes: bytes(&self.ground),
            journal_bytes_per_host: journals / count,
            mirror_bytes_per_host: mirrors / count,
        }
    }
}

/// A phase that takes longer is told as it is.
const SECONDS_MAX: u64 = 600;
/// Milliseconds from one host's first start to the next one's.
const MS_PER_NEW_HOST: u64 = 30;
/// So long the store is watched after all are served.
const QUIET_SECONDS: u32 = 20;
