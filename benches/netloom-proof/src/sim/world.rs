//! What is true in a run: who holds which address, what was promised, what was broken.

use super::trace::Trace;
use netloom_types::{MacAddr, Subnet};
use serde::Serialize;
use std::collections::BTreeMap;
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
        let before = self.facts().held.insert(ip, hold);
        if let Some(before) = before {
            let what = format!("{ip} went to h{host} while h{} had it", before.host);
            self.broken(Promise::NoDuplicate, what);
        }
    }

    /// From the moment that somebody asks for it, an address may be given to others.
    pub(crate) fn gives(&self, ip: IpAddr) {
        self.facts().held.remove(&ip);
    }

    pub(crate) fn held_at(&self, host: usize, pool: Option<usize>) -> Vec<IpAddr> {
        let facts = self.facts();
        let of = facts
            .held
            .iter()
            .filter(|(_, hold)| hold.host == host && pool.is_none_or(|pool| hold.pool == pool));
        of.map(|(ip, _)| *ip).collect()
    }
}

/// What is written down of one run.
const VIOLATIONS_MAX: usize = 8;
