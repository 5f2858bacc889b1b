//! A watch: Consul's blocking queries, in a loop that never spins and never hangs.

use crate::http::{Answer, Call, Client};
use crate::store::{expect_answer, unavailable};
use async_trait::async_trait;
use netloom_core::store::{Key, StoreError, Watch};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the server may keep silent when nothing changes. A frozen server is noticed this much
/// late; a shorter time would cost each host a request more often for nothing.
const WAIT: Duration = Duration::from_secs(20);
/// Consul spreads the ends of waits by up to a sixteenth of them.
const WAIT_SPREAD: Duration = Duration::from_millis(1250);
/// Between the starts of two queries. It bounds what a directory that changes all the time, or a
/// server that fails at once, costs both sides; changes in between arrive together.
const PACE: Duration = Duration::from_millis(50);
/// The names of the keys directly below; base64 and values would come with a whole list.
const NAMES_BYTES_MAX: usize = 8 << 20;

/// A watch on one directory.
#[derive(Debug)]
pub(crate) struct ConsulWatch {
    client: Arc<Client>,
    path: String,
    /// The directory's index when it was last looked at; `None` when its place was lost, and the
    /// next look may have missed something.
    index: Option<u64>,
    not_before: Instant,
}

impl ConsulWatch {
    /// Watches from now on.
    pub(crate) async fn open(client: Arc<Client>, prefix: &Key) -> Result<Self, StoreError> {
        let mut watch = Self {
            client,
            // Deeper keys share one name here, but move the index like all others.
            path: format!("/v1/kv/{prefix}/?keys&separator=/&consistent"),
            index: None,
            not_before: Instant::now(),
        };
        let call = watch.call(None);
        let answer = watch.client.call(&call).await.map_err(unavailable)?;
        watch.index = Some(index_of(answer)?);
        Ok(watch)
    }

    fn call(&self, index: Option<u64>) -> Call {
        let path = match index {
            None => self.path.clone(),
            Some(index) => format!("{}&index={index}&wait={}s", self.path, WAIT.as_secs()),
        };
        Call {
            bytes_max: NAMES_BYTES_MAX,
            ..Call::get(path)
        }
    }

    /// The directory's index as soon as it is another one, or after a while.
    async fn look(&mut self) -> Result<u64, StoreError> {
        tokio::time::sleep_until(self.not_before).await;
        self.not_before = Instant::now() + PACE;
        let call = self.call(self.index);
        let answer = match self.index {
            None => self.client.call(&call).await,
            Some(_) => self.client.wait(&call, WAIT + WAIT_SPREAD).await,
        };
        index_of(answer.map_err(unavailable)?)
    }
}

#[async_trait]
impl Watch for ConsulWatch {
    async fn changed(&mut self) -> Result<(), StoreError> {
        loop {
            let before = self.index;
            let now = match self.look().await {
                Ok(now) => now,
                Err(error) => {
                    self.index = None;
                    return Err(error);
                }
            };
            match before {
                // The wait is over, and proves nothing.
                Some(before) if now == before => {}
                // Backwards: old tombstones were cleared away, or the server was put back from a
                // copy. Consul's rule is to begin again.
                Some(before) if now < before => {
                    self.index = None;
                    return Ok(());
                }
                _ => {
                    self.index = Some(now);
                    return Ok(());
                }
            }
        }
    }
}

fn index_of(answer: Answer) -> Result<u64, StoreError> {
    let answer = expect_answer(answer)?;
    answer.index.ok_or_else(|| {
        StoreError::Unavailable(Some("Consul does not say which index it is at".into()))
    })
}
