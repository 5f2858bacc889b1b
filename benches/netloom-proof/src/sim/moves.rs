//! Hosts that have a store of their own at first, and move to the shared one in the middle of it all.

use super::clock::SimIds;
use super::link::OwnStore;
use super::ops::Removal;
use super::random::Random;
use super::run::Sim;
use super::world::POOLS_OF_ALL;
use netloom_core::{AddressSpace, Clock, ClusterAdmin, IpamAdmin, PoolView, Standing};
use netloom_ipam::{AddressManager, cluster_init};
use netloom_types::PoolId;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Who moves in a run, and what others do meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    /// How many of the last hosts.
    pub(crate) loners: usize,
    /// Whether others make networks of a pool before it is brought: then one of both stops.
    pub(crate) clash: bool,
    /// Whether all loners bring the same pool.
    pub(crate) same: bool,
}

impl Moves {
    /// Of these hosts, so many are among the others from the beginning, or more.
    pub(crate) fn draw(hosts: usize, others: usize, random: &mut Random) -> Self {
        if !random.chance(MOVING) {
            return Self::default();
        }
        Self {
            loners: random.place((hosts - others).min(2)) + 1,
            clash: random.chance(400),
            same: random.chance(500),
        }
    }

    /// How many pools are brought.
    pub(crate) fn pools(&self) -> usize {
        if self.same {
            self.loners.min(1)
        } else {
            self.loners
        }
    }
}

impl Sim {
    /// The hosts that begin alone.
    pub(crate) fn loners(&self) -> impl Iterator<Item = usize> + use<> {
        self.hosts.len() - self.moves.loners..self.hosts.len()
    }

    fn brings(&self, loner: usize) -> usize {
        let place = (self.hosts.len() - 1 - loner) % self.moves.pools().max(1);
        POOLS_OF_ALL + place
    }

    /// A pool of which a host may use an address now.
    pub(crate) fn pool_for(&self, host: usize, random: &mut Random) -> usize {
        let own = self.loners().any(|loner| loner == host);
        let facts = self.world.facts();
        if own && facts.alone.contains(&host) {
            return self.brings(host);
        }
        let drawn = random.place(self.pools.len());
        let brought = drawn >= POOLS_OF_ALL;
        let may = self.moves.clash || facts.arrived.contains(&drawn);
        let own = own && self.brings(host) == drawn;
        if brought && !may && !own {
            return drawn % POOLS_OF_ALL;
        }
        drawn
    }

    /// Loners get containers before anything happens.
    pub(crate) async fn settle_loners(&self, random: &mut Random) {
        for loner in self.loners() {
            for _ in 0..START_TRIES {
                if self.host(loner).ipam().is_some() {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
            for _ in 0..random.below(12) {
                drop(self.take(loner, self.brings(loner), None, random).await);
            }
        }
    }

    /// A person changes the setting of a host and starts it anew.
    pub(crate) fn move_over(self: &Arc<Self>, loner: usize) {
        if !self.world.facts().alone.remove(&loner) {
            return;
        }
        self.world.fault("move", Some(loner), "");
        let host = self.host(loner);
        host.kill();
        host.start();
        let sim = Arc::clone(self);
        tokio::spawn(async move {
            while !sim.is_quiet() && !sim.has_arrived(loner).await {
                sleep(Duration::from_millis(100)).await;
            }
        });
    }

    /// Whether a host has pools that are to become pools of all.
    pub(crate) async fn is_under_way(&self, host: usize, ipam: &AddressManager) -> bool {
        let is_own =
            |pool: &PoolView| pool.space == AddressSpace::Local && !pool.references.is_empty();
        if self.loners().any(|loner| loner == host) {
            self.has_arrived(host).await;
        }
        ipam.pools().await.iter().any(is_own)
    }

    /// Whether the network that a host brings refers to a pool of all, by the store and by its host: what the
    /// host has not noted, a store that went back has undone.
    async fn has_arrived(&self, loner: usize) -> bool {
        let pool = self.brings(loner);
        let subnet = self.pool(pool).subnet;
        let Some(network) = self.host(loner).network(pool) else {
            return false;
        };
        let own = network.id.as_str().rsplit('-').next().unwrap_or_default();
        let (first, length) = (subnet.first(), subnet.prefix_len());
        let reference = format!("references/global/{first}-{length}/{own}");
        if self.life(subnet).is_none() || self.ground.peek(&reference).is_none() {
            return false;
        }
        let Some((_, ipam)) = self.host(loner).ipam() else {
            return false;
        };
        let of_all = |pool: &PoolView| {
            let is_own = |id: &PoolId| id.as_str().ends_with(own);
            pool.space == AddressSpace::Global && pool.references.iter().any(is_own)
        };
        let arrived = ipam.pools().await.iter().any(of_all);
        if arrived {
            self.world.arrived(loner, pool);
        }
        arrived
    }

    /// Whoever brought a pool that others have gives it up by a person's hand, and is started anew.
    pub(crate) async fn give_way(&self) {
        for loner in self.loners() {
            if self.has_arrived(loner).await {
                continue;
            }
            let Some((_, ipam)) = self.host(loner).ipam() else {
                continue;
            };
            let Standing::Stopped { why } = ipam.cluster().await.standing else {
                continue;
            };
            let pool = self.brings(loner);
            let host = self.host(loner);
            host.note("gives way", || why);
            for ip in self.world.held_at(loner, Some(pool)) {
                self.release(loner, ip).await;
            }
            self.remove_network(loner, pool, Removal::ForGood).await;
            for id in host.take_undead() {
                self.release_pool(loner, id).await;
            }
            // What nobody knows of but the host goes with its looks at dockerd.
            self.audit_thrice(loner).await;
            host.kill();
            host.start();
        }
    }

    /// A person begins an emptied store anew and names all hosts: one that was about to come is known
    /// to none of the others.
    pub(crate) async fn initialise_for_all(&self) {
        let hosts = self.hosts.iter().filter(|host| !host.is_destroyed());
        let names: Vec<_> = hosts.map(|host| host.id.clone()).collect();
        let ids = SimIds::new(Random::new(self.host(0).clock.now().0));
        let store = OwnStore(Arc::clone(&self.ground));
        drop(cluster_init(&store, &ids, self.last_epoch(), names).await);
    }
}

/// Of a thousand runs, so many have hosts that move.
const MOVING: u64 = 200;
const START_TRIES: u32 = 50;
