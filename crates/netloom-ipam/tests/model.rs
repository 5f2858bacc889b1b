//! Random operations, power cuts and kills against a naive model.
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print their seed"
)]

mod common;

use common::disk::Trouble;
use common::{Host, Random, any, exact, gateway, ip, mac, seed, subnet, this};
use netloom_core::{AddressKind, Ipam, IpamAdmin, IpamError, Reservation, ReservedFor};
use netloom_ipam::AddressManager;
use netloom_types::{PoolId, Subnet};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Small, so that pools run full, and wide, so that chunks are crossed.
const SUBNETS: [&str; 4] = ["10.1.0.0/29", "10.2.0.0/27", "10.3.0.0/20", "fd00:3::/64"];

/// What is known for certain, and what one interrupted operation leaves open.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Pool {
    id: Option<PoolId>,
    addresses: BTreeMap<IpAddr, AddressKind>,
    reserved: BTreeMap<IpAddr, ReservedFor>,
}

impl Pool {
    /// As `IpamAdmin::addresses` shows it.
    fn shown(&self) -> BTreeMap<IpAddr, AddressKind> {
        let idle = self.reserved.keys().map(|ip| (*ip, AddressKind::Reserved));
        let mut all: BTreeMap<_, _> = idle.collect();
        all.extend(self.addresses.clone());
        all
    }
}

struct World {
    host: Host,
    ipam: AddressManager,
    pools: BTreeMap<Subnet, Pool>,
    random: Random,
    step: u64,
    /// What the last operation was about.
    picked: Option<Subnet>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let host = Host::new(seed);
        let ipam = host.start().await;
        let pools = SUBNETS.iter().map(|s| (subnet(s), Pool::default()));
        Self {
            host,
            ipam,
            pools: pools.collect(),
            random: Random(seed),
            step: 0,
            picked: None,
        }
    }

    fn pick(&mut self) -> (Subnet, Pool) {
        let at = self.random.below(self.pools.len());
        let (subnet, pool) = self.pools.iter().nth(at).unwrap();
        (*subnet, pool.clone())
    }

    fn pick_address(&mut self, subnet: Subnet, pool: &Pool) -> IpAddr {
        let count = pool.addresses.len();
        if count > 0 && self.random.below(3) > 0 {
            let at = self.random.below(count);
            return *pool.addresses.keys().nth(at).unwrap();
        }
        let size = usize::try_from(subnet.size_saturating().min(64)).unwrap();
        let index = u128::try_from(self.random.below(size)).unwrap();
        subnet.nth(index).unwrap()
    }

    async fn make_network(&mut self, subnet: Subnet) -> Result<(), IpamError> {
        let grant = self.ipam.request_pool(exact(&subnet.to_string())).await?;
        let pool = self.pools.get_mut(&subnet).unwrap();
        pool.id = Some(grant.id.clone());
        let got = self.ipam.request_address(gateway(&grant.id)).await?;
        pool.addresses.insert(got.ip(), AddressKind::Gateway);
        Ok(())
    }

    /// One operation; the model follows when it succeeds.
    async fn operate(&mut self) -> Result<(), IpamError> {
        self.step += 1;
        let (subnet, mut pool) = self.pick();
        self.picked = Some(subnet);
        let with = mac(u32::try_from(self.random.below(20)).unwrap());
        let target = self.pick_address(subnet, &pool);
        let Some(id) = pool.id.clone() else {
            return self.make_network(subnet).await;
        };
        let kind = pool.addresses.get(&target).copied();
        match self.random.below(20) {
            0..=7 => {
                let got = self.ipam.request_address(any(&id, with)).await?;
                let before = pool.addresses.insert(got.ip(), AddressKind::InDoubt);
                assert_eq!(before, None, "{} was handed out twice", got.ip());
                if let Some(holder) = pool.reserved.get(&got.ip()) {
                    assert_eq!(*holder, ReservedFor::Mac(with), "{} was kept", got.ip());
                }
            }
            8 | 9 => {
                let got = self
                    .ipam
                    .request_address(this(&id, target, Some(with)))
                    .await?;
                assert_eq!(got.ip(), target);
                let fine = matches!(kind, None | Some(AddressKind::InDoubt));
                assert!(fine, "{target} was handed out although it is {kind:?}");
                pool.addresses.insert(target, AddressKind::InDoubt);
            }
            10..=14 => {
                self.ipam.release_address(&id, target).await?;
                pool.addresses.remove(&target);
            }
            15 | 16 => {
                self.ipam.confirm(target, None).await?;
                if kind == Some(AddressKind::InDoubt) {
                    pool.addresses.insert(target, AddressKind::Endpoint);
                }
            }
            17 => {
                let holder = ReservedFor::Mac(with);
                let reservation = Reservation {
                    ip: target,
                    holder: holder.clone(),
                };
                self.ipam.reserve(reservation).await?;
                pool.reserved.insert(target, holder);
            }
            18 => {
                self.ipam.unreserve(target).await?;
                assert!(pool.reserved.remove(&target).is_some());
            }
            _ if self.random.below(8) == 0 => {
                self.ipam.release_pool(&id).await?;
                pool = Pool::default();
            }
            _ => {
                let got = self.ipam.request_address(this(&id, target, None)).await?;
                let fine = matches!(kind, None | Some(AddressKind::Auxiliary));
                assert!(fine, "{} was given although it is {kind:?}", got.ip());
                pool.addresses.insert(target, AddressKind::Auxiliary);
            }
        }
        self.pools.insert(subnet, pool);
        Ok(())
    }

    /// What the manager shows, in the model's terms.
    async fn seen(&self) -> BTreeMap<Subnet, BTreeMap<IpAddr, AddressKind>> {
        let mut seen = BTreeMap::new();
        for view in self.ipam.pools().await {
            let addresses = self.ipam.addresses(view.subnet).await.unwrap();
            let all: BTreeMap<_, _> = addresses.iter().map(|a| (a.ip, a.kind)).collect();
            assert_eq!(all.len(), addresses.len(), "an address is listed twice");
            assert_eq!(
                view.used,
                u64::try_from(all.len()).unwrap(),
                "of {}",
                view.subnet
            );
            seen.insert(view.subnet, all);
        }
        seen
    }

    fn expected(&self) -> BTreeMap<Subnet, BTreeMap<IpAddr, AddressKind>> {
        let active = self.pools.iter().filter(|(_, pool)| pool.id.is_some());
        active
            .map(|(subnet, pool)| (*subnet, pool.shown()))
            .collect()
    }

    /// The process or the power goes away in the middle of an operation, and all comes back.
    async fn crash(&mut self) {
        let power = self.random.below(2) == 0;
        let before = self.expected();
        let interrupted = power && self.random.below(2) == 0;
        if interrupted {
            let syncs = u64::try_from(self.random.below(2)).unwrap();
            self.host.disk.trouble(Trouble::PowerLostAfter(syncs));
            loop {
                if self.operate().await.is_err() && !self.host.disk.is_running() {
                    break;
                }
            }
        }
        let expected = self.expected();
        if power {
            self.host.disk.lose_power(&mut self.random);
        } else {
            self.host.disk.lose_process();
        }
        self.ipam = self.host.start().await;
        let seen = self.seen().await;
        if interrupted {
            self.adopt_one_difference(&expected, &seen);
        } else {
            assert_eq!(before, expected);
            assert_eq!(seen, expected, "step {}", self.step);
        }
    }

    /// An interrupted operation may have happened: at most one address of its pool differs, or the pool.
    /// Not all of it can be seen: an address in use may be reserved since.
    fn adopt_one_difference(
        &mut self,
        expected: &BTreeMap<Subnet, BTreeMap<IpAddr, AddressKind>>,
        seen: &BTreeMap<Subnet, BTreeMap<IpAddr, AddressKind>>,
    ) {
        let picked = self.picked.unwrap();
        for subnet in self.pools.keys().filter(|subnet| **subnet != picked) {
            assert_eq!(seen.get(subnet), expected.get(subnet), "step {}", self.step);
        }
        if let Some(is) = seen.get(&picked) {
            let was = expected.get(&picked).cloned().unwrap_or_default();
            let all: BTreeSet<_> = was.keys().chain(is.keys()).collect();
            let changed = all.iter().filter(|ip| was.get(ip) != is.get(ip)).count();
            assert!(changed <= 1, "step {}: {was:?}\nbecame {is:?}", self.step);
        }
        self.give_up(picked);
    }

    /// The model does not know this pool any more: it is given back, and begins anew.
    fn give_up(&mut self, subnet: Subnet) {
        let pool = self.pools.get_mut(&subnet).unwrap();
        pool.addresses.clear();
        pool.reserved.clear();
        pool.id = None;
    }

    /// Pools that the model gave up are given back for real.
    async fn forget_unknown(&mut self) {
        for view in self.ipam.pools().await {
            if self.pools[&view.subnet].id.is_none() {
                for reference in view.references {
                    self.ipam.release_pool(&reference).await.unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn random_operations_and_crashes_agree_with_a_naive_model() {
    let seed = seed();
    let steps = std::env::var("NETLOOM_STEPS")
        .ok()
        .and_then(|s| s.parse().ok());
    let mut world = World::new(seed).await;
    for _ in 0..steps.unwrap_or(6000) {
        // Refusals are right answers; whether they are is shown by the comparison.
        let _ = world.operate().await;
        if world.random.below(50) == 0 {
            world.crash().await;
            world.forget_unknown().await;
        } else if world.random.below(20) == 0 {
            assert_eq!(
                world.seen().await,
                world.expected(),
                "seed {seed} step {}",
                world.step
            );
        }
    }
    for (subnet, pool) in &world.pools {
        let Some(id) = pool.id.clone().filter(|_| subnet.size_saturating() <= 32) else {
            continue;
        };
        let view = world.ipam.pools().await;
        let view = view.iter().find(|v| v.subnet == *subnet).unwrap();
        let free = view.capacity - view.used;
        let mut given = 0;
        while world
            .ipam
            .request_address(any(&id, mac(u32::MAX)))
            .await
            .is_ok()
        {
            given += 1;
        }
        assert_eq!(given, free, "seed {seed}: {subnet} leaks");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_callers_never_share_an_address() {
    let host = Host::new(7);
    let ipam = std::sync::Arc::new(host.start().await);
    let grant = ipam.request_pool(exact("10.9.0.0/21")).await.unwrap();
    let owners: std::sync::Arc<std::sync::Mutex<BTreeMap<IpAddr, u32>>> = Default::default();
    let mut callers = Vec::new();
    for caller in 0..64u32 {
        let (ipam, owners, id) = (ipam.clone(), owners.clone(), grant.id.clone());
        callers.push(tokio::spawn(async move {
            let mut random = Random(u64::from(caller));
            let mut mine = Vec::new();
            for _ in 0..200 {
                if random.below(3) > 0 || mine.is_empty() {
                    let got = ipam
                        .request_address(any(&id, mac(caller)))
                        .await
                        .unwrap()
                        .ip();
                    let before = owners.lock().unwrap().insert(got, caller);
                    assert_eq!(before, None, "{got} has two owners");
                    mine.push(got);
                } else {
                    let back = mine.swap_remove(random.below(mine.len()));
                    assert_eq!(owners.lock().unwrap().remove(&back), Some(caller));
                    ipam.release_address(&id, back).await.unwrap();
                }
                if mine.len() > 25 {
                    let back = mine.swap_remove(0);
                    owners.lock().unwrap().remove(&back);
                    ipam.release_address(&id, back).await.unwrap();
                }
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let held = owners.lock().unwrap().clone();
    drop(ipam);
    host.disk.lose_power(&mut Random(7));
    let ipam = host.start().await;
    let shown = ipam.addresses(subnet("10.9.0.0/21")).await.unwrap();
    assert_eq!(
        shown.iter().map(|a| a.ip).collect::<Vec<_>>(),
        held.into_keys().collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_full_disk_refuses_and_serves_again_without_a_restart() {
    let host = Host::new(3);
    let ipam = host.start().await;
    let grant = ipam.request_pool(exact("10.9.0.0/16")).await.unwrap();
    let mut acknowledged = Vec::new();
    host.disk.trouble(Trouble::Full);
    let error = loop {
        match ipam.request_address(any(&grant.id, mac(1))).await {
            Ok(got) => acknowledged.push(got.ip()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, IpamError::Unavailable { .. }), "{error}");
    assert!(ipam.request_address(any(&grant.id, mac(1))).await.is_err());
    host.disk.trouble(Trouble::None);
    acknowledged.push(
        ipam.request_address(any(&grant.id, mac(1)))
            .await
            .unwrap()
            .ip(),
    );
    let shown = ipam.addresses(subnet("10.9.0.0/16")).await.unwrap();
    assert_eq!(shown.iter().map(|a| a.ip).collect::<Vec<_>>(), acknowledged);
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_handed_out_until_a_restart() {
    let host = Host::new(3);
    let ipam = host.start().await;
    let grant = ipam.request_pool(exact("10.9.0.0/16")).await.unwrap();
    let good = ipam.request_address(any(&grant.id, mac(1))).await.unwrap();
    host.disk.trouble(Trouble::NextSync);
    for _ in 0..3 {
        let error = ipam
            .request_address(any(&grant.id, mac(1)))
            .await
            .unwrap_err();
        assert!(matches!(error, IpamError::Unavailable { .. }), "{error}");
    }
    drop(ipam);
    host.disk.lose_power(&mut Random(1));
    let ipam = host.start().await;
    let shown = ipam.addresses(subnet("10.9.0.0/16")).await.unwrap();
    assert_eq!(shown.first().map(|a| a.ip), Some(good.ip()));
    assert_eq!(good.ip(), ip("10.9.0.1"));
}
