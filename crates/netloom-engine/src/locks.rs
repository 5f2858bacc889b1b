//! One lock per object, which exists only while somebody holds or awaits it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

type Lock = Arc<RwLock<()>>;

/// Locks by key.
#[derive(Debug)]
pub(crate) struct Locks<K: Ord + Clone> {
    map: Arc<Mutex<BTreeMap<K, Lock>>>,
}

impl<K: Ord + Clone> Default for Locks<K> {
    fn default() -> Self {
        Self {
            map: Arc::default(),
        }
    }
}

impl<K: Ord + Clone> Locks<K> {
    /// Waits until nobody changes the object.
    pub(crate) async fn read(&self, key: &K) -> Held<K> {
        let ticket = self.ticket(key);
        let guard = ticket.lock.clone().read_owned().await;
        Held {
            _guard: Guard::Read(guard),
            _ticket: ticket,
        }
    }

    /// Waits until nobody else uses the object.
    pub(crate) async fn write(&self, key: &K) -> Held<K> {
        let ticket = self.ticket(key);
        let guard = ticket.lock.clone().write_owned().await;
        Held {
            _guard: Guard::Write(guard),
            _ticket: ticket,
        }
    }

    fn ticket(&self, key: &K) -> Ticket<K> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        Ticket {
            lock: map.entry(key.clone()).or_default().clone(),
            key: key.clone(),
            map: Arc::clone(&self.map),
        }
    }
}

/// A lock that is held; dropped guard first, ticket second (the order of the fields).
#[derive(Debug)]
pub(crate) struct Held<K: Ord + Clone> {
    _guard: Guard,
    _ticket: Ticket<K>,
}

#[derive(Debug)]
enum Guard {
    Read(#[allow(dead_code, reason = "held for its drop")] OwnedRwLockReadGuard<()>),
    Write(#[allow(dead_code, reason = "held for its drop")] OwnedRwLockWriteGuard<()>),
}

/// Keeps the lock in the map while anybody holds or awaits it.
#[derive(Debug)]
struct Ticket<K: Ord + Clone> {
    lock: Lock,
    key: K,
    map: Arc<Mutex<BTreeMap<K, Lock>>>,
}

impl<K: Ord + Clone> Drop for Ticket<K> {
    fn drop(&mut self) {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        // Tickets are only made under this mutex: the map's reference and this one alone means
        // that nobody else can get hold of the lock any more. A guard holds a reference of its own.
        if Arc::strong_count(&self.lock) <= 2 {
            map.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_excludes_and_vanishes_when_the_last_one_let_go() {
        let locks = Locks::<u8>::default();
        let held = locks.write(&1).await;
        let other = locks.write(&2).await;
        let mut waiting = Box::pin(locks.write(&1));
        assert!(futures_poll(&mut waiting).await.is_none());
        drop(held);
        let second = waiting.await;
        assert_eq!(locks.map.lock().unwrap().len(), 2);
        drop((second, other));
        assert!(locks.map.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_leaves_nothing() {
        let locks = Locks::<u8>::default();
        let held = locks.read(&1).await;
        let mut waiting = Box::pin(locks.write(&1));
        assert!(futures_poll(&mut waiting).await.is_none());
        drop(waiting);
        drop(held);
        assert!(locks.map.lock().unwrap().is_empty());
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
                std::task::Poll::Ready(value) => Some(value),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
