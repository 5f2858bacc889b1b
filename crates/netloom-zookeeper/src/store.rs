//! The store itself.

use crate::commit::wiped;
use crate::connect;
use crate::error::{self, Trouble};
use crate::greeting::Known;
use crate::node::{self, Node, OURS};
use crate::session::{Session, Sessions};
use crate::watch::NodeWatch;
use async_trait::async_trait;
use netloom_core::RemoteStoreConfig;
use netloom_core::store::{
    CommitError, Committed, Key, Store, StoreError, StoreIdentity, Transaction, Versioned, Watch,
};
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use zookeeper_client::{AddWatchMode, Error, MultiWriteError};

/// So many reads are under way at once in a list.
const PIPELINE: usize = 256;
/// Between a broken read and the next try, so that a session that breaks at once is no busy loop.
const PAUSE: Duration = Duration::from_millis(10);

/// The store contract on a ZooKeeper ensemble. See the crate's own page for how it is kept.
#[derive(Debug)]
pub struct ZooKeeperStore {
    sessions: Sessions,
}

impl ZooKeeperStore {
    /// Begins to connect. A store that cannot be reached now is no error: its operations are
    /// `Unavailable` until it can.
    ///
    /// # Errors
    /// `Denied` for a login that ZooKeeper does not have.
    #[allow(clippy::unused_async, reason = "all stores are opened in the same way")]
    pub async fn open(config: &RemoteStoreConfig) -> Result<Self, StoreError> {
        connect::check(config)?;
        let sessions = Sessions::open(config);
        Ok(Self { sessions })
    }

    /// The highest change (zxid) that was seen of this store. Kept outside of the store, it tells
    /// a later run whether the store went back.
    #[must_use]
    pub fn mark(&self) -> u64 {
        u64::try_from(self.known().mark()).unwrap_or(0)
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(crate) fn known(&self) -> &Known {
        self.sessions.known()
    }

    /// Goes through the quorum without a change. What is asked behind it on the same session is at
    /// least as new as everything committed before; a `sync` does not give that, since a leader
    /// that lost its followers answers it as before. It is sent by this call, not by the await.
    pub(crate) fn fence<'a>(
        &self,
        session: &'a Session,
    ) -> impl Future<Output = Result<(), ReadError>> + Send + use<'a> {
        let mut writer = session.client.new_multi_writer();
        let filled = writer.add_check_version(&self.known().identity_path(), 0);
        let sent = writer.commit();
        async move {
            filled?;
            match sent.await {
                Ok(_) => Ok(()),
                Err(MultiWriteError::OperationFailed {
                    source: Error::NoNode | Error::BadVersion,
                    ..
                }) => Err(ReadError::Final(wiped())),
                Err(
                    MultiWriteError::OperationFailed { source, .. }
                    | MultiWriteError::RequestFailed { source },
                ) => Err(ReadError::Library(source)),
            }
        }
    }

    /// Lets the next operation open another session when this one cannot be used any more.
    pub(crate) fn note(&self, session: &Session, error: &Error) {
        match error {
            // The library goes on by itself, or says so in its session's state.
            Error::ConnectionLoss | Error::Timeout | Error::Custom(_) => {}
            _ => self.sessions.give_up(session),
        }
    }

    /// Reads, again when the connection breaks, until there is no time left.
    pub(crate) async fn read<'a, T, F, Fut>(&'a self, read: F) -> Result<T, Trouble>
    where
        F: Fn(Session) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, ReadError>> + Send + 'a,
    {
        let deadline = self.sessions.deadline();
        loop {
            let session = self.sessions.ready(deadline).await?;
            match timeout_at(deadline, read(session.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(ReadError::Final(trouble))) => return Err(trouble),
                Ok(Err(ReadError::Library(error))) if error::is_answer(&error) => {
                    return Err(Trouble::of_read(&error));
                }
                Ok(Err(ReadError::Library(error))) => {
                    self.note(&session, &error);
                    if Instant::now() + PAUSE >= deadline {
                        return Err(Trouble::of_read(&error));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(_) => return Err(slow()),
            }
        }
    }

    /// What stands at these paths, with how many nodes lie below each.
    async fn nodes(&self, paths: &[String]) -> Result<Vec<(Node, i32)>, Trouble> {
        let read = |session: Session| async move {
            let fence = self.fence(&session);
            let asked: Vec<_> = paths
                .iter()
                .map(|path| session.client.get_data(path))
                .collect();
            fence.await?;
            let mut nodes = Vec::with_capacity(asked.len());
            for answer in asked {
                nodes.push(match answer.await {
                    Ok((data, stat)) => {
                        self.known().saw(&stat);
                        (Node::parse(&data, stat.version), stat.num_children)
                    }
                    Err(Error::NoNode) => (Node::Missing, 0),
                    Err(other) => return Err(other.into()),
                });
            }
            Ok(nodes)
        };
        self.read(read).await
    }

    /// The names of what lies in these directories, as paths; nothing of ours.
    async fn children(&self, directories: &[String]) -> Result<Vec<String>, Trouble> {
        let read = |session: Session| async move {
            let fence = self.fence(&session);
            let asked: Vec<_> = directories
                .iter()
                .map(|directory| session.client.list_children(directory))
                .collect();
            fence.await?;
            let mut paths = Vec::new();
            for (directory, answer) in directories.iter().zip(asked) {
                match answer.await {
                    Ok(names) => paths.extend(
                        names
                            .iter()
                            .filter(|name| !name.starts_with(OURS))
                            .map(|name| format!("{directory}/{name}")),
                    ),
                    Err(Error::NoNode) => {}
                    Err(other) => return Err(other.into()),
                }
            }
            Ok(paths)
        };
        self.read(read).await
    }

    async fn walk(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, Trouble> {
        let mut rows = Vec::new();
        let mut directories = vec![node::path(prefix)];
        while !directories.is_empty() {
            let mut paths = Vec::new();
            for some in directories.chunks(PIPELINE) {
                paths.extend(self.children(some).await?);
            }
            directories.clear();
            for some in paths.chunks(PIPELINE) {
                for (path, (node, below)) in some.iter().zip(self.nodes(some).await?) {
                    // A name that no key can have was made by somebody else for something else.
                    let Some(key) = key_of(path) else { continue };
                    // A value has one node of ours below it.
                    let own = i32::from(matches!(node, Node::Holds(..)));
                    if below > own {
                        directories.push(path.clone());
                    }
                    if let Some(row) = value(&key, node)? {
                        rows.push((key, row));
                    }
                }
            }
        }
        rows.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(rows)
    }

    async fn look(&self, key: &Key) -> Result<Option<Versioned>, Trouble> {
        let mut nodes = self.nodes(&[node::path(key)]).await?;
        let (node, _) = nodes.pop().unwrap_or((Node::Missing, 0));
        value(key, node)
    }

    async fn listen(&self, prefix: &Key) -> Result<NodeWatch, Trouble> {
        let path = node::path(prefix);
        let path = path.as_str();
        let watch = |session: Session| async move {
            let mode = AddWatchMode::PersistentRecursive;
            let watcher = session.client.watch(path, mode).await?;
            Ok(NodeWatch::new(watcher))
        };
        self.read(watch).await
    }
}

fn key_of(path: &str) -> Option<Key> {
    Key::new(path.strip_prefix('/')?).ok()
}

fn value(key: &Key, node: Node) -> Result<Option<Versioned>, Trouble> {
    node.value()
        .map_err(|foreign| Trouble::Corrupt(format!("{key}: {foreign}")))
}

fn slow() -> Trouble {
    Trouble::Unavailable("the answer did not come in time".to_owned())
}

/// Why a try to read failed.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// Another try may work.
    Library(Error),
    /// None will.
    Final(Trouble),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

#[async_trait]
impl Store for ZooKeeperStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.sessions.ready(self.sessions.deadline()).await?;
        let identity = self.known().identity();
        Ok(identity.ok_or_else(slow)?)
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        Ok(self.look(key).await?)
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        Ok(self.walk(prefix).await?)
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        self.carry_out(transaction).await
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(self.listen(prefix).await?))
    }
}
