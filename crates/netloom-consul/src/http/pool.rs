//! The idle connections to one server.

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use netloom_core::StoreEndpoint;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Connections kept for later: as many as callers commonly are at work at once.
const IDLE_MAX: usize = 16;
/// A connection idle for longer may be forgotten by a firewall in between, which would turn the
/// next commit's outcome into an unknown one. Common firewalls forget after minutes.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// One server.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) endpoint: StoreEndpoint,
    idle: Mutex<Vec<Idle>>,
}

/// A connection that nobody uses at the moment.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    since: Instant,
    _mover: Mover,
}

/// The task that moves a connection's bytes; it ends with its owner.
#[derive(Debug)]
struct Mover(JoinHandle<()>);

impl Drop for Mover {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Idle {
    pub(crate) fn new(sender: SendRequest<Full<Bytes>>, mover: JoinHandle<()>) -> Self {
        Self {
            sender,
            since: Instant::now(),
            _mover: Mover(mover),
        }
    }
}

impl Pool {
    pub(crate) fn new(endpoint: StoreEndpoint) -> Self {
        Self {
            endpoint,
            idle: Mutex::default(),
        }
    }

    /// The connection used last, if it is still fit for use.
    pub(crate) fn take(&self) -> Option<Idle> {
        let mut idle = self.lock();
        idle.retain(|one| one.since.elapsed() < IDLE_TIME_MAX && !one.sender.is_closed());
        idle.pop()
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(crate) fn put_back(&self, mut one: Idle) {
        one.since = Instant::now();
        let mut idle = self.lock();
        if idle.len() < IDLE_MAX && !one.sender.is_closed() {
            idle.push(one);
        }
    }

    /// Lets go of all of them.
    pub(crate) fn forget_idle(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        // Nothing panics with it held, and a list of connections has no broken state.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
