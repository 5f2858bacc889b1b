//! The contract's five calls.

use crate::epoch::Epoch;
use crate::http::{Answer, BoxError, Call, Client, Failed, Sent};
use crate::liveness::Sessions;
use crate::rows::{self, Row};
use crate::transaction::{Refusal, Request, judge};
use crate::watch::ConsulWatch;
use async_trait::async_trait;
use hyper::StatusCode;
use netloom_core::store::{
    CommitError, Committed, Key, Liveness, Operation, Store, StoreError, StoreIdentity,
    Transaction, Versioned, Watch,
};
use netloom_core::{RemoteStoreConfig, StoreKind};
use netloom_types::HostId;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Holds the server's identity: Consul has none of its own that would differ after its data was
/// wiped. Every directory on a server has the same one.
const IDENTITY: &str = "netloom.identity";
/// Never written. Reading an absent key tells the index of the latest change to any key.
const NOTHING: &str = "netloom.nothing";
/// How often the identity is looked for: once, after somebody's creation of it, and once more for
/// an answer that got lost on the way.
const IDENTITY_TRIES: u32 = 3;
/// What a whole list may weigh: a thousand keys of the contract's largest values in base64, and
/// room for what stands around them.
const LIST_BYTES_MAX: usize = 96 << 20;

/// Consul's key-value store, as a store.
///
/// Nothing is connected before the first call. Any number of tasks may use one of them at once.
#[derive(Debug)]
pub struct ConsulStore {
    client: Arc<Client>,
    epoch: Epoch,
    /// The flags of the next commit's values.
    flags: AtomicU64,
    sessions: Sessions,
}

impl ConsulStore {
    /// The store that `config` names; its prefix is left to a wrapper around it.
    ///
    /// # Errors
    /// `Unavailable` when a file of the configuration cannot be used. A server that is away is no
    /// error here.
    pub async fn open(config: &RemoteStoreConfig) -> Result<Self, StoreError> {
        let wrong = |error: BoxError| StoreError::Unavailable(Some(error));
        if config.url.kind != StoreKind::Consul {
            return Err(wrong("the address is not one of a Consul server".into()));
        }
        let client = Arc::new(Client::open(config).await.map_err(wrong)?);
        Ok(Self {
            sessions: Sessions::new(Arc::clone(&client)),
            client,
            epoch: Epoch::default(),
            flags: AtomicU64::new(random()),
        })
    }

    /// How far the server was seen to have come: the highest index of a change. After
    /// [`Store::identity`] or [`ConsulStore::latest`] it is that of the latest change to any key.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.epoch.seen()
    }

    /// Asks for the index of the latest change to any key. It never goes back while the server's
    /// data live: keep it, with the identity, to notice a server put back from a copy.
    ///
    /// # Errors
    /// See [`StoreError`]; `WrongEpoch` when the server was seen further than it is now.
    pub async fn latest(&self) -> Result<u64, StoreError> {
        self.epoch.check_read()?;
        let before = self.epoch.seen();
        let answer = self.read(Call::get(key_path(NOTHING))).await?;
        let index = answer.index.ok_or_else(|| {
            StoreError::Corrupt("Consul does not say which index it is at".to_owned())
        })?;
        // Somebody wrote it: its own index says too little.
        if answer.status != StatusCode::NOT_FOUND {
            return Err(StoreError::Corrupt(format!(
                "the key {NOTHING} exists, and never should; delete it"
            )));
        }
        self.epoch
            .latest(index, before)
            .map_err(StoreError::WrongEpoch)?;
        Ok(index)
    }

    /// An answer that is one: of status 200, or 404 for "nothing there".
    async fn read(&self, call: Call) -> Result<Answer, StoreError> {
        let answer = self.client.call(&call).await.map_err(unavailable)?;
        expect_answer(answer)
    }

    async fn row(&self, key: &str) -> Result<Option<Row>, StoreError> {
        let answer = self.read(Call::get(key_path(key))).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        match Row::parse_all(&answer.body)?.pop() {
            Some(row) if row.key == key => {
                self.epoch.saw(row.stamp().index);
                Ok(Some(row))
            }
            _ => Err(StoreError::Corrupt(format!(
                "Consul was asked for the key {key}, and told another"
            ))),
        }
    }

    /// Sends a transaction once, and says what its answer means.
    async fn send(&self, transaction: &Transaction) -> Result<Committed, CommitError> {
        let before = self.epoch.seen();
        let flags = self.flags.fetch_add(1, Ordering::Relaxed);
        let request = Request::new(transaction, flags)?;
        // Only for transactions of checks alone, which Consul takes for reads.
        let call = Call::put("/v1/txn?consistent".to_owned(), request.body());
        let answer = self.client.call(&call).await.map_err(|failed| {
            let sent = failed.sent;
            let failed: Option<BoxError> = Some(Box::new(failed));
            match sent {
                Sent::Nothing => CommitError::Unavailable(failed),
                Sent::Maybe => CommitError::Unknown(failed),
            }
        })?;
        let refused: Option<BoxError> = Some(Box::new(answer.refused()));
        match answer.status {
            StatusCode::OK => {
                let told = request.committed(&answer.body);
                let (committed, change) = told.ok_or(CommitError::Unknown(Some(
                    "Consul's answer to a transaction does not tell what happened".into(),
                )))?;
                if let Some(index) = change {
                    // It did happen, but in another epoch: this one's outcome is not for the
                    // caller to rely on, and whatever comes next is told the epoch.
                    self.epoch
                        .latest(index, before)
                        .map_err(|text| CommitError::Unknown(Some(text.into())))?;
                }
                Ok(committed)
            }
            StatusCode::CONFLICT => Err(self.refusal(request.refusal(&answer.body)).await),
            StatusCode::FORBIDDEN => Err(CommitError::Denied(answer.refused().message)),
            StatusCode::PAYLOAD_TOO_LARGE => Err(CommitError::TooLarge),
            StatusCode::BAD_REQUEST => {
                tracing::warn!(
                    message = answer.refused().message,
                    "Consul refused a change"
                );
                Err(CommitError::Invalid("Consul calls it malformed"))
            }
            status if answer.nothing_happened() || status.is_client_error() => {
                Err(CommitError::Unavailable(refused))
            }
            status if status.is_redirection() => Err(CommitError::Unavailable(refused)),
            _ => Err(CommitError::Unknown(refused)),
        }
    }

    /// A refusal as the contract's error. Nothing happened; at worst the reason stays unclear.
    async fn refusal(&self, refusal: Refusal<'_>) -> CommitError {
        match refusal {
            Refusal::Conflict(key, conflict) => CommitError::Conflict {
                key: key.clone(),
                conflict,
            },
            Refusal::Denied(words) => CommitError::Denied(words),
            Refusal::Unclear(operation, words) => self.ask(operation, words).await,
            Refusal::Nonsense => CommitError::Unavailable(Some(
                "Consul refused a transaction without a reason".into(),
            )),
        }
    }

    async fn ask(&self, operation: &Operation, words: String) -> CommitError {
        let now = match self.get(operation.key()).await {
            Ok(now) => now,
            Err(error) => return CommitError::Unavailable(Some(Box::new(error))),
        };
        match judge(operation, now.as_ref().map(|row| &row.version)) {
            Some(conflict) => CommitError::Conflict {
                key: operation.key().clone(),
                conflict,
            },
            None => CommitError::Unavailable(Some(words.into())),
        }
    }

    /// A list leaves out what may not be read; so when nothing was listed, the directory itself is
    /// read, which is refused when it is hidden.
    async fn may_read(&self, directory: &Key) -> Result<(), StoreError> {
        let path = format!("/v1/kv/{directory}/?consistent");
        self.read(Call::get(path)).await.map(|_| ())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for ConsulStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.epoch.check_read()?;
        let mut trouble = None;
        for _ in 0..IDENTITY_TRIES {
            if let Some(row) = self.row(IDENTITY).await? {
                let identity = parse_identity(&row.versioned()?.value)?;
                // Whoever compares identities compares marks as well.
                self.latest().await?;
                return Ok(identity);
            }
            // Whatever becomes of it, the next read tells: of all creators one has won.
            let id = format!("{:016x}{:016x}", random(), random());
            let call = Call::put(format!("/v1/kv/{IDENTITY}?cas=0"), id);
            match self.client.call(&call).await {
                // With the body `true` for the winner and `false` for everybody else.
                Ok(answer) if answer.status == StatusCode::OK => {}
                Ok(answer) => {
                    expect_answer(answer)?;
                }
                Err(failed) => trouble = Some(Box::new(failed) as BoxError),
            }
        }
        Err(StoreError::Unavailable(trouble))
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.epoch.check_read()?;
        let row = self.row(key.as_str()).await?;
        row.map(|row| row.versioned()).transpose()
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.epoch.check_read()?;
        let answer = self
            .read(Call {
                bytes_max: LIST_BYTES_MAX,
                ..Call::get(format!("/v1/kv/{prefix}/?recurse&consistent"))
            })
            .await?;
        if answer.filtered {
            return Err(StoreError::Denied(format!(
                "the token may not read all of {prefix}/"
            )));
        }
        if answer.status == StatusCode::NOT_FOUND {
            self.may_read(prefix).await?;
            return Ok(Vec::new());
        }
        let rows = Row::parse_all(&answer.body)?;
        for row in &rows {
            self.epoch.saw(row.stamp().index);
        }
        rows::below(prefix, &rows)
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        transaction.validate()?;
        self.epoch.check().map_err(CommitError::WrongEpoch)?;
        match self.send(&transaction).await {
            // Nothing happened, so that a token changed meanwhile may have its try.
            Err(CommitError::Denied(_)) if self.client.token_changed().await => {
                self.send(&transaction).await
            }
            outcome => outcome,
        }
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        self.epoch.check_read()?;
        self.may_read(prefix).await?;
        let watch = ConsulWatch::open(Arc::clone(&self.client), prefix).await?;
        Ok(Box::new(watch))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Liveness for ConsulStore {
    async fn announce(&self, host: &HostId) -> Result<(), StoreError> {
        self.sessions.announce(host).await
    }

    async fn alive(&self) -> Result<Vec<HostId>, StoreError> {
        self.sessions.alive().await
    }
}

/// Keys need no escaping: what [`Key`] allows means itself in a path.
fn key_path(key: &str) -> String {
    format!("/v1/kv/{key}?consistent")
}

pub(crate) fn unavailable(failed: Failed) -> StoreError {
    StoreError::Unavailable(Some(Box::new(failed)))
}

/// An answer of status 200, or 404 for "nothing there"; everything else is a refusal.
pub(crate) fn expect_answer(answer: Answer) -> Result<Answer, StoreError> {
    match answer.status {
        StatusCode::OK | StatusCode::NOT_FOUND => Ok(answer),
        StatusCode::FORBIDDEN => Err(StoreError::Denied(answer.refused().message)),
        _ => Err(StoreError::Unavailable(Some(Box::new(answer.refused())))),
    }
}

fn parse_identity(value: &[u8]) -> Result<StoreIdentity, StoreError> {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    match std::str::from_utf8(value) {
        Ok(text) if text.len() == 32 && value.iter().all(is_digit) => {
            Ok(StoreIdentity(format!("consul-{text}")))
        }
        _ => Err(StoreError::Corrupt(format!(
            "the key {IDENTITY} holds no identity"
        ))),
    }
}

/// A number that nobody else has: a keyed hash whose keys the system's generator made. Never for
/// secrets.
fn random() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}
