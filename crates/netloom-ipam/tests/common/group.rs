//! Hosts that share one store, each with a task that serves the others.

use super::{Host, Random, any, exact, gateway, mac};
use netloom_core::{Ipam, IpamError};
use netloom_ipam::{AddressManager, ClusterConfig, IpamConfig, Sharing};
use netloom_types::{BootId, HostId, PoolId};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One host of the group: what survives its process, and the process.
pub struct Node {
    name: &'static str,
    pub host: Host,
    pub ipam: Arc<AddressManager>,
    pub pool: Option<PoolId>,
    /// Whether it looks at what others want.
    attentive: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config(name: &str) -> IpamConfig {
    let mut config = IpamConfig {
        host: HostId::new(name).unwrap(),
        boot: BootId::new("boot-1").unwrap(),
        ..Host::config()
    };
    config.sharing = Sharing::Cluster(ClusterConfig::new(format!("machine-of-{name}")));
    config
}

pub async fn open(name: &'static str, host: Host) -> Node {
    let ipam = AddressManager::open(config(name), host.seams()).await;
    let ipam = Arc::new(ipam.unwrap());
    let attentive = Arc::new(AtomicBool::new(true));
    let (looks, serves) = (Arc::clone(&attentive), Arc::clone(&ipam));
    let task = tokio::spawn(async move {
        loop {
            if looks.load(Ordering::Relaxed) {
                // A store that is away is part of the tests.
                let _ = serves.on_change().await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    Node {
        name,
        host,
        ipam,
        pool: None,
        attentive,
        task,
    }
}

pub async fn group(names: &[&'static str]) -> Vec<Node> {
    let first = Host::new(1);
    first.store.put("epoch", b"1".to_vec());
    let mut nodes = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let mut host = Host::new(100 + n as u64);
        host.store = first.store.clone();
        host.clock = Arc::clone(&first.clock);
        nodes.push(open(name, host).await);
    }
    // Each learns of the others.
    for node in &mut nodes {
        node.reopen().await;
    }
    nodes
}

impl Node {
    /// The process dies, and another one starts on the same disk.
    pub async fn reopen(&mut self) {
        self.task.abort();
        self.host.disk.lose_process();
        let pool = self.pool.clone();
        let next = open(self.name, self.host.clone()).await;
        *self = next;
        self.pool = pool;
    }

    /// The machine loses its power: of what was not synced, parts arrived.
    pub async fn lose_power(&mut self, random: &mut Random) {
        self.task.abort();
        self.host.disk.lose_power(random);
        self.reopen().await;
    }

    pub async fn join(&mut self, text: &str) {
        let grant = self.ipam.request_pool(exact(text)).await.unwrap();
        self.pool = Some(grant.id);
    }

    pub fn pool(&self) -> &PoolId {
        self.pool.as_ref().unwrap()
    }

    /// Whether it looks at what others want from now on.
    #[allow(
        clippy::fn_params_excessive_bools,
        reason = "a switch of a test, on or off"
    )]
    pub fn attend(&self, whether: bool) {
        self.attentive.store(whether, Ordering::Relaxed);
    }

    pub async fn take(&self, n: u32) -> Result<IpAddr, IpamError> {
        let got = self.ipam.request_address(any(self.pool(), mac(n))).await?;
        Ok(got.ip())
    }

    pub async fn give(&self, ip: IpAddr) {
        self.ipam.release_address(self.pool(), ip).await.unwrap();
    }
}

pub async fn joined(names: &[&'static str], text: &str) -> Vec<Node> {
    let mut nodes = group(names).await;
    for node in &mut nodes {
        node.join(text).await;
        let request = gateway(node.pool());
        node.ipam.request_address(request).await.unwrap();
    }
    nodes
}

pub const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// What needs no waiting.
pub fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits"),
    }
}
