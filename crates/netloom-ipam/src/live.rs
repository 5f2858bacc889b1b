//! One pool in memory: its free addresses, its references, and the chunks that this host owns.

use crate::records::{GatewayHold, ReferenceRecord, ReferenceState};
use crate::registry::StoredPool;
use crate::space::PoolKey;
use crate::table::Ledger;
use netloom_alloc::{AddressPool, AllocateError, Role};
use netloom_types::Subnet;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

/// A pool that is in use.
///
/// Invariant: an address is taken in `addresses` exactly if it is in the ledger's slots, kept for
/// somebody or cooling down, or is the gateway, auxiliary, or never handed out.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) key: PoolKey,
    /// Its ledger's number in the table.
    pub(crate) number: u32,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) references: BTreeMap<u64, ReferenceRecord>,
    pub(crate) addresses: AddressPool,
    /// Numbers of chunks that this host was seen to own.
    pub(crate) owned: HashSet<u128>,
}

impl Live {
    /// The pool as the store has it, with the addresses that its ledger knows.
    pub(crate) fn new(number: u32, stored: &StoredPool, ledger: &mut Ledger) -> Self {
        let mut live = Self {
            key: stored.key,
            number,
            gateway: None,
            references: BTreeMap::new(),
            addresses: AddressPool::new(stored.key.subnet),
            owned: HashSet::new(),
        };
        live.follow(stored, ledger);
        let known = ledger.slots.keys().chain(ledger.reserved.keys());
        for index in known.copied().chain(ledger.cooling.iter()) {
            if let Some(ip) = stored.key.subnet.nth(index) {
                // Reserved and in use at once is one bit; nothing else overlaps.
                let _ = live.addresses.allocate_at(ip);
            }
        }
        live
    }

    /// Takes over what the store says: references, gateway, auxiliary addresses.
    pub(crate) fn follow(&mut self, stored: &StoredPool, ledger: &mut Ledger) {
        self.gateway = stored.pool.record.gateway;
        self.references = stored
            .references
            .iter()
            .map(|(nonce, stored)| (*nonce, stored.record.clone()))
            .collect();
        let wanted = self.infrastructure();
        let gone: Vec<_> = self
            .addresses
            .reserved()
            .filter(|(ip, role)| is_infrastructure(*role) && wanted.get(ip) != Some(role))
            .map(|(ip, _)| ip)
            .collect();
        for ip in gone {
            let _ = self.addresses.unreserve(ip);
        }
        for (ip, role) in wanted {
            if let Err(error) = self.hold(ip, role, ledger)
                && !matches!(error, AllocateError::Reserved { .. })
            {
                tracing::warn!(%ip, %error, "a pool's {role} is in use by somebody else");
            }
        }
    }

    /// Keeps an address out of hand-out as gateway or auxiliary.
    pub(crate) fn hold(
        &mut self,
        ip: IpAddr,
        role: Role,
        ledger: &mut Ledger,
    ) -> Result<(), AllocateError> {
        if let Some(index) = self.key.subnet.index_of(ip)
            && ledger.cooling.forget(index)
        {
            let _ = self.addresses.release(ip);
        }
        self.addresses.reserve(ip, role)
    }

    pub(crate) fn is_auxiliary(&self, ip: IpAddr) -> bool {
        self.references.values().any(|r| r.auxiliary.contains(&ip))
    }

    /// Addresses that automatic hand-out may give through some reference: the one range that all
    /// references name, or the whole subnet.
    pub(crate) fn range(&self) -> Option<Subnet> {
        let mut ranges = self.references.values().map(|r| r.range);
        let first = ranges.next()??;
        ranges.all(|range| range == Some(first)).then_some(first)
    }

    /// References that somebody was seen to use.
    pub(crate) fn used_references(&self) -> impl Iterator<Item = u64> {
        self.references
            .iter()
            .filter(|(_, r)| r.state == ReferenceState::Used)
            .map(|(nonce, _)| *nonce)
    }

    fn infrastructure(&self) -> BTreeMap<IpAddr, Role> {
        let auxiliary = self.references.values().flat_map(|r| &r.auxiliary);
        let mut all: BTreeMap<_, _> = auxiliary.map(|ip| (*ip, Role::Auxiliary)).collect();
        all.extend(self.gateway.map(|ip| (ip, Role::Gateway)));
        all
    }
}

/// Whether anybody but `nonce` holds the pool's gateway.
pub(crate) fn gateway_held_by_others(stored: &StoredPool, nonce: u64) -> bool {
    stored
        .references
        .iter()
        .any(|(other, r)| *other != nonce && r.record.gateway == GatewayHold::Held)
}

fn is_infrastructure(role: Role) -> bool {
    matches!(role, Role::Gateway | Role::Auxiliary)
}
