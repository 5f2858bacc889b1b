//! Writing again what this host knows, after the store lost its past.

use super::commit::{EpochMark, Fence, RangeError};
use crate::book::Book;
use crate::chunk::{Holder, Span};
use crate::event::Event;
use crate::manager::AddressManager;
use crate::pools::contended;
use crate::ranges::held::{Part, Range, RangeState};
use crate::ranges::{StoredChunk, chunk_of, part_of, span_in};
use crate::records::{
    GatewayHold, HOST_VERSION, HealRecord, HostRecord, HostState, PoolRecord, PoolState, Record,
    ReferenceRecord, SpaceRecord, VERSION,
};
use crate::registry::{CONFLICTS_MAX, Stored, StoredPool, write};
use crate::space::{Keys, PoolKey, Reference};
use crate::table::Ledger;
use netloom_core::IpamError;
use netloom_core::store::Operation;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What this host knows of one pool.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) number: u32,
    pub(super) generation: u64,
    gateway: Option<IpAddr>,
    /// This host's own.
    pub(super) references: BTreeMap<u64, ReferenceRecord>,
    /// Gateway and auxiliary addresses, by index.
    infrastructure: BTreeSet<u128>,
    ranges: Vec<Range>,
}

/// Which life of a pool the store has, compared with the one that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Same,
    /// The known one was ended by all that used it.
    Later,
}

/// Why a host writes what it knows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Saying<'a> {
    /// The store lost it.
    Again,
    /// The store never had it: only as long as nobody made a pool since this was written.
    First(&'a Stored<SpaceRecord>),
}

impl Saying<'_> {
    fn fence(self) -> Fence {
        match self {
            Self::Again => Fence::Epoch,
            Self::First(_) => Fence::Change,
        }
    }
}

impl AddressManager {
    /// Says again who was forgotten, which pools there are, and which ranges this host owns; then
    /// that it did. Each step may be done again.
    pub(crate) async fn assert_all(&self) -> Result<(), IpamError> {
        let _one_at_a_time = self.changes.lock().await;
        // Should the store lose its past once more meanwhile, all is to be said again.
        let epoch = self.member.epoch();
        for (host, state) in self.mirror.hosts().await? {
            if state == HostState::Forgotten {
                self.bury(&host).await?;
            }
        }
        self.wait_for_unnamed().await?;
        let pools: Vec<PoolKey> = self.book().pools.keys().copied().collect();
        // What has yet to become a pool of all is nothing that the store lost.
        for pool in pools.into_iter().filter(|pool| self.is_common(*pool)) {
            let gate = self.gates.of(pool);
            // Nothing changes hands meanwhile: a gift that is refused now would be this host's again,
            // and nobody had asserted it.
            let _hands = gate.hands.lock().await;
            let Some(known) = self.known(pool) else {
                continue;
            };
            if self.lets_go(&known)? {
                // A store that was put back may have it as this host's: whoever looks for it finds it there.
                drop(gate.doubt());
                continue;
            }
            match self.assert_pool(pool, &known, Saying::Again).await? {
                Life::Same => self.assert_ranges(pool, &known, Saying::Again).await?,
                Life::Later => tracing::error!(
                    pool = %pool.subnet,
                    "another host knew a later life of this pool, and what this host had of the \
                     earlier one is given up; `netloom audit` names what is in use of it"
                ),
            }
        }
        // What was closed or lost until here must not come back with a power cut: in this epoch the
        // store may count lives and generations anew, and nobody asserts any more.
        self.all_durable().await?;
        self.leave_heal(self.member.host().as_str(), epoch).await?;
        tracing::info!("this host wrote again what it owns");
        drop(_one_at_a_time);
        self.follow_all().await
    }

    /// Who has ranges of a pool, and nothing in them and no reference to it, was about to give them back:
    /// said again, they would bring to life what may be nobody's any more.
    fn lets_go(&self, known: &Known) -> Result<bool, IpamError> {
        let mut book = self.book();
        let ledger = book.table.pools.get(&known.number);
        let is_idle = |ledger: &Ledger| ledger.slots.is_empty() && ledger.reserved.is_empty();
        if !known.references.is_empty() || !ledger.is_some_and(is_idle) {
            return Ok(false);
        }
        let parts: Vec<Part> = known.ranges.iter().map(|range| range.part).collect();
        let_go(&mut book, known.number, &parts)?;
        Ok(true)
    }

    /// What the journal and the memory hold of a pool; none if nothing of it is this host's.
    pub(super) fn known(&self, pool: PoolKey) -> Option<Known> {
        let book = self.book();
        let live = book.pools.get(&pool)?;
        let ledger = book.table.pools.get(&live.number)?;
        let references = live.references.own().clone();
        // A leaving range may be somebody else's already, who asserts it; it is settled when nobody
        // is waited for any more.
        let owned = |range: &Range| range.state == RangeState::Owned;
        let ranges: Vec<Range> = ledger.held.iter().filter(owned).collect();
        if references.is_empty() && ranges.is_empty() {
            return None;
        }
        let auxiliary = references.values().flat_map(|r| r.auxiliary.iter());
        let gateway = live.gateway_to_say(&book.let_go);
        let held = auxiliary.chain(&gateway);
        Some(Known {
            number: live.number,
            generation: ledger.generation,
            gateway,
            infrastructure: held.filter_map(|ip| pool.subnet.index_of(*ip)).collect(),
            references,
            ranges,
        })
    }

    /// Writes the pool's record and this host's references to it, as far as they are missing. Where
    /// another host knew a later life of the pool, nothing of this one is left to write.
    pub(super) async fn assert_pool(
        &self,
        pool: PoolKey,
        known: &Known,
        saying: Saying<'_>,
    ) -> Result<Life, IpamError> {
        for _ in 0..CONFLICTS_MAX {
            let stored = self.registry.pool(pool).await?;
            let later = |s: &StoredPool| s.pool.record.generation > known.generation;
            if stored.as_ref().is_some_and(later) {
                return Ok(Life::Later);
            }
            let operation = self.member.operation();
            let mut operations = self.missing(pool, known, stored.as_ref(), &operation);
            if !operations.is_empty() && stored.as_ref().is_none_or(|s| !s.is_active()) {
                // Of two overlapping pools that come into being at once only one may.
                let guard = match saying {
                    Saying::Again => self.registry.space(pool.space).await?,
                    Saying::First(space) => Some(space.clone()),
                };
                operations.insert(0, self.guard(pool, &operation, guard));
            }
            let more = operations.len() > OPERATIONS_MAX;
            let some: Vec<_> = operations.into_iter().take(OPERATIONS_MAX).collect();
            if some.is_empty() {
                return Ok(Life::Same);
            }
            let sent = self.member.commit_behind(saying.fence(), &operation, some);
            match (sent.await, saying) {
                (Ok(()), _) if more => {}
                (Ok(()), _) => return Ok(Life::Same),
                (Err(RangeError::Conflict), Saying::Again) => {}
                // Somebody may have made the pool.
                (Err(error), _) => return Err(error.into()),
            }
        }
        Err(contended())
    }

    /// Whoever read the space before this looks again.
    pub(super) fn guard(
        &self,
        pool: PoolKey,
        operation: &str,
        before: Option<Stored<SpaceRecord>>,
    ) -> Operation {
        let record = SpaceRecord {
            version: VERSION,
            operation: operation.to_owned(),
            generation: before.as_ref().map_or(0, |s| s.record.generation) + 1,
        };
        let key = self.registry.keys.space(pool.space);
        write(key, &record, before.map(|s| s.version))
    }

    fn missing(
        &self,
        pool: PoolKey,
        known: &Known,
        stored: Option<&StoredPool>,
        operation: &str,
    ) -> Vec<Operation> {
        let keys = &self.registry.keys;
        let mut operations = Vec::new();
        for (nonce, record) in &known.references {
            let there = stored.and_then(|stored| stored.references.get(nonce));
            if there.is_some_and(|there| !record.has_more_than(&there.record)) {
                continue;
            }
            let nonce = *nonce;
            let key = keys.reference(Reference { pool, nonce });
            let record = ReferenceRecord {
                version: VERSION,
                operation: operation.to_owned(),
                ..record.clone()
            };
            operations.push(write(
                key,
                &record,
                there.map(|there| there.version.clone()),
            ));
        }
        // With each reference the pool's record too, as in every change: whoever counts references, and
        // drops the last one, goes by its version.
        let same = |stored: &StoredPool| PoolRecord {
            operation: operation.to_owned(),
            ..stored.pool.record.clone()
        };
        let has_more = !operations.is_empty();
        let record = asserted(known, stored, operation);
        if let Some(record) = record.or_else(|| stored.filter(|_| has_more).map(same)) {
            let before = stored.map(|stored| stored.pool.version.clone());
            operations.insert(0, write(keys.pool(pool), &record, before));
        }
        operations
    }

    /// Writes this host's ranges of a pool as runs with new generations, and the pool's own
    /// addresses; `hands` is held since `known` was read.
    pub(super) async fn assert_ranges(
        &self,
        pool: PoolKey,
        known: &Known,
        saying: Saying<'_>,
    ) -> Result<(), IpamError> {
        let ranges = known.ranges.iter().map(|range| range.part.first);
        let all = ranges.chain(known.infrastructure.iter().copied());
        let chunks: BTreeSet<u128> = all.map(chunk_of).collect();
        for number in chunks {
            self.assert_chunk(pool, known, number, saying).await?;
        }
        Ok(())
    }

    async fn assert_chunk(
        &self,
        pool: PoolKey,
        known: &Known,
        number: u128,
        saying: Saying<'_>,
    ) -> Result<(), IpamError> {
        for _ in 0..CONFLICTS_MAX {
            let stored = self.registry.chunk(pool, known.generation, number);
            let mut stored = stored.await?;
            let lost = self.assert_into(known, &mut stored);
            let operation = self.member.operation();
            let write = self
                .registry
                .write_chunk(&stored, known.generation, &operation);
            let sent = self
                .member
                .commit_behind(saying.fence(), &operation, vec![write]);
            match sent.await {
                Ok(()) => return self.note_asserted(pool, known, &stored, &lost),
                Err(RangeError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended())
    }

    /// Gives what is somebody else's by now.
    fn assert_into(&self, known: &Known, stored: &mut StoredChunk) -> Vec<Part> {
        let me: Arc<str> = self.member.host().as_str().into();
        let mut lost = Vec::new();
        for range in &known.ranges {
            let Some(span) = span_in(range.part, stored.number) else {
                continue;
            };
            for run in stored.chunk.assert(span, &me, range.generation) {
                let part = part_of(run.span, stored.number);
                tracing::error!(
                    pool = %stored.pool.subnet,
                    first = %part.first,
                    last = %part.last,
                    holder = ?run.holder,
                    "the store lost its past, and addresses of this host have another holder"
                );
                lost.push(part);
            }
        }
        for index in &known.infrastructure {
            if let Some(Span { first, .. }) = span_in(Part::one(*index), stored.number)
                && stored
                    .chunk
                    .at(first)
                    .is_some_and(|run| run.holder != Holder::Pool)
                && stored.chunk.hold(first, &me).is_err()
            {
                tracing::error!(
                    pool = %stored.pool.subnet,
                    index = %index,
                    "the store lost its past, and a gateway or auxiliary address has a holder"
                );
            }
        }
        lost
    }

    /// The journal gets the new generations. What is somebody else's is not handed out any more;
    /// of it, what is in use here stays in use, and the audit names it.
    fn note_asserted(
        &self,
        pool: PoolKey,
        known: &Known,
        stored: &StoredChunk,
        lost: &[Part],
    ) -> Result<(), IpamError> {
        let me = self.member.host().as_str();
        let number = known.number;
        let mut book = self.book();
        let life = book.table.pools.get(&number).map(|ledger| ledger.subnet());
        if life != Some(pool.subnet) {
            return Err(contended());
        }
        let_go(&mut book, number, lost)?;
        for run in stored.chunk.of(me) {
            let whole = part_of(run.span, stored.number);
            let held: Vec<Part> = book
                .table
                .pools
                .get(&number)
                .into_iter()
                .flat_map(|ledger| ledger.held.within(whole))
                .filter(|range| range.state == RangeState::Owned)
                .map(|range| range.part)
                .collect();
            for part in held {
                drop(book.note(Event::RangeKept {
                    pool: number,
                    part,
                    generation: run.generation,
                })?);
            }
        }
        Ok(())
    }

    /// All have spoken: of what two hosts asserted one has it now, and the other lets it go.
    pub(super) async fn check_ranges(&self) -> Result<(), IpamError> {
        let pools: Vec<PoolKey> = self.book().pools.keys().copied().collect();
        for pool in pools {
            let gate = self.gates.of(pool);
            let _hands = gate.hands.lock().await;
            let Some(known) = self.known(pool) else {
                continue;
            };
            let chunks: BTreeSet<u128> = known
                .ranges
                .iter()
                .map(|range| chunk_of(range.part.first))
                .collect();
            if chunks.is_empty() {
                continue;
            }
            let mut read = Vec::new();
            for number in chunks {
                read.push(self.registry.chunk(pool, known.generation, number).await?);
            }
            // A store that lost its past just now holds nothing of anybody, and that is no word of
            // another host's.
            self.member.confirm_past().await?;
            if self.member.healed().is_none() {
                return Err(contended());
            }
            for stored in read {
                self.check_chunk(pool, &known, &stored)?;
            }
        }
        Ok(())
    }

    fn check_chunk(
        &self,
        pool: PoolKey,
        known: &Known,
        stored: &StoredChunk,
    ) -> Result<(), IpamError> {
        let me: Arc<str> = self.member.host().as_str().into();
        let mine = Holder::Owned(me);
        let spans = known.ranges.iter();
        let spans = spans.filter_map(|range| span_in(range.part, stored.number));
        let lost: Vec<Part> = spans
            .flat_map(|span| stored.chunk.within(span).collect::<Vec<_>>())
            .filter(|run| run.holder != mine)
            .map(|run| part_of(run.span, stored.number))
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        tracing::error!(
            pool = %pool.subnet,
            parts = ?lost,
            "addresses of this host are another one's by the store, and are not handed out here"
        );
        let_go(&mut self.book(), known.number, &lost)
    }

    /// A host that was forgotten in the time that the store lost stays forgotten.
    async fn bury(&self, host: &str) -> Result<(), IpamError> {
        let Some(key) = Keys::host_key(host) else {
            return Ok(());
        };
        for _ in 0..CONFLICTS_MAX {
            let before = self.registry.read::<HostRecord>(&key).await?;
            let known = before.as_ref().map(|known| known.record.clone());
            if let Some(record) = &known
                && record.state == HostState::Forgotten
            {
                return self.leave_heal(host, self.member.epoch()).await;
            }
            let operation = self.member.operation();
            let record = HostRecord {
                operation: operation.clone(),
                state: HostState::Forgotten,
                ..known.unwrap_or_else(|| unknown_host(host))
            };
            let write = write(key.clone(), &record, before.map(|known| known.version));
            match self.heal_commit(&operation, vec![write]).await {
                Ok(()) | Err(RangeError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended())
    }

    /// Whoever began the epoch may not have known all hosts: those that this one remembers, and
    /// that the store does not know any more, are waited for too.
    async fn wait_for_unnamed(&self) -> Result<(), IpamError> {
        let remembered = self.remembered().await?;
        for _ in 0..CONFLICTS_MAX {
            let Some(heal) = self.registry.read::<HealRecord>(&Keys::heal()).await? else {
                return Ok(());
            };
            let listed = self.member.list_hosts(Instant::now() + LIST_TIME).await?;
            let operation = self.member.operation();
            let mut record = HealRecord {
                operation: operation.clone(),
                ..heal.record
            };
            let unnamed: Vec<_> = remembered
                .iter()
                .filter(|host| !listed.contains_key(*host) && !record.waiting.contains(host))
                .cloned()
                .collect();
            // Another host may have written one of them down as forgotten in between.
            let before = record.waiting.len();
            let forgotten = |host: &String| {
                let known = listed.get(host);
                known.is_some_and(|known| known.state == HostState::Forgotten)
            };
            record.waiting.retain(|host| !forgotten(host));
            if unnamed.is_empty() && record.waiting.len() == before {
                return Ok(());
            }
            tracing::warn!(hosts = ?unnamed, "the store does not know these hosts any more");
            record.waiting.extend(unnamed);
            record.waiting.sort_unstable();
            let write = Operation::Update(Keys::heal(), record.encode(), heal.version);
            match self.heal_commit(&operation, vec![write]).await {
                Ok(()) | Err(RangeError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended())
    }

    /// A host is not waited for any more in this epoch.
    async fn leave_heal(&self, host: &str, epoch: Option<EpochMark>) -> Result<(), IpamError> {
        for _ in 0..CONFLICTS_MAX {
            let Some(heal) = self.registry.read::<HealRecord>(&Keys::heal()).await? else {
                return Ok(());
            };
            let operation = self.member.operation();
            let mut record = HealRecord {
                operation: operation.clone(),
                ..heal.record
            };
            if !record.waiting.iter().any(|waiting| waiting == host) {
                break;
            }
            record.waiting.retain(|waiting| waiting != host);
            let write = Operation::Update(Keys::heal(), record.encode(), heal.version);
            let sent = self
                .member
                .commit_in(epoch.clone(), Fence::Epoch, &operation, vec![write]);
            match sent.await {
                Ok(()) => break,
                Err(RangeError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let look = self.member.glance().await?;
        self.member.settle(look);
        Ok(())
    }

    pub(super) async fn heal_commit(
        &self,
        operation: &str,
        operations: Vec<Operation>,
    ) -> Result<(), RangeError> {
        self.member
            .commit_behind(Fence::Epoch, operation, operations)
            .await
    }
}

/// What is somebody else's is not handed out any more; what is in use of it stays in use.
fn let_go(book: &mut Book, pool: u32, lost: &[Part]) -> Result<(), IpamError> {
    for part in lost {
        let ledger = book.table.pools.get(&pool);
        let held = ledger
            .into_iter()
            .flat_map(|ledger| ledger.held.within(*part));
        let owned = held.filter(|range| range.state == RangeState::Owned);
        for range in owned.collect::<Vec<_>>() {
            let part = range.part;
            drop(book.note(Event::RangeLost { pool, part })?);
        }
    }
    Ok(())
}

/// The pool's record to be, if the store's is behind what this host knows.
fn asserted(known: &Known, stored: Option<&StoredPool>, operation: &str) -> Option<PoolRecord> {
    let mine = PoolRecord {
        version: VERSION,
        operation: operation.to_owned(),
        generation: known.generation,
        state: PoolState::Active,
        gateway: known.gateway,
    };
    let Some(stored) = stored else {
        return Some(mine);
    };
    let there = &stored.pool.record;
    if there.generation < known.generation || there.state == PoolState::Released {
        return Some(mine);
    }
    // All that hold a gateway hold the same one: another one in the store is of the time before. Its
    // address stays the pool's own, unless a host says that it owns it: in the lost time it may have
    // become a container's, or be another host's gateway after all.
    let holds = known
        .references
        .values()
        .any(|r| r.gateway == GatewayHold::Held);
    let lacks = there.gateway.is_none() || (holds && there.gateway != known.gateway);
    if lacks && known.gateway.is_some() {
        return Some(mine);
    }
    None
}

/// A host of which nothing is left but its name.
pub(super) fn unknown_host(host: &str) -> HostRecord {
    HostRecord {
        version: HOST_VERSION,
        operation: String::new(),
        state: HostState::Member,
        host: host.to_owned(),
        boot: String::new(),
        machine: String::new(),
        journal: String::new(),
        starts: 0,
        counter: 0,
    }
}

/// One reading of all hosts.
const LIST_TIME: Duration = Duration::from_secs(3);
/// Of one commit, beside its fences.
const OPERATIONS_MAX: usize = 11;
