//! A network with several subnets of one family: when the first has none to give, the next one answers.
//!
//! Docker asks the pool of a network's first subnet alone and gives up when it refuses; it takes
//! an address of another pool from it without a question, and releases it to the first again. So
//! which pools belong together is known only here, where the networks are.

use async_trait::async_trait;
use netloom_core::{
    AddressRequest, AddressSpace, Controller, Ipam, IpamAdmin, IpamError, NetworkSpec, PoolGrant,
    PoolRequest, PoolView, Purpose,
};
use netloom_types::{InterfaceAddr, MacAddr, PoolId, Subnet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long all pools of a network together may take: a call is answered within 5 s. One that asks a
/// store that is away takes nearly all of it, and what the next has at hand needs none.
const ALL_POOLS_TIME: Duration = Duration::from_millis(4900);

/// Address management that knows which pools are of one network.
#[derive(Debug)]
pub(crate) struct NextPool {
    pub(crate) ipam: Arc<dyn IpamAdmin>,
    pub(crate) controller: Arc<dyn Controller>,
}

impl NextPool {
    async fn networks(&self) -> Vec<NetworkSpec> {
        let networks = self.controller.networks().await;
        networks.into_iter().map(|network| network.spec).collect()
    }

    /// The first address that one of the following pools of the same network gives.
    ///
    /// # Errors
    /// What is most use to know of all that was refused, `refused` among it.
    async fn next_address(
        &self,
        request: &AddressRequest,
        refused: IpamError,
        end: Instant,
    ) -> Result<InterfaceAddr, IpamError> {
        let pools = self.ipam.pools().await;
        let own = self.ipam.listed_as(&request.pool);
        let left = following(&self.networks().await, &pools, &own);
        let ask = |pool| {
            self.ipam.request_address(AddressRequest {
                pool,
                ..request.clone()
            })
        };
        ask_in_turn(left, end, refused, ask).await
    }
}

/// The first answer of `left`, each of which has its share of the time until `end`; or what is most use to know of
/// all that was `refused`.
async fn ask_in_turn<T, F: Future<Output = Result<T, IpamError>>>(
    mut left: Vec<(Subnet, PoolId)>,
    end: Instant,
    mut refused: IpamError,
    ask: impl Fn(PoolId) -> F,
) -> Result<T, IpamError> {
    while !left.is_empty() {
        let until = turn_ends(Instant::now(), end, left.len());
        let (subnet, pool) = left.remove(0);
        // An address whose request is given up is in doubt, as one whose answer got lost.
        match timeout_at(until, ask(pool)).await {
            Ok(Ok(address)) => return Ok(address),
            Ok(Err(error)) => refused = and_then(refused, subnet, error),
            // The one behind it may have an address at hand.
            Err(_elapsed) => {}
        }
    }
    Err(refused)
}

#[async_trait]
impl Ipam for NextPool {
    async fn request_pool(&self, request: PoolRequest) -> Result<PoolGrant, IpamError> {
        self.ipam.request_pool(request).await
    }

    async fn release_pool(&self, pool: &PoolId) -> Result<(), IpamError> {
        self.ipam.release_pool(pool).await
    }

    async fn request_address(&self, request: AddressRequest) -> Result<InterfaceAddr, IpamError> {
        let end = Instant::now() + ALL_POOLS_TIME;
        let any = request.wanted.is_none() && request.purpose == Purpose::Endpoint;
        match self.ipam.request_address(request.clone()).await {
            Err(refused @ (IpamError::Exhausted(_) | IpamError::Unavailable { .. })) if any => {
                self.next_address(&request, refused, end).await
            }
            answer => answer,
        }
    }

    async fn release_address(&self, pool: &PoolId, ip: IpAddr) -> Result<(), IpamError> {
        self.ipam.release_address(pool, ip).await?;
        if !may_be_of_another(&self.networks().await, ip) {
            return Ok(());
        }
        let own = self.ipam.listed_as(pool);
        for other in elsewhere(&self.ipam.pools().await, &own, ip) {
            self.ipam.release_endpoint(&other, ip).await?;
        }
        Ok(())
    }

    async fn confirm(&self, ip: IpAddr, mac: Option<MacAddr>) -> Result<(), IpamError> {
        self.ipam.confirm(ip, mac).await
    }
}

/// When the first of the pools that are `left` has had its share of the time until `end`.
fn turn_ends(now: Instant, end: Instant, left: usize) -> Instant {
    let left = u32::try_from(left).unwrap_or(u32::MAX).max(1);
    now + end.saturating_duration_since(now) / left
}

/// What to tell when `next` of the same network refuses too: where an address may still be had is more
/// use to know than what is full.
fn and_then(refused: IpamError, subnet: Subnet, next: IpamError) -> IpamError {
    match (refused, next) {
        (IpamError::Exhausted(first), IpamError::Exhausted(_)) => {
            IpamError::Exhausted(format!("{first}; {subnet} of the same network is full too"))
        }
        (IpamError::Exhausted(_), next @ IpamError::Unavailable { .. }) => next,
        (refused, _) => refused,
    }
}

/// One reference of this host to each of the other pools of the same family that are of `pool`'s network, in
/// the order of the network's subnets.
fn following(networks: &[NetworkSpec], pools: &[PoolView], pool: &PoolId) -> Vec<(Subnet, PoolId)> {
    let Some(own) = pools.iter().find(|view| view.references.contains(pool)) else {
        return Vec::new();
    };
    let is_own = |network: &&NetworkSpec| network.subnets.iter().any(|s| s.subnet == own.subnet);
    let Some(network) = networks.iter().find(is_own) else {
        return Vec::new();
    };
    network
        .subnets_of(own.subnet.family())
        .filter(|spec| spec.subnet != own.subnet)
        .filter_map(|spec| {
            let view = pools.iter().find(|view| view.subnet == spec.subnet)?;
            if own.space == AddressSpace::Local && view.space != own.space {
                // The first has yet to move to where the other hosts are, with whom it reserves for.
                return None;
            }
            // What is given through another host's is lost with that host's network.
            Some((spec.subnet, view.own.first().cloned()?))
        })
        .collect()
}

/// This host's references to other pools than `pool` is one to, in whose subnet `ip` lies: another network may
/// use the same pool, and keeps what it has of it.
fn elsewhere(pools: &[PoolView], pool: &PoolId, ip: IpAddr) -> Vec<PoolId> {
    if !pools.iter().any(|view| view.references.contains(pool)) {
        return Vec::new();
    }
    let others = pools.iter().filter(|view| !view.references.contains(pool));
    let of_ip = others.filter(|view| view.subnet.contains(ip));
    of_ip.flat_map(|view| view.own.clone()).collect()
}

/// Whether `ip` lies in a network with several subnets of its family.
fn may_be_of_another(networks: &[NetworkSpec], ip: IpAddr) -> bool {
    networks.iter().any(|network| {
        network
            .subnet_of(ip)
            .is_some_and(|own| network.subnets_of(own.subnet.family()).count() > 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use netloom_core::{Reach, SubnetSpec};
    use std::collections::BTreeMap;

    fn network(subnets: &[&str]) -> NetworkSpec {
        NetworkSpec {
            id: "a1".repeat(32).parse().unwrap(),
            driver: "bridge".into(),
            subnets: subnets.iter().map(|text| subnet(text)).collect(),
            reach: Reach::External,
            options: BTreeMap::new(),
        }
    }

    fn subnet(text: &str) -> SubnetSpec {
        SubnetSpec {
            subnet: text.parse().unwrap(),
            gateway: None,
            auxiliary: BTreeMap::new(),
        }
    }

    fn pool(text: &str, reference: &str) -> PoolView {
        PoolView {
            subnet: text.parse().unwrap(),
            space: AddressSpace::Local,
            range: None,
            references: vec![reference.parse().unwrap()],
            own: vec![reference.parse().unwrap()],
            gateway: None,
            capacity: 6,
            used: 6,
            fill: vec![],
        }
    }

    #[test]
    fn the_other_subnets_of_the_family_follow_in_the_networks_order() {
        let pools = [
            pool("10.1.0.0/29", "first"),
            pool("10.2.0.0/29", "second"),
            pool("10.9.0.0/29", "strange"),
            pool("fd00::/64", "six"),
        ];
        let networks = [network(&["10.1.0.0/29", "10.2.0.0/29", "fd00::/64"])];
        let after = |id: &str| -> Vec<PoolId> {
            let found = following(&networks, &pools, &id.parse().unwrap());
            found.into_iter().map(|(_, pool)| pool).collect()
        };
        assert_eq!(after("first"), ["second".parse().unwrap()]);
        assert_eq!(after("second"), ["first".parse().unwrap()]);
        assert_eq!(after("six"), []);
        assert_eq!(after("strange"), []);
        assert_eq!(after("unknown"), []);
    }

    #[test]
    fn a_pool_that_has_yet_to_move_is_not_passed_over() {
        let networks = [network(&["10.1.0.0/29", "10.2.0.0/29"])];
        let (first, mut second) = (pool("10.1.0.0/29", "first"), pool("10.2.0.0/29", "second"));
        second.space = AddressSpace::Global;
        let pools = [first, second];
        let after = |id: &str| following(&networks, &pools, &id.parse().unwrap()).len();
        assert_eq!(after("first"), 0);
        // It says itself why it gives none yet.
        assert_eq!(after("second"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_that_does_not_answer_leaves_time_for_the_one_behind_it() {
        let pools = [("10.2.0.0/29", "silent"), ("10.3.0.0/29", "at-hand")];
        let pools = pools.map(|(subnet, id)| (subnet.parse().unwrap(), id.parse().unwrap()));
        let full = IpamError::Exhausted("10.1.0.0/29 is full".into());
        let end = Instant::now() + Duration::from_secs(1);
        let answer = ask_in_turn(pools.to_vec(), end, full, |pool: PoolId| async move {
            if pool.as_str() == "silent" {
                std::future::pending::<()>().await;
            }
            // As soon as anything can be.
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(pool)
        });
        assert_eq!(answer.await.unwrap().as_str(), "at-hand");
    }

    #[test]
    fn what_may_still_be_had_is_told_before_what_is_full() {
        let next: Subnet = "10.2.0.0/29".parse().unwrap();
        let full = || IpamError::Exhausted("10.1.0.0/29 is full".into());
        let silent = |what: &str| IpamError::Unavailable {
            what: what.into(),
            source: None,
        };
        let told = |first, second| and_then(first, next, second).to_string();
        let both = told(full(), full());
        assert!(both.contains("10.1.0.0/29") && both.contains("10.2.0.0/29"));
        assert_eq!(told(full(), silent("host b")), "host b");
        assert_eq!(told(silent("host a"), full()), "host a");
        assert_eq!(told(silent("host a"), silent("host b")), "host a");
    }

    #[test]
    fn another_networks_reference_to_the_same_pool_gives_nothing_back() {
        let mut both = pool("10.1.0.0/29", "first");
        both.references.push("of-another-network".parse().unwrap());
        let pools = [both, pool("10.2.0.0/29", "second")];
        let from =
            |id: &str, ip: &str| elsewhere(&pools, &id.parse().unwrap(), ip.parse().unwrap());
        assert_eq!(from("first", "10.1.0.1"), []);
        assert_eq!(from("first", "10.2.0.3"), ["second".parse().unwrap()]);
        assert_eq!(from("unknown", "10.1.0.1"), []);
    }

    #[test]
    fn only_networks_with_several_subnets_are_looked_through_at_a_release() {
        let of = |subnets: &[&str], ip: &str| {
            may_be_of_another(&[network(subnets)], ip.parse().unwrap())
        };
        assert!(of(&["10.1.0.0/29", "10.2.0.0/29"], "10.2.0.3"));
        assert!(!of(&["10.1.0.0/29", "fd00::/64"], "10.1.0.3"));
        assert!(!of(&["10.1.0.0/29", "10.2.0.0/29"], "10.3.0.3"));
    }
}
