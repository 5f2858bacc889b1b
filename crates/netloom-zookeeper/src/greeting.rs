//! What every new session does first: is it still the store that was known?

use crate::connect;
use crate::error::Trouble;
use crate::node::{self, OURS};
use netloom_core::RemoteStoreConfig;
use netloom_core::store::StoreIdentity;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use zookeeper_client::{Acls, Client, CreateMode, Error, Stat};

/// How often a node that others also make and remove is made anew.
const TRIES: u32 = 16;

/// What is known of the store, and where its own nodes lie.
#[derive(Debug)]
pub(crate) struct Known {
    identity: OnceLock<StoreIdentity>,
    mark: AtomicI64,
    directory: String,
    acls: Acls<'static>,
}

impl Known {
    pub(crate) fn new(config: &RemoteStoreConfig) -> Self {
        Self {
            identity: OnceLock::new(),
            mark: AtomicI64::new(0),
            directory: node::path(&config.url.prefix),
            acls: connect::acls(config),
        }
    }

    /// The directory below which everything lies; it is never removed.
    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    /// The node that names the store: written once, so its version is 0 as long as it is this one.
    pub(crate) fn identity_path(&self) -> String {
        format!("{}/{OURS}store", self.directory)
    }

    /// The directory of the hosts that are probably alive.
    pub(crate) fn alive_path(&self) -> String {
        format!("{}/{OURS}alive", self.directory)
    }

    fn mark_path(&self) -> String {
        format!("{}/{OURS}mark", self.directory)
    }

    /// Who may do what with new nodes.
    pub(crate) fn acls(&self) -> Acls<'static> {
        self.acls
    }

    /// The latest change that was seen (ZooKeeper's zxid).
    pub(crate) fn mark(&self) -> i64 {
        self.mark.load(Ordering::Acquire)
    }

    /// Remembers a change that was seen.
    pub(crate) fn saw(&self, stat: &Stat) {
        self.mark.fetch_max(stat.mzxid, Ordering::AcqRel);
    }

    /// Which store it is; `None` before the first session.
    pub(crate) fn identity(&self) -> Option<StoreIdentity> {
        self.identity.get().cloned()
    }
}

/// Makes sure that the store is the known one and did not go back; remembers it if none is known.
pub(crate) async fn greet(
    client: &Client,
    config: &RemoteStoreConfig,
    known: &Known,
) -> Result<(), Trouble> {
    let greeting = async {
        let identity = identity(client, known).await?;
        let before = known.mark();
        let now = change(client, known).await?;
        Ok((identity, before, now))
    };
    let answered = tokio::time::timeout(config.timeout, greeting).await;
    let answered = answered.map_err(|_| Trouble::Unavailable("the server is slow".to_owned()))?;
    let (identity, before, now) = answered.map_err(|error: Error| Trouble::of_read(&error))?;
    let expected = known.identity.get_or_init(|| identity.clone());
    if *expected != identity {
        return Err(Trouble::WrongEpoch(format!(
            "this host knew the store {}, and found {} in its place",
            expected.0, identity.0
        )));
    }
    if now.mzxid <= before {
        return Err(Trouble::WrongEpoch(format!(
            "the store {} made the change {:#x}, but this host has seen {before:#x}: it was put \
             back from an older copy",
            identity.0, now.mzxid
        )));
    }
    known.saw(&now);
    Ok(())
}

/// The store's name, given to it now when it has none.
async fn identity(client: &Client, known: &Known) -> Result<StoreIdentity, Error> {
    let path = known.identity_path();
    for _ in 0..TRIES {
        match client.get_data(&path).await {
            Ok((name, _)) => {
                let name = String::from_utf8(name);
                let name = name.map_err(|_| unexpected("the store's name is no text"))?;
                return Ok(StoreIdentity(name));
            }
            Err(Error::NoNode) => make(client, known, &path, name().as_bytes()).await?,
            Err(other) => return Err(other),
        }
    }
    Err(unexpected("the store's name does not stay"))
}

/// Changes the store and says by which change: what is read on this session from now on is at
/// least as new as everything that was committed before.
async fn change(client: &Client, known: &Known) -> Result<Stat, Error> {
    let path = known.mark_path();
    for _ in 0..TRIES {
        let version = match client.check_stat(&path).await? {
            Some(stat) => stat.version,
            None => {
                make(client, known, &path, b"").await?;
                continue;
            }
        };
        match client.set_data(&path, b"", Some(version.max(0))).await {
            Ok(stat) => return Ok(stat),
            Err(Error::BadVersion | Error::NoNode) => {}
            Err(other) => return Err(other),
        }
    }
    Err(unexpected("too many clients come at once"))
}

/// Creates a node with its directories; fine when another client was first.
async fn make(client: &Client, known: &Known, path: &str, data: &[u8]) -> Result<(), Error> {
    make_directories(client, known, path).await?;
    let options = CreateMode::Persistent.with_acls(known.acls());
    match client.create(path, data, &options).await {
        Ok(_) | Err(Error::NodeExists | Error::NoNode) => Ok(()),
        Err(other) => Err(other),
    }
}

/// Creates the directories above a path that do not exist; another client may remove them again.
pub(crate) async fn make_directories(
    client: &Client,
    known: &Known,
    path: &str,
) -> Result<(), Error> {
    let options = CreateMode::Persistent.with_acls(known.acls());
    let above = node::ancestors(path);
    // From below, so that what exists needs one question; then down again.
    let mut missing = Vec::new();
    for directory in above.into_iter().rev() {
        if client.check_stat(directory).await?.is_some() {
            break;
        }
        missing.push(directory);
    }
    for directory in missing.into_iter().rev() {
        match client.create(directory, b"", &options).await {
            Ok(_) | Err(Error::NodeExists | Error::NoNode) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

fn name() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

fn unexpected(what: &str) -> Error {
    Error::UnexpectedError(what.to_owned())
}
