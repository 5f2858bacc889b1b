//! The quiet after the trouble: everything is made whole, and what is true is compared from three
//! sides: callers, journals, the store.

use super::disk::Trouble;
use super::host::Host;
use super::link::{OwnStore, Weather};
use super::random::Random;
use super::run::{Kind, Sim};
use super::world::Promise;
use netloom_core::{AddressKind, ClusterAdmin, IpamAdmin, IpamError, Standing};
use netloom_types::Subnet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;

/// A run of a chunk's record, by address.
type Owners = BTreeMap<IpAddr, (String, String)>;

impl Sim {
    pub(crate) async fn finish(self: &Arc<Self>, random: &mut Random) {
        self.heal(random).await;
        self.check_noticed();
        let living: Vec<usize> = self.living();
        for host in &living {
            self.check_nothing_lost(*host).await;
        }
        for host in &living {
            self.audit_thrice(*host).await;
        }
        for host in &living {
            self.check_no_leak(*host).await;
        }
        for host in &living {
            self.end_reservations(*host).await;
        }
        sleep(QUIET_TIME).await;
        self.check_records(&living).await;
        self.check_service(&living, random).await;
        for pool in (0..self.pools.len()).filter(|pool| *pool != 1) {
            self.check_full(&living, pool, random).await;
        }
    }

    fn living(&self) -> Vec<usize> {
        let hosts = self.hosts.iter().filter(|host| !host.is_destroyed());
        hosts.map(|host| host.number).collect()
    }

    /// Ends all trouble, starts everybody from its disk, and waits until all joined.
    async fn heal(self: &Arc<Self>, random: &mut Random) {
        for loner in self.loners() {
            self.move_over(loner);
        }
        self.forget_at_last(random).await;
        self.check_forgotten(random).await;
        sleep(random.millis(0, 16_000)).await;
        self.end_trouble();
        self.calm();
        for host in &self.hosts {
            host.cut_power();
        }
        self.hosts.iter().for_each(Host::start);
        for _ in 0..JOIN_TRIES {
            sleep(Duration::from_secs(1)).await;
            self.calm();
            if self.kind == Kind::Wipe {
                self.initialise(0).await;
            }
            self.give_way().await;
            if self.unjoined().await.is_empty() {
                break;
            }
        }
        for (host, standing) in self.unjoined().await {
            let what = format!("h{host}: {standing}");
            self.world.broken(Promise::Recovery, what);
        }
        // Hosts that were stopped by a conflict could not.
        self.forget_at_last(random).await;
        self.release_undead().await;
        // An answer that came after its network had gone is nobody's gateway.
        let networks = |pool, host| self.host(host).network(pool).is_some();
        let mut facts = self.world.facts();
        facts
            .gateways
            .retain(|(pool, host), _| networks(*pool, *host));
    }

    /// In the quiet a person forgets a lost machine, if that failed before.
    async fn forget_at_last(&self, random: &mut Random) {
        if self.kind != Kind::Forgetting || self.forgotten.load(Ordering::Relaxed) {
            return;
        }
        self.calm();
        self.hosts.iter().for_each(Host::start);
        if let Some(gone) = self.hosts.iter().find(|host| host.is_destroyed()) {
            self.forget(gone.number, random).await;
        }
    }

    /// Gives back what no host took back in the trouble; one that is still being started again fails
    /// once more.
    async fn release_undead(&self) {
        for _ in 0..JOIN_TRIES {
            let mut is_left = false;
            for host in self.living() {
                for id in self.host(host).take_undead() {
                    is_left = true;
                    self.release_pool(host, id).await;
                }
            }
            if !is_left {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        let what = "a network's pool is not taken back".to_owned();
        self.world.broken(Promise::Recovery, what);
    }

    /// Undoes what lasts; trouble that began late may end later than this.
    fn calm(&self) {
        for host in &self.hosts {
            host.link.set_climate(Weather::FAIR);
            host.link.set_outage(false);
            host.link.set_blind(false);
            host.disk.set_trouble(Trouble::None);
            if let Some(gate) = host.gate() {
                gate.resume();
            }
        }
    }

    async fn unjoined(&self) -> Vec<(usize, String)> {
        let mut unjoined = Vec::new();
        for host in self.living() {
            let standing = match self.host(host).ipam() {
                None => "not opened".to_owned(),
                Some((_, ipam)) => match ipam.cluster().await.standing {
                    Standing::Joined if self.is_under_way(host, &ipam).await => {
                        "it moves".to_owned()
                    }
                    Standing::Joined => continue,
                    other => format!("{other:?}"),
                },
            };
            unjoined.push((host, standing));
        }
        unjoined
    }

    /// What came back under a forgotten id is silent, and then really gone.
    async fn check_forgotten(&self, random: &mut Random) {
        if self.kind != Kind::Forgetting {
            return;
        }
        let host = self
            .hosts
            .iter()
            .find(|host| self.world.facts().gone == Some(host.number));
        let Some(host) = host.filter(|host| !host.is_destroyed()) else {
            return;
        };
        if self.bug == Some(super::planted::Bug::ForgottenComesBack) {
            let key = netloom_core::store::Key::new(format!("hosts/{}", host.id));
            key.into_iter()
                .for_each(|key| self.ground.force(&key, None));
            self.calm();
            host.kill();
            host.start();
            sleep(Duration::from_secs(30)).await;
        }
        for pool in 0..self.pools.len() {
            if let Some(Ok(ip)) = self.take(host.number, pool, None, random).await {
                let what = format!("h{} handed out {ip}", host.number);
                self.world.broken(Promise::ForgottenIsSilent, what);
            }
        }
        for ip in self.world.held_at(host.number, None) {
            self.world.gives(host.number, ip);
        }
        host.destroy();
    }

    fn check_noticed(&self) {
        let lost = self.lost_epoch().clone();
        if let Some(before) = lost
            && self.ground.peek("epoch") == Some(before)
        {
            let what = "no host began an epoch after the rollback".to_owned();
            self.world.broken(Promise::LossNoticed, what);
        }
    }

    async fn shown(&self, host: usize) -> BTreeSet<IpAddr> {
        let mut shown = BTreeSet::new();
        for pool in &self.pools {
            let Some((_, ipam)) = self.host(host).ipam() else {
                continue;
            };
            let views = ipam.addresses(pool.subnet).await.unwrap_or_default();
            let used = views
                .into_iter()
                .filter(|view| matches!(view.kind, AddressKind::Endpoint | AddressKind::InDoubt));
            shown.extend(used.map(|view| view.ip));
        }
        shown
    }

    async fn check_nothing_lost(&self, host: usize) {
        let shown = self.shown(host).await;
        for ip in self.world.held_at(host, None) {
            if !shown.contains(&ip) {
                let what = format!("{ip} of h{host} is not in its journal");
                self.world.broken(Promise::NothingLost, what);
            }
        }
    }

    async fn check_no_leak(&self, host: usize) {
        let held: BTreeSet<IpAddr> = self.world.held_at(host, None).into_iter().collect();
        let shown = self.shown(host).await;
        for ip in &held {
            if !shown.contains(ip) {
                let what = format!("{ip} of h{host} was taken away by the audit");
                self.world.broken(Promise::NothingLost, what);
            }
        }
        for ip in shown.difference(&held) {
            let what = format!("{ip} is taken on h{host}, and nobody has it");
            self.world.broken(Promise::NoLeak, what);
        }
    }

    /// The store's records against the callers, and against what the hosts say that they own.
    async fn check_records(&self, living: &[usize]) {
        for pool in &self.pools {
            let owners = self.owners(pool.subnet);
            for host in living {
                let place = self.pools.iter().position(|p| p.subnet == pool.subnet);
                for ip in self.world.held_at(*host, place) {
                    let id = self.host(*host).id.as_str();
                    let owned = owners
                        .get(&ip)
                        .is_some_and(|(state, owner)| state == "owned" && owner == id);
                    if !owned {
                        let what = format!("{ip} of h{host} is {:?}", owners.get(&ip));
                        self.world.broken(Promise::OwnedByUser, what);
                    }
                }
            }
        }
        // A host may claim its reserve between its word and the look at the store: one moment at
        // which all agree is enough.
        let mut apart = self.shares_apart(living).await;
        for _ in 0..SHARE_TRIES {
            if apart.is_empty() {
                return;
            }
            sleep(SHARE_TIME).await;
            apart = self.shares_apart(living).await;
        }
        for what in apart {
            self.world.broken(Promise::Accounted, what);
        }
    }

    /// Where what a host says that it owns and what the store says differ.
    async fn shares_apart(&self, living: &[usize]) -> Vec<String> {
        let mut apart = Vec::new();
        for host in living {
            let at = self.host(*host);
            let Some((_, ipam)) = at.ipam() else { continue };
            let Ok(views) = ipam.hosts().await else {
                continue;
            };
            let own = views.into_iter().find(|view| view.here);
            for pool in &self.pools {
                let subnet = pool.subnet;
                let shares = own.iter().flat_map(|view| &view.shares);
                let said = shares.filter(|share| share.subnet == subnet);
                let said: u64 = said.map(|share| share.owned).sum();
                let owners = self.owners(subnet).into_values();
                let recorded = owners
                    .filter(|(state, owner)| state == "owned" && owner == at.id.as_str())
                    .count();
                if usize::try_from(said) != Ok(recorded) {
                    let what = format!("h{host} owns {said} of {subnet}, by the store {recorded}");
                    apart.push(what);
                }
            }
        }
        apart
    }

    /// Who has which address of a pool, by the chunks' records.
    fn owners(&self, subnet: Subnet) -> Owners {
        let mut owners = Owners::new();
        let Some(life) = self.life(subnet) else {
            return owners;
        };
        let part = format!("/{}-{}/", subnet.first(), subnet.prefix_len());
        let rows = self.ground.rows("chunks/").into_iter();
        for (key, bytes) in rows.filter(|(key, _)| key.as_str().contains(&part)) {
            let Ok(record) = serde_json::from_slice::<Chunk>(&bytes) else {
                continue;
            };
            if record.generation != life {
                continue;
            }
            let mut parts = key.as_str().rsplit('/');
            let low = parts
                .next()
                .and_then(|text| u128::from_str_radix(text, 16).ok());
            let high = parts
                .next()
                .and_then(|text| u128::from_str_radix(text, 16).ok());
            let base = (high.unwrap_or(0) * 256 + low.unwrap_or(0)) * CHUNK;
            for Run(first, last, state, owner, ..) in record.runs {
                let owner = record.owners.get(owner).cloned().unwrap_or_default();
                for index in first..=last {
                    let Some(ip) = subnet.nth(base + index) else {
                        continue;
                    };
                    let before = owners.insert(ip, (state.clone(), owner.clone()));
                    if before.is_some() {
                        self.world
                            .broken(Promise::Accounted, format!("{ip} is in two runs"));
                    }
                }
            }
        }
        owners
    }

    /// The present life of a pool, by the store; none while nobody refers to it.
    pub(crate) fn life(&self, subnet: Subnet) -> Option<u64> {
        let key = format!("pools/global/{}-{}", subnet.first(), subnet.prefix_len());
        let record = self.ground.peek(&key)?;
        let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
        let active = record.get("state")?.as_str()? == "active";
        record.get("generation")?.as_u64().filter(|_| active)
    }

    /// People end what they reserved and could not end in the trouble.
    async fn end_reservations(&self, host: usize) {
        for pool in &self.pools {
            let Some((_, ipam)) = self.host(host).ipam() else {
                return;
            };
            let views = ipam.addresses(pool.subnet).await.unwrap_or_default();
            for view in views
                .iter()
                .filter(|view| view.kind == AddressKind::Reserved)
            {
                self.unreserve(host, view.ip).await;
            }
        }
    }

    /// Every host gets an address while there is one.
    async fn check_service(&self, living: &[usize], random: &mut Random) {
        for host in living {
            let mut last = None;
            for _ in 0..SERVICE_TRIES {
                let took = self.take(*host, 1, None, random).await;
                if let Some(Ok(_)) = took {
                    last = None;
                    break;
                }
                last = Some(took);
                sleep(Duration::from_secs(1)).await;
            }
            if let Some(refused) = last {
                let what = match refused {
                    Some(Err(error)) => format!("h{host}: {error}"),
                    _ => format!("h{host} does not answer"),
                };
                self.world.broken(Promise::Service, what);
            }
        }
    }

    /// The small pool is filled from all hosts in turn, until it is full.
    async fn check_full(&self, living: &[usize], pool: usize, random: &mut Random) {
        let capacity = self.pool(pool).capacity;
        let mut refusals = 0;
        let mut n = 0;
        while refusals < living.len() {
            let Some(host) = living.get(n % living.len().max(1)) else {
                return;
            };
            n += 1;
            match self.take(*host, pool, None, random).await {
                Some(Ok(_)) => refusals = 0,
                Some(Err(IpamError::Exhausted(_))) => refusals += 1,
                // Its network was removed because of this, and is made again.
                Some(Err(IpamError::NotFound(_))) if n <= capacity + FILL_SPARE => refusals = 0,
                other => {
                    // Callers of this very pool get in each other's way; a retry is theirs.
                    refusals += usize::from(n > capacity + FILL_SPARE);
                    if refusals > 0 {
                        let what = format!("h{host}, neither an address nor full: {other:?}");
                        return self.world.broken(Promise::FullMeansFull, what);
                    }
                }
            }
        }
        let held = self
            .world
            .facts()
            .held
            .values()
            .filter(|hold| hold.pool == pool)
            .count();
        if held != capacity {
            let kept = self.kept_for_nobody(self.pool(pool).subnet).await;
            let what = format!("full with {held} of {capacity} in use, {kept} kept for nobody");
            if matches!(self.kind, Kind::Rollback | Kind::Wipe) && held + kept == capacity {
                return self.world.cost(Promise::FullMeansFull, what);
            }
            self.world.broken(Promise::FullMeansFull, what);
        }
    }

    /// Addresses that a check of the store says are kept for a gateway that is none any more.
    async fn kept_for_nobody(&self, subnet: Subnet) -> usize {
        let problems = netloom_ipam::store_check(&OwnStore(Arc::clone(&self.ground))).await;
        let problems = problems.unwrap_or_default();
        let start = format!("chunks/global/{}-", subnet.first());
        let pool = |key: &str| key.starts_with(&start);
        let kept = |problem: &&netloom_ipam::Problem| {
            pool(problem.key.as_str()) && problem.what.starts_with("keeps ")
        };
        problems.iter().filter(kept).count()
    }
}

/// A chunk's record, as far as it matters here.
#[derive(serde::Deserialize)]
struct Chunk {
    generation: u64,
    owners: Vec<String>,
    runs: Vec<Run>,
}

/// First and last address, state, place of the owner, generation, idle time.
#[derive(serde::Deserialize)]
struct Run(
    u128,
    u128,
    String,
    usize,
    #[allow(dead_code)] u64,
    #[allow(dead_code)] u64,
);

const CHUNK: u128 = 1024;
/// Every host has spoken, and has kept its stock, more than once.
const QUIET_TIME: Duration = Duration::from_secs(25);
/// Between two words of a host.
const SHARE_TIME: Duration = Duration::from_millis(3_100);
const SHARE_TRIES: u32 = 12;
const JOIN_TRIES: u32 = 60;
const SERVICE_TRIES: u32 = 8;
const FILL_SPARE: usize = 40;
