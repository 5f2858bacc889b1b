//! The words that the driver and the port relay exchange: one line of JSON per request and answer,
//! over the unix socket `relay.sock` in the run directory.
//!
//! The relay is a process of its own, so that a reserved port stays reserved, and connections that
//! it carries stay open, while the daemon is restarted.
//!
//! ```
//! use netloom_drivers::relay::{Request, Reservation};
//!
//! let port = Reservation {
//!     protocol: netloom_types::Protocol::Tcp,
//!     host: "0.0.0.0:8080".parse()?,
//!     target: "10.9.0.2:80".parse()?,
//!     owner: "e1".to_owned(),
//! };
//! let line = Request::Reserve { ports: vec![port.clone()] }.to_line()?;
//! assert_eq!(Request::from_line(line.trim_end())?, Request::Reserve { ports: vec![port] });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use netloom_types::Protocol;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The longest line. A host has 65,535 ports per protocol and address; 16 MiB hold as many
/// reservations of the longest form, so a longer line is no honest one.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest name of an owner: an id has at most 128 characters.
const OWNER_BYTES_MAX: usize = 128;

/// A host port that is kept for a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reservation {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The host's address and port; an unspecified address means every one of its family.
    pub host: SocketAddr,
    /// Where loopback traffic goes: the container's address and port.
    pub target: SocketAddr,
    /// The endpoint that it belongs to.
    pub owner: String,
}

impl Reservation {
    /// The protocol and host address that no two owners can have at once.
    #[must_use]
    pub fn key(&self) -> (Protocol, SocketAddr) {
        (self.protocol, self.host)
    }
}

impl core::fmt::Display for Reservation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.host, self.protocol)
    }
}

/// What the driver asks of the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Hold exactly these ports: release all others, reserve what is missing.
    Sync {
        /// All of them.
        ports: Vec<Reservation>,
    },
    /// Hold these as well: all of them, or none.
    Reserve {
        /// The ports.
        ports: Vec<Reservation>,
    },
    /// Let these go. Those that are not held are skipped.
    Release {
        /// The ports.
        ports: Vec<Reservation>,
    },
    /// Tell what is held.
    List,
}

/// What a port that is on the relay's list is, for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// A socket holds it.
    Held,
    /// The kernel has no such protocol; the port is only on the list.
    Unsupported,
    /// It could not be taken; the next `sync` tries again.
    Failed,
}

/// What the relay answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was done. The list holds what was asked about; after `sync` and `list`, everything.
    Done {
        /// The ports and what they are.
        ports: Vec<(Reservation, Hold)>,
    },
    /// One of the ports cannot be had; nothing was changed.
    Refused {
        /// Which of the request's ports, counted from zero.
        index: usize,
        /// The kind of refusal.
        refusal: Refusal,
        /// What was tried and what the system said.
        reason: String,
    },
    /// The request was not understood.
    Bad {
        /// Why.
        reason: String,
    },
}

/// Why a port cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Somebody has it.
    InUse,
    /// The host does not have the address.
    NoSuchAddress,
    /// Something else.
    Other,
}

/// A line that is not one of ours.
#[derive(Debug, thiserror::Error)]
#[error("the line is not understood: {0}")]
pub struct LineError(String);

impl From<serde_json::Error> for LineError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePort {
    protocol: String,
    host: SocketAddr,
    target: SocketAddr,
    owner: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<Hold>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
enum WireRequest {
    Sync { ports: Vec<WirePort> },
    Reserve { ports: Vec<WirePort> },
    Release { ports: Vec<WirePort> },
    List,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
enum WireAnswer {
    Done {
        ports: Vec<WirePort>,
    },
    Refused {
        index: usize,
        refusal: Refusal,
        reason: String,
    },
    Bad {
        reason: String,
    },
}

impl From<&Reservation> for WirePort {
    fn from(port: &Reservation) -> Self {
        let Reservation {
            protocol,
            host,
            target,
            owner,
        } = port;
        Self {
            protocol: protocol.to_string(),
            host: *host,
            target: *target,
            owner: owner.clone(),
            hold: None,
        }
    }
}

impl TryFrom<WirePort> for Reservation {
    type Error = LineError;

    fn try_from(port: WirePort) -> Result<Self, LineError> {
        let WirePort {
            protocol,
            host,
            target,
            owner,
            hold: _,
        } = port;
        if host.port() == 0 || target.port() == 0 {
            return Err(LineError(format!("port 0 in {host} to {target}")));
        }
        if host.is_ipv4() != target.is_ipv4() {
            return Err(LineError(format!("{host} and {target} differ in family")));
        }
        if owner.is_empty() || owner.len() > OWNER_BYTES_MAX {
            return Err(LineError("the owner's name has a wrong length".into()));
        }
        let protocol = protocol
            .parse()
            .map_err(|error: netloom_types::ParseError| LineError(error.to_string()))?;
        Ok(Self {
            protocol,
            host,
            target,
            owner,
        })
    }
}

fn to_wire(ports: &[Reservation]) -> Vec<WirePort> {
    ports.iter().map(WirePort::from).collect()
}

fn from_wire(ports: Vec<WirePort>) -> Result<Vec<Reservation>, LineError> {
    ports.into_iter().map(Reservation::try_from).collect()
}

fn line(value: &impl Serialize) -> Result<String, LineError> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    Ok(text)
}

impl Request {
    /// The request as a line, with its end.
    ///
    /// # Errors
    /// Never in practice; JSON takes everything that these types hold.
    pub fn to_line(&self) -> Result<String, LineError> {
        line(&match self {
            Self::Sync { ports } => WireRequest::Sync {
                ports: to_wire(ports),
            },
            Self::Reserve { ports } => WireRequest::Reserve {
                ports: to_wire(ports),
            },
            Self::Release { ports } => WireRequest::Release {
                ports: to_wire(ports),
            },
            Self::List => WireRequest::List,
        })
    }

    /// Reads a line.
    ///
    /// # Errors
    /// When it is not one of ours.
    pub fn from_line(line: &str) -> Result<Self, LineError> {
        Ok(match serde_json::from_str(line)? {
            WireRequest::Sync { ports } => Self::Sync {
                ports: from_wire(ports)?,
            },
            WireRequest::Reserve { ports } => Self::Reserve {
                ports: from_wire(ports)?,
            },
            WireRequest::Release { ports } => Self::Release {
                ports: from_wire(ports)?,
            },
            WireRequest::List => Self::List,
        })
    }
}

impl Answer {
    /// The answer as a line, with its end.
    ///
    /// # Errors
    /// Never in practice; JSON takes everything that these types hold.
    pub fn to_line(&self) -> Result<String, LineError> {
        line(&match self {
            Self::Done { ports } => WireAnswer::Done {
                ports: ports
                    .iter()
                    .map(|(port, hold)| WirePort {
                        hold: Some(*hold),
                        ..WirePort::from(port)
                    })
                    .collect(),
            },
            Self::Refused {
                index,
                refusal,
                reason,
            } => WireAnswer::Refused {
                index: *index,
                refusal: *refusal,
                reason: reason.clone(),
            },
            Self::Bad { reason } => WireAnswer::Bad {
                reason: reason.clone(),
            },
        })
    }

    /// Reads a line.
    ///
    /// # Errors
    /// When it is not one of ours.
    pub fn from_line(line: &str) -> Result<Self, LineError> {
        Ok(match serde_json::from_str(line)? {
            WireAnswer::Done { ports } => Self::Done {
                ports: ports
                    .into_iter()
                    .map(|port| {
                        let hold = port.hold.unwrap_or(Hold::Failed);
                        Ok((Reservation::try_from(port)?, hold))
                    })
                    .collect::<Result<_, LineError>>()?,
            },
            WireAnswer::Refused {
                index,
                refusal,
                reason,
            } => Self::Refused {
                index,
                refusal,
                reason,
            },
            WireAnswer::Bad { reason } => Self::Bad { reason },
        })
    }
}

/// The schema of the state file that this release writes, and the newest that it reads.
const STATE_SCHEMA: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireState {
    schema: u32,
    ports: Vec<WirePort>,
}

#[derive(Debug, Deserialize)]
struct WireSchema {
    schema: u32,
}

/// The text of the relay's state file for these ports.
///
/// # Errors
/// Never in practice; JSON takes everything that these types hold.
pub fn state_text(ports: &[Reservation]) -> Result<String, LineError> {
    line(&WireState {
        schema: STATE_SCHEMA,
        ports: to_wire(ports),
    })
}

/// The ports of a state file.
///
/// # Errors
/// When the file is damaged, or a newer release wrote it.
pub fn state_ports(text: &str) -> Result<Vec<Reservation>, LineError> {
    let WireSchema { schema } = serde_json::from_str(text)?;
    if schema != STATE_SCHEMA {
        return Err(LineError(format!(
            "it has schema {schema}, and this release knows {STATE_SCHEMA}; install the newer \
             release again, or remove the file: the daemon tells the relay everything anew"
        )));
    }
    let state: WireState = serde_json::from_str(text)?;
    from_wire(state.ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> Reservation {
        Reservation {
            protocol: Protocol::Sctp,
            host: "[::]:7".parse().unwrap(),
            target: "[fd00::2]:9".parse().unwrap(),
            owner: "e".into(),
        }
    }

    #[test]
    fn requests_and_answers_round_trip() {
        for request in [
            Request::Sync { ports: vec![] },
            Request::Reserve {
                ports: vec![port()],
            },
            Request::Release {
                ports: vec![port()],
            },
            Request::List,
        ] {
            let line = request.to_line().unwrap();
            assert_eq!(Request::from_line(line.trim_end()).unwrap(), request);
        }
        for answer in [
            Answer::Done {
                ports: vec![(port(), Hold::Unsupported)],
            },
            Answer::Refused {
                index: 3,
                refusal: Refusal::InUse,
                reason: "x".into(),
            },
            Answer::Bad { reason: "y".into() },
        ] {
            let line = answer.to_line().unwrap();
            assert_eq!(Answer::from_line(line.trim_end()).unwrap(), answer);
        }
    }

    #[test]
    fn the_state_file_round_trips_and_a_newer_one_is_refused() {
        let text = state_text(&[port()]).unwrap();
        assert_eq!(state_ports(&text).unwrap(), [port()]);
        let error = state_ports(r#"{"schema":2,"ports":[],"more":1}"#).unwrap_err();
        assert!(error.to_string().contains("schema 2"), "{error}");
        assert!(state_ports("").is_err());
    }

    #[test]
    fn hostile_lines_are_refused() {
        for odd in [
            "",
            "{}",
            "[]",
            r#"{"op":"reserve"}"#,
            r#"{"op":"burn"}"#,
            r#"{"op":"reserve","ports":[{"protocol":"icmp","host":"0.0.0.0:1","target":"1.1.1.1:1","owner":"e"}]}"#,
            r#"{"op":"reserve","ports":[{"protocol":"tcp","host":"0.0.0.0:0","target":"1.1.1.1:1","owner":"e"}]}"#,
            r#"{"op":"reserve","ports":[{"protocol":"tcp","host":"[::]:1","target":"1.1.1.1:1","owner":"e"}]}"#,
            r#"{"op":"reserve","ports":[{"protocol":"tcp","host":"0.0.0.0:1","target":"1.1.1.1:1","owner":""}]}"#,
            r#"{"op":"reserve","ports":[{"protocol":"tcp","host":"0.0.0.0:70000","target":"1.1.1.1:1","owner":"e"}]}"#,
        ] {
            assert!(Request::from_line(odd).is_err(), "{odd} was accepted");
        }
    }
}
