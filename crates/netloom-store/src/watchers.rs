//! Who wants to hear of changes below which directory.

use async_trait::async_trait;
use netloom_core::store::{Key, StoreError, Watch};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// All open watches of one store.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    open: Mutex<Vec<(Key, watch::Sender<u64>)>>,
}

impl Watchers {
    /// Opens a watch that hears of every [`notify`](Self::notify) from now on.
    pub(crate) fn open(&self, prefix: &Key) -> Box<dyn Watch> {
        let (sender, receiver) = watch::channel(0);
        self.lock().push((prefix.clone(), sender));
        Box::new(LocalWatch { receiver })
    }

    /// Says that `keys` changed. To be called after readers can see the change: a watcher that
    /// lists at once must find it.
    pub(crate) fn notify<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) {
        let mut open = self.lock();
        open.retain(|(_, sender)| !sender.is_closed());
        for key in keys {
            for (prefix, sender) in open.iter() {
                if key.is_below(prefix) {
                    sender.send_modify(|count| *count = count.wrapping_add(1));
                }
            }
        }
    }

    /// Breaks all watches: their owners get an error and open new ones.
    pub(crate) fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Key, watch::Sender<u64>)>> {
        // Every holder leaves the list whole, so a panic elsewhere does not spoil it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct LocalWatch {
    receiver: watch::Receiver<u64>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Watch for LocalWatch {
    async fn changed(&mut self) -> Result<(), StoreError> {
        self.receiver.changed().await.map_err(|_| {
            StoreError::Unavailable(Some("the watched store was closed; open it again".into()))
        })
    }
}
