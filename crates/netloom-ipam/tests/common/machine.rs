//! Hosts with their mirrors and background loops, which start, die and are copied.

use super::{Host, SimDisk, TestStore, any, mac};
use netloom_core::store::Store;
use netloom_core::{Ipam, IpamError, PoolGrant};
use netloom_ipam::journal::Disk;
use netloom_ipam::{AddressManager, ClusterConfig, IpamConfig, Seams, Sharing};
use netloom_types::{BootId, HostId, PoolId};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A host of the group: what survives its process.
#[derive(Clone)]
pub struct Machine {
    pub name: &'static str,
    pub machine: &'static str,
    pub host: Host,
    pub mirror: TestStore,
}

/// Its process.
pub struct Process {
    pub ipam: Arc<AddressManager>,
    pub task: tokio::task::JoinHandle<()>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl core::ops::Deref for Process {
    type Target = AddressManager;

    fn deref(&self) -> &AddressManager {
        &self.ipam
    }
}

impl Machine {
    pub fn new(name: &'static str, store: &TestStore) -> Self {
        let seed = name.bytes().map(u64::from).sum();
        let mut host = Host::new(seed);
        host.store = store.clone();
        Self {
            name,
            machine: name,
            host,
            mirror: TestStore::default(),
        }
    }

    pub fn config(&self) -> IpamConfig {
        let mut config = IpamConfig {
            host: HostId::new(self.name).unwrap(),
            boot: BootId::new("boot-1").unwrap(),
            ..Host::config()
        };
        config.sharing = Sharing::Cluster(ClusterConfig::new(self.machine));
        config
    }

    pub async fn start(&self) -> Process {
        let store = Arc::new(self.host.store.clone());
        self.start_on(store, self.config()).await
    }

    /// On the same store in other clothes, or with other settings.
    pub async fn start_on(&self, store: Arc<dyn Store>, config: IpamConfig) -> Process {
        self.host.disk.lose_process();
        let seams = Seams {
            store,
            mirror: Some(Arc::new(self.mirror.clone())),
            ..self.host.seams()
        };
        let ipam = Arc::new(AddressManager::open(config, seams).await.unwrap());
        let task = tokio::spawn(Arc::clone(&ipam).tend());
        Process { ipam, task }
    }

    /// The same directory on another disk.
    pub fn copy(&self) -> Self {
        let disk = SimDisk::default();
        for name in self.host.disk.names() {
            disk.replace(&name, &self.host.disk.bytes(&name)).unwrap();
        }
        let mut copy = self.clone();
        copy.host.disk = disk;
        copy
    }
}

/// Time passes; under a paused clock it takes none.
pub async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

pub async fn initialised() -> TestStore {
    let store = TestStore::default();
    initialise(&store, []).await;
    store
}

/// By a person's hand, who names the hosts that are to be waited for.
pub async fn initialise<const N: usize>(store: &TestStore, hosts: [&str; N]) {
    let ids = netloom_core::SystemClock::new();
    let hosts = hosts.map(|host| HostId::new(host).unwrap());
    netloom_ipam::cluster_init(store, &ids, 0, hosts)
        .await
        .unwrap();
}

pub async fn network(ipam: &AddressManager, text: &str) -> PoolGrant {
    super::network(ipam, text).await
}

/// A host that has a store of its own so far, which is its mirror later on, with containers on a pool in
/// its so many-th life.
pub async fn loner(
    name: &'static str,
    subnet: &str,
    life: u32,
) -> (Machine, PoolId, BTreeSet<IpAddr>) {
    let machine = Machine::new(name, &TestStore::default());
    let mut seams = machine.host.seams();
    seams.store = Arc::new(machine.mirror.clone());
    let mut config = machine.config();
    config.sharing = Sharing::Alone;
    let ipam = AddressManager::open(config, seams).await.unwrap();
    for _ in 1..life {
        let former = network(&ipam, subnet).await.id;
        ipam.release_pool(&former).await.unwrap();
    }
    let pool = network(&ipam, subnet).await.id;
    let mut given = BTreeSet::new();
    for n in 0..20 {
        given.insert(take(&ipam, &pool, n).await.unwrap());
    }
    (machine, pool, given)
}

pub async fn take(ipam: &AddressManager, pool: &PoolId, n: u32) -> Result<IpAddr, IpamError> {
    let got = ipam.request_address(any(pool, mac(n))).await?;
    ipam.confirm(got.ip(), Some(mac(n))).await?;
    Ok(got.ip())
}

pub fn is_unavailable(error: &IpamError, words: &str) -> bool {
    matches!(error, IpamError::Unavailable { .. }) && error.to_string().contains(words)
}
