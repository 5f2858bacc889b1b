//! One session with the ensemble after the other.
//!
//! A task of its own opens sessions, greets the store on each, and opens the next when one ends:
//! expired, refused, or broken. A caller that gives up waiting stops nobody else's connecting.

use crate::connect::{self, Connected};
use crate::error::Trouble;
use crate::greeting::{self, Known};
use crate::server_version;
use netloom_core::RemoteStoreConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use zookeeper_client::{Client, SessionState, TlsDynamicCerts};

/// Between two tries to open a session: doubled from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(2);

/// How often the files of certificates are read while a session lasts. The library connects again at
/// once when a connection is lost, with what it has by then.
const RENEWAL: Duration = Duration::from_secs(10);

/// A session that was greeted by the store that is known.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// The library's client.
    pub(crate) client: Client,
    number: u64,
}

#[derive(Debug, Clone)]
enum State {
    /// None yet, or none any more; why the last try failed.
    Opening(Option<Trouble>),
    Open(Session),
    /// Another store answered. That does not heal by itself.
    Lost(Trouble),
}

/// The sessions of one opened store.
#[derive(Debug)]
pub(crate) struct Sessions {
    state: watch::Receiver<State>,
    /// The number of the latest session that an operation found broken.
    broken: watch::Sender<u64>,
    known: Arc<Known>,
    timeout: Duration,
    keeper: tokio::task::AbortHandle,
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Sessions {
    /// Begins to connect.
    pub(crate) fn open(config: &RemoteStoreConfig) -> Self {
        let (state_sender, state) = watch::channel(State::Opening(None));
        let (broken, broken_receiver) = watch::channel(0);
        let known = Arc::new(Known::new(config));
        let keeper = Keeper {
            config: config.clone(),
            state: state_sender,
            broken: broken_receiver,
            known: known.clone(),
        };
        let keeper = tokio::spawn(keeper.run()).abort_handle();
        let timeout = config.timeout;
        Self {
            state,
            broken,
            known,
            timeout,
            keeper,
        }
    }

    /// What is known of the store.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// When an operation that begins now has to end.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// A session that is connected at this moment.
    pub(crate) async fn ready(&self, deadline: Instant) -> Result<Session, Trouble> {
        match tokio::time::timeout_at(deadline, self.wait()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.why_not()),
        }
    }

    async fn wait(&self) -> Result<Session, Trouble> {
        let mut states = self.state.clone();
        loop {
            let now = states.borrow_and_update().clone();
            match now {
                State::Lost(trouble) | State::Opening(Some(trouble @ Trouble::Denied(_))) => {
                    return Err(trouble);
                }
                State::Open(session) => {
                    let mut connection = session.client.state_watcher();
                    if connection.state() == SessionState::SyncConnected {
                        return Ok(session);
                    }
                    tokio::select! {
                        _ = connection.changed() => continue,
                        changed = states.changed() => changed,
                    }
                }
                State::Opening(_) => states.changed().await,
            }
            .map_err(|_| Trouble::Unavailable("the store was closed".to_owned()))?;
        }
    }

    fn why_not(&self) -> Trouble {
        match &*self.state.borrow() {
            State::Opening(Some(trouble)) | State::Lost(trouble) => trouble.clone(),
            State::Opening(None) => Trouble::Unavailable("no server has answered yet".to_owned()),
            State::Open(_) => Trouble::Unavailable("the connection is lost".to_owned()),
        }
    }

    /// Says that `session` cannot be used any more, whatever the library thinks of it.
    pub(crate) fn give_up(&self, session: &Session) {
        self.broken
            .send_modify(|latest| *latest = session.number.max(*latest));
    }
}

/// The task behind the sessions.
struct Keeper {
    config: RemoteStoreConfig,
    state: watch::Sender<State>,
    broken: watch::Receiver<u64>,
    known: Arc<Known>,
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = PAUSE_FIRST;
        let mut number = 0;
        let mut is_checked = false;
        loop {
            match self.open().await {
                Ok(Connected { client, certs }) => {
                    number += 1;
                    pause = PAUSE_FIRST;
                    if !std::mem::replace(&mut is_checked, true) {
                        tokio::spawn(server_version::warn_of_known_bugs(self.config.clone()));
                    }
                    let opened = client.clone();
                    self.state
                        .send_replace(State::Open(Session { client, number }));
                    self.until_it_ends(opened, certs, number).await;
                    self.state.send_replace(State::Opening(None));
                }
                Err(trouble @ Trouble::WrongEpoch(_)) => {
                    tracing::error!(%trouble, "another store answers; opening it again is a person's decision");
                    self.state.send_replace(State::Lost(trouble));
                    return;
                }
                Err(trouble) => {
                    tracing::warn!(%trouble, "ZooKeeper cannot be used");
                    self.state.send_replace(State::Opening(Some(trouble)));
                    tokio::time::sleep(pause).await;
                    pause = PAUSE_LAST.min(pause * 2);
                }
            }
        }
    }

    async fn open(&self) -> Result<Connected, Trouble> {
        let connected = connect::connect(&self.config).await?;
        greeting::greet(&connected.client, &self.config, &self.known).await?;
        Ok(connected)
    }

    async fn until_it_ends(&mut self, client: Client, certs: Option<TlsDynamicCerts>, number: u64) {
        let mut connection = client.state_watcher();
        // A clone held here would keep the session open after the store is gone.
        drop(client);
        loop {
            let state = tokio::select! {
                state = connection.changed() => Some(state),
                () = tokio::time::sleep(RENEWAL), if certs.is_some() => None,
                broken = self.broken.wait_for(|broken| *broken >= number) => {
                    drop(broken);
                    return;
                }
            };
            match state {
                None | Some(SessionState::Disconnected) => self.renew(certs.as_ref()).await,
                Some(SessionState::SyncConnected | SessionState::ConnectedReadOnly) => {}
                Some(
                    ended @ (SessionState::Expired
                    | SessionState::AuthFailed
                    | SessionState::Closed),
                ) => {
                    tracing::info!(state = %ended, "a session with ZooKeeper ended");
                    return;
                }
            }
        }
    }

    /// Lets the session's next connection use the certificates that lie there now.
    async fn renew(&self, certs: Option<&TlsDynamicCerts>) {
        let Some(certs) = certs else { return };
        match connect::certificates(&self.config.tls).await {
            Ok(fresh) => certs.update(fresh),
            Err(trouble) => tracing::warn!(%trouble, "the certificates stay as they were"),
        }
    }
}
