//! A store whose answers to one host come late, or whose commits do.

use super::TestStore;
use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Key, Store, StoreError, StoreIdentity, Transaction, Versioned, Watch,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// Of time that takes none.
const LONG: Duration = Duration::from_secs(600);

/// Where a host is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It has read whether its offer is wanted still.
    Wanted,
    /// It has read whether the asker is a member still.
    Member,
    /// It is about to write its pools again.
    Pools,
    /// It is about to write its first chunk.
    FirstChunk,
    /// It is about to write its second chunk again.
    SecondChunk,
    /// Its offer was not answered, or its claim got lost: it is to look into its own record what became of
    /// it.
    Own,
}

/// The store as that host sees it.
#[derive(Debug)]
pub struct Slow {
    pub store: TestStore,
    /// Where it stops next, in this order. Before it looks at its own record, a commit is not answered.
    stops: Mutex<Vec<Place>>,
    pub reached: Notify,
    pub go_on: Notify,
    /// Commits that are to arrive later than anybody waits for them; none: they arrive.
    pub late: Mutex<Option<Vec<Transaction>>>,
    /// Which ones: of records below this.
    late_below: Mutex<&'static str>,
}

impl Slow {
    pub fn new(store: &TestStore) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            stops: Mutex::default(),
            reached: Notify::new(),
            go_on: Notify::new(),
            late: Mutex::default(),
            late_below: Mutex::default(),
        })
    }

    pub fn hold_back(&self) {
        self.hold_back_below("pools/");
    }

    pub fn hold_back_claims(&self) {
        self.hold_back_below("chunks/");
    }

    pub fn hold_back_below(&self, below: &'static str) {
        *self.late_below.lock().unwrap() = below;
        *self.late.lock().unwrap() = Some(Vec::new());
    }

    pub fn held_back(&self) -> Vec<Transaction> {
        self.late.lock().unwrap().take().unwrap_or_default()
    }

    pub fn holds_something(&self) -> bool {
        let late = self.late.lock().unwrap();
        late.as_ref().is_some_and(|late| !late.is_empty())
    }

    pub fn stop_at(&self, places: impl IntoIterator<Item = Place>) {
        self.stops.lock().unwrap().extend(places);
    }

    async fn stop(&self, place: Place) {
        {
            let mut stops = self.stops.lock().unwrap();
            if stops.first() != Some(&place) {
                return;
            }
            stops.remove(0);
        }
        self.reached.notify_one();
        self.go_on.notified().await;
    }

    /// It was held up; a test that waits for what does not come fails.
    pub async fn reached(&self) {
        let reached = tokio::time::timeout(LONG, self.reached.notified());
        reached.await.unwrap();
    }

    fn is_next(&self, place: Place) -> bool {
        self.stops.lock().unwrap().first() == Some(&place)
    }
}

#[async_trait]
impl Store for Slow {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.store.identity().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        match key.as_str() {
            "hosts/h1" => self.stop(Place::Own).await,
            key if key.starts_with("pools/") => self.stop(Place::Pools).await,
            key if key.ends_with("/0/00") => self.stop(Place::FirstChunk).await,
            key if key.ends_with("/0/01") => self.stop(Place::SecondChunk).await,
            _ => {}
        }
        let found = self.store.get(key).await;
        match key.as_str() {
            "hosts/h2" => self.stop(Place::Member).await,
            key if key.starts_with("wants/") => self.stop(Place::Wanted).await,
            _ => {}
        }
        found
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.store.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let keys = || transaction.operations.iter().map(|o| o.key().as_str());
        let moves = keys().any(|key| key.starts_with("chunks/"));
        let is_offer = keys().any(|key| key.starts_with("answers/"));
        let below = *self.late_below.lock().unwrap();
        if keys().any(|key| key.starts_with(below))
            && let Some(late) = &mut *self.late.lock().unwrap()
        {
            late.push(transaction);
            return Err(CommitError::Unknown(None));
        }
        if !moves || !self.is_next(Place::Own) {
            return self.store.commit(transaction).await;
        }
        if is_offer {
            self.store.commit(transaction).await?;
        }
        Err(CommitError::Unknown(None))
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        if prefix.as_str().starts_with("answers") {
            return Ok(Box::new(Silent));
        }
        self.store.watch(prefix).await
    }
}

/// The giver asks nobody, and serves one want after the other.
struct Silent;

#[async_trait]
impl Watch for Silent {
    async fn changed(&mut self) -> Result<(), StoreError> {
        std::future::pending().await
    }
}
