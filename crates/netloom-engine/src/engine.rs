//! The engine's parts, and how its records are loaded.

use netloom_core::store::{Key, Store, StoreError};
use netloom_core::{
    Clock, ControlError, DesiredEndpoint, Driver, EndpointState, EndpointView, Ids, NetworkState,
};
use netloom_types::{BootId, EndpointId, NetworkId};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::RwLock;

use crate::doubt::Origin;
use crate::locks::Locks;
use crate::memory::{Entry, Memory, Subject};
use crate::record::{
    RecordError, StoredEndpoint, decode_endpoint, decode_network, endpoint_key, endpoints_prefix,
    network_key, networks_prefix,
};
use crate::settle::Sightings;

/// What the engine works with.
#[derive(Debug)]
pub struct Parts {
    /// Where records lie.
    pub store: Arc<dyn Store>,
    /// The kinds of networks that there are.
    pub drivers: Vec<Arc<dyn Driver>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// New operation ids.
    pub ids: Arc<dyn Ids>,
    /// This boot of the kernel: links of another one are gone.
    pub boot: BootId,
    /// Whether a sandbox's network namespace exists; [`Path::exists`] outside of tests.
    pub sandbox_exists: fn(&Path) -> bool,
}

/// Why the engine could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store could not be read.
    #[error("the records of networks and endpoints could not be read")]
    Store(#[source] StoreError),
    /// A record could not be understood.
    #[error("the record {key} could not be understood")]
    Record {
        /// Its key.
        key: Key,
        /// Why.
        #[source]
        source: RecordError,
    },
}

/// The controller: all of `netloom_core::Controller`, over a store and drivers.
///
/// Cheap to clone; all clones are the same engine. Each call runs as a task of its own, so that a
/// caller who stops waiting does not leave a change half done.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// Locks are taken in this order: `world`, `addresses`, `networks`, `endpoints`, `admission`; `memory` and
/// `sightings` are held for a look only, never over an await.
pub(crate) struct Inner {
    pub(crate) parts: Parts,
    pub(crate) memory: Mutex<Memory>,
    pub(crate) sightings: Mutex<Sightings>,
    /// Shared by every event; exclusive for comparing all records with the kernel, which would
    /// otherwise take a link that is just being made for a stray.
    pub(crate) world: RwLock<()>,
    /// Held from a new endpoint's check against those with its addresses until it is on record.
    pub(crate) addresses: Locks<(NetworkId, IpAddr)>,
    pub(crate) networks: Locks<NetworkId>,
    pub(crate) endpoints: Locks<EndpointId>,
    /// Held from a new network's check against the others until it is on record; never over a
    /// driver's work.
    pub(crate) admission: tokio::sync::Mutex<()>,
    /// Set once everything was taken out of the kernel on purpose: nothing is built any more.
    pub(crate) dismantled: AtomicBool,
    /// Set once it was looked whether the last process died while ports passed from one endpoint
    /// to another.
    pub(crate) hand_overs_seen: AtomicBool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Loads all records. The kernel is not touched before `Controller::reconcile`.
    ///
    /// # Errors
    /// When the store cannot be read or holds what this release does not understand: going on
    /// without a record would give its addresses and ports to somebody else.
    pub async fn open(parts: Parts) -> Result<Self, OpenError> {
        let mut memory = Memory::default();
        for (key, found) in list(&parts, &networks_prefix()).await? {
            let stored = decode_network(&found.value)
                .and_then(|stored| matches_key(&key, network_key(&stored.view.spec.id), stored))
                .map_err(|source| OpenError::Record { key, source })?;
            if stored.view.state == NetworkState::Creating {
                let id = stored.view.spec.id.clone();
                memory.unconfirmed.insert(id, Origin::Loaded);
            }
            memory.put_network(Entry {
                view: stored.view,
                version: found.version,
                operation: stored.operation,
            });
        }
        for (key, found) in list(&parts, &endpoints_prefix()).await? {
            let stored = decode_endpoint(&found.value)
                .and_then(|stored| {
                    let expected = endpoint_key(&stored.view.endpoint.spec.id);
                    matches_key(&key, expected, stored)
                })
                .map_err(|source| OpenError::Record { key, source })?;
            memory.put_endpoint(Entry {
                operation: stored.operation.clone(),
                view: after_boot(stored, &parts.boot),
                version: found.version,
            });
        }
        Ok(Self {
            inner: Arc::new(Inner {
                parts,
                memory: Mutex::new(memory),
                sightings: Mutex::default(),
                world: RwLock::default(),
                addresses: Locks::default(),
                networks: Locks::default(),
                endpoints: Locks::default(),
                admission: tokio::sync::Mutex::default(),
                dismantled: AtomicBool::new(false),
                hand_overs_seen: AtomicBool::new(false),
            }),
        })
    }
}

async fn list(
    parts: &Parts,
    prefix: &Key,
) -> Result<Vec<(Key, netloom_core::store::Versioned)>, OpenError> {
    parts.store.list(prefix).await.map_err(OpenError::Store)
}

fn matches_key<T>(
    key: &Key,
    expected: Result<Key, netloom_core::store::InvalidKey>,
    stored: T,
) -> Result<T, RecordError> {
    if expected.ok().as_ref() == Some(key) {
        Ok(stored)
    } else {
        Err(RecordError::Damaged(
            "it tells of an object whose record lies under another key".into(),
        ))
    }
}

/// A boot ended every sandbox and every link: what was joined before it is joined no more.
pub(crate) fn after_boot(stored: StoredEndpoint, boot: &BootId) -> EndpointView {
    let view = stored.view;
    if stored.boot == *boot || view.state == EndpointState::Deleting {
        return view;
    }
    EndpointView {
        endpoint: DesiredEndpoint {
            sandbox: None,
            ports: Vec::new(),
            ..view.endpoint
        },
        state: EndpointState::Created,
        created: view.created,
        ports_due: Vec::new(),
        ports_revoked: Vec::new(),
    }
}

impl Inner {
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn driver(&self, name: &str) -> Result<&Arc<dyn Driver>, ControlError> {
        let drivers = &self.parts.drivers;
        drivers.iter().find(|d| d.name() == name).ok_or_else(|| {
            let known: Vec<_> = drivers.iter().map(|d| d.name()).collect();
            ControlError::Invalid(format!(
                "there is no network driver {name:?}: choose one with `-o netloom.driver=` of {}",
                known.join(", ")
            ))
        })
    }

    /// Reads a network's record again if an earlier write left it in doubt.
    pub(crate) async fn refresh_network(&self, id: &NetworkId) -> Result<(), ControlError> {
        let subject = Subject::Network(id.clone());
        if !self.memory().doubtful.contains(&subject) {
            return Ok(());
        }
        let key = network_key(id).map_err(|e| ControlError::Invalid(e.to_string()))?;
        let found = self.parts.store.get(&key).await.map_err(unreadable)?;
        let stored = found
            .map(|found| Ok((decode_network(&found.value)?, found.version)))
            .transpose()
            .map_err(|e: RecordError| unreadable(e))?;
        let mut memory = self.memory();
        match stored {
            None => memory.drop_network(id),
            Some((stored, version)) => memory.put_network(Entry {
                view: stored.view,
                version,
                operation: stored.operation,
            }),
        }
        memory.doubtful.remove(&subject);
        Ok(())
    }

    /// Reads an endpoint's record again if an earlier write left it in doubt.
    pub(crate) async fn refresh_endpoint(&self, id: &EndpointId) -> Result<(), ControlError> {
        let subject = Subject::Endpoint(id.clone());
        if !self.memory().doubtful.contains(&subject) {
            return Ok(());
        }
        let key = endpoint_key(id).map_err(|e| ControlError::Invalid(e.to_string()))?;
        let found = self.parts.store.get(&key).await.map_err(unreadable)?;
        let stored = found
            .map(|found| Ok((decode_endpoint(&found.value)?, found.version)))
            .transpose()
            .map_err(|e: RecordError| unreadable(e))?;
        let mut memory = self.memory();
        memory.drop_endpoint(id);
        if let Some((stored, version)) = stored {
            memory.put_endpoint(Entry {
                operation: stored.operation.clone(),
                view: after_boot(stored, &self.parts.boot),
                version,
            });
        }
        memory.doubtful.remove(&subject);
        Ok(())
    }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> ControlError {
    ControlError::Unavailable {
        what: "a record whose last write is in doubt could not be read again: try again".into(),
        source: Some(Box::new(error)),
    }
}
