//! Hints that hosts leave for each other: that they live, and what they could give.

use super::commit::{in_time, read_in_time};
use super::member::Member;
use crate::records::{Record, ShareRecord, StatusRecord, VERSION};
use crate::registry::{damaged, unreadable};
use crate::space::Keys;
use netloom_core::store::{Operation, Transaction};
use netloom_core::{IpamError, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

impl Member {
    /// Leaves this host's status. A hint: whatever becomes of it, nobody minds.
    pub(super) async fn tell(&self, heard: Timestamp, shares: Vec<ShareRecord>) {
        let deadline = Instant::now() + TELL_TIME;
        let key = self.keys.status();
        let Ok(before) = read_in_time(deadline, self.store.get(&key)).await else {
            return;
        };
        let record = StatusRecord {
            version: VERSION,
            operation: self.operation(),
            host: self.host.as_str().to_owned(),
            heard: heard.0,
            shares,
        };
        let write = match before {
            None => Operation::Create(key, record.encode()),
            Some(row) => Operation::Update(key, record.encode(), row.version),
        };
        let sent = self.store.commit(Transaction::new([write]));
        if let Err(error) = in_time(deadline, sent).await {
            tracing::debug!(%error, "this host's status was not left in the store");
        }
    }

    /// What the hosts said last, by host.
    pub(super) async fn list_statuses(
        &self,
        deadline: Instant,
    ) -> Result<BTreeMap<String, StatusRecord>, IpamError> {
        let listed = read_in_time(deadline, self.store.list(&Keys::statuses())).await;
        let mut statuses = BTreeMap::new();
        for (key, row) in listed.map_err(unreadable)? {
            let status = StatusRecord::decode(&row.value).map_err(|why| damaged(&key, &why))?;
            statuses.insert(status.host.clone(), status);
        }
        Ok(statuses)
    }

    /// Reads the hints again, if those that were read are old: only who asks others needs them.
    pub(crate) async fn listen(&self, deadline: Instant) {
        let old = self.status_pause(HINTS_AGE);
        let now = Instant::now();
        if matches!(self.state().heard, Some(at) if now < at + old) {
            return;
        }
        let deadline = deadline.min(now + HINTS_TIME);
        let statuses = self.list_statuses(deadline).await;
        let mut state = self.state();
        // Whatever came of it: asking goes on without hints, and is not to be held up each time.
        state.heard = Some(now);
        if let Ok(statuses) = statuses {
            state.statuses = statuses;
        }
    }

    /// Between two words of this host: hosts together burden the store evenly, however many they
    /// are.
    pub(super) fn status_pause(&self, shortest: Duration) -> Duration {
        let hosts = u32::try_from(self.state().hosts.len()).unwrap_or(u32::MAX);
        let pause = shortest.max(PER_HOST.saturating_mul(hosts)).min(PAUSE_MAX);
        // Each host has a pace of its own, so that they do not come all at once.
        let own = self.host.as_str().bytes();
        let own = own.fold(0u32, |hash, b| {
            hash.wrapping_mul(31).wrapping_add(u32::from(b))
        });
        pause + pause / 8 * (own % 64) / 64
    }
}

/// A status nobody waits for.
const TELL_TIME: Duration = Duration::from_secs(1);
/// Of the time in which other hosts answer, for their last words.
const HINTS_TIME: Duration = Duration::from_millis(100);
/// Hints that are not older serve again; with many hosts they may be.
const HINTS_AGE: Duration = Duration::from_secs(5);
/// 100 words in a second, from all hosts together.
const PER_HOST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(300);
