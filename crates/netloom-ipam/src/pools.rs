//! Granting and giving back references to pools.

use crate::infrastructure::{named_by_others, seen_used};
use crate::live::gateway_held_by_others;
use crate::manager::AddressManager;
use crate::records::{
    GatewayHold, PoolRecord, PoolState, ReferenceRecord, ReferenceState, VERSION,
};
use crate::registry::{
    CONFLICTS_MAX, ChangeError, PoolChange, ReferenceChange, StoredPool, damage,
};
use crate::space::{PoolKey, Reference};
use netloom_alloc::SubnetPool;
use netloom_core::{AddressSpace, IpamError, PoolGrant, PoolRequest, WantedPool, crash_point};
use netloom_types::{Family, Subnet};
use std::net::IpAddr;

/// Networks that carry the same name here share their pools.
const IDENTITY_OPTION: &str = "netloom.network";
/// Chunks that one change of a pool may change too: a transaction has room for some more.
const CHUNKS_MAX: usize = 8;
/// As long as an id: it is shown and compared, nothing else.
const IDENTITY_BYTES_MAX: usize = 128;

/// A request whose parts were checked.
struct Wanted {
    space: AddressSpace,
    pool: WantedPool,
    identity: Option<String>,
    range: Option<Subnet>,
}

/// What the store had of a reference that is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The pool; it has this reference no more.
    There,
    /// Nothing of the pool.
    Unknown,
}

impl AddressManager {
    pub(crate) async fn grant_pool(&self, request: PoolRequest) -> Result<PoolGrant, IpamError> {
        let mut wanted = check(request)?;
        if !self.member.is_alone() {
            // Docker asks for a local space for all networks but swarm's.
            wanted.space = AddressSpace::Global;
        }
        let _one_at_a_time = self.changes.lock().await;
        for _ in 0..CONFLICTS_MAX {
            let guard = self.registry.space(wanted.space).await?;
            let stored = self.registry.pools(wanted.space).await?;
            let subnet = self.choose_subnet(&wanted, &stored)?;
            let before = stored.iter().find(|p| p.key.subnet == subnet);
            let reference = self.new_reference(wanted.space, subnet);
            let change = self.grant(&wanted, reference, before);
            let operation = change.pool.0.operation.clone();
            crash_point!("ipam.pool.before_grant");
            let outcome = match before.filter(|p| p.is_active()) {
                Some(_) => self.registry.change(change).await,
                None => self.registry.open_pool(change, guard).await,
            };
            match outcome {
                Ok(()) => {
                    crash_point!("ipam.pool.after_grant");
                    self.follow_own(reference, &operation).await?;
                    let id = reference.id();
                    return Ok(PoolGrant { id, subnet });
                }
                Err(ChangeError::Conflict) => {}
                Err(ChangeError::Failed(error)) => return Err(error),
            }
        }
        Err(contended())
    }

    /// Gives a reference back; what it alone holds goes with it.
    pub(crate) async fn drop_reference(&self, reference: Reference) -> Result<(), IpamError> {
        let _one_at_a_time = self.changes.lock().await;
        // A move that this waited for may have made it one to a pool of all.
        let reference = self.reference(&reference.id()).unwrap_or(reference);
        self.book().begins_to_go(reference);
        self.let_gateway_go(reference).await;
        self.drop_moved(reference).await?;
        self.drop_brought(reference).await?;
        match self.drop_stored(reference).await? {
            Dropped::There => Ok(()),
            Dropped::Unknown => self.drop_unshared(reference).await,
        }
    }

    /// The same, as far as the store has it, where nobody changes anything meanwhile, and this host says of it
    /// no more.
    pub(crate) async fn drop_stored(&self, reference: Reference) -> Result<Dropped, IpamError> {
        // What is not there may come yet, and would stay.
        self.member.end_what_can_arrive().await?;
        for _ in 0..CONFLICTS_MAX {
            let Some(stored) = self.registry.pool(reference.pool).await? else {
                return Ok(Dropped::Unknown);
            };
            let Some(known) = stored.references.get(&reference.nonce) else {
                // Given back before; a memory that did not hear of it follows now.
                return self.follow(&stored).await.map(|()| Dropped::There);
            };
            let last = stored.references.len() == 1;
            let kept = |_: &_| gateway_held_by_others(&stored, reference.nonce);
            let record = PoolRecord {
                version: VERSION,
                operation: self.registry.operation(),
                generation: stored.pool.record.generation,
                state: if last {
                    PoolState::Released
                } else {
                    PoolState::Active
                },
                gateway: stored.pool.record.gateway.filter(kept),
            };
            let gone = |ip: &IpAddr| {
                !named_by_others(&stored, reference.nonce, *ip) && record.gateway != Some(*ip)
            };
            let gateway = stored.pool.record.gateway;
            let dropped = known.record.auxiliary.iter().chain(&gateway);
            let dropped: Vec<_> = dropped.copied().filter(gone).collect();
            // Also with the last reference: after a store went back, hosts may find this life there.
            let chunks = match self.unheld(&stored, dropped, &record.operation).await {
                // A chunk that cannot be read must not keep a pool for ever.
                Err(error) if last && damage(&error).is_some() => {
                    tracing::warn!(pool = %reference.pool.subnet, %error, "not freed");
                    Vec::new()
                }
                chunks => chunks?,
            };
            if chunks.len() > CHUNKS_MAX {
                self.shorten(&stored, reference).await?;
                continue;
            }
            let change = PoolChange {
                key: reference.pool,
                pool: (record, Some(stored.pool.version.clone())),
                reference: ReferenceChange::Delete(reference.nonce, known.version.clone()),
                chunks,
            };
            crash_point!("ipam.pool.before_release");
            match self.registry.change(change).await {
                Ok(()) => {
                    crash_point!("ipam.pool.after_release");
                    let followed = self.follow_store(reference.pool).await;
                    return followed.map(|()| Dropped::There);
                }
                Err(ChangeError::Conflict) => {}
                Err(ChangeError::Failed(error)) => return Err(error),
            }
        }
        Err(contended())
    }

    /// Takes auxiliary addresses out of a reference that has more of them than one transaction can
    /// give back.
    async fn shorten(&self, stored: &StoredPool, reference: Reference) -> Result<(), IpamError> {
        let Some(known) = stored.references.get(&reference.nonce) else {
            return Ok(());
        };
        let mut record = known.record.clone();
        let pool = PoolRecord {
            operation: self.registry.operation(),
            ..stored.pool.record.clone()
        };
        let at = record.auxiliary.len().saturating_sub(CHUNKS_MAX);
        let dropped = record.auxiliary.split_off(at).into_iter();
        let gone = dropped.filter(|ip| !named_by_others(stored, reference.nonce, *ip));
        let chunks = self.unheld(stored, gone, &pool.operation).await?;
        let change = PoolChange {
            key: reference.pool,
            pool: (pool, Some(stored.pool.version.clone())),
            reference: ReferenceChange::Update(reference.nonce, record, known.version.clone()),
            chunks,
        };
        match self.registry.change(change).await {
            Ok(()) | Err(ChangeError::Conflict) => Ok(()),
            Err(ChangeError::Failed(error)) => Err(error),
        }
    }

    /// Reads a pool again and brings the memory in line with it.
    pub(crate) async fn follow_store(&self, pool: PoolKey) -> Result<(), IpamError> {
        match self.registry.pool(pool).await? {
            Some(stored) => self.followed(&stored).await,
            None => Ok(()),
        }
    }

    /// The same after a change of a reference of this host by `operation`. A store that lost it at
    /// once lost it for all: nobody would write again what was never read.
    pub(crate) async fn follow_own(
        &self,
        reference: Reference,
        operation: &str,
    ) -> Result<StoredPool, IpamError> {
        let stored = self.registry.pool(reference.pool).await?;
        let stored = stored.filter(|stored| {
            let own = stored.references.get(&reference.nonce);
            own.is_some_and(|own| own.record.operation == operation)
        });
        match stored {
            Some(stored) => self.followed(&stored).await.map(|()| stored),
            None => Err(IpamError::Unavailable {
                what: format!(
                    "the store lost a change of the pool {} right after it took it; try again",
                    reference.pool.subnet
                ),
                source: None,
            }),
        }
    }

    pub(crate) async fn followed(&self, stored: &StoredPool) -> Result<(), IpamError> {
        self.follow(stored).await?;
        // Before anybody hears of it: a store may lose it, and this host be restarted then.
        self.mirror.keep_pool(&self.registry.keys, stored).await
    }

    /// Brings the memory in line with what was read of a pool. That a reference of this host is gone
    /// is believed only of a store that kept its past: else it is to be written again.
    pub(crate) async fn follow(&self, stored: &StoredPool) -> Result<(), IpamError> {
        if self.is_news_of_own(stored) {
            self.member.confirm_past().await?;
        }
        self.book().follow(stored)
    }

    /// Whether the store shows of this host's own something else than it knows: that follows from
    /// a change of its own, or from a lost past, whose word does not count.
    fn is_news_of_own(&self, stored: &StoredPool) -> bool {
        let me = self.registry.host();
        let book = self.book();
        let live = book.pools.get(&stored.key);
        let known = live.into_iter().flat_map(|live| live.references.own());
        let there = stored.references.iter();
        let there = there.filter(|(_, reference)| reference.record.host == me);
        let there = there.map(|(nonce, reference)| (nonce, &reference.record));
        let gateway = live.and_then(|live| live.gateway);
        let own: Vec<_> = known.collect();
        let same_own = own
            .iter()
            .map(|(n, r)| (*n, r.holds()))
            .eq(there.map(|(n, r)| (n, r.holds())));
        !same_own || (gateway != stored.pool.record.gateway && !own.is_empty())
    }

    fn new_reference(&self, space: AddressSpace, subnet: Subnet) -> Reference {
        let id = self.ids.operation();
        let digits = id.as_str().get(..16).unwrap_or_default();
        let nonce = u64::from_str_radix(digits, 16).unwrap_or_else(|_| {
            // Ids of another shape than 32 hexadecimal digits: any hash of all of it will do.
            let text = id.as_str().bytes();
            text.fold(0, |hash: u64, b| hash.wrapping_mul(31) ^ u64::from(b))
        });
        Reference {
            pool: PoolKey { space, subnet },
            nonce,
        }
    }

    fn grant(
        &self,
        wanted: &Wanted,
        reference: Reference,
        before: Option<&StoredPool>,
    ) -> PoolChange {
        let operation = self.registry.operation();
        let active = before.filter(|p| p.is_active());
        let last_life = before.map_or(0, |p| p.pool.record.generation);
        let record = PoolRecord {
            version: VERSION,
            operation: operation.clone(),
            generation: active.map_or(last_life + 1, |p| p.pool.record.generation),
            state: PoolState::Active,
            gateway: active.and_then(|p| p.pool.record.gateway),
        };
        let granted = ReferenceRecord {
            version: VERSION,
            operation,
            host: self.registry.host().to_owned(),
            state: ReferenceState::Offered,
            identity: wanted.identity.clone(),
            range: wanted.range,
            gateway: GatewayHold::None,
            auxiliary: Vec::new(),
            granted: self.clock.now().0,
        };
        PoolChange {
            key: reference.pool,
            pool: (record, before.map(|p| p.pool.version.clone())),
            reference: ReferenceChange::Create(reference.nonce, granted),
            chunks: Vec::new(),
        }
    }

    fn choose_subnet(&self, wanted: &Wanted, stored: &[StoredPool]) -> Result<Subnet, IpamError> {
        let active = || stored.iter().filter(|p| p.is_active());
        let (family, prefix_len) = match wanted.pool {
            WantedPool::Exact { subnet, .. } => {
                self.must_not_be_brought(subnet)?;
                if let Some(same) = active().find(|p| p.key.subnet == subnet) {
                    self.may_share(same, wanted.identity.as_deref())?;
                    return Ok(subnet);
                }
                return match active().find(|p| p.key.subnet.overlaps(subnet)) {
                    None => Ok(subnet),
                    Some(other) => Err(self.overlap(subnet, other)),
                };
            }
            WantedPool::Any(family) => (family, None),
            WantedPool::Sized(family, prefix_len) => (family, Some(prefix_len)),
        };
        if let Some(shared) = active().find(|p| is_shared_by(p, wanted, family, prefix_len)) {
            let subnet = shared.key.subnet;
            return self.must_not_be_brought(subnet).map(|()| subnet);
        }
        let mut in_use: Vec<_> = active().map(|p| p.key.subnet).collect();
        in_use.extend(self.to_move());
        self.free_default(family, prefix_len, in_use)
    }

    /// Refuses a subnet that overlaps a pool of this host which has yet to become one of all.
    fn must_not_be_brought(&self, subnet: Subnet) -> Result<(), IpamError> {
        let mut brought = self.to_move().into_iter();
        match brought.find(|own| own.overlaps(subnet)) {
            None => Ok(()),
            // A host that stopped over it says why.
            Some(own) => self
                .member
                .may_hand_out()
                .and_then(|()| Err(not_common_yet(own))),
        }
    }

    /// The first default pool that overlaps neither a pool nor a route.
    fn free_default(
        &self,
        family: Family,
        prefix_len: Option<u8>,
        mut in_use: Vec<Subnet>,
    ) -> Result<Subnet, IpamError> {
        let routes = self.routes.destinations();
        let routes = routes.map_err(|source| IpamError::Unavailable {
            what: "the host's routes could not be read, so no default pool can be chosen; \
                   name a subnet with --subnet"
                .to_owned(),
            source: Some(source),
        })?;
        // A default route leads everywhere and occupies nothing.
        in_use.extend(routes.into_iter().filter(|r| r.prefix_len() > 0));
        let defaults = self.config.default_pools.iter().copied();
        let mut pool = SubnetPool::new(defaults).map_err(|e| IpamError::Invalid(e.to_string()))?;
        let chosen = match prefix_len {
            None => pool.allocate(family, &in_use),
            Some(len) => pool.allocate_sized(family, len, &in_use),
        };
        chosen.map_err(|error| {
            IpamError::Exhausted(format!("{error}; or name a subnet with --subnet"))
        })
    }

    /// Whether a network of this host may use a pool that exists already.
    fn may_share(&self, pool: &StoredPool, identity: Option<&str>) -> Result<(), IpamError> {
        let stranger = seen_used(pool, self.registry.host(), identity);
        match stranger {
            None => Ok(()),
            Some(nonce) => Err(self.taken(pool.key, nonce)),
        }
    }

    pub(crate) fn taken(&self, pool: PoolKey, by: u64) -> IpamError {
        let subnet = pool.subnet;
        let who = self.user_of(pool, by);
        IpamError::InUse(format!(
            "subnet {subnet} is already used on this host by {who}; choose another subnet, or give \
             both networks the same --ipam-opt {IDENTITY_OPTION}=NAME if they shall share it"
        ))
    }

    fn overlap(&self, subnet: Subnet, other: &StoredPool) -> IpamError {
        let by = other.references.keys().next().copied().unwrap_or_default();
        let (with, who) = (other.key.subnet, self.user_of(other.key, by));
        IpamError::InUse(format!(
            "subnet {subnet} overlaps {with}, which is used by {who}; choose another subnet"
        ))
    }

    /// A pool's user, in the best words there are: Docker tells a plugin no names, so they are
    /// known only from its list, in the background.
    fn user_of(&self, pool: PoolKey, nonce: u64) -> String {
        let id = Reference { pool, nonce }.id();
        match self.names().get(&pool.subnet) {
            Some(name) => format!("network {name} (pool {id})"),
            None => format!("another network (pool {id})"),
        }
    }
}

fn check(request: PoolRequest) -> Result<Wanted, IpamError> {
    let PoolRequest {
        space,
        wanted,
        options,
    } = request;
    let identity = options.get(IDENTITY_OPTION).cloned();
    if identity
        .as_ref()
        .is_some_and(|name| name.is_empty() || name.len() > IDENTITY_BYTES_MAX)
    {
        return Err(IpamError::Invalid(format!(
            "{IDENTITY_OPTION} must have 1 to {IDENTITY_BYTES_MAX} characters"
        )));
    }
    let range = match wanted {
        WantedPool::Exact { subnet, range } => {
            if let Some(range) = range.filter(|r| !r.is_subnet_of(subnet)) {
                return Err(IpamError::Invalid(format!(
                    "the range {range} does not lie in the subnet {subnet}; \
                     give a range inside of it"
                )));
            }
            range.filter(|r| *r != subnet)
        }
        WantedPool::Any(_) | WantedPool::Sized(..) => None,
    };
    Ok(Wanted {
        space,
        pool: wanted,
        identity,
        range,
    })
}

/// Whether a request without a subnet means this pool, because both name the same network.
fn is_shared_by(
    pool: &StoredPool,
    wanted: &Wanted,
    family: Family,
    prefix_len: Option<u8>,
) -> bool {
    let subnet = pool.key.subnet;
    let fits = prefix_len.is_none_or(|len| len == subnet.prefix_len());
    wanted.identity.is_some()
        && subnet.family() == family
        && fits
        && pool
            .references
            .values()
            .any(|r| r.record.identity == wanted.identity)
}

/// Of a pool of this host alone that has yet to become one of all.
pub(crate) fn not_common_yet(subnet: Subnet) -> IpamError {
    IpamError::Unavailable {
        what: format!(
            "the pool {subnet} of this host is not known to the other hosts yet; try again"
        ),
        source: None,
    }
}

pub(crate) fn contended() -> IpamError {
    IpamError::Unavailable {
        what: "others keep changing the same pool in the store; try again".to_owned(),
        source: None,
    }
}
