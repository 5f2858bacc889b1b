//! A host that had a store of its own and shares one from now on: its pools become pools of all,
//! with their addresses, while containers run on them.

use super::heal::{Life, Saying};
use super::look::Width;
use crate::book::Book;
use crate::event::Event;
use crate::manager::{AddressManager, settle};
use crate::pools::{contended, not_common_yet};
use crate::records::{PoolRecord, PoolState, SpaceRecord, VERSION};
use crate::registry::{Stored, StoredPool, write};
use crate::space::{PoolKey, Reference};
use netloom_core::{AddressSpace, IpamError};
use netloom_types::Subnet;

/// A ledger of the pool of all that was begun beside the own one must not stay: nobody would look
/// into the other.
fn close_twin(book: &mut Book, shared: PoolKey, own: u32) -> Result<(), IpamError> {
    let twin = book.pools.get(&shared).map(|live| live.number);
    let Some(twin) = twin.filter(|twin| *twin != own) else {
        return Ok(());
    };
    let ledger = book.table.pools.get(&twin);
    if ledger.is_some_and(|l| !l.held.is_empty() || !l.slots.is_empty()) {
        return Err(super::member::unavailable(format!(
            "this host has addresses of {} in a pool of its own and in the shared one; remove the \
             newer of both networks",
            shared.subnet
        )));
    }
    drop(book.note(Event::PoolClosed { pool: twin })?);
    book.pools.remove(&shared);
    Ok(())
}

fn shared(pool: PoolKey) -> PoolKey {
    let space = AddressSpace::Global;
    PoolKey { space, ..pool }
}

impl AddressManager {
    /// Makes pools of all of those that are this host's own. Each step may be done again.
    ///
    /// # Errors
    /// When one of them overlaps a pool in the store: then this host stops, and names them all.
    pub(super) async fn promote_all(&self) -> Result<(), IpamError> {
        if self.member.is_alone() {
            return Ok(());
        }
        let unshared = self.unshared();
        if !unshared.is_empty() {
            // A journal that a full disk has closed is opened by whoever needs it.
            self.ready().await?;
        }
        for pool in unshared {
            self.promote(pool).await?;
            self.release_unshared(pool).await?;
        }
        Ok(())
    }

    /// Marks the space, in which the pool may become one of all: whoever else is about to make a pool, or
    /// to bring one, looks again, and so does this host where it finds another mark. The pool's record says
    /// in the same change that its life up to this one is over: if the move ends here, what it wrote by
    /// then is nobody's in any later one. Gives the mark, and the life that begins.
    async fn mark_space(
        &self,
        pool: PoolKey,
        known: u64,
    ) -> Result<(Stored<SpaceRecord>, u64), IpamError> {
        let operation = self.member.operation();
        let before = self.registry.space(pool.space).await?;
        let shared = self.registry.pools(pool.space).await?;
        self.refuse_conflicts(&self.unshared(), &shared).await?;
        let there = shared.iter().find(|stored| stored.key == pool);
        let mut changes = vec![self.guard(pool, &operation, before)];
        let generation = match there {
            // From a try before.
            Some(there) if there.is_active() => there.pool.record.generation,
            there => {
                let last = there.map_or(0, |there| there.pool.record.generation);
                let record = PoolRecord {
                    version: VERSION,
                    operation: operation.clone(),
                    generation: known.max(last + 1),
                    state: PoolState::Released,
                    gateway: None,
                };
                let before = there.map(|there| there.pool.version.clone());
                changes.push(write(self.registry.keys.pool(pool), &record, before));
                record.generation
            }
        };
        let marked = self.member.commit(&operation, changes).await;
        marked.map_err(IpamError::from)?;
        let space = self.registry.space(pool.space).await?;
        let space = space.filter(|space| space.record.operation == operation);
        Ok((space.ok_or_else(contended)?, generation))
    }

    /// Whether a pool is as it is to stay: of all, on a host that shares its store.
    pub(crate) fn is_common(&self, pool: PoolKey) -> bool {
        self.member.is_alone() || pool.space == AddressSpace::Global
    }

    pub(crate) fn must_be_common(&self, pool: PoolKey) -> Result<(), IpamError> {
        if self.is_common(pool) {
            return Ok(());
        }
        Err(not_common_yet(pool.subnet))
    }

    /// Whether some of its pools have yet to become pools of all.
    pub(super) fn is_moving(&self) -> bool {
        !self.to_move().is_empty()
    }

    /// Subnets of its pools that have yet to become pools of all.
    pub(crate) fn to_move(&self) -> Vec<Subnet> {
        if self.member.is_alone() {
            return Vec::new();
        }
        // One of which this host has nothing is not brought.
        let unshared = self.unshared().into_iter();
        let brought = unshared.filter(|pool| self.known(*pool).is_some());
        brought.map(|pool| pool.subnet).collect()
    }

    /// Pools of this host alone.
    fn unshared(&self) -> Vec<PoolKey> {
        let book = self.book();
        let pools = book.pools.keys().copied();
        pools
            .filter(|pool| pool.space == AddressSpace::Local)
            .collect()
    }

    async fn refuse_conflicts(
        &self,
        own: &[PoolKey],
        shared: &[StoredPool],
    ) -> Result<(), IpamError> {
        let mut conflicts = Vec::new();
        for pool in own {
            for other in shared.iter().filter(|other| other.is_active()) {
                if other.key.subnet.overlaps(pool.subnet) && !self.is_promoted(*pool, other) {
                    let users: Vec<&str> = other
                        .references
                        .values()
                        .map(|r| r.record.host.as_str())
                        .collect();
                    conflicts.push(format!(
                        "{} here overlaps {} of {}",
                        pool.subnet,
                        other.key.subnet,
                        if users.is_empty() {
                            "nobody".to_owned()
                        } else {
                            users.join(", ")
                        }
                    ));
                }
            }
        }
        if conflicts.is_empty() {
            return Ok(());
        }
        let why = format!(
            "this host brings pools that are in use in the store: {}. Remove these networks here \
             or there, then restart netloomd",
            conflicts.join("; ")
        );
        // Who stops says nothing any more; to a store that lost its past it has to say what it has, and that it
        // went back may show by the others alone.
        self.member.confirm_past_by(Width::All).await?;
        self.member.stop(&why);
        Err(super::member::unavailable(why))
    }

    /// Whether a pool in the store is this host's own, from a try before.
    fn is_promoted(&self, pool: PoolKey, other: &StoredPool) -> bool {
        let book = self.book();
        let own = book.pools.get(&pool).map(|live| &live.references);
        other.key.subnet == pool.subnet
            && own.is_some_and(|own| {
                own.own()
                    .keys()
                    .any(|nonce| other.references.contains_key(nonce))
            })
    }

    async fn promote(&self, pool: PoolKey) -> Result<(), IpamError> {
        let _one_at_a_time = self.changes.lock().await;
        let gate = self.gates.of(pool);
        let _no_fetch = gate.fetching.lock().await;
        let _hands = gate.hands.lock().await;
        let Some(mut known) = self.known(pool) else {
            return Ok(());
        };
        let shared = shared(pool);
        let shared_gate = self.gates.of(shared);
        let _hands_of_shared = shared_gate.hands.lock().await;
        let (space, generation) = self.mark_space(shared, known.generation).await?;
        let saying = Saying::First(&space);
        known.generation = generation;
        // What a disk does not take now, of the change just made, it would not take of the next ones: a pool
        // would be of all for everybody but this host.
        self.all_durable().await?;
        // The ranges first: nobody claims from a pool that is not there yet.
        self.assert_ranges(shared, &known, saying).await?;
        if self.assert_pool(shared, &known, saying).await? == Life::Later {
            return Err(contended());
        }
        self.mirror_arrival(shared, pool).await?;
        let noted = {
            let mut book = self.book();
            close_twin(&mut book, shared, known.number)?;
            let noted = book.note(Event::PoolShared {
                pool: known.number,
                generation: known.generation,
            })?;
            // Its addresses are in use, also while the store is not to be read.
            if let Some(mut live) = book.pools.remove(&pool) {
                live.key = shared;
                book.pools.insert(shared, live);
            }
            noted
        };
        settle(Some(noted)).await?;
        tracing::info!(pool = %pool.subnet, "a pool of this host is a pool of all now");
        self.follow_store(shared).await
    }

    /// Before the journal calls the pool one of all: from then on the mirror's rows of the own one count no
    /// more, and nobody else may know its gateway.
    async fn mirror_arrival(&self, shared: PoolKey, own: PoolKey) -> Result<(), IpamError> {
        let arrived = self.registry.pool(shared).await?.filter(|stored| {
            let book = self.book();
            let known = book.pools.get(&own).map(|live| live.references.own());
            let is_there = |nonce| stored.references.contains_key(nonce);
            known.is_some_and(|own| own.keys().all(is_there))
        });
        let arrived = arrived.ok_or_else(contended)?;
        self.mirror.keep_pool(&self.registry.keys, &arrived).await
    }

    /// What a copy of this host's own store brought of the pool is given up.
    async fn release_unshared(&self, pool: PoolKey) -> Result<(), IpamError> {
        let Some(stored) = self.registry.pool(pool).await? else {
            return Ok(());
        };
        let _one_at_a_time = self.changes.lock().await;
        for nonce in stored.references.keys() {
            let nonce = *nonce;
            // What the store has lost meanwhile is no word on the network, which has moved and goes on.
            self.drop_stored(Reference { pool, nonce }).await?;
        }
        Ok(())
    }

    /// Before a reference to a pool of all goes: what a copy of this host's own store brought of it would
    /// bring it back.
    pub(crate) async fn drop_brought(&self, reference: Reference) -> Result<(), IpamError> {
        if self.member.is_alone() || reference.pool.space == AddressSpace::Local {
            return Ok(());
        }
        let space = AddressSpace::Local;
        let pool = PoolKey {
            space,
            ..reference.pool
        };
        let brought = Reference { pool, ..reference };
        self.drop_if_there(brought).await
    }

    async fn drop_if_there(&self, reference: Reference) -> Result<(), IpamError> {
        let there = self.registry.pool(reference.pool).await?;
        if there.is_some_and(|there| there.references.contains_key(&reference.nonce)) {
            Box::pin(self.drop_stored(reference)).await?;
        }
        Ok(())
    }

    /// Before a reference to a pool of this host alone goes: a move that was not answered may have brought it
    /// as one to a pool of all.
    pub(crate) async fn drop_moved(&self, reference: Reference) -> Result<(), IpamError> {
        if self.is_common(reference.pool) || self.member.is_stopped() {
            return Ok(());
        }
        self.member.end_what_can_arrive().await?;
        let moved = Reference {
            pool: shared(reference.pool),
            ..reference
        };
        // It may have come while this waited for its turn.
        self.book().begins_to_go(moved);
        self.let_gateway_go(moved).await;
        self.drop_if_there(moved).await
    }

    /// Gives back a reference to a pool that the store has none of.
    pub(crate) async fn drop_unshared(&self, reference: Reference) -> Result<(), IpamError> {
        let closed = {
            let mut book = self.book();
            let Some(live) = book.pools.get_mut(&reference.pool) else {
                return Ok(());
            };
            live.references.remove(reference.nonce);
            match live.references.is_empty().then_some(live.number) {
                None => None,
                Some(pool) => {
                    book.pools.remove(&reference.pool);
                    Some(book.note(Event::PoolClosed { pool })?)
                }
            }
        };
        let gone = closed.is_some();
        settle(closed).await?;
        let keys = &self.registry.keys;
        self.mirror.remove(&keys.reference(reference)).await?;
        if gone {
            self.mirror.remove(&keys.pool(reference.pool)).await?;
        }
        Ok(())
    }
}
