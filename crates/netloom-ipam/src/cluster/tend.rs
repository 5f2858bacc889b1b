//! The background: being heard, looking at the store, joining it again, answering other hosts.

use super::judge::Verdict;
use super::look::Width;
use crate::config::Sharing;
use crate::manager::AddressManager;
use crate::records::ShareRecord;
use netloom_core::store::Key;
use netloom_core::{IpamError, Standing};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

impl AddressManager {
    /// What goes on in the background for as long as this host shares the store with others; ends
    /// at once when it does not.
    ///
    /// All of it is driven by the store's watches and by tokio's clock.
    pub async fn tend(self: Arc<Self>) {
        let Sharing::Cluster(cluster) = &self.config.sharing else {
            return;
        };
        let keys = self.registry.keys.clone();
        tokio::join!(
            self.beat_for_ever(cluster.status_every),
            self.keep_for_ever(cluster.status_every),
            self.claim_ahead_for_ever(),
            self.hear_for_ever(keys.wants()),
            self.hear_for_ever(keys.answers(self.member.host().as_str(), None)),
        );
    }

    async fn beat_for_ever(&self, shortest: Duration) {
        let mut wide_at = Instant::now();
        loop {
            let width = if Instant::now() < wide_at {
                Width::Fences
            } else {
                Width::All
            };
            let in_order = self.beat(width).await;
            // What was learnt of the store is noted and not waited for: a power cut is to take no more
            // of it than of the time since this look.
            if let Err(error) = self.all_durable().await {
                tracing::debug!(%error, "what was learnt of the store is not durable");
            }
            let pause = self.member.status_pause(shortest);
            // Who is there must be known for the day on which the store forgets it.
            if width == Width::All && in_order.is_ok() {
                wide_at = Instant::now() + pause * WIDE_EVERY;
            }
            let pause = match in_order {
                Ok(()) if self.member.is_healing() => pause.min(AGAIN),
                Ok(()) => pause,
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "the store is not joined"
                    );
                    pause.min(AGAIN)
                }
            };
            // Whoever meets a store that is not as it was joined calls for a look at once.
            drop(timeout(pause, self.member.astray.notified()).await);
        }
    }

    /// Looks at the store, joins it again if need be, and says that this host lives.
    async fn beat(&self, width: Width) -> Result<(), IpamError> {
        if let Standing::Stopped { .. } = self.member.standing() {
            // A person's business; whatever it was, it ends with a restart.
            return Ok(());
        }
        let deadline = Instant::now() + BEAT_TIME;
        let look = self.member.look(width, deadline).await?;
        let started = self.member.has_started();
        match self.member.settle(look) {
            Verdict::Join | Verdict::Stale if started => {}
            _ => self.rejoin().await?,
        }
        // What did not come off when this host joined; until then nobody else knows these pools.
        // Nothing goes on without: of a pool that is this host's alone the store has no ranges to check,
        // and the mirror has what nobody else has.
        self.promote_all().await?;
        if let Some(unchecked) = self.member.healed() {
            // A pool may have begun another life since, or be back in a former one.
            self.follow_all().await?;
            self.check_ranges().await?;
            // What was lost must not come back with a power cut or a full disk: nobody looks again.
            self.all_durable().await?;
            self.member.is_checked(unchecked);
        }
        if width == Width::All {
            let hosts = self.member.state().hosts.clone();
            self.mirror.keep_hosts(&hosts).await?;
            self.follow_all().await?;
        }
        self.member.note_memory();
        self.member.tell(self.clock.now(), self.shares()).await;
        Ok(())
    }

    async fn keep_for_ever(&self, every: Duration) {
        loop {
            sleep(every).await;
            if !self.member.has_started() {
                continue;
            }
            if let Err(error) = self.keep().await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "ranges wait for the store"
                );
            }
        }
    }

    /// For hosts that use up claims faster than somebody looks after their reserve.
    async fn claim_ahead_for_ever(&self) {
        loop {
            for pool in self.gates.asked_ahead().await {
                if let Err(error) = self.claim_ahead(pool).await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "the next addresses are claimed when they are needed"
                    );
                }
            }
        }
    }

    async fn hear_for_ever(&self, directory: Key) {
        loop {
            let opened = timeout(BEAT_TIME, self.registry.store.watch(&directory)).await;
            let Ok(Ok(mut watch)) = opened else {
                sleep(AGAIN).await;
                continue;
            };
            // What happened before the watch was there shows now.
            self.hear().await;
            while watch.changed().await.is_ok() {
                self.hear().await;
            }
            // Others wait for this host meanwhile: no longer than keeps a loop from being hot.
            sleep(BREATH).await;
        }
    }

    async fn hear(&self) {
        if let Err(error) = self.on_change().await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "other hosts wait for the store"
            );
        }
    }

    /// What this host has of each pool, for its status.
    fn shares(&self) -> Vec<ShareRecord> {
        let narrow = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
        let book = self.book();
        let mut shares = Vec::new();
        for (key, live) in &book.pools {
            if let Some(ledger) = book.table.pools.get(&live.number)
                && shares.len() < SHARES_MAX
                && !ledger.held.is_empty()
            {
                shares.push(ShareRecord {
                    subnet: key.subnet,
                    owned: narrow(ledger.held.owned()),
                    free: narrow(ledger.free()),
                });
            }
        }
        shares
    }
}

/// One look at the store.
const BEAT_TIME: Duration = Duration::from_secs(3);
/// Before another try at a store that is away.
const AGAIN: Duration = Duration::from_secs(1);
/// Before a watch that broke is opened anew.
const BREATH: Duration = Duration::from_millis(50);
/// So many words of a host to one look at all hosts.
const WIDE_EVERY: u32 = 4;
/// Pools of one status: it must stay far below the store's 64 KiB.
const SHARES_MAX: usize = 256;
