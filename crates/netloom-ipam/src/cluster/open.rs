//! Opening address management: the journal, then the store, then the book of both.

use super::look::{Meeting, Past};
use super::member::{Founding, Member};
use crate::book::{Book, Habit, not_journalled};
use crate::config::{IpamConfig, Seams, Sharing};
use crate::journal::{Journal, JournalError};
use crate::manager::AddressManager;
use crate::ranges::Gates;
use crate::registry::Registry;
use crate::table::Table;
use netloom_core::{AddressSpace, Clock, IpamError};
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
        let past = if table.pools.is_empty() {
            Past::Blank
        } else {
            Past::Pools
        };
        let machine = match &config.sharing {
            Sharing::Alone => None,
            Sharing::Cluster(cluster) => Some(cluster.machine.clone()),
        };
        let member = Arc::new(Member::new(Founding {
            store: Arc::clone(&seams.store),
            ids: Arc::clone(&seams.ids),
            host: config.host.clone(),
            boot: config.boot.clone(),
            machine,
            journal: journal.id(),
            memory: table.host.clone(),
        })?);
        let boot = config.boot.clone();
        let registry = Registry::new(Arc::clone(&member), Arc::clone(&seams.store), boot)?;
        match member.meet(past, &BTreeSet::new()).await? {
            Meeting::Joined | Meeting::Assert => {}
        }
        let book = read_book(journal, table, &registry, &config, &seams.clock).await?;
        let book = Arc::new(Mutex::new(book));
        member.keep_in(&book);
        let Seams {
            disk,
            store: _,
            routes,
            clock,
            ids,
        } = seams;
        Ok(Self {
            config,
            disk,
            routes,
            clock,
            ids,
            registry,
            member,
            changes: tokio::sync::Mutex::default(),
            gates: Gates::default(),
            book,
            sightings: Mutex::default(),
            names: Mutex::new(BTreeMap::new()),
        })
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
            // A panic in it would show again in whatever is opened next.
            drop(tokio::task::spawn_blocking(retirement).await);
            let opened = Journal::open::<Table>(
                Arc::clone(&self.disk),
                Arc::clone(&self.ids),
                self.config.journal,
            );
            let (journal, table) = opened.map_err(unopened)?;
            let (config, clock) = (&self.config, &self.clock);
            let book = read_book(journal, table, &self.registry, config, clock).await?;
            *self.book() = book;
        }
        Ok(())
    }
}

fn open_journal(config: &IpamConfig, seams: &Seams) -> Result<(Journal, Table), IpamError> {
    let disk = Arc::clone(&seams.disk);
    Journal::open::<Table>(disk, Arc::clone(&seams.ids), config.journal).map_err(unopened)
}

async fn read_book(
    journal: Journal,
    table: Table,
    registry: &Registry,
    config: &IpamConfig,
    clock: &Arc<dyn Clock>,
) -> Result<Book, IpamError> {
    let mut stored = registry.pools(AddressSpace::Local).await?;
    stored.extend(registry.pools(AddressSpace::Global).await?);
    let habit = match config.sharing {
        Sharing::Alone => Habit::ClaimFirst,
        Sharing::Cluster(_) => Habit::ReuseFirst,
    };
    Book::new(journal, table, &stored, Arc::clone(clock), habit)
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
