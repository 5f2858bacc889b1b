//! The store itself.

use crate::failure::Failure;
use crate::guard::Age;
use crate::link::{Answer, Link, look_after_files};
use crate::tries::Tries;
use crate::txn;
use crate::watch::EtcdWatch;
use async_trait::async_trait;
use core::fmt;
use etcd_client::{Client, Error, GetOptions, GetResponse, KeyValue, TxnResponse};
use netloom_core::store::{
    CommitError, Committed, Key, Store, StoreError, StoreIdentity, Transaction, Versioned, Watch,
};
use netloom_core::{RemoteStoreConfig, StoreKind};
use std::sync::Arc;
use tokio::time::Instant;

/// Rows of one page of a list.
const PAGE_ROWS: i64 = 256;
/// A page of the largest values and keys that the contract allows, and room for what etcd adds.
pub(crate) const PAGE_BYTES_MAX: usize = 20 * 1024 * 1024;

/// The store contract on etcd v3.
///
/// Keys stand in etcd as they are; wrap it in a prefix store to stay below a directory. Two keys
/// are its own, both below the configured prefix: `:store-id`, written once into an empty store, and
/// for [`Liveness`](netloom_core::store::Liveness) one key per host in `alive/`.
///
/// Every operation has the configured time. Wait for it: one that is given up earlier by the
/// caller does not tell that a member hangs.
pub struct EtcdStore {
    pub(crate) link: Arc<Link>,
    pub(crate) lease: tokio::sync::Mutex<Option<crate::lease::Announced>>,
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore")
            .field("url", &self.link.config.url)
            .field("guard", &self.link.guard)
            .finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// Opens the store: finds out which one it is, and gives an empty one its id.
    ///
    /// # Errors
    /// `Unavailable` when no member answers in time, or a certificate or password cannot be read;
    /// `Denied` when the login is refused.
    pub async fn open(config: &RemoteStoreConfig) -> Result<Self, StoreError> {
        if config.url.kind != StoreKind::Etcd {
            return Err(StoreError::Denied(format!(
                "{} is not the address of an etcd",
                config.url
            )));
        }
        let link = Arc::new(Link::open(config.clone()).await?);
        look_after_files(&link);
        Ok(Self {
            link,
            lease: tokio::sync::Mutex::default(),
        })
    }

    /// The highest revision that any answer carried. It never goes back while the store lives: keep
    /// it outside of the store, and hold it against the store after the next opening.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.link.guard.mark()
    }

    /// Makes sure that the store is not behind `mark`, which an earlier process saw.
    ///
    /// Some servers answer a read with old data now and then, so that a low [`mark`](Self::mark)
    /// after opening proves nothing; then this makes a change, whose revision does.
    ///
    /// # Errors
    /// `WrongEpoch` when the store was put back from an older copy; from then on, everything is
    /// answered so until the store is opened again.
    pub async fn reaches(&self, mark: u64) -> Result<(), StoreError> {
        self.link.guard.check()?;
        if self.mark() >= mark {
            return Ok(());
        }
        let mut tries = Tries::new(
            self.link.config.url.endpoints.len(),
            self.link.config.timeout,
        );
        loop {
            let failure = match self.confirmed(&mut tries).await {
                // The confirming change itself counts one.
                Ok(revision) if revision > mark => return Ok(()),
                Ok(revision) => return Err(self.link.guard.rolled_back(revision, mark).into()),
                Err(failure) => failure,
            };
            tries.again(failure).await?;
        }
    }

    async fn confirmed(&self, tries: &mut Tries) -> Result<u64, Failure> {
        let until = tries.share();
        let connection = self.link.connection(until).await?;
        let confirm = tokio::time::timeout_at(until, self.link.confirm(&connection.client));
        confirm
            .await
            .unwrap_or_else(|_| Err(Failure::Lost("no answer in time".into())))
    }

    /// The version of the server that is spoken to now; [`known_problems`](crate::known_problems)
    /// tells of it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn server_version(&self) -> Result<String, StoreError> {
        let status = self.link.read(|client| async move {
            let status = client.maintenance_client().status().await?;
            // Its header tells of this member alone, which may lag behind what was seen.
            Ok((None, status.version().to_owned()))
        });
        Ok(status.await?)
    }

    async fn commit_once(
        &self,
        transaction: &Transaction,
        tries: &mut Tries,
    ) -> Result<Committed, CommitFailure> {
        let share = tries.share();
        let connection = self.link.connection(share).await?;
        if Instant::now() >= tries.deadline {
            return Err(Failure::NotSent("no time is left".into()).into());
        }
        let before = self.link.guard.mark();
        let mut kv = connection.client.kv_client();
        let sent = kv.txn(txn::to_etcd(transaction));
        // A change is asked for once, and gets all the time that is left.
        let answer = self.link.call(&connection, tries.deadline, sent).await?;
        self.judge(transaction, &answer, before)
    }

    fn judge(
        &self,
        transaction: &Transaction,
        answer: &TxnResponse,
        before: u64,
    ) -> Result<Committed, CommitFailure> {
        let guard = &self.link.guard;
        let (age, revision) = match guard.judge(answer.header(), before) {
            Ok(judged) => judged,
            // It did happen, in a store that is not ours.
            Err(failure) if answer.succeeded() => return Err(lost(failure)),
            Err(failure) => return Err(failure.into()),
        };
        let changes = txn::changes(transaction);
        if changes && answer.succeeded() && revision <= before {
            return Err(lost(guard.rolled_back(revision, before)));
        }
        if age == Age::Behind {
            // An answer that went through the log cannot be old in a healthy store.
            return Err(match changes {
                true => guard.rolled_back(revision, before).into(),
                false => Failure::Refused("a member answered with old data".into()).into(),
            });
        }
        if answer.succeeded() {
            let versions = txn::versions(transaction, revision);
            return Ok(Committed { versions });
        }
        match txn::conflict(transaction, answer) {
            Some((key, conflict)) => {
                Err(CommitFailure::Tell(CommitError::Conflict { key, conflict }))
            }
            None => Err(Failure::Refused("it conflicts, but does not say with what".into()).into()),
        }
    }
}

/// What became of one try of a commit: a failure to be weighed, or the caller's answer.
enum CommitFailure {
    Weigh(Failure),
    Tell(CommitError),
}

fn lost(failure: Failure) -> CommitFailure {
    let StoreError::WrongEpoch(why) = failure.into() else {
        return Failure::Lost("the store is another one".into()).into();
    };
    Failure::Lost(why.into()).into()
}

/// All keys below `prefix`: from `prefix/` up to the first key that cannot start so.
pub(crate) fn range(prefix: &Key) -> (String, String) {
    // '0' is the character that follows '/'.
    (format!("{prefix}/"), format!("{prefix}0"))
}

/// A row or page with its header, which every answer has that can be judged.
fn judged(mut answer: GetResponse) -> Result<Answer<GetResponse>, Error> {
    match answer.take_header() {
        Some(header) => Ok((Some(header), answer)),
        None => Err(Error::Internal("an answer without a header".into())),
    }
}

async fn get(client: Client, key: String) -> Result<Answer<GetResponse>, Error> {
    judged(client.kv_client().get(key, None).await?)
}

async fn page(client: Client, from: Vec<u8>, to: String) -> Result<Answer<GetResponse>, Error> {
    let options = GetOptions::new().with_range(to).with_limit(PAGE_ROWS);
    let mut kv = client.kv_client().max_decoding_message_size(PAGE_BYTES_MAX);
    judged(kv.get(from, Some(options)).await?)
}

fn versioned(row: &KeyValue) -> Versioned {
    Versioned {
        value: row.value().to_vec(),
        version: txn::version(row.mod_revision()),
    }
}

/// The key of a listed row; `None` for keys of the store itself.
fn key_of(row: &KeyValue) -> Result<Option<Key>, StoreError> {
    let text = String::from_utf8_lossy(row.key());
    if text.contains("/:") {
        return Ok(None);
    }
    match Key::new(text.as_ref()) {
        Ok(key) => Ok(Some(key)),
        Err(error) => Err(StoreError::Corrupt(error.to_string())),
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.link.guard.check()?;
        Ok(self.link.guard.identity())
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        let key = key.as_str();
        let found = self.link.read(|client| get(client, key.to_owned())).await?;
        Ok(found.kvs().first().map(versioned))
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let (from, to) = range(prefix);
        let mut from = from.into_bytes();
        let mut rows = Vec::new();
        loop {
            let ask = |client| page(client, from.clone(), to.clone());
            let found = self.link.read(ask).await?;
            for row in found.kvs() {
                if let Some(key) = key_of(row)? {
                    rows.push((key, versioned(row)));
                }
            }
            match found.kvs().last() {
                Some(last) if found.more() => {
                    from = last.key().to_vec();
                    // The key that follows at once.
                    from.push(0);
                }
                _ => return Ok(rows),
            }
        }
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        transaction.validate()?;
        self.link.guard.check()?;
        let mut tries = Tries::new(
            self.link.config.url.endpoints.len(),
            self.link.config.timeout,
        );
        loop {
            let failure = match self.commit_once(&transaction, &mut tries).await {
                Ok(committed) => return Ok(committed),
                Err(CommitFailure::Tell(error)) => return Err(error),
                Err(CommitFailure::Weigh(failure)) => failure,
            };
            match failure {
                // Only what certainly did not happen is sent again: what never left this host, and
                // what was refused for its token.
                Failure::NotSent(_) | Failure::Token(_) => tries.again(failure).await?,
                other => return Err(other.into()),
            }
        }
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(EtcdWatch::open(&self.link, prefix).await?))
    }
}

impl From<Failure> for CommitFailure {
    fn from(failure: Failure) -> Self {
        Self::Weigh(failure)
    }
}
