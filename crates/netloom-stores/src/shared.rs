//! A store that is connected when it is needed.

use async_trait::async_trait;
use netloom_consul::ConsulStore;
use netloom_core::store::{
    CommitError, Committed, Key, Liveness, Store, StoreError, StoreIdentity, Transaction,
    Versioned, Watch,
};
use netloom_core::{RemoteStoreConfig, StoreKind};
use netloom_etcd::EtcdStore;
use netloom_store::PrefixStore;
use netloom_types::HostId;
use netloom_zookeeper::ZooKeeperStore;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// A store that hosts share, below the prefix that its address names.
#[derive(Debug)]
pub struct SharedStore {
    config: RemoteStoreConfig,
    link: Mutex<Link>,
}

#[derive(Debug, Clone)]
enum Link {
    /// Nothing was tried yet.
    Never,
    Open(Open),
    /// The last try failed; who comes soon after it gets the same answer at once, so that callers
    /// do not queue up behind a server that is away.
    Failed {
        at: Instant,
        why: Why,
    },
}

#[derive(Debug, Clone)]
struct Open {
    store: Arc<dyn Store>,
    liveness: Arc<dyn Liveness>,
}

/// Why a store could not be opened, to be told more than once.
#[derive(Debug, Clone)]
enum Why {
    Unavailable(String),
    Denied(String),
    Corrupt(String),
    WrongEpoch(String),
}

/// How long a failure to connect stands for the next callers.
const FAILURE_STANDS: Duration = Duration::from_millis(500);

impl SharedStore {
    /// A store by its settings; nothing is connected yet.
    #[must_use]
    pub fn new(config: RemoteStoreConfig) -> Self {
        Self {
            config,
            link: Mutex::new(Link::Never),
        }
    }

    async fn open(&self) -> Result<Open, StoreError> {
        let mut link = self.link.lock().await;
        match &*link {
            Link::Open(open) => return Ok(open.clone()),
            Link::Failed { at, why } if at.elapsed() < FAILURE_STANDS => return Err(why.told()),
            Link::Never | Link::Failed { .. } => {}
        }
        let opened = match timeout(self.config.timeout, connect(&self.config)).await {
            Ok(opened) => opened,
            Err(late) => Err(StoreError::Unavailable(Some(Box::new(late)))),
        };
        match opened {
            Ok(open) => {
                *link = Link::Open(open.clone());
                Ok(open)
            }
            Err(error) => {
                let why = Why::of(&error);
                let at = Instant::now();
                *link = Link::Failed { at, why };
                Err(error)
            }
        }
    }
}

impl SharedStore {
    /// A backend that saw its store go back or be replaced refuses everything from then on, so that
    /// nobody goes on unawares. Once that was told, the store is met anew, as whatever it is now:
    /// whoever was told compares it with what it remembers.
    async fn meet_anew(&self) {
        *self.link.lock().await = Link::Never;
    }

    async fn read<T>(&self, found: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::WrongEpoch(_)) = &found {
            self.meet_anew().await;
        }
        found
    }
}

async fn connect(config: &RemoteStoreConfig) -> Result<Open, StoreError> {
    match config.url.kind {
        StoreKind::Etcd => Ok(below(EtcdStore::open(config).await?, config)),
        StoreKind::Consul => Ok(below(ConsulStore::open(config).await?, config)),
        StoreKind::ZooKeeper => Ok(below(ZooKeeperStore::open(config).await?, config)),
    }
}

fn below<S: Store + Liveness + 'static>(store: S, config: &RemoteStoreConfig) -> Open {
    let store = Arc::new(store);
    Open {
        liveness: Arc::clone(&store) as _,
        store: Arc::new(PrefixStore::new(store, config.url.prefix.clone())),
    }
}

impl Why {
    fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Denied(text) => Self::Denied(text.clone()),
            StoreError::Corrupt(text) => Self::Corrupt(text.clone()),
            StoreError::WrongEpoch(text) => Self::WrongEpoch(text.clone()),
            other => Self::Unavailable(chain(other)),
        }
    }

    fn told(&self) -> StoreError {
        match self.clone() {
            Self::Unavailable(text) => StoreError::Unavailable(Some(text.into())),
            Self::Denied(text) => StoreError::Denied(text),
            Self::Corrupt(text) => StoreError::Corrupt(text),
            Self::WrongEpoch(text) => StoreError::WrongEpoch(text),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// A commit that found no connection was not sent.
fn not_sent(error: StoreError) -> CommitError {
    match error {
        StoreError::Denied(text) => CommitError::Denied(text),
        StoreError::WrongEpoch(text) => CommitError::WrongEpoch(text),
        other => CommitError::Unavailable(Some(Box::new(other))),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for SharedStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        let found = self.open().await?.store.identity().await;
        self.read(found).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        let found = self.open().await?.store.get(key).await;
        self.read(found).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let found = self.open().await?.store.list(prefix).await;
        self.read(found).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        // Before anything else, so that a malformed one never looks like a store that is away.
        transaction.validate()?;
        let open = self.open().await.map_err(not_sent)?;
        let outcome = open.store.commit(transaction).await;
        if let Err(CommitError::WrongEpoch(_)) = &outcome {
            self.meet_anew().await;
        }
        outcome
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        let found = self.open().await?.store.watch(prefix).await;
        self.read(found).await
    }
}

#[async_trait]
impl Liveness for SharedStore {
    async fn announce(&self, host: &HostId) -> Result<(), StoreError> {
        self.open().await?.liveness.announce(host).await
    }

    async fn alive(&self) -> Result<Vec<HostId>, StoreError> {
        self.open().await?.liveness.alive().await
    }
}
