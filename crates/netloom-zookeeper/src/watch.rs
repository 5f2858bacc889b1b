//! Watches: many events become one wake.

use async_trait::async_trait;
use netloom_core::store::{StoreError, Watch};
use tokio::sync::watch;
use zookeeper_client::{EventType, PersistentWatcher, SessionState};

/// A persistent recursive watch on a directory.
///
/// The library keeps every event until somebody takes it; a task takes them at once and keeps only
/// that there was one. It ends with the connection, and then the watch breaks: the server forgets
/// its watches with a connection, and zookeeper-client 0.11.2 does not bring the persistent ones
/// back on the next (`WatchManager::resend_watches` never gets to `SetWatches2`, which carries
/// them). A watch that lived on would be deaf.
#[derive(Debug)]
pub(crate) struct NodeWatch {
    woken: watch::Receiver<()>,
    listener: tokio::task::AbortHandle,
}

impl NodeWatch {
    pub(crate) fn new(watcher: PersistentWatcher) -> Self {
        let (wake, woken) = watch::channel(());
        let listener = tokio::spawn(listen(watcher, wake)).abort_handle();
        Self { woken, listener }
    }
}

impl Drop for NodeWatch {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn listen(mut watcher: PersistentWatcher, wake: watch::Sender<()>) {
    loop {
        let event = watcher.changed().await;
        let tells = match event.event_type {
            EventType::Session => match event.session_state {
                SessionState::Disconnected
                | SessionState::Expired
                | SessionState::AuthFailed
                | SessionState::Closed => return,
                // Nobody tells what happened before.
                SessionState::SyncConnected | SessionState::ConnectedReadOnly => true,
            },
            EventType::NodeCreated
            | EventType::NodeDeleted
            | EventType::NodeDataChanged
            | EventType::NodeChildrenChanged => true,
        };
        if tells {
            wake.send_replace(());
        }
    }
}

#[async_trait]
impl Watch for NodeWatch {
    async fn changed(&mut self) -> Result<(), StoreError> {
        self.woken.changed().await.map_err(|_| {
            StoreError::Unavailable(Some("the watch ended with its connection".into()))
        })
    }
}
