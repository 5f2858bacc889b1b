//! What is true in a run: who holds which address, what was promised, what was broken.

use super::trace::Trace;
use netloom_types::{MacAddr, Subnet};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A promise of the protocol that a run may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// No address is held twice at once.
    NoDuplicate,
    /// What was acknowledged is there after any crash.
    NothingLost,
    /// After a quiet moment and an audit, nothing is taken that nobody holds.
    NoLeak,
    /// An address in use lies in a run of the host that uses it.
    OwnedByUser,
    /// Every host owns by its journal what the store says that it owns.
    Accounted,
    /// A pool is full only when every address is in use.
    FullMeansFull,
    /// Hosts join the store again without a hand, but for the words that only a person can say.
    Recovery,
    /// Every host gets an address when there is one.
    Service,
    /// Every call is answered within five seconds.
    InTime,
    /// The gateway is the same on every host.
    OneGateway,
    /// A forgotten host hands out nothing.
    ForgottenIsSilent,
    /// The code does not panic.
    NoPanic,
    /// A store that lost its past is noticed.
    LossNoticed,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// How.
    pub what: String,
    /// When, in simulated milliseconds.
    pub at_ms: u64,
}

/// An address that somebody uses.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) host: usize,
    pub(crate) pool: usize,
    pub(crate) mac: MacAddr,
}

/// One pool that hosts share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) subnet: Subnet,
    /// What hosts can hand out of it, the gateway taken off.
    pub(crate) capacity: usize,
}

/// The truth, as people and kernels see it.
#[derive(Debug)]
pub(crate) struct World {
    inner: Mutex<Facts>,
    pub(crate) trace: Arc<Trace>,
    begun: tokio::time::Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) held: BTreeMap<IpAddr, Hold>,
    /// By pool and host.
    pub(crate) gateways: BTreeMap<(usize, usize), IpAddr>,
    /// Reserved addresses: the host that keeps each, and the life of the pool in which it does so.
    pub(crate) reserved: BTreeMap<IpAddr, (usize, u64)>,
    /// Hosts that have a store of their own so far.
    pub(crate) alone: BTreeSet<usize>,
    /// What hosts hold of pools that are not pools of all yet, by host.
    pub(crate) apart: BTreeMap<(usize, IpAddr), Hold>,
    /// The gateways of these pools, and of networks that may be of no use any more.
    pub(crate) gateways_apart: BTreeMap<(usize, usize), IpAddr>,
    /// Of these networks, the ones whose removal was refused: only their host's word tells what is left.
    pub(crate) doubtful: BTreeSet<(usize, usize)>,
    /// Pools that somebody brought.
    pub(crate) arrived: BTreeSet<usize>,
    pub(crate) violations: Vec<Violation>,
    /// What a store that lost its past cost, and a check of it tells.
    pub(crate) costs: Vec<Violation>,
    pub(crate) operations: u64,
    pub(crate) refused: u64,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) macs: u32,
    /// The machine that was lost.
    pub(crate) gone: Option<usize>,
}

impl World {
    pub(crate) fn new(trace: Arc<Trace>) -> Self {
        Self {
            inner: Mutex::default(),
            trace,
            begun: tokio::time::Instant::now(),
        }
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn broken(&self, promise: Promise, what: String) {
        self.trace.note("BROKEN", &[promise as u64], || {
            format!("{promise:?}: {what}")
        });
        let violation = self.violation(promise, what);
        let mut facts = self.facts();
        if facts.violations.len() < VIOLATIONS_MAX {
            facts.violations.push(violation);
        }
    }

    /// Short of a promise, as it is written down that a store which lost its past can cost, and told.
    pub(crate) fn cost(&self, promise: Promise, what: String) {
        self.trace
            .note("COST", &[promise as u64], || format!("{promise:?}: {what}"));
        let violation = self.violation(promise, what);
        self.facts().costs.push(violation);
    }

    fn violation(&self, promise: Promise, what: String) -> Violation {
        let at_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Violation {
            promise,
            what,
            at_ms,
        }
    }

    pub(crate) fn fault(&self, name: &'static str, host: Option<usize>, words: &str) {
        let number = host.map_or(u64::MAX, |host| u64::try_from(host).unwrap_or(u64::MAX));
        self.trace.note("FAULT", &[number], || match host {
            Some(host) => format!("{name} h{host} {words}"),
            None => format!("{name} {words}"),
        });
        *self.facts().faults.entry(name).or_default() += 1;
    }

    /// A link address that nobody has.
    pub(crate) fn mac(&self) -> MacAddr {
        let mut facts = self.facts();
        facts.macs += 1;
        let [a, b, c, d] = facts.macs.to_be_bytes();
        MacAddr::new([2, 0x42, a, b, c, d])
    }

    /// An address was answered to a caller.
    pub(crate) fn took(&self, ip: IpAddr, hold: Hold) {
        let host = hold.host;
        if self.facts().alone.contains(&host) {
            let before = self.facts().apart.insert((host, ip), hold);
            return self.never_twice(ip, host, before.map(|_| host));
        }
        // It says by this that its pool arrived.
        if hold.pool >= POOLS_OF_ALL {
            self.arrived(host, hold.pool);
        }
        // And by this, that a network whose removal was refused has its gateway.
        let kept = self.facts().gateways_apart.remove(&(hold.pool, host));
        if let Some(gateway) = kept {
            self.serves_gateway(hold.pool, host, gateway);
        }
        let before = self.facts().held.insert(ip, hold);
        self.never_twice(ip, host, before.map(|before| before.host));
        let gateway_of = |facts: &Facts| {
            let mut all = facts.gateways.iter();
            all.find(|(_, gateway)| **gateway == ip)
                .map(|((_, at), _)| *at)
        };
        let gateway_of = gateway_of(&self.facts());
        if let Some(at) = gateway_of {
            let what = format!("{ip} went to h{host}, and is the gateway at h{at}");
            self.broken(Promise::NoDuplicate, what);
        }
    }

    fn never_twice(&self, ip: IpAddr, host: usize, before: Option<usize>) {
        if let Some(before) = before {
            let what = format!("{ip} went to h{host} while h{before} had it");
            self.broken(Promise::NoDuplicate, what);
        }
    }

    /// A host was told the gateway of a pool.
    pub(crate) fn serves_gateway(&self, pool: usize, host: usize, ip: IpAddr) {
        if self.facts().alone.contains(&host) {
            self.facts().gateways_apart.insert((pool, host), ip);
            return;
        }
        let other = {
            let mut facts = self.facts();
            facts.doubtful.remove(&(pool, host));
            facts.gateways_apart.remove(&(pool, host));
            facts.gateways.insert((pool, host), ip);
            let all = facts.gateways.iter();
            let mut others = all.filter(|((of, _), other)| *of == pool && **other != ip);
            others.next().map(|((_, at), other)| (*at, *other))
        };
        if let Some((at, other)) = other {
            let what = format!("{ip} on h{host}, {other} on h{at}");
            self.broken(Promise::OneGateway, what);
        }
        let holder = self.facts().held.get(&ip).cloned();
        if let Some(hold) = holder {
            let what = format!("the gateway {ip} of h{host} is in use at h{}", hold.host);
            self.broken(Promise::NoDuplicate, what);
        }
    }

    /// A network whose removal was refused keeps its gateway, if its host is to use it on.
    pub(crate) fn keeps_gateway(&self, pool: usize, host: usize, ip: IpAddr) {
        let mut facts = self.facts();
        facts.gateways_apart.insert((pool, host), ip);
        facts.doubtful.insert((pool, host));
    }

    /// The gateway of a pool is no more on a host.
    pub(crate) fn drops_gateway(&self, pool: usize, host: usize) -> Option<IpAddr> {
        let mut facts = self.facts();
        facts.doubtful.remove(&(pool, host));
        let apart = facts.gateways_apart.remove(&(pool, host));
        facts.gateways.remove(&(pool, host)).or(apart)
    }

    /// A pool that a host brought from its own store is one of all: from now on its addresses are
    /// compared with those of others.
    pub(crate) fn arrived(&self, host: usize, pool: usize) {
        let (holds, gateway) = {
            let mut facts = self.facts();
            facts.arrived.insert(pool);
            let of = |(at, _): &(usize, IpAddr), hold: &Hold| *at == host && hold.pool == pool;
            let holds = facts.apart.clone().into_iter();
            let holds: Vec<_> = holds.filter(|(key, hold)| of(key, hold)).collect();
            facts.apart.retain(|key, hold| !of(key, hold));
            let place = (pool, host);
            let is_doubtful = facts.doubtful.contains(&place);
            let gateway = facts.gateways_apart.get(&place).copied();
            (holds, gateway.filter(|_| !is_doubtful))
        };
        for ((_, ip), hold) in holds {
            let before = self.facts().held.insert(ip, hold);
            self.never_twice(ip, host, before.map(|before| before.host));
        }
        if let Some(ip) = gateway {
            self.serves_gateway(pool, host, ip);
        }
    }

    /// From the moment that somebody asks for it, an address may be given to others.
    pub(crate) fn gives(&self, host: usize, ip: IpAddr) {
        let mut facts = self.facts();
        if facts.apart.remove(&(host, ip)).is_none() {
            facts.held.remove(&ip);
        }
    }

    /// What a host holds.
    pub(crate) fn holds_of(&self, host: usize) -> Vec<(IpAddr, Hold)> {
        let facts = self.facts();
        let apart = facts.apart.iter().filter(|((at, _), _)| *at == host);
        let apart = apart.map(|((_, ip), hold)| (*ip, hold.clone()));
        let shared = facts.held.iter().filter(|(_, hold)| hold.host == host);
        let shared = shared.map(|(ip, hold)| (*ip, hold.clone()));
        apart.chain(shared).collect()
    }

    pub(crate) fn hold_of(&self, host: usize, ip: IpAddr) -> Option<Hold> {
        let holds = self.holds_of(host).into_iter();
        holds
            .filter(|(at, _)| *at == ip)
            .map(|(_, hold)| hold)
            .next()
    }

    pub(crate) fn held_at(&self, host: usize, pool: Option<usize>) -> Vec<IpAddr> {
        let holds = self.holds_of(host).into_iter();
        let of = holds.filter(|(_, hold)| pool.is_none_or(|pool| hold.pool == pool));
        of.map(|(ip, _)| ip).collect()
    }
}

/// Pools that are of all from the beginning; behind them stand those that hosts bring.
pub(crate) const POOLS_OF_ALL: usize = 2;

/// What is written down of one run.
const VIOLATIONS_MAX: usize = 8;
