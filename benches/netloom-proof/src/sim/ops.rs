//! What callers do: containers come and go, networks too, people reserve and audit.

use super::random::Random;
use super::run::{Kind, Sim};
use super::world::{Hold, Promise};
use netloom_core::{
    AddressRequest, AddressSpace, Addresses, Evidence, Ipam, IpamAdmin, IpamError, Options,
    PoolRequest, Provider, Purpose, Reservation, ReservedFor, RuntimeEndpoint, RuntimeNetwork,
    WantedPool,
};
use netloom_types::{InterfaceAddr, NetworkId, PoolId};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// What becomes of a network whose removal is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It is gone for dockerd; what is left of it is given back in the end.
    ForGood,
    /// It stays, with its gateway, and gets containers again.
    UsedOn,
}

/// One caller on one host.
pub(crate) async fn client(sim: Arc<Sim>, host: usize, mut random: Random, count: u32) {
    let busy = random.between(20, 400);
    let mut left = count;
    for _ in 0..count * 8 {
        sleep(random.millis(0, busy)).await;
        if left == 0 || sim.host(host).is_destroyed() {
            return;
        }
        // What nobody answers counts for nothing.
        if sim.host(host).ipam().is_some() {
            sim.step(host, &mut random).await;
            left -= 1;
        }
    }
}

impl Sim {
    async fn step(&self, host: usize, random: &mut Random) {
        let pool = self.pool_for(host, random);
        match random.below(100) {
            0..46 => drop(self.take(host, pool, None, random).await),
            46..76 => self.give(host, random).await,
            76..84 => {
                let subnet = self.pool(pool).subnet;
                let index = u128::from(random.between(1, 14));
                drop(self.take(host, pool, subnet.nth(index), random).await);
            }
            84..88 => drop(self.gateway(host, pool).await),
            88..92 => {
                let removal = match random.chance(500) {
                    true => Removal::ForGood,
                    false => Removal::UsedOn,
                };
                self.remove_network(host, pool, removal).await;
            }
            92..95 => self.reserve(host, pool, random).await,
            95..98 => self.audit(host).await,
            _ => self.give_twice(host, pool, random).await,
        }
    }

    /// The network of a pool on a host, made if need be.
    pub(crate) async fn network(&self, host: usize, pool: usize) -> Option<PoolId> {
        let at = self.host(host);
        let _turn = at.networks_turn.lock().await;
        if let Some(network) = at.network(pool) {
            return Some(network.id);
        }
        let request = PoolRequest {
            space: AddressSpace::Local,
            wanted: WantedPool::Exact {
                subnet: self.pool(pool).subnet,
                range: None,
            },
            options: Options::new(),
        };
        let call = |ipam: Arc<netloom_ipam::AddressManager>| async move {
            ipam.request_pool(request).await
        };
        let id = at.call("pool", call).await?.ok()?.id;
        at.note("pool", || id.to_string());
        if self.gateway_of(host, pool, id.clone()).await {
            at.add_network(pool, id.clone());
            return Some(id);
        }
        self.world.drops_gateway(pool, host);
        self.release_pool(host, id).await;
        None
    }

    async fn gateway(&self, host: usize, pool: usize) -> bool {
        let at = self.host(host);
        // dockerd asks for no gateway of a network that it is removing.
        let _turn = at.networks_turn.lock().await;
        match at.network(pool) {
            Some(network) => self.gateway_of(host, pool, network.id).await,
            None => false,
        }
    }

    async fn gateway_of(&self, host: usize, pool: usize, id: PoolId) -> bool {
        let request = AddressRequest {
            pool: id,
            wanted: None,
            purpose: Purpose::Gateway,
            mac: None,
            name: None,
        };
        let call = |ipam: Arc<netloom_ipam::AddressManager>| async move {
            ipam.request_address(request).await
        };
        let Some(Ok(got)) = self.host(host).call("gateway", call).await else {
            return false;
        };
        self.world.serves_gateway(pool, host, got.ip());
        true
    }

    /// A container starts.
    pub(crate) async fn take(
        &self,
        host: usize,
        pool: usize,
        wanted: Option<IpAddr>,
        random: &mut Random,
    ) -> Option<Result<IpAddr, IpamError>> {
        let id = self.network(host, pool).await?;
        let at = self.host(host);
        let mac = self.world.mac();
        let request = AddressRequest {
            pool: id,
            wanted,
            purpose: Purpose::Endpoint,
            mac: Some(mac),
            name: None,
        };
        at.busy(pool, 1);
        let call = |ipam: Arc<netloom_ipam::AddressManager>| async move {
            ipam.request_address(request).await
        };
        let patience = match !self.is_quiet() && random.chance(40) {
            true => random.millis(0, 60),
            false => DOCKERD_TIME,
        };
        let outcome = timeout(patience, at.call("take", call)).await;
        let outcome = match outcome {
            Ok(Some(Ok(got))) => Some(Ok(got.ip())),
            Ok(Some(Err(error))) => Some(Err(error)),
            Ok(None) | Err(_) => None,
        };
        if let Some(Ok(ip)) = &outcome {
            at.note("took", || format!("{ip} {mac}"));
            if !at.is_destroyed() {
                self.world.took(*ip, Hold { host, pool, mac });
                self.check_reserved(*ip, host, wanted);
            }
        }
        at.busy(pool, -1);
        if let Some(Err(IpamError::NotFound(why))) = &outcome {
            self.remove_unknown(host, pool, why).await;
        }
        if let Some(Ok(ip)) = outcome
            && random.chance(700)
        {
            let call = |ipam: Arc<netloom_ipam::AddressManager>| async move {
                ipam.confirm(ip, Some(mac)).await
            };
            drop(at.call("confirm", call).await);
        }
        outcome
    }

    /// A network whose removal was refused and happened all the same, or whose gateway is gone, is of no
    /// use: a person removes it, and it is made again.
    async fn remove_unknown(&self, host: usize, pool: usize, why: &str) {
        if !self.world.held_at(host, Some(pool)).is_empty() {
            let what = format!("a network with containers is gone from h{host}: {why}");
            return self.world.broken(Promise::NothingLost, what);
        }
        self.remove_network(host, pool, Removal::ForGood).await;
        if self.is_quiet() {
            // What was left of other tries goes with the next looks.
            self.audit_thrice(host).await;
        }
    }

    /// A container ends.
    async fn give(&self, host: usize, random: &mut Random) {
        let held = self.world.held_at(host, None);
        if let Some(ip) = held.get(random.place(held.len())) {
            self.release(host, *ip).await;
        }
    }

    pub(crate) async fn release(&self, host: usize, ip: IpAddr) {
        let Some(hold) = self.world.hold_of(host, ip) else {
            return;
        };
        let Some(network) = self.host(host).network(hold.pool) else {
            return;
        };
        self.host(host).note("gives", || ip.to_string());
        // dockerd forgets a container whatever the plugin says.
        self.world.gives(host, ip);
        self.host(host).busy(hold.pool, 1);
        self.release_at(host, network.id, ip).await;
        self.host(host).busy(hold.pool, -1);
    }

    async fn release_at(&self, host: usize, id: PoolId, ip: IpAddr) {
        let call = |ipam: Arc<netloom_ipam::AddressManager>| async move {
            ipam.release_address(&id, ip).await
        };
        drop(self.host(host).call("release", call).await);
    }

    /// dockerd repeats releases: of an address that nobody here has.
    async fn give_twice(&self, host: usize, pool: usize, random: &mut Random) {
        let Some(network) = self.host(host).network(pool) else {
            return;
        };
        let first = u128::from(random.between(2, 40));
        let subnet = self.pool(pool).subnet;
        let mut places = (first..).map_while(|index| subnet.nth(index));
        // A gateway is given back with its network, and no sooner.
        let is_gateway = |ip: &IpAddr| {
            let facts = self.world.facts();
            let apart = facts.gateways_apart.values();
            facts
                .gateways
                .values()
                .chain(apart)
                .any(|gateway| gateway == ip)
        };
        let Some(ip) = places.find(|ip| !is_gateway(ip)) else {
            return;
        };
        let held = self.world.hold_of(host, ip);
        // A caller that asks right now may get this very address; then it would be its own.
        if held.is_some() || network.busy > 0 {
            return;
        }
        self.host(host).busy(pool, 1);
        let before = self.world.held_at(host, None);
        self.release_at(host, network.id, ip).await;
        self.host(host).busy(pool, -1);
        // Another caller of this host got it in the middle, and lost it by this.
        if !before.contains(&ip) && self.world.held_at(host, None).contains(&ip) {
            self.world.gives(host, ip);
        }
    }

    pub(crate) async fn remove_network(&self, host: usize, pool: usize, removal: Removal) {
        let at = self.host(host);
        let _turn = at.networks_turn.lock().await;
        if !self.world.held_at(host, Some(pool)).is_empty() {
            return;
        }
        let Some(id) = at.take_network(pool) else {
            return;
        };
        if matches!(self.kind, Kind::Rollback | Kind::Wipe) {
            // In a store that lost its past a pool may end for a host that has no network of it.
            let of_it = |kept: &IpAddr| self.pool(pool).subnet.contains(*kept);
            let mut facts = self.world.facts();
            facts
                .reserved
                .retain(|ip, (keeper, _)| *keeper != host || !of_it(ip));
        }
        let gateway = self.world.drops_gateway(pool, host);
        match (self.released_pool(host, id.clone()).await, gateway) {
            (Some(Ok(())), _) => {}
            // What was refused stays, and may be used on.
            (Some(Err(_)), Some(gateway)) if removal == Removal::UsedOn => {
                at.note("uses on", || id.to_string());
                at.add_network(pool, id);
                self.world.keeps_gateway(pool, host, gateway);
            }
            _ => at.add_undead(id),
        }
    }

    pub(crate) async fn release_pool(&self, host: usize, id: PoolId) {
        if !matches!(self.released_pool(host, id.clone()).await, Some(Ok(()))) {
            self.host(host).add_undead(id);
        }
    }

    async fn released_pool(&self, host: usize, id: PoolId) -> Option<Result<(), IpamError>> {
        let at = self.host(host);
        at.note("unpool", || id.to_string());
        let call =
            |ipam: Arc<netloom_ipam::AddressManager>| async move { ipam.release_pool(&id).await };
        at.call("unpool", call).await
    }

    /// Nobody gets a reserved address who did not name it. After a store lost its past, another host
    /// may have got it before the one that keeps it could speak.
    fn check_reserved(&self, ip: IpAddr, host: usize, wanted: Option<IpAddr>) {
        let kept = self.world.facts().reserved.get(&ip).copied();
        let Some((keeper, life)) = kept.filter(|_| wanted.is_none()) else {
            return;
        };
        let alone = self.world.facts().alone.contains(&host);
        if alone || self.life_of(ip) != Some(life) {
            return;
        }
        if keeper == host || matches!(self.kind, Kind::Plain | Kind::Forgetting) {
            let what = format!("{ip}, reserved at h{keeper}, went to h{host}");
            self.world.broken(Promise::NoDuplicate, what);
        }
    }

    fn life_of(&self, ip: IpAddr) -> Option<u64> {
        let pool = self.pools.iter().find(|pool| pool.subnet.contains(ip))?;
        self.life(pool.subnet)
    }

    async fn reserve(&self, host: usize, pool: usize, random: &mut Random) {
        let Some(ip) = self
            .pool(pool)
            .subnet
            .nth(u128::from(random.between(2, 14)))
        else {
            return;
        };
        let holder = ReservedFor::Explicit;
        let call = |ipam: Arc<netloom_ipam::AddressManager>| async move {
            ipam.reserve(Reservation { ip, holder }).await
        };
        let outcome = self.host(host).call("reserve", call).await;
        // It ends with the pool's life, of which a host without a network of it does not hear at once; and
        // one of a pool that was not one of all is not looked at.
        let place = (pool, host);
        let lasts = self.host(host).network(pool).is_some()
            && !self.world.facts().gateways_apart.contains_key(&place);
        if let (Some(Ok(_)), Some(life), true) = (outcome, self.life_of(ip), lasts) {
            self.host(host).note("reserved", || ip.to_string());
            self.world.facts().reserved.insert(ip, (host, life));
        }
        // Some are kept, until the end or until somebody reserves the same again.
        let kept = random.chance(300);
        sleep(random.millis(0, 300)).await;
        if !kept {
            self.unreserve(host, ip).await;
        }
    }

    pub(crate) async fn unreserve(&self, host: usize, ip: IpAddr) {
        self.host(host).note("unreserves", || ip.to_string());
        self.world.facts().reserved.remove(&ip);
        let call =
            |ipam: Arc<netloom_ipam::AddressManager>| async move { ipam.unreserve(ip).await };
        drop(self.host(host).call("unreserve", call).await);
        // Somebody may have reserved it in between, before this took place.
        self.world.facts().reserved.remove(&ip);
    }

    /// What dockerd and the kernel of a host show.
    pub(crate) fn evidence(&self, host: usize) -> Evidence {
        let holds = self.world.holds_of(host);
        let own = || holds.iter();
        let networks = self.host(host).networks().into_iter().map(|(pool, _)| {
            let subnet = self.pool(pool).subnet;
            let here = own().filter(move |(_, hold)| hold.pool == pool);
            let endpoints = here.filter_map(|(ip, hold)| {
                let address = InterfaceAddr::new(*ip, subnet.prefix_len()).ok()?;
                Some(RuntimeEndpoint {
                    id: None,
                    container: String::new(),
                    name: String::new(),
                    addresses: Addresses {
                        ipv4: Some(address),
                        ipv6: None,
                    },
                    mac: Some(hold.mac),
                })
            });
            RuntimeNetwork {
                id: NetworkId::new(format!("network-{pool}")).expect("a short word is an id"),
                name: format!("network-{pool}"),
                driver: Provider::Ours,
                ipam: Provider::Ours,
                subnets: vec![(subnet, None)],
                auxiliary: Vec::new(),
                endpoints: endpoints.collect(),
            }
        });
        Evidence {
            runtime: Some(networks.collect()),
            recorded: Vec::new(),
            kernel: own().map(|(ip, _)| *ip).collect(),
        }
    }

    pub(crate) async fn audit_thrice(&self, host: usize) {
        for _ in 0..3 {
            self.audit(host).await;
            self.host(host).clock.skip(SETTLE_TIME);
        }
    }

    pub(crate) async fn audit(&self, host: usize) {
        // What is being made is not shown yet: the code waits for that, and so does this.
        let evidence = self.evidence(host);
        let call =
            |ipam: Arc<netloom_ipam::AddressManager>| async move { ipam.repair(&evidence).await };
        drop(self.host(host).call("audit", call).await);
    }
}

/// dockerd's retry window is over.
const SETTLE_TIME: Duration = Duration::from_secs(41);
/// dockerd's patience.
const DOCKERD_TIME: Duration = Duration::from_secs(30);
