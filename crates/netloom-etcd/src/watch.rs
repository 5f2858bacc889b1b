//! Watches: one stream each, drained at once, so that a slow listener holds up nobody.

use crate::failure::Failure;
use crate::link::Link;
use crate::store::range;
use async_trait::async_trait;
use etcd_client::{Client, Error, WatchOptions, WatchResponse, WatchStream};
use netloom_core::store::{Key, StoreError, Watch};
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Memory for one message: etcd splits larger ones when asked to, at its request limit of 1.5 MiB.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What the task that reads the stream leaves behind.
#[derive(Debug)]
pub(crate) struct EtcdWatch {
    changes: mpsc::Receiver<()>,
    end: Arc<OnceLock<String>>,
    reader: JoinHandle<()>,
}

impl EtcdWatch {
    /// Watches from now on: the member has confirmed the watch when this returns, and tells of every
    /// change that comes after.
    ///
    /// It is not taken up again where it ended: for "something may have changed" no history is
    /// needed, so that a compaction takes nothing away, and whoever opens the next one lists again.
    pub(crate) async fn open(link: &Link, prefix: &Key) -> Result<Self, Failure> {
        let (from, to) = range(prefix);
        let options = WatchOptions::new().with_range(to).with_fragment();
        let opened = link
            .read(|client| {
                let (from, options) = (from.clone(), options.clone());
                async move { begin(client, from, options).await }
            })
            .await?;
        // One waiting word is enough: it says "list again", however many changes there were.
        let (tell, changes) = mpsc::channel(1);
        let end = Arc::new(OnceLock::new());
        let why = end.clone();
        let reader = tokio::spawn(async move {
            let reason = drain(opened, &tell).await;
            // Set before the channel closes, which happens when `tell` is dropped.
            let _ = why.set(reason);
            drop(tell);
        });
        Ok(Self {
            changes,
            end,
            reader,
        })
    }
}

async fn begin(
    client: Client,
    from: String,
    options: WatchOptions,
) -> Result<crate::link::Answer<WatchStream>, Error> {
    let mut watches = client
        .watch_client()
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut stream = watches.watch(from, Some(options)).await?;
    match stream.message().await? {
        // Its header is the member's own state and may lag: no reason to doubt the store.
        Some(first) if first.created() && !first.canceled() => Ok((None, stream)),
        Some(first) if first.canceled() => Err(refused(&first)),
        Some(_) | None => Err(Error::WatchError("it was not confirmed".into())),
    }
}

/// etcd says "permission denied" for a token that ran out as well: it is worth one new login.
fn refused(answer: &WatchResponse) -> Error {
    let reason = answer.cancel_reason();
    if reason.contains("permission denied") || reason.contains("invalid auth token") {
        return Error::GRpcStatus(tonic::Status::unauthenticated(reason));
    }
    Error::WatchError(format!("it was refused: {reason:?}"))
}

/// Reads until the stream ends, and says why it did.
async fn drain(mut stream: WatchStream, tell: &mpsc::Sender<()>) -> String {
    loop {
        match stream.message().await {
            Ok(Some(answer)) if answer.compact_revision() > 0 => {
                return format!(
                    "it fell behind, and was compacted away at revision {}",
                    answer.compact_revision()
                );
            }
            Ok(Some(answer)) if answer.canceled() => {
                return format!("etcd ended it: {:?}", answer.cancel_reason());
            }
            Ok(Some(answer)) => {
                if !answer.events().is_empty() && tell.try_send(()).is_err() && tell.is_closed() {
                    return "nobody listens".to_owned();
                }
            }
            Ok(None) => return "the connection ended".to_owned(),
            Err(error) => return error.to_string(),
        }
    }
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn changed(&mut self) -> Result<(), StoreError> {
        match self.changes.recv().await {
            Some(()) => Ok(()),
            None => {
                let why = self.end.get().map_or("its task ended", String::as_str);
                let why = format!("the watch broke: {why}");
                Err(StoreError::Unavailable(Some(why.into())))
            }
        }
    }
}

impl Drop for EtcdWatch {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
