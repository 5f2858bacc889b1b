//! One simulated host: what outlives its processes, and the process.

use super::clock::{SimClock, SimIds};
use super::disk::SimDisk;
use super::gate::{Died, Gate};
use super::ground::Ground;
use super::link::{Link, OwnStore};
use super::random::Random;
use super::world::{Promise, World};
use netloom_core::IpamError;
use netloom_core::store::Store;
use netloom_ipam::journal::{JournalOptions, Upkeep};
use netloom_ipam::{AddressManager, ClusterConfig, IpamConfig, NoRoutes, Seams, Sharing};
use netloom_types::{BootId, HostId, PoolId};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// One machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) number: usize,
    pub(crate) id: HostId,
    pub(crate) disk: SimDisk,
    pub(crate) link: Link,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) mirror: Arc<Ground>,
    pub(crate) world: Arc<World>,
    pub(crate) status_every: Duration,
    state: Mutex<State>,
    /// One change of networks at a time, as by one dockerd.
    pub(crate) networks_turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    random: Random,
    boot: u64,
    starts: u64,
    process: Option<Process>,
    /// A person said that this machine is gone.
    destroyed: bool,
    networks: BTreeMap<usize, Network>,
    /// References that were given back and not taken.
    undead: Vec<PoolId>,
}

#[derive(Debug, Clone)]
struct Process {
    gate: Arc<Gate>,
    /// None while it starts.
    ipam: Option<Arc<AddressManager>>,
}

/// One network of dockerd.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) id: PoolId,
    /// Containers that are being made.
    pub(crate) busy: u32,
}

/// What a host is made of.
pub(crate) struct Parts {
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) disk: SimDisk,
    pub(crate) link: Link,
    pub(crate) mirror: Ground,
    pub(crate) world: Arc<World>,
    pub(crate) status_every: Duration,
    pub(crate) random: Random,
}

impl Host {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            number: parts.number,
            id: HostId::new(parts.name).expect("a short name is a host id"),
            disk: parts.disk,
            link: parts.link,
            clock: Arc::new(SimClock::new()),
            mirror: Arc::new(parts.mirror),
            world: parts.world,
            status_every: parts.status_every,
            state: Mutex::new(State {
                random: parts.random,
                boot: 1,
                starts: 0,
                process: None,
                destroyed: false,
                networks: BTreeMap::new(),
                undead: Vec::new(),
            }),
            networks_turn: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self, boot: u64) -> IpamConfig {
        let boot = BootId::new(format!("boot-{boot}")).expect("a short word is a boot id");
        let mut config = IpamConfig::new(self.id.clone(), boot);
        config.journal = JournalOptions {
            segment_bytes: 0,
            upkeep: Upkeep::Inline,
        };
        let mut cluster = ClusterConfig::new(format!("machine-{}", self.id));
        cluster.status_every = self.status_every;
        config.sharing = match self.is_alone() {
            true => Sharing::Alone,
            false => Sharing::Cluster(cluster),
        };
        config
    }

    fn is_alone(&self) -> bool {
        self.world.facts().alone.contains(&self.number)
    }

    fn seams(&self) -> Seams {
        let ids = SimIds::new(self.state().random.fork());
        // What was a host's store is its mirror later on.
        let own = Arc::new(OwnStore(Arc::clone(&self.mirror)));
        let (store, mirror): (Arc<dyn Store>, _) = match self.is_alone() {
            true => (own, None),
            false => (Arc::new(self.link.clone()), Some(own as _)),
        };
        Seams {
            disk: Arc::new(self.disk.process()),
            store,
            mirror,
            routes: Arc::new(NoRoutes),
            clock: Arc::clone(&self.clock) as _,
            ids: Arc::new(ids),
        }
    }

    /// Starts a process, as a supervisor does: again and again until it runs.
    pub(crate) fn start(self: &Arc<Self>) {
        let gate = Arc::new(Gate::default());
        {
            let mut state = self.state();
            if state.process.is_some() || state.destroyed {
                return;
            }
            state.starts += 1;
            let (gate, ipam) = (Arc::clone(&gate), None);
            state.process = Some(Process { gate, ipam });
        }
        let host = Arc::clone(self);
        tokio::spawn(async move { host.live(gate).await });
    }

    async fn live(&self, gate: Arc<Gate>) {
        let ipam = loop {
            let (config, seams) = (self.config(self.boot()), self.seams());
            match gate.run(AddressManager::open(config, seams)).await {
                Err(Died) => return,
                Ok(Ok(ipam)) => break Arc::new(ipam),
                Ok(Err(error)) => self.told("unopened", &error),
            }
            if gate.run(sleep(RESTART_TIME)).await.is_err() {
                return;
            }
        };
        self.note("opened", String::new);
        if let Some(process) = &mut self.state().process
            && Arc::ptr_eq(&process.gate, &gate)
        {
            process.ipam = Some(Arc::clone(&ipam));
        }
        let tended = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.run(ipam.tend()).await }
        });
        if tended.await.is_err() {
            let what = format!("the background of h{}", self.number);
            self.world.broken(Promise::NoPanic, what);
        }
    }

    fn boot(&self) -> u64 {
        self.state().boot
    }

    pub(crate) fn starts(&self) -> u64 {
        self.state().starts
    }

    /// Ends the process at once; the kernel still has what it wrote.
    pub(crate) fn kill(&self) {
        let process = self.state().process.take();
        if let Some(process) = process {
            // Whatever it still holds of the disk is void from now on.
            drop(self.disk.process());
            process.gate.kill();
        }
    }

    /// Ends the machine: what was not synced is gone, or half there.
    pub(crate) fn cut_power(&self) {
        self.kill();
        let mut state = self.state();
        state.boot += 1;
        self.disk.lose_power(&mut state.random);
    }

    pub(crate) fn destroy(&self) {
        self.kill();
        let mut state = self.state();
        state.destroyed = true;
        state.networks.clear();
        state.undead.clear();
    }

    /// Brings a machine back that was thought to be gone, without its containers.
    pub(crate) fn unearth(self: &Arc<Self>) {
        self.state().destroyed = false;
        self.start();
    }

    /// Starts as another machine with the same state directory.
    pub(crate) fn become_twin_of(self: &Arc<Self>, other: &Self) {
        self.disk.become_copy_of(&other.disk);
        self.mirror.restore(&other.mirror.snapshot(), None);
        self.unearth();
    }

    pub(crate) fn is_destroyed(&self) -> bool {
        self.state().destroyed
    }

    pub(crate) fn gate(&self) -> Option<Arc<Gate>> {
        let state = self.state();
        let process = state.process.as_ref()?;
        Some(Arc::clone(&process.gate))
    }

    /// The running process.
    pub(crate) fn ipam(&self) -> Option<(Arc<Gate>, Arc<AddressManager>)> {
        let state = self.state();
        let process = state.process.as_ref()?;
        Some((Arc::clone(&process.gate), process.ipam.clone()?))
    }

    /// Calls the process; none when there is none, or it dies before it answers.
    pub(crate) async fn call<T, F>(
        &self,
        name: &'static str,
        call: impl FnOnce(Arc<AddressManager>) -> F,
    ) -> Option<Result<T, IpamError>>
    where
        F: Future<Output = Result<T, IpamError>>,
    {
        let (gate, ipam) = self.ipam()?;
        let pauses = gate.pauses();
        let (paused, begun) = (gate.is_paused(), Instant::now());
        let outcome = gate.run(call(ipam)).await.ok()?;
        self.world.facts().operations += 1;
        let took = begun.elapsed();
        // What only people ask for may take longer.
        let for_people = matches!(name, "forget" | "initialise" | "audit");
        if !for_people && !paused && gate.pauses() == pauses && took > ANSWER_TIME {
            let what = format!("h{} answered {name} after {took:?}", self.number);
            self.world.broken(Promise::InTime, what);
        }
        if let Err(error) = &outcome {
            self.world.facts().refused += 1;
            self.told(name, error);
        }
        Some(outcome)
    }

    pub(crate) fn told(&self, name: &'static str, error: &IpamError) {
        let kind = match error {
            IpamError::Invalid(_) => 1,
            IpamError::NotFound(_) => 2,
            IpamError::InUse(_) => 3,
            IpamError::Exhausted(_) => 4,
            _ => 5,
        };
        let number = u64::try_from(self.number).unwrap_or(u64::MAX);
        self.world.trace.note(name, &[number, kind], || {
            let mut words = format!("h{} failed: {error}", self.number);
            let mut cause = std::error::Error::source(error);
            while let Some(error) = cause {
                words.push_str(": ");
                words.push_str(&error.to_string());
                cause = error.source();
            }
            words
        });
    }

    pub(crate) fn note(&self, name: &'static str, words: impl FnOnce() -> String) {
        let number = u64::try_from(self.number).unwrap_or(u64::MAX);
        self.world
            .trace
            .note(name, &[number], || format!("h{} {}", self.number, words()));
    }

    pub(crate) fn network(&self, pool: usize) -> Option<Network> {
        self.state().networks.get(&pool).cloned()
    }

    pub(crate) fn networks(&self) -> Vec<(usize, PoolId)> {
        let state = self.state();
        let networks = state.networks.iter();
        networks
            .map(|(pool, network)| (*pool, network.id.clone()))
            .collect()
    }

    pub(crate) fn add_network(&self, pool: usize, id: PoolId) {
        let network = Network { id, busy: 0 };
        self.state().networks.insert(pool, network);
    }

    /// Takes a network away that no container uses.
    pub(crate) fn take_network(&self, pool: usize) -> Option<PoolId> {
        let mut state = self.state();
        let idle = state
            .networks
            .get(&pool)
            .is_some_and(|network| network.busy == 0);
        if !idle {
            return None;
        }
        state.networks.remove(&pool).map(|network| network.id)
    }

    /// Notes that a container is being made in a network, or that it is done.
    pub(crate) fn busy(&self, pool: usize, change: i32) {
        if let Some(network) = self.state().networks.get_mut(&pool) {
            network.busy = network.busy.saturating_add_signed(change);
        }
    }

    pub(crate) fn add_undead(&self, id: PoolId) {
        self.state().undead.push(id);
    }

    pub(crate) fn take_undead(&self) -> Vec<PoolId> {
        std::mem::take(&mut self.state().undead)
    }
}

/// Before a supervisor starts a process again that ended.
const RESTART_TIME: Duration = Duration::from_secs(1);
/// A plugin call is answered within this, whatever the store does.
const ANSWER_TIME: Duration = Duration::from_secs(5);
