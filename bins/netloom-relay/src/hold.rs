//! The ports that are held, and what is done for each.

use crate::carry;
use crate::socket::{Kept, Refused, keep};
use netloom_drivers::relay::{Answer, Hold, Refusal, Reservation};
use netloom_types::Protocol;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio::task::AbortHandle;

type Key = (Protocol, SocketAddr);

/// One port on the list.
#[derive(Debug)]
struct Entry {
    port: Reservation,
    held: Held,
}

/// What stands behind an entry. Dropping it frees the port.
#[derive(Debug)]
enum Held {
    /// A task owns the socket and carries what arrives.
    Carried(#[allow(dead_code, reason = "dropping it ends the task")] Guard),
    /// A socket that nobody reads.
    Kept(#[allow(dead_code, reason = "it is held for its port alone")] Kept),
    /// Nothing: the kernel lacks the protocol.
    Unsupported,
    /// Nothing: it could not be taken.
    Failed,
}

/// Ends a task when it is dropped.
#[derive(Debug)]
struct Guard(AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Held {
    fn of(kept: Kept, target: SocketAddr) -> Self {
        let carried =
            |handle: tokio::task::JoinHandle<()>| Self::Carried(Guard(handle.abort_handle()));
        match kept {
            Kept::Tcp(listener) => carried(tokio::spawn(carry::tcp(listener, target))),
            Kept::Udp(socket) => carried(tokio::spawn(carry::udp(socket, target))),
            Kept::Sctp(_) => Self::Kept(kept),
            Kept::Unsupported => Self::Unsupported,
        }
    }

    fn hold(&self) -> Hold {
        match self {
            Self::Carried(_) | Self::Kept(_) => Hold::Held,
            Self::Unsupported => Hold::Unsupported,
            Self::Failed => Hold::Failed,
        }
    }
}

/// All ports.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: BTreeMap<Key, Entry>,
}

impl Table {
    /// Every reservation, whether it could be taken or not.
    pub(crate) fn reservations(&self) -> Vec<Reservation> {
        self.entries
            .values()
            .map(|entry| entry.port.clone())
            .collect()
    }

    /// Everything that is held.
    pub(crate) fn list(&self) -> Answer {
        Answer::Done {
            ports: self
                .entries
                .values()
                .map(|entry| (entry.port.clone(), entry.held.hold()))
                .collect(),
        }
    }

    /// Takes all of `ports`, or none.
    pub(crate) fn reserve(&mut self, ports: &[Reservation]) -> Answer {
        let mut new: BTreeMap<Key, (Reservation, Kept)> = BTreeMap::new();
        for (index, port) in ports.iter().enumerate() {
            let before = self
                .entries
                .get(&port.key())
                .filter(|entry| entry.held.hold() != Hold::Failed)
                .map(|entry| &entry.port)
                .or_else(|| new.get(&port.key()).map(|(port, _)| port));
            match before {
                Some(before) if before == port => continue,
                Some(before) => {
                    return Answer::Refused {
                        index,
                        refusal: Refusal::InUse,
                        reason: format!("endpoint {} has it", before.owner),
                    };
                }
                None => {}
            }
            match keep(port) {
                Ok(kept) => {
                    new.insert(port.key(), (port.clone(), kept));
                }
                Err(refused) => return self.refuse(index, port, refused),
            }
        }
        for (key, (port, kept)) in new {
            let held = Held::of(kept, port.target);
            self.entries.insert(key, Entry { port, held });
        }
        let hold = |port: &Reservation| {
            self.entries
                .get(&port.key())
                .map_or(Hold::Failed, |entry| entry.held.hold())
        };
        Answer::Done {
            ports: ports
                .iter()
                .map(|port| (port.clone(), hold(port)))
                .collect(),
        }
    }

    /// A refusal that names the endpoint where one of ours is in the way.
    fn refuse(&self, index: usize, port: &Reservation, refused: Refused) -> Answer {
        let holder = self.entries.values().find(|entry| {
            let (protocol, host) = entry.port.key();
            protocol == port.protocol
                && host.port() == port.host.port()
                && host.is_ipv4() == port.host.is_ipv4()
        });
        let reason = match (refused.refusal, holder) {
            (Refusal::InUse, Some(entry)) => {
                format!("endpoint {} has {}", entry.port.owner, entry.port)
            }
            _ => refused.reason,
        };
        Answer::Refused {
            index,
            refusal: refused.refusal,
            reason,
        }
    }

    /// Lets ports go; one that has another owner by now stays.
    pub(crate) fn release(&mut self, ports: &[Reservation]) -> Answer {
        for port in ports {
            if self
                .entries
                .get(&port.key())
                .is_some_and(|entry| entry.port == *port)
            {
                self.entries.remove(&port.key());
            }
        }
        Answer::Done { ports: Vec::new() }
    }

    /// Holds exactly `ports`; what cannot be taken stays on the list for the next time.
    pub(crate) fn sync(&mut self, ports: &[Reservation]) -> Answer {
        let wanted: BTreeMap<Key, &Reservation> = ports.iter().map(|p| (p.key(), p)).collect();
        self.entries
            .retain(|key, entry| wanted.get(key).is_some_and(|port| **port == entry.port));
        for (key, port) in wanted {
            let failed = |entry: &Entry| entry.held.hold() == Hold::Failed;
            if self.entries.get(&key).is_some_and(|entry| !failed(entry)) {
                continue;
            }
            let held = match keep(port) {
                Ok(kept) => Held::of(kept, port.target),
                Err(Refused { reason, .. }) => {
                    tracing::warn!(%port, reason, "a published port is not reserved");
                    Held::Failed
                }
            };
            let port = port.clone();
            self.entries.insert(key, Entry { port, held });
        }
        self.list()
    }
}
