//! Gateways and auxiliary addresses: records of the pool in the store, owned by no host; and the
//! first use of a reference, which is when it starts to count.

use crate::book::{infrastructural, unknown_reference};
use crate::chunk::Holder;
use crate::live::{Live, gateway_held_by_others, usable};
use crate::manager::{AddressManager, settle};
use crate::pools::contended;
use crate::ranges::held::Part;
use crate::ranges::{Gift, Life, Need, StoredChunk, chunk_of, part_of, span_in};
use crate::records::{GatewayHold, PoolRecord, ReferenceRecord, ReferenceState};
use crate::registry::{
    CONFLICTS_MAX, ChangeError, PoolChange, ReferenceChange, Stored, StoredPool,
};
use crate::space::{PoolKey, Reference};
use netloom_core::store::Operation;
use netloom_core::{IpamError, ReservedFor, crash_point};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
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

/// Why a try was not the last one.
enum Retry {
    /// Somebody was quicker: read again.
    Conflict,
    /// Another host has the address: ask for it, then try again.
    Elsewhere(u128),
}

impl AddressManager {
    /// Changes the pool's record as wanted; gives the address, if one was wanted.
    pub(crate) async fn want(
        &self,
        reference: Reference,
        want: Want,
    ) -> Result<Option<IpAddr>, IpamError> {
        self.must_be_common(reference.pool)?;
        self.follow_life(reference.pool).await?;
        let _one_at_a_time = self.changes.lock().await;
        let deadline = self.deadline();
        for _ in 0..CONFLICTS_MAX {
            match self.try_want(reference, want).await? {
                Ok(ip) => return Ok(ip),
                Err(Retry::Conflict) => {}
                Err(Retry::Elsewhere(index)) => {
                    let need = Need::Exactly(index);
                    self.fetch(reference.pool, need, deadline).await?;
                }
            }
        }
        Err(contended())
    }

    async fn try_want(
        &self,
        reference: Reference,
        want: Want,
    ) -> Result<Result<Option<IpAddr>, Retry>, IpamError> {
        let pool = reference.pool;
        // What is read may be so already, and is to stay so.
        self.member.end_late().await?;
        let (stored, known) = self.known_in_store(reference).await?;
        if known.record.state == ReferenceState::Offered {
            self.refuse_second_user(&stored, reference, &known.record)?;
        }
        let want = self.as_it_was(reference, want, &stored, known.record.gateway)?;
        let gate = self.gates.of(pool);
        let _hands = gate.hands.lock().await;
        self.settle_leaving(pool).await?;
        let (ip, is_new) = self.choose_infrastructure(&stored, want).await?;
        let Some((record, reference_record)) =
            self.wanted_records(&stored, &known.record, want, ip)?
        else {
            self.followed(&stored).await?;
            self.stays(reference, &stored).await?;
            return Ok(Ok(ip));
        };
        let held = match ip.filter(|_| is_new) {
            None => None,
            Some(ip) => match self.hold(&stored, ip, &record.operation).await? {
                Ok(held) => held,
                Err(retry) => return Ok(Err(retry)),
            },
        };
        let operation = record.operation.clone();
        let change = PoolChange {
            key: pool,
            pool: (record, Some(stored.pool.version.clone())),
            reference: ReferenceChange::Update(
                reference.nonce,
                reference_record,
                known.version.clone(),
            ),
            chunks: held.iter().map(|held| held.write.clone()).collect(),
        };
        crash_point!("ipam.infrastructure.before_commit");
        let outcome = self.registry.change(change).await;
        crash_point!("ipam.infrastructure.after_commit");
        if outcome.is_ok()
            && let Some(held) = &held
            && let Some(gift) = &held.gift
        {
            self.note_left(held.life, gift)?;
        }
        match outcome {
            Ok(()) => {
                let stored = self.follow_own(reference, &operation).await?;
                self.stays(reference, &stored).await?;
                Ok(Ok(ip))
            }
            Err(ChangeError::Conflict) => {
                self.settle_leaving(pool).await?;
                let followed = self.follow_store(pool).await;
                followed.map(|()| Err(Retry::Conflict))
            }
            Err(ChangeError::Failed(error)) => {
                // What fails now is settled before the next try; the first error tells most.
                let settled = self.settle_leaving(pool).await;
                let _ = settled.and(self.follow_store(pool).await);
                Err(error)
            }
        }
    }

    /// A pool as the store has it, which this host follows, and its reference there.
    async fn known_in_store(
        &self,
        reference: Reference,
    ) -> Result<(StoredPool, Stored<ReferenceRecord>), IpamError> {
        let Some(stored) = self.registry.pool(reference.pool).await? else {
            return Err(self.not_there(reference).await);
        };
        // Whatever an unknown outcome left open before is settled from here.
        self.follow(&stored).await?;
        match stored.references.get(&reference.nonce).cloned() {
            Some(known) => Ok((stored, known)),
            None => Err(self.not_there(reference).await),
        }
    }

    /// What is said of a reference that the store does not show: gone for good only where the store has its
    /// past, for else this host says it again.
    async fn not_there(&self, reference: Reference) -> IpamError {
        match self.member.confirm_past().await {
            Ok(()) => unknown_reference(reference),
            Err(error) => error,
        }
    }

    /// Before the store is asked to take a gateway back: nobody here uses it any more. Whoever takes
    /// another one while the answer is on its way must not be told otherwise by this host, should the
    /// store lose its past. If it does not happen, the store shows that this host still holds it.
    pub(crate) async fn let_gateway_go(&self, reference: Reference) {
        if self.member.is_alone() {
            // Nobody else could take another one.
            return;
        }
        self.book().let_gateway_go(reference);
        // No reason to keep a network: what is at stake needs a store that loses its past, too.
        if let Err(error) = self.keep_let_go().await {
            tracing::warn!(%error, "a restarted netloomd may take this host for a gateway's holder");
        }
    }

    pub(crate) async fn keep_let_go(&self) -> Result<(), IpamError> {
        let let_go = self.book().let_go.clone();
        self.mirror.keep_let_go(&let_go).await
    }

    /// The store and the mirror have what was wanted, and somebody is to hear of it: from here on, a
    /// gateway that was let go counts again, and a reference whose removal had begun is used on.
    async fn stays(&self, reference: Reference, stored: &StoredPool) -> Result<(), IpamError> {
        let there = stored.references.get(&reference.nonce);
        let holds = there.is_some_and(|there| there.record.gateway == GatewayHold::Held);
        let mut let_go = self.book().let_go.clone();
        // One that never had a gateway lacks none.
        if let Some(had) = let_go.remove(&reference.nonce)
            && (holds || had.is_none())
        {
            self.mirror.keep_let_go(&let_go).await?;
            let mut book = self.book();
            book.let_go.remove(&reference.nonce);
            // In one step: without its row, the gateway is nobody's until the memory follows. That the store
            // has its past was made sure of when this was followed before, with the row.
            book.follow(stored)?;
        }
        self.book().going.remove(&reference.nonce);
        Ok(())
    }

    /// Whoever began to give a network back may go on with it as long as its gateway is still its own.
    /// Where the gateway went, by the removal or with the past of the store, another network may get it: only
    /// a request for a gateway goes on then.
    fn as_it_was(
        &self,
        reference: Reference,
        want: Want,
        stored: &StoredPool,
        hold: GatewayHold,
    ) -> Result<Want, IpamError> {
        let had = self.book().let_go.get(&reference.nonce).copied().flatten();
        let has = stored.pool.record.gateway;
        match want {
            // Its containers have that one, and whoever asks may never hear of another.
            Want::Gateway(None) => return Ok(Want::Gateway(had)),
            Want::Gateway(Some(_)) => return Ok(want),
            Want::Use | Want::Auxiliary(_) => {}
        }
        if had.is_none() || (hold == GatewayHold::Held && had == has) {
            return Ok(want);
        }
        Err(IpamError::NotFound(format!(
            "the removal of this network in {} has begun, and its gateway is given back; remove the \
             network and make it again",
            reference.pool.subnet
        )))
    }

    /// Gives a gateway or auxiliary address back, as far as this reference holds it.
    pub(crate) async fn drop_infrastructure(
        &self,
        reference: Reference,
        ip: IpAddr,
    ) -> Result<(), IpamError> {
        let _one_at_a_time = self.changes.lock().await;
        let gateway = |live: &Live| live.gateway == Some(ip);
        if self.book().pools.get(&reference.pool).is_some_and(gateway) {
            self.let_gateway_go(reference).await;
        }
        for _ in 0..CONFLICTS_MAX {
            let is_anything_late = self.member.is_anything_late();
            let Some(stored) = self.registry.pool(reference.pool).await? else {
                return Ok(());
            };
            let known = stored.references.get(&reference.nonce);
            // What another host's network holds is not this one's to give back.
            let Some(known) = known.filter(|known| known.record.host == self.registry.host())
            else {
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
                if is_anything_late {
                    // What was asked for without an answer may come yet, and would stay.
                    self.member.end_late().await?;
                    continue;
                }
                return Ok(());
            }
            let pool = PoolRecord {
                gateway,
                operation: self.registry.operation(),
                ..stored.pool.record.clone()
            };
            let stays = pool.gateway == Some(ip)
                || record.auxiliary.contains(&ip)
                || named_by_others(&stored, reference.nonce, ip);
            let gone = Some(ip).filter(|_| !stays);
            let chunks = self.unheld(&stored, gone, &pool.operation).await?;
            let nonce = reference.nonce;
            let change = PoolChange {
                key: reference.pool,
                pool: (pool, Some(stored.pool.version.clone())),
                reference: ReferenceChange::Update(nonce, record, known.version.clone()),
                chunks,
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

    /// Chooses the address, and tells whether the pool does not have it yet.
    async fn choose_infrastructure(
        &self,
        stored: &StoredPool,
        want: Want,
    ) -> Result<(Option<IpAddr>, bool), IpamError> {
        match want {
            Want::Use => Ok((None, false)),
            Want::Gateway(wanted) => match (stored.pool.record.gateway, wanted) {
                (Some(known), None) => Ok((Some(known), false)),
                (Some(known), Some(ip)) if known == ip => Ok((Some(known), false)),
                (Some(known), Some(ip)) => Err(IpamError::InUse(format!(
                    "the pool {} has the gateway {known} already, {ip} cannot be a second one; \
                     use the same gateway for all networks that share the pool",
                    stored.key.subnet
                ))),
                (None, Some(ip)) => Ok((Some(ip), true)),
                (None, None) => self.first_free(stored).await.map(|ip| (Some(ip), true)),
            },
            Want::Auxiliary(ip) => {
                let mut all = stored.references.values();
                let known = all.any(|r| r.record.auxiliary.contains(&ip));
                Ok((Some(ip), !known))
            }
        }
    }

    /// Makes an address the pool's own in the change to be, and keeps it out of hand-out
    /// meanwhile; `hands` is held.
    async fn hold(
        &self,
        stored: &StoredPool,
        ip: IpAddr,
        operation: &str,
    ) -> Result<Result<Option<Held>, Retry>, IpamError> {
        let pool = stored.key;
        let index = self.may_hold(pool, ip)?;
        let life = self.life(pool)?;
        let mut chunk = self.registry.chunk_at(pool, life.generation, index).await?;
        let me = self.registry.host();
        let at = span_in(Part::one(index), chunk.number).ok_or_else(contended)?;
        let run = chunk.chunk.at(at.first).ok_or_else(contended)?;
        let is_mine = run.holder.host() == Some(me);
        let owns = is_mine && matches!(run.holder, Holder::Owned(_)) && self.owns(pool, index);
        let gift = match run.holder {
            Holder::Pool => return Ok(Ok(None)),
            Holder::Nobody => None,
            Holder::Owned(_) if owns => {
                let mut gift = self.leave(life, chunk.number, vec![(0, index)])?;
                let left = gift.as_mut().ok_or_else(|| in_use(ip))?;
                settle(left.ticket.take()).await?;
                crash_point!("ipam.infrastructure.leaving");
                gift
            }
            Holder::Owned(_) | Holder::Offered(_) => return Ok(Err(Retry::Elsewhere(index))),
        };
        chunk.chunk.hold(at.first, me).map_err(|_| contended())?;
        let write = self
            .registry
            .write_chunk(&chunk, life.generation, operation);
        Ok(Ok(Some(Held { life, gift, write })))
    }

    fn owns(&self, pool: PoolKey, index: u128) -> bool {
        let book = self.book();
        let live = book.pools.get(&pool);
        let ledger = live.and_then(|live| book.table.pools.get(&live.number));
        ledger.is_some_and(|ledger| ledger.held.owns(index))
    }

    /// Whether nothing that is known here stands in the way; gives the index.
    fn may_hold(&self, pool: PoolKey, ip: IpAddr) -> Result<u128, IpamError> {
        let book = self.book();
        let live = book.pools.get(&pool).ok_or_else(contended)?;
        let ledger = book.table.pools.get(&live.number).ok_or_else(contended)?;
        let Some(index) = pool.subnet.index_of(ip) else {
            let subnet = pool.subnet;
            return Err(IpamError::Invalid(format!(
                "{ip} does not lie in the pool {subnet}; choose an address inside of it"
            )));
        };
        if let Some(holder) = ledger.reserved.get(&index) {
            let told = match holder {
                ReservedFor::Explicit => "explicit requests of containers".to_owned(),
                other => crate::book::told(other),
            };
            return Err(IpamError::InUse(format!(
                "{ip} is reserved for {told}; end that with `netloom address release {ip}` first"
            )));
        }
        if let Some(error) = infrastructural(live, ip) {
            return Err(error);
        }
        if ledger.slots.contains_key(&index) {
            return Err(in_use(ip));
        }
        Ok(index)
    }

    /// The first address that can be had, from the pool's start: the same on every host.
    async fn first_free(&self, stored: &StoredPool) -> Result<IpAddr, IpamError> {
        let pool = stored.key;
        let life = self.life(pool)?;
        let all = usable(pool.subnet);
        for number in chunk_of(all.first)..=chunk_of(all.last).min(FIRST_CHUNKS - 1) {
            let Some(span) = span_in(all, number) else {
                continue;
            };
            let chunk = self.registry.chunk(pool, life.generation, number).await?;
            for run in chunk.chunk.within(span) {
                let part = part_of(run.span, number);
                let free = match &run.holder {
                    Holder::Nobody => Some(part.first),
                    Holder::Owned(host) if **host == *self.registry.host() => {
                        let ip = |index: &u128| pool.subnet.nth(*index);
                        let may = |index: &u128| {
                            ip(index).is_some_and(|ip| self.may_hold(pool, ip).is_ok())
                        };
                        (part.first..=part.last).find(may)
                    }
                    Holder::Pool | Holder::Owned(_) | Holder::Offered(_) => None,
                };
                if let Some(ip) = free.and_then(|index| pool.subnet.nth(index)) {
                    return Ok(ip);
                }
            }
        }
        Err(IpamError::Exhausted(format!(
            "no address of {} is left for the gateway; name a free one with --gateway",
            pool.subnet
        )))
    }

    /// What makes addresses of the pool nobody's again, in the change that drops their records.
    pub(crate) async fn unheld(
        &self,
        stored: &StoredPool,
        ips: impl IntoIterator<Item = IpAddr>,
        operation: &str,
    ) -> Result<Vec<Operation>, IpamError> {
        let generation = stored.pool.record.generation;
        let mut chunks: BTreeMap<u128, StoredChunk> = BTreeMap::new();
        for ip in ips {
            let Some(index) = stored.key.subnet.index_of(ip) else {
                continue;
            };
            let number = chunk_of(index);
            let Some(span) = span_in(Part::one(index), number) else {
                continue;
            };
            if let Entry::Vacant(place) = chunks.entry(number) {
                place.insert(self.registry.chunk(stored.key, generation, number).await?);
            }
            if let Some(chunk) = chunks.get_mut(&number) {
                // Of a record from before, the address may not be a run of the pool.
                let _ = chunk.chunk.unhold(span.first, self.clock.now().0);
            }
        }
        let write = |chunk: &StoredChunk| self.registry.write_chunk(chunk, generation, operation);
        Ok(chunks.values().map(write).collect())
    }
}

/// An address that becomes the pool's in a change to be.
struct Held {
    life: Life,
    /// It was this host's, and is leaving.
    gift: Option<Gift>,
    write: Operation,
}

fn in_use(ip: IpAddr) -> IpamError {
    IpamError::InUse(format!("{ip} is in use; choose another address"))
}

/// Whether an address is the pool's by another reference than `nonce`.
pub(crate) fn named_by_others(stored: &StoredPool, nonce: u64, ip: IpAddr) -> bool {
    let mut others = stored.references.iter().filter(|(n, _)| **n != nonce);
    others.any(|(_, r)| r.record.auxiliary.contains(&ip))
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
/// Chunks at the start of a pool in which its gateway is looked for: further ones are a surprise.
const FIRST_CHUNKS: u128 = 4;
