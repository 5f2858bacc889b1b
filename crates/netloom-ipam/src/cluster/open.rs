//! Opening address management: the journal, then the store, then the book of both.

use super::bounded::Bounded;
use super::content::ByContent;
use super::look::{Meeting, Past};
use super::member::{Founding, Member};
use super::mirror::Mirror;
use crate::book::{Book, not_journalled};
use crate::config::{IpamConfig, Seams, Sharing};
use crate::journal::{Journal, JournalError};
use crate::live::Own;
use crate::manager::AddressManager;
use crate::ranges::Gates;
use crate::records::{
    GatewayHold, HostState, PoolRecord, PoolState, ReferenceRecord, ReferenceState, VERSION,
};
use crate::references::LetGo;
use crate::registry::{Registry, Stored, StoredPool};
use crate::space::PoolKey;
use crate::table::{Ledger, Table};
use netloom_core::store::{Store, Version};
use netloom_core::{AddressSpace, IpamError};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

impl AddressManager {
    /// Opens the journal and the store's pools, or begins both.
    ///
    /// # Errors
    /// `Unavailable` when either cannot be read, or they do not belong together; `Invalid` for a
    /// configuration that cannot work.
    pub async fn open(config: IpamConfig, seams: Seams) -> Result<Self, IpamError> {
        netloom_alloc::SubnetPool::new(config.default_pools.iter().copied())
            .map_err(|e| IpamError::Invalid(e.to_string()))?;
        let (journal, table) = open_journal(&config, &seams)?;
        let past = past_of(&table);
        let member = Arc::new(found(&config, &seams, &journal, &table)?);
        let store = Arc::clone(member.store());
        let registry = Registry::new(Arc::clone(&member), store)?;
        let mirror = Mirror::new(seams.mirror.clone());
        let met = member.meet(past, &mirror.members().await?).await;
        let let_go = mirror.let_go().await?;
        let pools = match &met {
            Ok(_) => pools_anew(&registry, &mirror, &table, (&member, &let_go)).await?,
            Err(_) => kept(&registry, &mirror, &table, &let_go).await?,
        };
        let met = match met {
            Ok(meeting) => Some(meeting),
            Err(error) if member.is_alone() => return Err(error),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the store is not joined: this host goes on with what it has"
                );
                None
            }
        };
        let clock = Arc::clone(&seams.clock);
        let book = Book::new(&config, journal, table, (&pools, let_go), clock)?;
        let book = Arc::new(Mutex::new(book));
        member.keep_in(&book);
        let Seams {
            disk,
            store: _,
            mirror: _,
            routes,
            clock,
            ids,
        } = seams;
        let manager = Self {
            config,
            disk,
            routes,
            clock,
            ids,
            registry,
            member,
            mirror,
            joining: tokio::sync::Mutex::default(),
            changes: tokio::sync::Mutex::default(),
            gates: Gates::default(),
            book,
            sightings: Mutex::default(),
            names: Mutex::new(BTreeMap::new()),
        };
        if let Err(error) = manager.first_words(met).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what this host owns could not be written into the store yet"
            );
        }
        Ok(manager)
    }

    async fn first_words(&self, met: Option<Meeting>) -> Result<(), IpamError> {
        match met {
            Some(Meeting::Assert) => self.assert_all().await,
            Some(Meeting::Joined) => self.promote_all().await,
            None => Ok(()),
        }
    }

    /// What the journal holds: pools in it show that this host was enlisted before.
    pub(crate) fn past(&self) -> Past {
        past_of(&self.book().table)
    }

    /// Hosts that are to be waited for if the store lost its past: those that were listed, and
    /// those whose use of a pool was seen.
    pub(crate) async fn remembered(&self) -> Result<BTreeSet<String>, IpamError> {
        let mirrored = self.mirror.hosts().await?;
        let mut members = self.member.members();
        for live in self.book().pools.values() {
            members.extend(live.references.other_hosts().map(str::to_owned));
        }
        for (host, state) in mirrored {
            match state {
                HostState::Member => drop(members.insert(host)),
                HostState::Forgotten => drop(members.remove(&host)),
            }
        }
        Ok(members)
    }

    /// Brings all pools in line with the store, and the mirror too.
    pub(crate) async fn follow_all(&self) -> Result<(), IpamError> {
        // What was read before a change of this host would undo it here and in the mirror.
        let _one_at_a_time = self.changes.lock().await;
        let pools = all_pools(&self.registry, &*self.registry.store).await?;
        if self.misses_own(&pools) {
            self.member.confirm_past().await?;
        }
        for stored in &pools {
            let known = self.book().table.newest(stored.key);
            if known <= Some(stored.pool.record.generation) {
                self.follow(stored).await?;
            }
        }
        self.leave_lost_lives(&pools).await?;
        // While a move waits, the mirror alone has what is to be brought; also one of which the memory says
        // that it is done, and the journal did not take it.
        if self.is_moving() || self.book().journal.failure().is_some() {
            return Ok(());
        }
        self.mirror.keep_pools(&self.registry.keys, &pools).await?;
        // Last, and only with the mirror: a reference that it has still comes back with it, and its removal
        // must not be forgotten then.
        self.book().prune_let_go();
        self.keep_let_go().await
    }

    /// Before anything of a pool is claimed after healing: the life in which the store has it.
    ///
    /// # Errors
    /// When the store does not tell.
    pub(crate) async fn follow_life(&self, pool: PoolKey) -> Result<(), IpamError> {
        if !self.member.is_unchecked() {
            return Ok(());
        }
        let _one_at_a_time = self.changes.lock().await;
        if !self.member.is_unchecked() {
            return Ok(());
        }
        let Some(stored) = self.registry.pool(pool).await? else {
            return Ok(());
        };
        let known = self.book().table.newest(pool);
        if known <= Some(stored.pool.record.generation) {
            self.follow(&stored).await?;
        }
        self.leave_lost_lives(&[stored]).await
    }

    /// Follows the store to a former life of a pool, where this host has nothing of a later one: all
    /// have spoken, and nobody else has either. A claim in the later life would take the place of
    /// what others have in the former one.
    async fn leave_lost_lives(&self, pools: &[StoredPool]) -> Result<(), IpamError> {
        let is_lost = |stored: &&StoredPool| self.book().is_lost_life(stored);
        let lost: Vec<&StoredPool> = pools.iter().filter(is_lost).collect();
        if lost.is_empty() {
            return Ok(());
        }
        self.member.confirm_past().await?;
        if !self.member.is_joined() {
            // Somebody has yet to speak; nothing can be claimed until then.
            return Ok(());
        }
        for stored in lost {
            self.book().leave_lost_life(stored)?;
        }
        Ok(())
    }

    /// Whether a pool that this host uses is not among these.
    fn misses_own(&self, pools: &[StoredPool]) -> bool {
        let book = self.book();
        let mut own = book
            .pools
            .iter()
            .filter(|(_, live)| !live.references.own().is_empty());
        let is_there = |key: &PoolKey| {
            let mut same = pools.iter().filter(|stored| stored.key == *key);
            same.any(|stored| book.table.newest(*key) <= Some(stored.pool.record.generation))
        };
        own.any(|(key, _)| !is_there(key))
    }

    /// Once the disk was full, what the memory holds is ahead of the journal: start over from what
    /// is durable. Every other failure of the journal stays.
    pub(crate) async fn ready(&self) -> Result<(), IpamError> {
        let failure = self.book().journal.failure();
        match failure.as_deref() {
            None => return Ok(()),
            Some(JournalError::Full { .. }) => {}
            Some(_) => return Err(failure.map_or_else(gone, not_journalled)),
        }
        let _one_at_a_time = self.changes.lock().await;
        if self.book().journal.failure().is_some() {
            let retirement = self.book().journal.retirement();
            if let Some(retirement) = retirement {
                // A panic in it would show again in whatever is opened next.
                drop(tokio::task::spawn_blocking(retirement).await);
            }
            let opened = Journal::open::<Table>(
                Arc::clone(&self.disk),
                Arc::clone(&self.ids),
                self.config.journal,
            );
            let (journal, table) = opened.map_err(unopened)?;
            let (config, clock) = (&self.config, &self.clock);
            // What the full disk kept out of the mirror is in memory still.
            let let_go = self.book().let_go.clone();
            let me = (&*self.member, &let_go);
            let pools = pools_anew(&self.registry, &self.mirror, &table, me).await?;
            let pools = (pools.as_slice(), let_go);
            let mut book = Book::new(config, journal, table, pools, Arc::clone(clock))?;
            {
                let mut before = self.book();
                book.going = std::mem::take(&mut before.going);
                *before = book;
            }
            // What came in while the disk was full is in the store alone.
            self.gates.all_unclear();
            // And what was seen to be lost was not noted.
            self.member.is_in_doubt();
        }
        Ok(())
    }
}

/// The host, and what bounds the time of a store that it shares.
fn found(
    config: &IpamConfig,
    seams: &Seams,
    journal: &Journal,
    table: &Table,
) -> Result<Member, IpamError> {
    let store = Arc::clone(&seams.store);
    let (store, machine): (Arc<dyn Store>, _) = match &config.sharing {
        Sharing::Alone => (store, None),
        Sharing::Cluster(cluster) => (Arc::new(Bounded::new(store)), Some(&cluster.machine)),
    };
    Member::new(Founding {
        store: Arc::new(ByContent::new(store)),
        ids: Arc::clone(&seams.ids),
        host: config.host.clone(),
        boot: config.boot.clone(),
        machine: machine.cloned(),
        journal: journal.id(),
        memory: table.host.clone(),
    })
}

fn open_journal(config: &IpamConfig, seams: &Seams) -> Result<(Journal, Table), IpamError> {
    let disk = Arc::clone(&seams.disk);
    Journal::open::<Table>(disk, Arc::clone(&seams.ids), config.journal).map_err(unopened)
}

fn past_of(table: &Table) -> Past {
    if table.pools.is_empty() {
        Past::Blank
    } else {
        Past::Pools
    }
}

/// The pools for a new book: the store's, and, where that is not to be had or behind, what this
/// host kept of it.
async fn pools_anew(
    registry: &Registry,
    mirror: &Mirror,
    table: &Table,
    (member, let_go): (&Member, &LetGo),
) -> Result<Vec<StoredPool>, IpamError> {
    let kept = kept(registry, mirror, table, let_go).await?;
    let stored = match all_pools(registry, &*registry.store).await {
        Ok(stored) => stored,
        Err(error) if member.is_alone() => return Err(error),
        Err(_) => return Ok(kept),
    };
    let pools = newer(stored, kept.clone());
    let host = registry.host();
    let me = Own { host, let_go };
    // Asked last: a store that is emptied while it is read has lost what it shows no more.
    match member.confirm_past().await {
        Ok(()) => Ok(pools),
        Err(_) => Ok(with_own(pools, &kept, me)),
    }
}

async fn all_pools(registry: &Registry, store: &dyn Store) -> Result<Vec<StoredPool>, IpamError> {
    let mut pools = registry.pools_in(store, AddressSpace::Local).await?;
    pools.extend(registry.pools_in(store, AddressSpace::Global).await?);
    Ok(pools)
}

/// What this host kept of the store's pools; those that only its journal knows are made up from
/// what that holds.
async fn kept(
    registry: &Registry,
    mirror: &Mirror,
    table: &Table,
    let_go: &LetGo,
) -> Result<Vec<StoredPool>, IpamError> {
    let mirrored = match mirror.store() {
        None => Vec::new(),
        Some(store) => all_pools(registry, &**store).await?,
    };
    let journalled = table.pools.values().map(|ledger| made_up(registry, ledger));
    let journalled: Vec<_> = journalled.collect();
    let pools = newer(mirrored, journalled.clone());
    let host = registry.host();
    let me = Own { host, let_go };
    Ok(with_own(pools, &journalled, me))
}

/// Adds this host's references that only `known` has. A store that lost its past lacks some: a pool
/// without them would be given up by all, and what is in use here be handed out again.
fn with_own(mut pools: Vec<StoredPool>, known: &[StoredPool], me: Own<'_>) -> Vec<StoredPool> {
    for pool in &mut pools {
        let life = (pool.key, pool.pool.record.generation);
        let same = known
            .iter()
            .find(|known| (known.key, known.pool.record.generation) == life);
        let Some(same) = same else { continue };
        let own = same
            .references
            .iter()
            .filter(|(_, r)| r.record.host == me.host);
        let mut held = None;
        for (nonce, reference) in own {
            if reference.record.gateway == GatewayHold::Held && !me.let_go.contains_key(nonce) {
                held = same.pool.record.gateway;
            }
            // A record of an earlier time lacks what this host has by it.
            match pool.references.entry(*nonce) {
                Entry::Occupied(mut there)
                    if reference.record.has_more_than(&there.get().record)
                        && !reference.record.operation.is_empty() =>
                {
                    there.insert(reference.clone());
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(there) => drop(there.insert(reference.clone())),
            }
            pool.pool.record.state = PoolState::Active;
        }
        let gateway = &mut pool.pool.record.gateway;
        *gateway = held.or(*gateway).or(same.pool.record.gateway);
    }
    pools
}

/// Of each pool the later life; of the same one, the first list's word.
fn newer(first: Vec<StoredPool>, second: Vec<StoredPool>) -> Vec<StoredPool> {
    let mut pools: BTreeMap<PoolKey, StoredPool> = BTreeMap::new();
    for pool in first.into_iter().chain(second) {
        let known = pools.get(&pool.key).map(|p| p.pool.record.generation);
        if known < Some(pool.pool.record.generation) {
            pools.insert(pool.key, pool);
        }
    }
    pools.into_values().collect()
}

fn made_up(registry: &Registry, ledger: &Ledger) -> StoredPool {
    let version = Version::from_bytes([]);
    let nonces: BTreeSet<u64> = ledger.slots.values().map(|slot| slot.reference).collect();
    let reference = |nonce| {
        let record = ReferenceRecord {
            version: VERSION,
            operation: String::new(),
            host: registry.host().to_owned(),
            state: ReferenceState::Used,
            identity: None,
            range: None,
            gateway: GatewayHold::None,
            auxiliary: Vec::new(),
            granted: 0,
        };
        let version = version.clone();
        (nonce, Stored { record, version })
    };
    StoredPool {
        key: ledger.key,
        pool: Stored {
            record: PoolRecord {
                version: VERSION,
                operation: String::new(),
                generation: ledger.generation,
                state: PoolState::Active,
                gateway: None,
            },
            version: version.clone(),
        },
        references: nonces.into_iter().map(reference).collect(),
    }
}

fn unopened(error: JournalError) -> IpamError {
    IpamError::Unavailable {
        what: "the address journal could not be opened".to_owned(),
        source: Some(Box::new(error)),
    }
}

fn gone() -> IpamError {
    IpamError::Unavailable {
        what: "the address journal is closed; restart netloomd".to_owned(),
        source: None,
    }
}
