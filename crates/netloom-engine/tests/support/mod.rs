//! A store, a driver and a clock made of memory, which fail or die at a chosen call.
#![allow(dead_code, reason = "each test binary uses its part of this module")]
#![allow(
    clippy::unwrap_used,
    reason = "the allowance for tests does not reach the helpers that they share"
)]

use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Conflict, Key, Operation, Store, StoreError, StoreIdentity,
    Transaction, Version, Versioned, Watch,
};
use netloom_core::{
    Addresses, Attachment, Clock, Desired, DesiredEndpoint, Driver, DriverError, EndpointGrant,
    EndpointSpec, Finding, GatewayService, Ids, InterfacePlacement, NetworkSpec, PublishedPort,
    Publisher, Reach, SandboxRef, SubnetSpec, Timestamp,
};
use netloom_engine::{Engine, Parts};
use netloom_types::{
    BootId, EndpointId, HostPorts, MacAddr, NetworkId, OperationId, PortBinding, Protocol,
    SandboxId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// How the chosen call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, and did nothing.
    Fails,
    /// A store's answer is lost; the change was made.
    LostAfter,
    /// A store's answer is lost; the change was not made.
    LostBefore,
    /// The process dies before the call has an effect.
    DiesBefore,
    /// The process dies after the call has had its effect.
    DiesAfter,
}

/// Counts the calls that change something, and spoils the chosen one.
#[derive(Debug, Default)]
pub(crate) struct Spoiler {
    state: Mutex<(u64, Option<(u64, Fault)>)>,
    died: Notify,
}

impl Spoiler {
    /// Spoils the `nth` call from now on, beginning at 1.
    pub(crate) fn arm(&self, nth: u64, fault: Fault) {
        *self.state.lock().unwrap() = (0, Some((nth, fault)));
    }

    /// No more faults; says whether the chosen call was reached.
    pub(crate) fn disarm(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        let reached = state.1.is_some_and(|(nth, _)| state.0 >= nth);
        *state = (0, None);
        reached
    }

    /// Waits for the death of the process.
    pub(crate) async fn death(&self) {
        self.died.notified().await;
    }

    fn next(&self) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        state
            .1
            .and_then(|(nth, fault)| (nth == state.0).then_some(fault))
    }

    async fn die(&self) -> ! {
        self.died.notify_one();
        std::future::pending::<()>().await;
        unreachable!("a pending future never ends")
    }
}

/// A store in memory.
#[derive(Debug, Default)]
pub(crate) struct FakeStore {
    pub(crate) spoiler: Arc<Spoiler>,
    content: Mutex<BTreeMap<Key, (u64, Vec<u8>)>>,
    counter: AtomicU64,
}

fn version(number: u64) -> Version {
    Version::from_bytes(number.to_be_bytes())
}

impl FakeStore {
    pub(crate) fn keys(&self) -> Vec<String> {
        let content = self.content.lock().unwrap();
        content.keys().map(ToString::to_string).collect()
    }

    /// Changes a record behind the engine's back.
    pub(crate) fn vandalise(&self, key: &Key, value: &[u8]) {
        let number = self.counter.fetch_add(1, Ordering::Relaxed) + 1;
        let mut content = self.content.lock().unwrap();
        content.insert(key.clone(), (number, value.to_vec()));
    }

    fn commit_now(&self, transaction: &Transaction) -> Result<Committed, CommitError> {
        transaction.validate()?;
        let mut content = self.content.lock().unwrap();
        for operation in &transaction.operations {
            let key = operation.key().clone();
            let found = content.get(&key).map(|(number, _)| version(*number));
            let wanted = match operation {
                Operation::CheckAbsent(_) | Operation::Create(..) => None,
                Operation::CheckVersion(_, v)
                | Operation::Update(_, _, v)
                | Operation::Delete(_, v) => Some(v),
            };
            let conflict = match (found, wanted) {
                (Some(_), None) => Conflict::Exists,
                (None, Some(_)) => Conflict::Absent,
                (Some(found), Some(wanted)) if found != *wanted => Conflict::VersionDiffers,
                _ => continue,
            };
            return Err(CommitError::Conflict { key, conflict });
        }
        let mut versions = Vec::new();
        for operation in &transaction.operations {
            match operation {
                Operation::Create(key, value) | Operation::Update(key, value, _) => {
                    let number = self.counter.fetch_add(1, Ordering::Relaxed) + 1;
                    content.insert(key.clone(), (number, value.clone()));
                    versions.push((key.clone(), version(number)));
                }
                Operation::Delete(key, _) => {
                    content.remove(key);
                }
                Operation::CheckAbsent(_) | Operation::CheckVersion(..) => {}
            }
        }
        Ok(Committed { versions })
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        Ok(StoreIdentity("fake".into()))
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        let content = self.content.lock().unwrap();
        Ok(content.get(key).map(|(number, value)| Versioned {
            value: value.clone(),
            version: version(*number),
        }))
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let content = self.content.lock().unwrap();
        let below = content.iter().filter(|(key, _)| key.is_below(prefix));
        Ok(below
            .map(|(key, (number, value))| {
                let version = version(*number);
                let value = value.clone();
                (key.clone(), Versioned { value, version })
            })
            .collect())
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        match self.spoiler.next() {
            None => self.commit_now(&transaction),
            Some(Fault::Fails) => Err(CommitError::Unavailable(None)),
            Some(Fault::LostBefore) => Err(CommitError::Unknown(None)),
            Some(Fault::LostAfter) => {
                self.commit_now(&transaction)?;
                Err(CommitError::Unknown(None))
            }
            Some(Fault::DiesBefore) => self.spoiler.die().await,
            Some(Fault::DiesAfter) => {
                self.commit_now(&transaction)?;
                self.spoiler.die().await
            }
        }
    }

    async fn watch(&self, _: &Key) -> Result<Box<dyn Watch>, StoreError> {
        Err(StoreError::Denied("nobody watches here".into()))
    }
}

/// What the fake kernel holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) networks: BTreeSet<NetworkId>,
    pub(crate) links: BTreeMap<EndpointId, SandboxId>,
    pub(crate) ports: BTreeMap<EndpointId, Vec<PublishedPort>>,
}

/// A driver whose kernel is made of memory.
#[derive(Debug, Default)]
pub(crate) struct FakeDriver {
    pub(crate) spoiler: Arc<Spoiler>,
    pub(crate) kernel: Mutex<Kernel>,
}

impl FakeDriver {
    pub(crate) fn kernel(&self) -> Kernel {
        self.kernel.lock().unwrap().clone()
    }

    async fn act<T>(&self, effect: impl FnOnce(&mut Kernel) -> T + Send) -> Result<T, DriverError> {
        match self.spoiler.next() {
            None => Ok(effect(&mut self.kernel.lock().unwrap())),
            Some(Fault::DiesBefore) => self.spoiler.die().await,
            Some(Fault::DiesAfter) => {
                effect(&mut self.kernel.lock().unwrap());
                self.spoiler.die().await
            }
            Some(Fault::Fails | Fault::LostBefore | Fault::LostAfter) => Err(DriverError::Kernel {
                what: "the fake kernel refused".into(),
                source: None,
            }),
        }
    }

    /// What `desired` means for the fake kernel.
    pub(crate) fn wanted(desired: &Desired) -> Kernel {
        let mut kernel = Kernel::default();
        for network in &desired.networks {
            kernel.networks.insert(network.id.clone());
        }
        for endpoint in &desired.endpoints {
            let id = &endpoint.spec.id;
            if let Some(sandbox) = &endpoint.sandbox {
                kernel.links.insert(id.clone(), sandbox.id.clone());
            }
            if !endpoint.ports.is_empty() {
                kernel.ports.insert(id.clone(), endpoint.ports.clone());
            }
        }
        kernel
    }
}

#[async_trait]
impl Driver for FakeDriver {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn validate_network(&self, n: &NetworkSpec, others: &[NetworkSpec]) -> Result<(), DriverError> {
        let bridge = n.options.get("bridge");
        let overlaps = |other: &NetworkSpec| {
            let mut pairs = n
                .subnets
                .iter()
                .flat_map(|a| other.subnets.iter().map(move |b| (a, b)));
            pairs.any(|(a, b)| a.subnet.overlaps(b.subnet))
        };
        let same = |o: &NetworkSpec| bridge.is_some() && o.options.get("bridge") == bridge;
        match others.iter().find(|other| overlaps(other) || same(other)) {
            Some(other) => Err(DriverError::Conflict(format!("{} has it", other.id))),
            None => Ok(()),
        }
    }

    async fn create_network(&self, network: &NetworkSpec) -> Result<(), DriverError> {
        self.act(|k| k.networks.insert(network.id.clone()))
            .await
            .map(drop)
    }

    async fn delete_network(&self, network: &NetworkSpec) -> Result<(), DriverError> {
        self.act(|k| k.networks.remove(&network.id)).await.map(drop)
    }

    fn validate_endpoint(
        &self,
        _: &NetworkSpec,
        endpoint: &EndpointSpec,
    ) -> Result<EndpointGrant, DriverError> {
        let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
        Ok(EndpointGrant {
            mac: endpoint.mac.unwrap_or(mac),
        })
    }

    async fn join(
        &self,
        _: &NetworkSpec,
        endpoint: &DesiredEndpoint,
        sandbox: &SandboxRef,
    ) -> Result<Attachment, DriverError> {
        let (id, sandbox) = (endpoint.spec.id.clone(), sandbox.id.clone());
        self.act(|k| k.links.insert(id, sandbox)).await?;
        Ok(Attachment {
            interface: InterfacePlacement::Placed {
                link: "eth0".parse().unwrap(),
            },
            gateway_v4: None,
            gateway_v6: None,
            routes: vec![],
            gateway_service: GatewayService::Disabled,
        })
    }

    async fn leave(&self, _: &NetworkSpec, endpoint: &DesiredEndpoint) -> Result<(), DriverError> {
        self.act(|k| {
            k.links.remove(&endpoint.spec.id);
            k.ports.remove(&endpoint.spec.id);
        })
        .await
    }

    async fn is_linked(&self, endpoint: &EndpointId) -> Result<bool, DriverError> {
        Ok(self.kernel().links.contains_key(endpoint))
    }

    async fn reconcile(&self, desired: &Desired) -> Result<Vec<Finding>, DriverError> {
        let wanted = Self::wanted(desired);
        self.act(|kernel| *kernel = wanted).await?;
        Ok(vec![])
    }

    async fn audit(&self, _: &Desired) -> Result<Vec<Finding>, DriverError> {
        Ok(vec![])
    }

    fn publisher(&self) -> Option<&dyn Publisher> {
        Some(self)
    }
}

#[async_trait]
impl Publisher for FakeDriver {
    async fn publish(
        &self,
        _: &NetworkSpec,
        endpoint: &DesiredEndpoint,
        wanted: &[PortBinding],
    ) -> Result<Vec<PublishedPort>, DriverError> {
        let ports: Vec<_> = wanted
            .iter()
            .map(|binding| PublishedPort {
                protocol: binding.protocol,
                host_ip: "0.0.0.0".parse().unwrap(),
                host_port: binding.container_port,
                container_ip: "10.0.0.2".parse().unwrap(),
                container_port: binding.container_port,
            })
            .collect();
        let (id, chosen) = (endpoint.spec.id.clone(), ports.clone());
        let taken = |(other, held): (&EndpointId, &Vec<PublishedPort>)| {
            let asked = wanted
                .iter()
                .filter(|b| b.host_ports != HostPorts::Ephemeral);
            let mut asked = asked.map(|b| b.container_port);
            *other != id && asked.any(|p| held.iter().any(|h| h.host_port == p))
        };
        if self.kernel().ports.iter().any(taken) {
            return Err(DriverError::Conflict("a port is taken".into()));
        }
        self.act(|k| k.ports.insert(id, chosen)).await?;
        Ok(ports)
    }

    async fn revoke(
        &self,
        _: &NetworkSpec,
        endpoint: &DesiredEndpoint,
        _: &[PublishedPort],
    ) -> Result<(), DriverError> {
        self.act(|k| k.ports.remove(&endpoint.spec.id))
            .await
            .map(drop)
    }
}

/// A clock that stands still until told, and ids that count.
#[derive(Debug, Default)]
pub(crate) struct FakeClock {
    pub(crate) millis: AtomicU64,
    ids: AtomicU64,
}

impl FakeClock {
    pub(crate) fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap();
        self.millis.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.millis.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

impl Ids for FakeClock {
    fn operation(&self) -> OperationId {
        let n = self.ids.fetch_add(1, Ordering::Relaxed);
        OperationId::new(format!("{n:032x}")).unwrap()
    }
}

/// A host: what survives the engine's process.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) spoiler: Arc<Spoiler>,
    pub(crate) store: Arc<FakeStore>,
    pub(crate) driver: Arc<FakeDriver>,
    pub(crate) clock: Arc<FakeClock>,
}

impl Host {
    pub(crate) fn new() -> Self {
        let spoiler = Arc::new(Spoiler::default());
        Self {
            store: Arc::new(FakeStore {
                spoiler: Arc::clone(&spoiler),
                ..FakeStore::default()
            }),
            driver: Arc::new(FakeDriver {
                spoiler: Arc::clone(&spoiler),
                ..FakeDriver::default()
            }),
            clock: Arc::default(),
            spoiler,
        }
    }

    /// Starts an engine, as a process that starts would.
    pub(crate) async fn start(&self) -> Engine {
        self.start_in_boot("boot-1").await.unwrap()
    }

    pub(crate) async fn start_in_boot(
        &self,
        boot: &str,
    ) -> Result<Engine, netloom_engine::OpenError> {
        Engine::open(Parts {
            store: Arc::clone(&self.store) as _,
            drivers: vec![Arc::clone(&self.driver) as _],
            clock: Arc::clone(&self.clock) as _,
            ids: Arc::clone(&self.clock) as _,
            boot: BootId::new(boot).unwrap(),
            // Sandboxes of these tests exist unless their path says otherwise.
            sandbox_exists: |path: &Path| !path.ends_with("gone"),
        })
        .await
    }
}

pub(crate) fn nid(n: u8) -> NetworkId {
    NetworkId::new(format!("net{n}")).unwrap()
}

pub(crate) fn eid(n: u8) -> EndpointId {
    EndpointId::new(format!("ep{n}")).unwrap()
}

pub(crate) fn network(n: u8) -> NetworkSpec {
    NetworkSpec {
        id: nid(n),
        driver: "fake".into(),
        subnets: vec![SubnetSpec {
            subnet: format!("10.{n}.0.0/16").parse().unwrap(),
            gateway: None,
            auxiliary: BTreeMap::new(),
        }],
        reach: Reach::External,
        options: BTreeMap::new(),
    }
}

pub(crate) fn endpoint(n: u8, e: u8) -> EndpointSpec {
    EndpointSpec {
        id: eid(e),
        network: nid(n),
        addresses: Addresses {
            ipv4: Some(format!("10.{n}.0.{e}/16").parse().unwrap()),
            ipv6: None,
        },
        mac: None,
        ports: vec![PortBinding {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: None,
            host_ports: HostPorts::Ephemeral,
        }],
        exposed: vec![],
        options: BTreeMap::new(),
    }
}

pub(crate) fn sandbox(s: u8) -> SandboxRef {
    SandboxRef {
        id: SandboxId::new(format!("sb{s}")).unwrap(),
        netns: format!("/run/netns/sb{s}").into(),
    }
}
