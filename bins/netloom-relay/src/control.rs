//! The control socket and the list of ports that outlives a restart.

use crate::hold::Table;
use netloom_drivers::relay::{Answer, LINE_BYTES_MAX, Request, state_ports, state_text};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore};

/// The control socket within the run directory.
const SOCKET: &str = "relay.sock";
/// The list of ports within the run directory.
const STATE: &str = "relay.json";
/// A request is one line; who takes longer to send it is no daemon of ours.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests at once; the daemon sends few, and each may hold a long line in memory.
const CLIENTS_MAX: usize = 16;
/// How long to wait when a control connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the relay cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// Another relay answers at the socket.
    #[error("another relay listens at {0}; stop it first")]
    AlreadyRunning(PathBuf),
    /// The list of ports cannot be understood.
    #[error("the list of ports {path} cannot be used: {reason}")]
    BadState {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file or socket operation failed.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> RelayError {
    let what = what.into();
    move |source| RelayError::Io { what, source }
}

/// A relay that is ready to serve.
#[derive(Debug)]
pub struct Relay {
    listener: UnixListener,
    socket: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    state: PathBuf,
    clients: Semaphore,
    owner: u32,
}

impl Relay {
    /// Takes the ports of the last run again, and listens at the control socket.
    ///
    /// # Errors
    /// When another relay runs, the list cannot be understood, or the directory cannot be used.
    pub async fn open(run_dir: &Path) -> Result<Self, RelayError> {
        std::fs::create_dir_all(run_dir).map_err(io(format!("making {}", run_dir.display())))?;
        let socket = run_dir.join(SOCKET);
        if UnixStream::connect(&socket).await.is_ok() {
            return Err(RelayError::AlreadyRunning(socket));
        }
        let state = run_dir.join(STATE);
        let mut table = Table::default();
        match std::fs::read_to_string(&state) {
            Ok(text) => {
                let ports = state_ports(&text).map_err(|error| RelayError::BadState {
                    path: state.clone(),
                    reason: error.to_string(),
                })?;
                table.sync(&ports);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io(format!("reading {}", state.display()))(error)),
        }
        let listener = bind(&socket)?;
        Ok(Self {
            listener,
            socket,
            shared: Arc::new(Shared {
                table: Mutex::new(table),
                state,
                clients: Semaphore::new(CLIENTS_MAX),
                owner: nix::unistd::geteuid().as_raw(),
            }),
        })
    }

    /// Serves the control socket for ever.
    ///
    /// # Errors
    /// Never returns without one; today it never returns.
    pub async fn serve(&self) -> std::io::Result<()> {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(client(stream, Arc::clone(&self.shared)));
                }
                Err(error) => {
                    tracing::warn!(%error, "a control connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Relay {
    /// A socket without a listener would look like a relay that hangs.
    fn drop(&mut self) {
        // Nothing can be done about a failure; the next relay replaces the socket.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Binds the socket under another name first, so that it never stands there open to others.
fn bind(socket: &Path) -> Result<UnixListener, RelayError> {
    let fresh = socket.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(io(format!("removing {}", fresh.display()))(error));
        }
        _ => {}
    }
    let what = format!("listening at {}", socket.display());
    let listener = UnixListener::bind(&fresh).map_err(io(what.clone()))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
        .map_err(io(what.clone()))?;
    std::fs::rename(&fresh, socket).map_err(io(what))?;
    Ok(listener)
}

async fn client(mut stream: UnixStream, shared: Arc<Shared>) {
    let Ok(_permit) = shared.clients.acquire().await else {
        return;
    };
    // The mode of the socket keeps others out; this holds as well where someone changed the mode.
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == shared.owner => {}
        _ => {
            tracing::warn!("a stranger at the control socket was refused");
            return;
        }
    }
    let answer = match tokio::time::timeout(REQUEST_TIMEOUT, read_line(&mut stream)).await {
        Ok(Ok(line)) => match Request::from_line(line.trim_end()) {
            Ok(request) => obey(&shared, &request).await,
            Err(error) => Answer::Bad {
                reason: error.to_string(),
            },
        },
        Ok(Err(error)) => Answer::Bad {
            reason: error.to_string(),
        },
        Err(_) => return,
    };
    let Ok(line) = answer.to_line() else { return };
    if let Err(error) = stream.write_all(line.as_bytes()).await {
        tracing::debug!(%error, "an answer was not taken");
    }
}

async fn read_line(stream: &mut UnixStream) -> std::io::Result<String> {
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut line = String::new();
    BufReader::new(stream.take(limit))
        .read_line(&mut line)
        .await?;
    if !line.ends_with('\n') {
        return Err(std::io::Error::new(
            ErrorKind::InvalidData,
            "the line is cut off or too long",
        ));
    }
    Ok(line)
}

async fn obey(shared: &Shared, request: &Request) -> Answer {
    let mut table = shared.table.lock().await;
    let before = table.reservations();
    let answer = match request {
        Request::Sync { ports } => table.sync(ports),
        Request::Reserve { ports } => table.reserve(ports),
        Request::Release { ports } => table.release(ports),
        Request::List => return table.list(),
    };
    let after = table.reservations();
    // The list is written before the answer goes out: what was answered survives a crash. It need
    // not survive a reboot, which takes the containers as well, so nothing is synced to the disk.
    if after != before
        && let Err(error) = write(&shared.state, &after)
    {
        tracing::error!(%error, "the list of ports could not be written");
    }
    answer
}

/// An empty list is no file, so that an uninstalled relay leaves nothing behind.
fn write(state: &Path, ports: &[netloom_drivers::relay::Reservation]) -> std::io::Result<()> {
    if ports.is_empty() {
        return match std::fs::remove_file(state) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let text = state_text(ports).map_err(std::io::Error::other)?;
    let fresh = state.with_extension("new-list");
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, state)
}
