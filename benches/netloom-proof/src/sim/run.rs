//! One run: hosts, a store, callers, trouble, and the quiet afterwards.

use super::disk::{Lie, SimDisk};
use super::faults::chaos;
use super::ground::Ground;
use super::host::{Host, Parts};
use super::link::{Link, Weather};
use super::moves::Moves;
use super::ops::client;
use super::planted::Bug;
use super::random::{Random, mix};
use super::trace::Trace;
use super::world::{Promise, Shared, World};
use super::{Config, SeedReport};
use netloom_core::store::Key;
use netloom_ipam::cluster_init;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What a run is about, beside weather.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing but faults that pass.
    Plain,
    /// A machine is lost for ever, and forgotten.
    Forgetting,
    /// The store goes back, and a host that saw more speaks before those that did not.
    Rollback,
    /// The store goes back, and whoever saw nothing of it may come first: what cannot be promised.
    BlindRollback,
    /// The store is emptied, and a person begins it anew.
    Wipe,
    /// Two machines with one identity: a planted bug.
    Twin,
}

/// The run.
#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) kind: Kind,
    pub(crate) bug: Option<Bug>,
    pub(crate) ground: Arc<Ground>,
    pub(crate) hosts: Vec<Arc<Host>>,
    pub(crate) pools: Vec<Shared>,
    pub(crate) world: Arc<World>,
    pub(crate) forgotten: AtomicBool,
    /// Whether the trouble is over.
    quiet: AtomicBool,
    /// The epoch that a rollback ended, if it lost anything.
    lost_epoch: Mutex<Option<Vec<u8>>>,
    pub(crate) moves: Moves,
    /// The epoch that a wipe ended.
    last_epoch: AtomicU64,
}

impl Sim {
    pub(crate) fn host(&self, place: usize) -> &Arc<Host> {
        self.hosts
            .get(place)
            .expect("places are drawn below the count of hosts")
    }

    pub(crate) fn pool(&self, place: usize) -> &Shared {
        self.pools
            .get(place)
            .expect("places are drawn below the count of pools")
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    pub(crate) fn end_trouble(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    pub(crate) fn lost_epoch(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.lost_epoch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The number that a person finds in the hosts' logs when the store was emptied.
    pub(crate) fn last_epoch(&self) -> u64 {
        self.last_epoch.load(Ordering::Relaxed)
    }

    pub(crate) fn note_epoch(&self) {
        let epoch = self.ground.peek("epoch").unwrap_or_default();
        let epoch: Option<u64> = String::from_utf8(epoch).ok().and_then(|e| e.parse().ok());
        if let Some(epoch) = epoch {
            self.last_epoch.store(epoch, Ordering::Relaxed);
        }
    }

    fn new(kind: Kind, bug: Option<Bug>, in_words: bool, random: &mut Random) -> Self {
        let trace = Arc::new(Trace::new(in_words));
        let world = Arc::new(World::new(Arc::clone(&trace)));
        let ground = Arc::new(Ground::new(Some(trace), bug));
        let lie = match bug {
            Some(Bug::EarlySync) => Lie::EarlySync,
            Some(Bug::SilentlyFull) => Lie::SilentlyFull,
            Some(Bug::TornReplace) => Lie::TornReplace,
            _ => Lie::None,
        };
        let count = match kind {
            Kind::Forgetting => random.between(3, 4),
            _ => random.between(2, 4),
        };
        let status_every = random.millis(2000, 6000);
        let host = |number: u64, named: u64, random: &mut Random| {
            let parts = Parts {
                number: usize::try_from(number).unwrap_or(0),
                name: format!("h{named}"),
                disk: SimDisk::new(lie),
                link: Link::new(number, Arc::clone(&ground), bug, random.fork()),
                mirror: Ground::new(None, None),
                world: Arc::clone(&world),
                status_every,
                random: random.fork(),
            };
            Arc::new(Host::new(parts))
        };
        let mut hosts: Vec<_> = (0..count).map(|n| host(n, n, random)).collect();
        if kind == Kind::Twin {
            let twin = host(count, 0, random);
            twin.destroy();
            hosts.push(twin);
        }
        let small = ["10.9.0.0/28", "10.9.0.0/27", "10.9.0.0/26"];
        let large = ["10.8.0.0/24", "10.8.0.0/22", "10.8.0.0/20"];
        let moves = match kind {
            Kind::Twin => Moves::default(),
            // One of them is lost, and one forgets it.
            Kind::Forgetting => Moves::draw(hosts.len(), 2, random),
            _ => Moves::draw(hosts.len(), 1, random),
        };
        let brought = ["10.7.0.0/26", "10.7.64.0/27"].into_iter();
        let brought = brought.take(moves.pools()).map(|text| vec![text]);
        let texts = [small, large].map(|texts| texts.to_vec()).into_iter();
        let pools = texts.chain(brought).map(|texts| {
            let text = texts
                .get(random.place(texts.len()))
                .unwrap_or(&"10.9.0.0/28");
            let subnet: netloom_types::Subnet = text.parse().expect("it is a subnet");
            // Without the network's address, the broadcast address and the gateway.
            let capacity = subnet.size_saturating().saturating_sub(3);
            let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
            Shared { subnet, capacity }
        });
        Self {
            kind,
            bug,
            ground,
            hosts,
            pools: pools.collect(),
            world,
            forgotten: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            lost_epoch: Mutex::default(),
            moves,
            last_epoch: AtomicU64::new(0),
        }
    }
}

fn kind_of(bug: Option<Bug>, random: &mut Random) -> Kind {
    let drawn = random.below(100);
    match bug {
        Some(Bug::TwinHost) => Kind::Twin,
        Some(Bug::ForgottenComesBack) => Kind::Forgetting,
        // What is checked and not written is mostly the store's past, and who was forgotten.
        Some(Bug::DroppedFences) => match drawn {
            0..10 => Kind::Plain,
            10..40 => Kind::Forgetting,
            40..75 => Kind::Rollback,
            _ => Kind::Wipe,
        },
        // Rollbacks and wipes are where fences matter; a blind one proves nothing.
        Some(_) => match drawn {
            0..50 => Kind::Plain,
            50..80 => Kind::Forgetting,
            80..92 => Kind::Rollback,
            _ => Kind::Wipe,
        },
        None => match drawn {
            0..70 => Kind::Plain,
            70..82 => Kind::Forgetting,
            82..89 => Kind::Rollback,
            89..93 => Kind::BlindRollback,
            _ => Kind::Wipe,
        },
    }
}

/// Lives through one seed.
pub(crate) async fn live(seed: u64, config: &Config) -> SeedReport {
    let mut random = Random::new(mix(seed ^ 0x6e65_746c_6f6f_6d00));
    let kind = config
        .kind
        .unwrap_or_else(|| kind_of(config.bug, &mut random));
    let sim = Arc::new(Sim::new(kind, config.bug, config.in_words, &mut random));
    sim.begin(&mut random).await;
    let count = u32::try_from(random.between(3, 8)).unwrap_or(3);
    let trouble = tokio::spawn(chaos(Arc::clone(&sim), random.fork(), count));
    let callers = sim.call(OPERATIONS, &mut random);
    if config.bug == Some(Bug::TakenByTime) {
        tokio::spawn(reap(Arc::clone(&sim)));
    }
    sim.ended(callers.into_iter().chain([trouble])).await;
    // Hosts that were down for long asked for little.
    for _ in 0..ROUNDS_MAX {
        let missing = OPERATIONS_LEAST.saturating_sub(sim.world.facts().operations);
        if missing == 0 {
            break;
        }
        let count = u32::try_from(missing).unwrap_or(OPERATIONS);
        let callers = sim.call(count, &mut random);
        sim.ended(callers).await;
    }
    sim.finish(&mut random).await;
    sim.report(seed)
}

impl Sim {
    /// Two callers on each host, which together make so many calls.
    fn call(self: &Arc<Self>, count: u32, random: &mut Random) -> Vec<JoinHandle<()>> {
        let places = (0..self.hosts.len()).chain(0..self.hosts.len());
        let callers = u32::try_from(2 * self.hosts.len()).unwrap_or(1);
        let each = count.div_ceil(callers);
        let caller = |host| tokio::spawn(client(Arc::clone(self), host, random.fork(), each));
        places.map(caller).collect()
    }

    async fn ended(&self, tasks: impl IntoIterator<Item = JoinHandle<()>>) {
        for task in tasks {
            if let Err(error) = task.await {
                self.world.broken(Promise::NoPanic, error.to_string());
            }
        }
    }

    /// All hosts join and learn of each other.
    async fn begin(&self, random: &mut Random) {
        let ids = super::clock::SimIds::new(random.fork());
        let store = super::link::OwnStore(Arc::clone(&self.ground));
        let begun = cluster_init(&store, &ids, 0, []).await;
        debug_assert!(begun.is_ok());
        self.world.facts().alone.extend(self.loners());
        self.hosts.iter().for_each(Host::start);
        self.settle_loners(random).await;
        let climate = self.climate(random);
        for host in &self.hosts {
            host.link.set_climate(climate);
        }
        // Two looks at all hosts lie behind everybody, or hosts meet only in the middle of trouble.
        let acquainted = matches!(self.kind, Kind::Wipe | Kind::Rollback) || random.chance(500);
        let time = if acquainted {
            self.all_on_record().await;
            65_000
        } else {
            random.below(3000)
        };
        sleep(Duration::from_millis(time)).await;
    }

    /// Waits until all hosts of the shared store have joined it.
    async fn all_on_record(&self) {
        let others = self.hosts.len() - self.moves.loners;
        for _ in 0..JOIN_TRIES {
            if self.on_record().len() >= others {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// How the ways to the store are on a usual day of this run.
    fn climate(&self, random: &mut Random) -> Weather {
        if random.chance(500) {
            return Weather::FAIR;
        }
        Weather {
            lost_before: random.below(80),
            lost_after: random.below(150),
            doubled: random.below(200),
            slow: random.between(100, 1000),
            slowest: random.between(1, 60),
            ..Weather::FAIR
        }
    }

    fn report(&self, seed: u64) -> SeedReport {
        let work = self.ground.work();
        let facts = self.world.facts();
        let noticed = facts
            .violations
            .iter()
            .any(|v| v.promise == Promise::LossNoticed);
        let mut violations = facts.violations.clone();
        let mut unpromised = facts.costs.clone();
        if self.kind == Kind::BlindRollback && !noticed {
            unpromised.append(&mut violations);
        }
        SeedReport {
            seed,
            kind: self.kind,
            operations: facts.operations,
            refused: facts.refused,
            faults: facts.faults.clone(),
            unknown: self.hosts.iter().map(|host| host.link.unknown()).sum(),
            reads: work.reads,
            commits: work.commits,
            violations,
            unpromised,
            trace_hash: self.world.trace.hash(),
            lines: self.world.trace.take_lines(),
        }
    }
}

/// The planted bug of a lease: whoever is silent loses its ranges.
async fn reap(sim: Arc<Sim>) {
    loop {
        sleep(Duration::from_secs(2)).await;
        for host in &sim.hosts {
            let paused = host.gate().is_none_or(|gate| gate.is_paused());
            if paused || host.link.is_cut() {
                take_away(&sim.ground, host.id.as_str());
            }
        }
    }
}

/// Makes all that a host owns nobody's.
fn take_away(ground: &Ground, owner: &str) {
    for (key, bytes) in ground.rows("chunks/") {
        let Ok(mut record) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
            continue;
        };
        let owners = record.get("owners").and_then(|owners| owners.as_array());
        let place = owners.and_then(|owners| owners.iter().position(|name| name == owner));
        let Some(runs) = record.get_mut("runs").and_then(|runs| runs.as_array_mut()) else {
            continue;
        };
        let before = runs.len();
        runs.retain(|run| {
            run.get(3).and_then(serde_json::Value::as_u64) != place.map(|p| p as u64)
        });
        if runs.len() != before {
            force(ground, &key, &record);
        }
    }
}

fn force(ground: &Ground, key: &Key, record: &serde_json::Value) {
    if let Ok(bytes) = serde_json::to_vec(record) {
        ground.force(key, Some(bytes));
    }
}

/// What all callers together do: some of it calls nobody, and every seed has to make 100 calls.
const OPERATIONS: u32 = 200;
/// And so many that were answered, the checks at the end not counted.
const OPERATIONS_LEAST: u64 = 100;
/// In seconds: in the worst weather one look in some dozen comes through.
const JOIN_TRIES: u32 = 600;
/// Who is down all the time cannot be asked.
const ROUNDS_MAX: u32 = 8;
