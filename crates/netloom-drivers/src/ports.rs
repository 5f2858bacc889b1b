//! Who keeps published host ports: the relay process, nobody, or a fake.

use crate::relay::{Answer, Hold, LINE_BYTES_MAX, Refusal, Request, Reservation};
use async_trait::async_trait;
use netloom_types::Protocol;
use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The relay answers in well under a millisecond per port; dockerd waits behind us.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Why ports could not be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// One port cannot be had; none was taken.
    #[error("port {port} cannot be had: {reason}")]
    Refused {
        /// Which of the ports, counted from zero.
        index: usize,
        /// The port.
        port: Box<Reservation>,
        /// The kind of refusal.
        refusal: Refusal,
        /// What the system said.
        reason: String,
    },
    /// The keeper did not answer as it should.
    #[error("the port relay at {socket} does not answer: {reason}; is netloom-relay running?")]
    Unavailable {
        /// Its socket.
        socket: String,
        /// What happened.
        reason: String,
    },
}

/// Keeps host ports from being taken by other programs.
#[async_trait]
pub trait PortKeeper: core::fmt::Debug + Send + Sync {
    /// Takes all of `ports`, or none. Those that their owner has already count as taken.
    ///
    /// # Errors
    /// When one cannot be had, or the keeper does not answer.
    async fn reserve(&self, ports: &[Reservation]) -> Result<(), KeeperError>;

    /// Lets ports go; those that are not held are skipped.
    ///
    /// # Errors
    /// When the keeper does not answer.
    async fn release(&self, ports: &[Reservation]) -> Result<(), KeeperError>;

    /// Holds exactly `ports`; gives back those that it could not take.
    ///
    /// # Errors
    /// When the keeper does not answer.
    async fn sync(&self, ports: &[Reservation]) -> Result<Vec<Reservation>, KeeperError>;

    /// Those of `ports` that are not held.
    ///
    /// # Errors
    /// When the keeper does not answer.
    async fn missing(&self, ports: &[Reservation]) -> Result<Vec<Reservation>, KeeperError>;
}

/// The relay process behind its socket.
#[derive(Debug, Clone)]
pub struct RelayClient {
    socket: PathBuf,
}

impl RelayClient {
    /// A client of the relay that listens at `socket`.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Sends one request and reads its answer.
    async fn ask(&self, request: &Request) -> Result<Answer, KeeperError> {
        let unavailable = |reason: String| KeeperError::Unavailable {
            socket: self.socket.display().to_string(),
            reason,
        };
        let line = request.to_line().map_err(|e| unavailable(e.to_string()))?;
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(&line))
            .await
            .map_err(|_| unavailable("no answer within 2 seconds".into()))?
            .map_err(|e| unavailable(e.to_string()))?;
        match Answer::from_line(answer.trim_end()).map_err(|e| unavailable(e.to_string()))? {
            Answer::Bad { reason } => Err(unavailable(reason)),
            answer => Ok(answer),
        }
    }

    async fn exchange(&self, line: &str) -> std::io::Result<String> {
        // A connection per request: it costs some 50 microseconds and survives every restart.
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream.write_all(line.as_bytes()).await?;
        stream.shutdown().await?;
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let mut answer = String::new();
        stream.take(limit).read_to_string(&mut answer).await?;
        if answer.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer)
    }

    /// The ports and their holds of an answer that lists.
    fn listed(&self, answer: Answer) -> Result<Vec<(Reservation, Hold)>, KeeperError> {
        match answer {
            Answer::Done { ports } => Ok(ports),
            Answer::Refused { reason, .. } | Answer::Bad { reason } => {
                Err(KeeperError::Unavailable {
                    socket: self.socket.display().to_string(),
                    reason,
                })
            }
        }
    }
}

#[async_trait]
impl PortKeeper for RelayClient {
    async fn reserve(&self, ports: &[Reservation]) -> Result<(), KeeperError> {
        let request = Request::Reserve {
            ports: ports.to_vec(),
        };
        match self.ask(&request).await? {
            Answer::Refused {
                index,
                refusal,
                reason,
            } => match ports.get(index) {
                Some(port) => Err(KeeperError::Refused {
                    index,
                    port: Box::new(port.clone()),
                    refusal,
                    reason,
                }),
                None => Err(KeeperError::Unavailable {
                    socket: self.socket.display().to_string(),
                    reason,
                }),
            },
            answer => self.listed(answer).map(drop),
        }
    }

    async fn release(&self, ports: &[Reservation]) -> Result<(), KeeperError> {
        let request = Request::Release {
            ports: ports.to_vec(),
        };
        let answer = self.ask(&request).await?;
        self.listed(answer).map(drop)
    }

    async fn sync(&self, ports: &[Reservation]) -> Result<Vec<Reservation>, KeeperError> {
        let request = Request::Sync {
            ports: ports.to_vec(),
        };
        let answer = self.ask(&request).await?;
        let listed = self.listed(answer)?;
        Ok(not_held(ports, &listed))
    }

    async fn missing(&self, ports: &[Reservation]) -> Result<Vec<Reservation>, KeeperError> {
        let answer = self.ask(&Request::List).await?;
        let listed = self.listed(answer)?;
        Ok(not_held(ports, &listed))
    }
}

fn not_held(ports: &[Reservation], listed: &[(Reservation, Hold)]) -> Vec<Reservation> {
    let held: std::collections::BTreeSet<&Reservation> = listed
        .iter()
        .filter(|(_, hold)| *hold != Hold::Failed)
        .map(|(port, _)| port)
        .collect();
    ports
        .iter()
        .filter(|port| !held.contains(port))
        .cloned()
        .collect()
}

/// No relay: a port is tried once when it is published, and kept by nobody afterwards.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRelay;

#[async_trait]
impl PortKeeper for NoRelay {
    async fn reserve(&self, ports: &[Reservation]) -> Result<(), KeeperError> {
        for (index, port) in ports.iter().enumerate() {
            // One after the other: a socket of the standard library for `::` takes the port of
            // IPv4 as well.
            let tried = match port.protocol {
                Protocol::Tcp => TcpListener::bind(port.host).map(drop),
                Protocol::Udp => UdpSocket::bind(port.host).map(drop),
                // The standard library has no such sockets; the kernel's map still refuses two
                // owners of one port.
                Protocol::Sctp => Ok(()),
            };
            tried.map_err(|error| KeeperError::Refused {
                index,
                port: Box::new(port.clone()),
                refusal: refusal(&error),
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }

    async fn release(&self, _ports: &[Reservation]) -> Result<(), KeeperError> {
        Ok(())
    }

    async fn sync(&self, _ports: &[Reservation]) -> Result<Vec<Reservation>, KeeperError> {
        Ok(Vec::new())
    }

    async fn missing(&self, _ports: &[Reservation]) -> Result<Vec<Reservation>, KeeperError> {
        Ok(Vec::new())
    }
}

/// What a failed bind means.
fn refusal(error: &std::io::Error) -> Refusal {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => Refusal::InUse,
        std::io::ErrorKind::AddrNotAvailable => Refusal::NoSuchAddress,
        _ => Refusal::Other,
    }
}

/// A keeper made of memory, for tests.
#[derive(Debug, Default)]
pub struct FakeKeeper {
    held: Mutex<BTreeMap<(Protocol, std::net::SocketAddr), Reservation>>,
}

impl FakeKeeper {
    /// A keeper that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What it holds, in order.
    #[must_use]
    pub fn held(&self) -> Vec<Reservation> {
        self.lock().values().cloned().collect()
    }

    /// Forgets everything, as a relay that was killed and lost its file does.
    pub fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Protocol, std::net::SocketAddr), Reservation>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl PortKeeper for FakeKeeper {
    async fn reserve(&self, ports: &[Reservation]) -> Result<(), KeeperError> {
        let mut held = self.lock();
        let mut next = held.clone();
        for (index, port) in ports.iter().enumerate() {
            if let Some(holder) = next.insert(port.key(), port.clone())
                && holder != *port
            {
                return Err(KeeperError::Refused {
                    index,
                    port: Box::new(port.clone()),
                    refusal: Refusal::InUse,
                    reason: format!("endpoint {} has it", holder.owner),
                });
            }
        }
        *held = next;
        Ok(())
    }

    async fn release(&self, ports: &[Reservation]) -> Result<(), KeeperError> {
        let mut held = self.lock();
        held.retain(|_, have| !ports.contains(have));
        Ok(())
    }

    async fn sync(&self, ports: &[Reservation]) -> Result<Vec<Reservation>, KeeperError> {
        *self.lock() = ports.iter().map(|p| (p.key(), p.clone())).collect();
        Ok(Vec::new())
    }

    async fn missing(&self, ports: &[Reservation]) -> Result<Vec<Reservation>, KeeperError> {
        let held = self.lock();
        let is_missing = |port: &&Reservation| held.get(&port.key()) != Some(port);
        Ok(ports.iter().filter(is_missing).cloned().collect())
    }
}
