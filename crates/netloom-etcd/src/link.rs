//! The way to the members: which one is spoken to, and what is tried again.
//!
//! One connection at a time, to one member; the next member's turn comes when it fails. The
//! library's own balancer over all members counts a dead one as ready.

use crate::connect::{Connection, Fingerprint, connect, fingerprint};
use crate::failure::Failure;
use crate::guard::{Age, Guard};
use crate::known::known_problems;
use crate::tries::Tries;
use etcd_client::{
    Client, Compare, CompareOp, Error, GetOptions, GetResponse, ResponseHeader, Txn, TxnOp,
};
use netloom_core::{Ids, RemoteStoreConfig, StoreEndpoint, SystemClock};
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// An answer and its header; without one where the answer tells of one member's state alone, which
/// may lag.
pub(crate) type Answer<T> = (Option<ResponseHeader>, T);

pub(crate) struct Link {
    pub(crate) config: RemoteStoreConfig,
    pub(crate) guard: Guard,
    id_key: String,
    current: Mutex<Option<Arc<Connection>>>,
    /// Which member's turn it is; held while a connection is made, so that many callers make one.
    turn: tokio::sync::Mutex<usize>,
    /// Versions that were warned about.
    warned: Mutex<BTreeSet<String>>,
}

impl Link {
    /// Finds out which store this is; gives an empty one its id.
    pub(crate) async fn open(config: RemoteStoreConfig) -> Result<Self, Failure> {
        // No key of the contract holds a colon, so nobody meets it.
        let id_key = format!("{}/:store-id", config.url.prefix);
        let members = config.url.endpoints.len();
        let mut tries = Tries::new(members, config.timeout);
        // Hosts spread over the members.
        let start = usize::from(
            SystemClock::new()
                .operation()
                .as_str()
                .bytes()
                .fold(0, u8::wrapping_add),
        );
        let mut turn = start;
        loop {
            let endpoint = member(&config, turn);
            turn = turn.wrapping_add(1);
            let first = async {
                let connection = connect(&config, endpoint).await?;
                let guard = learn(&connection.client, &id_key).await?;
                Ok((connection, guard))
            };
            let failure = match timeout_at(tries.share(), first).await {
                Ok(Ok((connection, guard))) => {
                    let link = Self {
                        config,
                        guard,
                        id_key,
                        current: Mutex::new(None),
                        turn: tokio::sync::Mutex::new(turn),
                        warned: Mutex::default(),
                    };
                    link.look_at_the_version(&connection).await;
                    link.put(connection);
                    return Ok(link);
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::NotSent(format!("{endpoint} does not answer").into()),
            };
            tries.again(failure.before_the_request()).await?;
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        // One assignment replaces it, so it is whole even after a panic.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, connection: Connection) -> Arc<Connection> {
        let connection = Arc::new(connection);
        *self.current() = Some(connection.clone());
        connection
    }

    /// Nobody is to use `failed` from now on.
    fn leave(&self, failed: &Arc<Connection>) {
        let mut current = self.current();
        if current.as_ref().is_some_and(|now| Arc::ptr_eq(now, failed)) {
            tracing::debug!(endpoint = %failed.endpoint, "the connection is left");
            *current = None;
        }
    }

    /// The connection, made if there is none. Whatever fails here, the caller's request was not
    /// sent.
    pub(crate) async fn connection(&self, until: Instant) -> Result<Arc<Connection>, Failure> {
        let now = self.current().clone();
        if let Some(connection) = now {
            return Ok(connection);
        }
        let made = timeout_at(until, async {
            let mut turn = self.turn.lock().await;
            let now = self.current().clone();
            if let Some(connection) = now {
                return Ok(connection);
            }
            let endpoint = member(&self.config, *turn);
            // Before the first wait: who is cancelled here leaves the turn to the next member.
            *turn = turn.wrapping_add(1);
            let connection = self.checked(endpoint).await?;
            Ok(self.put(connection))
        });
        match made.await {
            Ok(made) => made.map_err(Failure::before_the_request),
            Err(_) => Err(Failure::NotSent("no member answers in time".into())),
        }
    }

    /// Connects, and makes sure that it is still the same store.
    async fn checked(&self, endpoint: &StoreEndpoint) -> Result<Connection, Failure> {
        let connection = connect(&self.config, endpoint).await?;
        let before = self.guard.mark();
        let row = connection
            .client
            .kv_client()
            .get(self.id_key.as_str(), None)
            .await?;
        let (age, _) = self.guard.judge(row.header(), before)?;
        if age == Age::Behind {
            self.confirm(&connection.client).await?;
        } else if id_in(&row).as_deref() != Some(self.guard.id()) {
            return Err(self.guard.replaced(id_in(&row).as_deref()));
        }
        self.look_at_the_version(&connection).await;
        Ok(connection)
    }

    /// Makes a change, to see how far the store is: some servers answer reads with old data, but a
    /// change that gets a revision seen before it is proof that the store went back.
    pub(crate) async fn confirm(&self, client: &Client) -> Result<u64, Failure> {
        let before = self.guard.mark();
        let same = Compare::value(self.id_key.as_str(), CompareOp::Equal, self.guard.id());
        let put = TxnOp::put(self.id_key.as_str(), self.guard.id(), None);
        let answer = client
            .kv_client()
            .txn(Txn::new().when([same]).and_then([put]))
            .await?;
        let (_, revision) = self.guard.judge(answer.header(), before)?;
        if !answer.succeeded() {
            return Err(self.guard.replaced(None));
        }
        if revision <= before {
            return Err(self.guard.rolled_back(revision, before));
        }
        Ok(revision)
    }

    /// One request over one connection.
    pub(crate) async fn call<T>(
        &self,
        connection: &Arc<Connection>,
        until: Instant,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let failure = match timeout_at(until, request).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => Failure::from(error),
            Err(_) => {
                Failure::Lost(format!("{} does not answer in time", connection.endpoint).into())
            }
        };
        if !failure.keeps_the_connection() {
            self.leave(connection);
        }
        Err(failure)
    }

    /// A request that changes nothing: tried with one member after the other until the deadline.
    pub(crate) async fn read<T, F, R>(&self, request: F) -> Result<T, Failure>
    where
        F: Fn(Client) -> R,
        R: Future<Output = Result<Answer<T>, Error>>,
    {
        self.guard.check()?;
        let mut tries = Tries::new(self.config.url.endpoints.len(), self.config.timeout);
        loop {
            match self.read_once(&mut tries, &request).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => tries.again(failure).await?,
            }
        }
    }

    async fn read_once<T, F, R>(&self, tries: &mut Tries, request: &F) -> Result<T, Failure>
    where
        F: Fn(Client) -> R,
        R: Future<Output = Result<Answer<T>, Error>>,
    {
        let until = tries.share();
        let connection = self.connection(until).await?;
        let before = self.guard.mark();
        let asked = request(connection.client.clone());
        let (header, answer) = self.call(&connection, until, asked).await?;
        let Some(header) = header else {
            return Ok(answer);
        };
        match self.guard.judge(Some(&header), before)? {
            (Age::Fine, _) => Ok(answer),
            (Age::Behind, _) => {
                self.leave(&connection);
                match timeout_at(until, self.confirm(&connection.client)).await {
                    Ok(Err(failure)) => Err(failure),
                    Ok(Ok(_)) | Err(_) => Err(Failure::Refused(
                        format!("{} answered with old data", connection.endpoint).into(),
                    )),
                }
            }
        }
    }

    /// Warns once about each server version that is known to have bugs.
    async fn look_at_the_version(&self, connection: &Connection) {
        let Ok(status) = connection.client.maintenance_client().status().await else {
            // A login that may not ask is no reason to serve nobody.
            return;
        };
        let problems = known_problems(status.version());
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if !problems.is_empty() && warned.insert(status.version().to_owned()) {
            tracing::warn!(
                version = status.version(),
                endpoint = %connection.endpoint,
                "this etcd has known bugs, fixed in 3.5.28 and 3.6.9: {}",
                problems.join("; ")
            );
        }
    }

    /// Takes up changed files with a new connection, and keeps the old one when they are no good.
    /// `refused` remembers which were, so that each is told of once.
    pub(crate) async fn renew_if_files_changed(&self, refused: &mut Option<Fingerprint>) {
        let Some(old) = self.current().clone() else {
            // The next connection reads them anyway.
            return;
        };
        let files = fingerprint(&self.config).await;
        if files == old.files {
            return;
        }
        let renewed = async {
            let mut turn = self.turn.lock().await;
            let endpoint = member(&self.config, *turn);
            *turn = turn.wrapping_add(1);
            let connection = self.checked(endpoint).await?;
            Ok(self.put(connection))
        };
        let silence = |_| Err(Failure::NotSent("no answer in time".into()));
        let renewed = tokio::time::timeout(self.config.timeout, renewed).await;
        match renewed.unwrap_or_else(silence) {
            Ok(_) => tracing::info!("certificates or password have changed and are in use"),
            Err(failure) if refused.as_ref() != Some(&files) => {
                tracing::warn!("changed certificates or password are not in use yet: {failure:?}");
                *refused = Some(files);
            }
            Err(_) => {}
        }
    }
}

fn member(config: &RemoteStoreConfig, turn: usize) -> &StoreEndpoint {
    let endpoints = &config.url.endpoints;
    endpoints
        .get(turn % endpoints.len().max(1))
        .expect("a remote address names at least one server")
}

fn id_in(row: &GetResponse) -> Option<String> {
    let row = row.kvs().first()?;
    Some(String::from_utf8_lossy(row.value()).into_owned())
}

/// The cluster's id says who its members are, not what it holds: a member that lost its disk and
/// was set up again with the same words has the same one. So the content gets an id as well.
async fn learn(client: &Client, id_key: &str) -> Result<Guard, Failure> {
    let mut kv = client.kv_client();
    for _ in 0..2 {
        let row = kv.get(id_key, None).await?;
        let header = row
            .header()
            .ok_or_else(|| Failure::Lost("an answer without a header".into()))?;
        let revision = u64::try_from(header.revision()).unwrap_or(0);
        if let Some(id) = id_in(&row) {
            return Ok(Guard::new(header.cluster_id(), id, revision));
        }
        let id = SystemClock::new().operation();
        let absent = Compare::create_revision(id_key, CompareOp::Equal, 0);
        let put = TxnOp::put(id_key, id.as_str(), None);
        // Whoever is first; the next read tells.
        kv.txn(Txn::new().when([absent]).and_then([put])).await?;
    }
    Err(Failure::Lost(
        "the id that was just written is not there".into(),
    ))
}

/// How often the files are looked at: an operator who changes one waits no longer than this.
const FILES_LOOK: Duration = Duration::from_secs(5);

/// Looks after the files of `link` for as long as somebody uses it.
pub(crate) fn look_after_files(link: &Arc<Link>) {
    if crate::connect::files(&link.config).is_empty() {
        return;
    }
    let link = Arc::downgrade(link);
    tokio::spawn(async move {
        let mut refused = None;
        loop {
            tokio::time::sleep(FILES_LOOK).await;
            match link.upgrade() {
                Some(link) => link.renew_if_files_changed(&mut refused).await,
                None => return,
            }
        }
    });
}

/// Keys only, for where a value would only cost.
pub(crate) fn keys_only() -> GetOptions {
    GetOptions::new().with_keys_only()
}
