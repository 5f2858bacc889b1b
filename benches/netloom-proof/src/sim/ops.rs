//! What callers do: containers come and go, networks too, people reserve and audit.

use super::random::Random;
use super::run::Sim;
use super::world::{Hold, Promise};
use netloom_core::{
    AddressRequest, AddressSpace, Addresses, Evidence, Ipam, IpamAdmin, Options, PoolRequest,
    Provider, Purpose, Reservation, ReservedFor, RuntimeEndpoint, RuntimeNetwork, WantedPool,
};
use netloom_types::{InterfaceAddr, NetworkId, PoolId};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

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
        let pool = random.place(self.pools.len());
        match random.below(100) {
            0..46 => drop(self.take(host, pool, None, random).await),
            46..76 => self.give(host, random).await,
            76..84 => {
                let subnet = self.pool(pool).subnet;
                let index = u128::from(random.between(1, 14));
                drop(self.take(host, pool, subnet.nth(index), random).await);
            }
            84..88 => drop(self.gateway(host, pool).await),
            88..92 => self.remove_network(host, pool).await,
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
        self.world.facts().gateways.remove(&(pool, host));
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
        let ip = got.ip();
        let other = {
            let mut facts = self.world.facts();
            facts.gateways.insert((pool, host), ip);
            let all = facts.gateways.iter();
            let mut others = all.filter(|((of, _), other)| *of == pool && **other != ip);
            others.next().map(|((_, at), other)| (*at, *other))
        };
        if let Some((at, other)) = other {
            let what = format!("{ip} on h{host}, {other} on h{at}");
            self.world.broken(Promise::OneGateway, what);
        }
        let holder = self.world.facts().held.get(&ip).cloned();
        if let Some(hold) = holder {
            let what = format!("the gateway {ip} of h{host} is in use at h{}", hold.host);
            self.world.broken(Promise::NoDuplicate, what);
        }
        true
    }

    /// A container starts.
    pub(crate) async fn take(
        &self,
        host: usize,
        pool: usize,
        wanted: Option<IpAddr>,
        random: &mut Random,
    ) -> Option<Result<IpAddr, netloom_core::IpamError>> {
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
            }
        }
        at.busy(pool, -1);
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

    /// A container ends.
    async fn give(&self, host: usize, random: &mut Random) {
        let held = self.world.held_at(host, None);
        if let Some(ip) = held.get(random.place(held.len())) {
            self.release(host, *ip).await;
        }
    }

    pub(crate) async fn release(&self, host: usize, ip: IpAddr) {
        let hold = self.world.facts().held.get(&ip).cloned();
        let Some(hold) = hold.filter(|hold| hold.host == host) else {
            return;
        };
        let Some(network) = self.host(host).network(hold.pool) else {
            return;
        };
        self.host(host).note("gives", || ip.to_string());
        // dockerd forgets a container whatever the plugin says.
        self.world.gives(ip);
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
            facts.gateways.values().any(|gateway| gateway == ip)
        };
        let Some(ip) = places.find(|ip| !is_gateway(ip)) else {
            return;
        };
        let held = self.world.facts().held.get(&ip).map(|hold| hold.host);
        // A caller that asks right now may get this very address; then it would be its own.
        if held == Some(host) || network.busy > 0 {
            return;
        }
        self.host(host).busy(pool, 1);
        let before = self.world.held_at(host, None);
        self.release_at(host, network.id, ip).await;
        self.host(host).busy(pool, -1);
        // Another caller of this host got it in the middle, and lost it by this.
        if !before.contains(&ip) && self.world.held_at(host, None).contains(&ip) {
            self.world.gives(ip);
        }
    }

    async fn remove_network(&self, host: usize, pool: usize) {
        let at = self.host(host);
        let _turn = at.networks_turn.lock().await;
        if !self.world.held_at(host, Some(pool)).is_empty() {
            return;
        }
        if let Some(id) = at.take_network(pool) {
            self.world.facts().gateways.remove(&(pool, host));
            self.release_pool(host, id).await;
        }
    }

    pub(crate) async fn release_pool(&self, host: usize, id: PoolId) {
        let again = id.clone();
        let call =
            |ipam: Arc<netloom_ipam::AddressManager>| async move { ipam.release_pool(&id).await };
        let at = self.host(host);
        at.note("unpool", || again.to_string());
        if !matches!(at.call("unpool", call).await, Some(Ok(()))) {
            at.add_undead(again);
        }
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
        drop(self.host(host).call("reserve", call).await);
        sleep(random.millis(0, 300)).await;
        self.unreserve(host, ip).await;
    }

    pub(crate) async fn unreserve(&self, host: usize, ip: IpAddr) {
        let call =
            |ipam: Arc<netloom_ipam::AddressManager>| async move { ipam.unreserve(ip).await };
        drop(self.host(host).call("unreserve", call).await);
    }

    /// What dockerd and the kernel of a host show.
    pub(crate) fn evidence(&self, host: usize) -> Evidence {
        let facts = self.world.facts();
        let own = || facts.held.iter().filter(|(_, hold)| hold.host == host);
        let networks = self.host(host).networks().into_iter().map(|(pool, _)| {
            let subnet = self.pool(pool).subnet;
            let here = own().filter(|(_, hold)| hold.pool == pool);
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

    pub(crate) async fn audit(&self, host: usize) {
        // What is being made is not shown yet: the code waits for that, and so does this.
        let evidence = self.evidence(host);
        let call =
            |ipam: Arc<netloom_ipam::AddressManager>| async move { ipam.repair(&evidence).await };
        drop(self.host(host).call("audit", call).await);
    }
}

/// dockerd's patience.
const DOCKERD_TIME: Duration = Duration::from_secs(30);
