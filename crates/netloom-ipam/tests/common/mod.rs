//! A store, a disk, a clock and ids that tests own.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

pub mod disk;
pub mod group;
pub mod machine;
pub mod slow;
pub mod store;

use netloom_core::{AddressRequest, AddressSpace, IpamError, Options, Purpose};
use netloom_core::{Clock, Ids, Ipam, PoolGrant, PoolRequest, Timestamp, WantedPool};
use netloom_ipam::journal::{DirDisk, JournalOptions, Upkeep};
use netloom_ipam::{AddressManager, HostRoutes, IpamConfig, Seams};
use netloom_types::{BootId, HostId, MacAddr, OperationId, PoolId, Subnet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use disk::SimDisk;
pub use store::TestStore;

/// splitmix64: the same everywhere, from a printed seed.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

/// The seed of this run: `NETLOOM_SEED`, or another one each time; printed when a test fails.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let fresh = std::hash::RandomState::new().build_hasher().finish();
    let seed = std::env::var("NETLOOM_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or(fresh);
    println!("seed {seed} (set NETLOOM_SEED to repeat)");
    seed
}

#[derive(Debug, Default)]
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000 + self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
pub struct TestIds(Mutex<Random>);

impl Ids for TestIds {
    fn operation(&self) -> OperationId {
        let mut random = self.0.lock().unwrap();
        OperationId::new(format!("{:016x}{:016x}", random.next(), random.next())).unwrap()
    }
}

#[derive(Debug, Default)]
pub struct TestRoutes(pub Mutex<Vec<Subnet>>);

impl HostRoutes for TestRoutes {
    fn destinations(&self) -> Result<Vec<Subnet>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.lock().unwrap().clone())
    }
}

/// One host whose process can die and come back.
#[derive(Debug, Clone)]
pub struct Host {
    pub disk: SimDisk,
    pub store: TestStore,
    pub clock: Arc<TestClock>,
    pub routes: Arc<TestRoutes>,
    ids: Arc<TestIds>,
}

impl Host {
    pub fn new(seed: u64) -> Self {
        Self {
            disk: SimDisk::default(),
            store: TestStore::default(),
            clock: Arc::default(),
            routes: Arc::default(),
            ids: Arc::new(TestIds(Mutex::new(Random(seed)))),
        }
    }

    /// The same on real files, for a process that really dies.
    pub fn seams_in(&self, directory: &std::path::Path) -> Seams {
        let disk = DirDisk::open(&directory.join("journal")).unwrap();
        Seams {
            disk: Arc::new(disk),
            store: Arc::new(TestStore::in_file(&directory.join("store.json"))),
            ..self.seams()
        }
    }

    pub fn config() -> IpamConfig {
        let host = HostId::new("Host-1").unwrap();
        let mut config = IpamConfig::new(host, BootId::new("boot-1").unwrap());
        config.default_pools = vec![(subnet("10.200.0.0/22"), 24), (subnet("fd00:1::/62"), 64)];
        config.journal = JournalOptions {
            segment_bytes: 32 * 1024,
            upkeep: Upkeep::Inline,
        };
        config
    }

    pub async fn start(&self) -> AddressManager {
        self.start_with(Self::config()).await.unwrap()
    }

    pub async fn start_with(&self, config: IpamConfig) -> Result<AddressManager, IpamError> {
        AddressManager::open(config, self.seams()).await
    }

    pub fn seams(&self) -> Seams {
        Seams {
            disk: Arc::new(self.disk.clone()),
            store: Arc::new(self.store.clone()),
            mirror: None,
            routes: Arc::clone(&self.routes) as _,
            clock: Arc::clone(&self.clock) as _,
            ids: Arc::clone(&self.ids) as _,
        }
    }
}

pub fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn mac(last: u32) -> MacAddr {
    let [a, b, c, d] = last.to_be_bytes();
    MacAddr::new([2, 0x42, a, b, c, d])
}

pub fn exact(text: &str) -> PoolRequest {
    let subnet = subnet(text);
    pool_request(WantedPool::Exact {
        subnet,
        range: None,
    })
}

pub fn pool_request(wanted: WantedPool) -> PoolRequest {
    PoolRequest {
        space: AddressSpace::Local,
        wanted,
        options: Options::new(),
    }
}

/// The pool of a network that really exists: its gateway was asked for.
pub async fn network(ipam: &AddressManager, text: &str) -> PoolGrant {
    let grant = ipam.request_pool(exact(text)).await.unwrap();
    ipam.request_address(gateway(&grant.id)).await.unwrap();
    grant
}

pub fn gateway(pool: &PoolId) -> AddressRequest {
    AddressRequest {
        pool: pool.clone(),
        wanted: None,
        purpose: Purpose::Gateway,
        mac: None,
        name: None,
    }
}

pub fn any(pool: &PoolId, with: MacAddr) -> AddressRequest {
    AddressRequest {
        pool: pool.clone(),
        wanted: None,
        purpose: Purpose::Endpoint,
        mac: Some(with),
        name: None,
    }
}

pub fn this(pool: &PoolId, wanted: IpAddr, with: Option<MacAddr>) -> AddressRequest {
    AddressRequest {
        pool: pool.clone(),
        wanted: Some(wanted),
        purpose: Purpose::Endpoint,
        mac: with,
        name: None,
    }
}
