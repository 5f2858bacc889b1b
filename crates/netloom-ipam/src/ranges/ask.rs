//! Asking the holders of a pool for addresses.

use super::gate::Gate;
use super::store::StoredChunk;
use super::{Life, Need, span_in};
use crate::book::exhausted;
use crate::chunk::Holder;
use crate::manager::AddressManager;
use crate::records::{AnswerRecord, AnswerWord, VERSION, WantRecord, WantShape};
use crate::registry::{Stored, write};
use crate::space::PoolKey;
use netloom_core::IpamError;
use netloom_core::store::{Key, Operation};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Something was offered, and taken.
    Received,
    /// The records changed meanwhile: look again for what is nobody's.
    Changed,
}

/// The answers of one round.
#[derive(Debug, Default)]
struct Round {
    answers: BTreeMap<String, AnswerRecord>,
}

impl AddressManager {
    /// Asks the holders until one gives something, all say no, or time is up.
    pub(super) async fn ask(
        &self,
        pool: PoolKey,
        gate: &Gate,
        need: Need,
        deadline: Instant,
    ) -> Result<Asked, IpamError> {
        let life = self.life(pool)?;
        let before = self.held_by_others(pool, life, need).await?;
        let Some(holders) = self.holders(pool, need, &before)? else {
            return Ok(Asked::Changed);
        };
        if holders.is_empty() {
            return self.nobody_has(pool, need);
        }
        self.member.listen(deadline).await;
        let first = self.richest(pool, &holders);
        let rounds = first.map(|host| BTreeSet::from([host]));
        for asked in rounds.into_iter().chain([holders.clone()]) {
            let now = Instant::now();
            let until = if asked == holders {
                deadline
            } else {
                // It may be off since it said so: the others must have time to answer.
                now + deadline.saturating_duration_since(now) / 3
            };
            let round = self.round(life, need, &asked, until).await?;
            if let Some(by) = round.in_use() {
                return Err(in_use(pool, need, by));
            }
            let mut received = false;
            for chunk in round.offers() {
                let part = need.part();
                let taken = self.claim_in(gate, life, chunk, part).await?;
                received |= taken == super::Fetched::Some;
            }
            if received {
                return Ok(Asked::Received);
            }
            if round.is_decided() {
                // The background or another request took in what was offered.
                let here = self.has(pool, need);
                return Ok(if here {
                    Asked::Received
                } else {
                    Asked::Changed
                });
            }
            let silent = round.silent(&asked);
            if asked == holders && !silent.is_empty() {
                return Err(self.unanswered(pool, need, &silent));
            }
        }
        let after = self.held_by_others(pool, life, need).await?;
        if before == after {
            return self.nobody_has(pool, need);
        }
        Ok(Asked::Changed)
    }

    async fn held_by_others(
        &self,
        pool: PoolKey,
        life: Life,
        need: Need,
    ) -> Result<Vec<StoredChunk>, IpamError> {
        match need {
            Need::Any(_) => self.registry.chunks(pool, life.generation).await,
            Need::Exactly(at) => {
                let chunk = self.registry.chunk_at(pool, life.generation, at).await?;
                Ok(vec![chunk])
            }
        }
    }

    /// The other hosts that hold something that would do; none when nobody need be asked, because
    /// something is nobody's or is offered to this host.
    fn holders(
        &self,
        pool: PoolKey,
        need: Need,
        chunks: &[StoredChunk],
    ) -> Result<Option<BTreeSet<String>>, IpamError> {
        let me = self.registry.host();
        let mut hosts = BTreeSet::new();
        for stored in chunks {
            let Some(span) = span_in(need.part(), stored.number) else {
                continue;
            };
            for run in stored.chunk.within(span) {
                match &run.holder {
                    Holder::Nobody => return Ok(None),
                    Holder::Offered(host) if **host == *me => return Ok(None),
                    Holder::Owned(host) if **host == *me => {}
                    Holder::Owned(host) | Holder::Offered(host) => {
                        hosts.insert(host.to_string());
                    }
                    Holder::Pool if matches!(need, Need::Exactly(_)) => {
                        let by = "the pool, as a gateway or an auxiliary address";
                        return Err(in_use(pool, need, by));
                    }
                    Holder::Pool => {}
                }
            }
        }
        Ok(Some(hosts))
    }

    /// The holder with the most to give by its last word, if there is a choice.
    fn richest(&self, pool: PoolKey, holders: &BTreeSet<String>) -> Option<String> {
        if holders.len() < 2 {
            return None;
        }
        let hinted = holders.iter().filter_map(|host| {
            let free = self.hinted_free(host, pool).filter(|free| *free > 0)?;
            Some((free, host.clone()))
        });
        hinted.max().map(|(_, host)| host)
    }

    /// Asks some hosts once, and waits until all have answered, one has something, or time is up.
    async fn round(
        &self,
        life: Life,
        need: Need,
        asked: &BTreeSet<String>,
        deadline: Instant,
    ) -> Result<Round, IpamError> {
        let pool = life.pool;
        let round = self.registry.operation();
        let part = need.part();
        let record = WantRecord {
            version: VERSION,
            operation: round.clone(),
            host: self.registry.host().to_owned(),
            generation: life.generation,
            round: round.clone(),
            first: part.first,
            last: part.last,
            shape: match need {
                Need::Any(_) => WantShape::Any,
                Need::Exactly(_) => WantShape::Exactly,
            },
            asked: asked.iter().cloned().collect(),
        };
        let key = self.registry.keys.want(pool.subnet, self.registry.host());
        let known = self.registry.read::<WantRecord>(&key).await?;
        let known = known.map(|stored| stored.version);
        self.registry
            .talk([write(key.clone(), &record, known)])
            .await?;
        let answered = self.wait_for(pool, &round, asked, deadline).await;
        self.withdraw(pool, &key, &round).await;
        answered
    }

    async fn wait_for(
        &self,
        pool: PoolKey,
        round: &str,
        asked: &BTreeSet<String>,
        deadline: Instant,
    ) -> Result<Round, IpamError> {
        let mut pause = POLL_FIRST;
        loop {
            let told = self.gates.answers.notified();
            let mut heard = Round::default();
            for (_, Stored { record, .. }) in self.registry.answers(pool.subnet).await? {
                if record.round == round && asked.contains(&record.host) {
                    heard.answers.insert(record.host.clone(), record);
                }
            }
            let now = Instant::now();
            let done = heard.is_decided() || heard.answers.len() == asked.len();
            if done || now >= deadline {
                return Ok(heard);
            }
            let until = deadline.min(now + pause);
            // The watch is the quick way, and may be away.
            tokio::select! {
                biased;
                () = told => {}
                () = tokio::time::sleep_until(until) => {}
            }
            pause = (pause * 2).min(POLL_LAST);
        }
    }

    /// From here on nobody serves the want any more. What fails is left for the next one, which
    /// takes the record's place.
    async fn withdraw(&self, pool: PoolKey, key: &Key, round: &str) {
        let known = self.registry.read::<WantRecord>(key).await;
        if let Ok(Some(stored)) = known {
            if stored.record.round != round {
                return;
            }
            let delete = Operation::Delete(key.clone(), stored.version);
            if self.registry.talk([delete]).await.is_err() {
                return;
            }
        } else if known.is_err() {
            return;
        }
        for (key, stored) in self.registry.answers(pool.subnet).await.unwrap_or_default() {
            // One that stays is told apart by its round.
            let delete = Operation::Delete(key, stored.version);
            let _ = self.registry.talk([delete]).await;
        }
    }

    /// No other host has what is wanted: the pool is full. A single address came here meanwhile by
    /// another request or by the background, or is on its way: it is not in use for that.
    fn nobody_has(&self, pool: PoolKey, need: Need) -> Result<Asked, IpamError> {
        let Need::Any(part) = need else {
            if self.has(pool, need) {
                return Ok(Asked::Received);
            }
            return Err(restless(pool));
        };
        let book = self.book();
        let live = book.pools.get(&pool);
        let range = live.and_then(|live| live.references.common_range());
        let range = range.filter(|_| live.is_some_and(|live| live.part(range) == part));
        Err(exhausted(pool.subnet, range))
    }

    fn unanswered(&self, pool: PoolKey, need: Need, silent: &[String]) -> IpamError {
        let told = silent
            .iter()
            .map(|host| match self.hinted_free(host, pool) {
                Some(free) => format!("{host} (had {free} free when it last said so)"),
                None => host.clone(),
            });
        let told = told.collect::<Vec<_>>().join(", ");
        let (subnet, what) = (pool.subnet, told_need(pool, need));
        IpamError::Unavailable {
            what: format!(
                "{what} belongs to hosts that do not answer: {told}; start netloomd there, or if \
                 such a host is gone for ever, say so with `netloom host forget` (pool {subnet})"
            ),
            source: None,
        }
    }
}

impl Round {
    fn is_decided(&self) -> bool {
        let words = self.answers.values().map(|answer| answer.word);
        words.into_iter().any(|word| word != AnswerWord::Nothing)
    }

    fn offers(&self) -> impl Iterator<Item = u128> {
        let offers = self.answers.values();
        offers
            .filter(|answer| answer.word == AnswerWord::Offered)
            .map(|answer| answer.chunk)
    }

    fn in_use(&self) -> Option<&str> {
        let mut answers = self.answers.values();
        let found = answers.find(|answer| answer.word == AnswerWord::InUse)?;
        Some(&found.by)
    }

    fn silent(&self, asked: &BTreeSet<String>) -> Vec<String> {
        let silent = asked
            .iter()
            .filter(|host| !self.answers.contains_key(*host));
        silent.cloned().collect()
    }
}

/// Whatever came free was taken by others until time was up.
pub(super) fn restless(pool: PoolKey) -> IpamError {
    let subnet = pool.subnet;
    IpamError::Unavailable {
        what: format!("other hosts were quicker to take what was free of {subnet}; try again"),
        source: None,
    }
}

fn in_use(pool: PoolKey, need: Need, by: &str) -> IpamError {
    let what = told_need(pool, need);
    IpamError::InUse(format!(
        "{what} is in use by {by}; choose another address, or see `netloom address ls` there"
    ))
}

fn told_need(pool: PoolKey, need: Need) -> String {
    match need {
        Need::Exactly(at) => match pool.subnet.nth(at) {
            Some(ip) => ip.to_string(),
            None => format!("address {at} of {}", pool.subnet),
        },
        Need::Any(_) => format!("what is left of {}", pool.subnet),
    }
}

/// How long to wait before looking again when no watch tells.
const POLL_FIRST: Duration = Duration::from_millis(10);
const POLL_LAST: Duration = Duration::from_millis(80);
