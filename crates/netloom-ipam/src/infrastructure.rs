//! Gateways and auxiliary addresses: records of the pool in the store, owned by no host; and the
//! first use of a reference, which is when it starts to count.

use crate::book::{occupied, unknown_reference};
use crate::live::gateway_held_by_others;
use crate::manager::AddressManager;
use crate::pools::contended;
use crate::records::{GatewayHold, PoolRecord, ReferenceRecord, ReferenceState};
use crate::registry::{CONFLICTS_MAX, ChangeError, PoolChange, ReferenceChange, StoredPool};
use crate::space::{PoolKey, Reference};
use netloom_alloc::Role;
use netloom_core::{IpamError, ReservedFor, crash_point};
use std::net::IpAddr;

/// What a reference wants of its pool's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// To be known as used.
    Use,
    /// The gateway: this one, or whichever there is or comes first.
    Gateway(Option<IpAddr>),
    /// An address that nobody hands out.
    Auxiliary(IpAddr),
}

impl AddressManager {
    /// Changes the pool's record as wanted; gives the address, if one was wanted.
    pub(crate) async fn want(
        &self,
        reference: Reference,
        want: Want,
    ) -> Result<Option<IpAddr>, IpamError> {
        let _one_at_a_time = self.changes.lock().await;
        for _ in 0..CONFLICTS_MAX {
            let stored = self.registry.pool(reference.pool).await?;
            let stored = stored.ok_or_else(|| unknown_reference(reference))?;
            // Whatever an unknown outcome left open before is settled from here.
            self.book().follow(&stored)?;
            let known = stored.references.get(&reference.nonce);
            let known = known.ok_or_else(|| unknown_reference(reference))?;
            if known.record.state == ReferenceState::Offered {
                self.refuse_second_user(&stored, reference, &known.record)?;
            }
            let ip = self.choose_infrastructure(&stored, want)?;
            let Some((pool, record)) = self.wanted_records(&stored, &known.record, want, ip)?
            else {
                return Ok(ip);
            };
            let change = PoolChange {
                key: reference.pool,
                pool: (pool, Some(stored.pool.version.clone())),
                reference: ReferenceChange::Update(reference.nonce, record, known.version.clone()),
            };
            crash_point!("ipam.infrastructure.before_commit");
            let outcome = self.registry.change(change).await;
            crash_point!("ipam.infrastructure.after_commit");
            // Also after a failure: it ends what was held for a change that did not happen.
            let followed = self.follow_store(reference.pool).await;
            match outcome {
                Ok(()) => return followed.map(|()| ip),
                Err(ChangeError::Conflict) => followed?,
                Err(ChangeError::Failed(error)) => return Err(error),
            }
        }
        Err(contended())
    }

    /// Gives a gateway or auxiliary address back, as far as this reference holds it.
    pub(crate) async fn drop_infrastructure(
        &self,
        reference: Reference,
        ip: IpAddr,
    ) -> Result<(), IpamError> {
        let _one_at_a_time = self.changes.lock().await;
        for _ in 0..CONFLICTS_MAX {
            let Some(stored) = self.registry.pool(reference.pool).await? else {
                return Ok(());
            };
            let Some(known) = stored.references.get(&reference.nonce) else {
                return Ok(());
            };
            let mut record = known.record.clone();
            record.auxiliary.retain(|aux| *aux != ip);
            let mut gateway = stored.pool.record.gateway;
            if gateway == Some(ip) {
                record.gateway = GatewayHold::None;
                gateway = gateway.filter(|_| gateway_held_by_others(&stored, reference.nonce));
            }
            if record == known.record && gateway == stored.pool.record.gateway {
                return Ok(());
            }
            let pool = PoolRecord {
                gateway,
                operation: self.registry.operation(),
                ..stored.pool.record.clone()
            };
            let nonce = reference.nonce;
            let change = PoolChange {
                key: reference.pool,
                pool: (pool, Some(stored.pool.version.clone())),
                reference: ReferenceChange::Update(nonce, record, known.version.clone()),
            };
            match self.registry.change(change).await {
                Ok(()) => return self.follow_store(reference.pool).await,
                Err(ChangeError::Conflict) => {}
                Err(ChangeError::Failed(error)) => return Err(error),
            }
        }
        Err(contended())
    }

    /// A subnet may be granted twice while nobody knows whether the first answer arrived; the
    /// first to use it has it.
    fn refuse_second_user(
        &self,
        stored: &StoredPool,
        reference: Reference,
        record: &ReferenceRecord,
    ) -> Result<(), IpamError> {
        match seen_used(stored, self.registry.host(), record.identity.as_deref()) {
            Some(nonce) => Err(self.taken(reference.pool, nonce)),
            None => Ok(()),
        }
    }

    /// The records to be, or none when they are so already.
    fn wanted_records(
        &self,
        stored: &StoredPool,
        known: &ReferenceRecord,
        want: Want,
        ip: Option<IpAddr>,
    ) -> Result<Option<(PoolRecord, ReferenceRecord)>, IpamError> {
        let mut record = known.clone();
        let mut gateway = stored.pool.record.gateway;
        record.state = ReferenceState::Used;
        match want {
            Want::Use => {}
            Want::Gateway(_) => {
                record.gateway = GatewayHold::Held;
                gateway = ip;
            }
            Want::Auxiliary(ip) => {
                if !record.auxiliary.contains(&ip) {
                    record.auxiliary.push(ip);
                }
                if record.auxiliary.len() > AUXILIARY_MAX {
                    return Err(IpamError::Exhausted(format!(
                        "a network can have {AUXILIARY_MAX} auxiliary addresses; \
                         use --ip-range to keep more addresses out of use"
                    )));
                }
            }
        }
        if record == *known && gateway == stored.pool.record.gateway {
            return Ok(None);
        }
        let pool = PoolRecord {
            gateway,
            operation: self.registry.operation(),
            ..stored.pool.record.clone()
        };
        record.operation.clone_from(&pool.operation);
        Ok(Some((pool, record)))
    }

    /// Chooses the address and keeps it out of hand-out while the store is asked.
    fn choose_infrastructure(
        &self,
        stored: &StoredPool,
        want: Want,
    ) -> Result<Option<IpAddr>, IpamError> {
        match want {
            Want::Use => Ok(None),
            Want::Gateway(wanted) => match (stored.pool.record.gateway, wanted) {
                (Some(known), None) => Ok(Some(known)),
                (Some(known), Some(ip)) if known == ip => Ok(Some(known)),
                (Some(known), Some(ip)) => Err(IpamError::InUse(format!(
                    "the pool {} has the gateway {known} already, {ip} cannot be a second one; \
                     use the same gateway for all networks that share the pool",
                    stored.key.subnet
                ))),
                (None, Some(ip)) => self.hold(stored.key, ip, Role::Gateway).map(Some),
                (None, None) => self.hold_first(stored.key).map(Some),
            },
            Want::Auxiliary(ip) => {
                let known = self
                    .book()
                    .pools
                    .get(&stored.key)
                    .is_some_and(|live| live.is_auxiliary(ip));
                if known {
                    return Ok(Some(ip));
                }
                self.hold(stored.key, ip, Role::Auxiliary).map(Some)
            }
        }
    }

    fn hold(&self, pool: PoolKey, ip: IpAddr, role: Role) -> Result<IpAddr, IpamError> {
        let mut book = self.book();
        let book = &mut *book;
        let live = book.pools.get_mut(&pool).ok_or_else(contended)?;
        let ledger = book
            .table
            .pools
            .get_mut(&live.number)
            .ok_or_else(contended)?;
        let holder = pool
            .subnet
            .index_of(ip)
            .and_then(|i| ledger.reserved.get(&i));
        if let Some(holder) = holder {
            let told = match holder {
                ReservedFor::Explicit => "explicit requests of containers".to_owned(),
                other => crate::book::told(other),
            };
            return Err(IpamError::InUse(format!(
                "{ip} is reserved for {told}; end that with `netloom address release {ip}` first"
            )));
        }
        live.hold(ip, role, ledger).map_err(|e| occupied(ip, e))?;
        Ok(ip)
    }

    /// The first address that can be had, from the pool's start: the same on every host.
    fn hold_first(&self, pool: PoolKey) -> Result<IpAddr, IpamError> {
        for index in 0..FIRST_TRIES {
            let Some(ip) = pool.subnet.nth(index) else {
                break;
            };
            if let Ok(ip) = self.hold(pool, ip, Role::Gateway) {
                return Ok(ip);
            }
        }
        Err(IpamError::Exhausted(format!(
            "no address of {} is left for the gateway; name a free one with --gateway",
            pool.subnet
        )))
    }
}

/// Another network's reference that uses the pool, if there is one: it stands in the way unless
/// both name the same identity. Of other hosts, one without an identity is the same network: there
/// the subnet is the identity.
pub(crate) fn seen_used(pool: &StoredPool, host: &str, identity: Option<&str>) -> Option<u64> {
    pool.references
        .iter()
        .find(|(_, r)| {
            let same_identity = r.record.identity.as_deref() == identity;
            let same_network = same_identity && (identity.is_some() || r.record.host != host);
            r.record.state == ReferenceState::Used && !same_network
        })
        .map(|(nonce, _)| *nonce)
}

/// Addresses of one reference's record, which must stay far below the store's 64 KiB.
const AUXILIARY_MAX: usize = 1000;
/// Addresses at the start of a pool that are tried as its gateway: further ones are a surprise.
const FIRST_TRIES: u128 = 4096;
