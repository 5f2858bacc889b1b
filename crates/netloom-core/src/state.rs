//! The life cycles: one state enum each, and the one function that says what may follow.

/// An event that its state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {what} that is {from} cannot take the event {event}")]
pub struct InvalidTransition {
    what: &'static str,
    from: String,
    event: String,
}

impl InvalidTransition {
    fn new(what: &'static str, from: impl core::fmt::Debug, event: impl core::fmt::Debug) -> Self {
        Self {
            what,
            from: format!("{from:?}"),
            event: format!("{event:?}"),
        }
    }
}

/// Where a network stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetworkState {
    /// Wanted and recorded; the kernel may hold none, some or all of it. Entered first of all.
    Creating,
    /// It exists. Entered from `Creating`.
    Ready,
    /// Unwanted; the kernel may still hold some of it. Entered from `Creating` and `Ready`, left by
    /// removal of the record.
    Deleting,
}

/// What happens to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetworkEvent {
    /// The kernel holds all of it.
    Built,
    /// Its removal was asked for, or its creation failed.
    DeleteBegun,
}

impl NetworkState {
    /// The state after `event`.
    ///
    /// # Errors
    /// When the event is not allowed in this state.
    pub fn after(self, event: NetworkEvent) -> Result<Self, InvalidTransition> {
        match (self, event) {
            // A repeated create finds the network built already.
            (Self::Creating | Self::Ready, NetworkEvent::Built) => Ok(Self::Ready),
            (_, NetworkEvent::DeleteBegun) => Ok(Self::Deleting),
            (Self::Deleting, NetworkEvent::Built) => {
                Err(InvalidTransition::new("network", self, event))
            }
        }
    }
}

/// Where an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndpointState {
    /// Recorded, with its addresses; no link exists. Entered first of all, and from `Leaving`.
    Created,
    /// A sandbox was named; the link may or may not exist. Entered from `Created`.
    Joining,
    /// The link exists and was announced to the caller. Entered from `Joining`.
    Joined,
    /// Its link is being removed. Entered from `Joining` and `Joined`.
    Leaving,
    /// Unwanted altogether. Entered from every state, left by removal of the record.
    Deleting,
}

/// What happens to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndpointEvent {
    /// A sandbox was named for it.
    JoinBegun,
    /// Its link is in place.
    JoinDone,
    /// It shall leave its sandbox.
    LeaveBegun,
    /// Its link is gone.
    LeaveDone,
    /// Its removal was asked for.
    DeleteBegun,
}

impl EndpointState {
    /// The state after `event`.
    ///
    /// # Errors
    /// When the event is not allowed in this state.
    pub fn after(self, event: EndpointEvent) -> Result<Self, InvalidTransition> {
        match (self, event) {
            // Docker may repeat a Join whose answer it did not get.
            (Self::Created | Self::Joining, EndpointEvent::JoinBegun) => Ok(Self::Joining),
            (Self::Joining, EndpointEvent::JoinDone) => Ok(Self::Joined),
            // A Leave for an endpoint that never joined changes nothing and is no error.
            (Self::Created, EndpointEvent::LeaveBegun | EndpointEvent::LeaveDone) => {
                Ok(Self::Created)
            }
            (Self::Joining | Self::Joined | Self::Leaving, EndpointEvent::LeaveBegun) => {
                Ok(Self::Leaving)
            }
            (Self::Leaving, EndpointEvent::LeaveDone) => Ok(Self::Created),
            (_, EndpointEvent::DeleteBegun) => Ok(Self::Deleting),
            _ => Err(InvalidTransition::new("endpoint", self, event)),
        }
    }
}

/// Where a sandbox stands. Its life is Docker's to decide; it is known by its endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SandboxState {
    /// Named by a join, its namespace not seen yet (Docker before 28 makes it later). Entered first.
    Expected,
    /// Its namespace exists. Entered from `Expected`.
    Present,
    /// Its namespace is gone; endpoints that are still joined to it are stale. Entered from both.
    Gone,
}

/// What happens to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SandboxEvent {
    /// Its namespace was seen.
    Seen,
    /// Its namespace was looked for and does not exist.
    Missed,
}

impl SandboxState {
    /// The state after `event`.
    ///
    /// # Errors
    /// When a sandbox that is gone would come back: ids are never used twice.
    pub fn after(self, event: SandboxEvent) -> Result<Self, InvalidTransition> {
        match (self, event) {
            (Self::Expected | Self::Present, SandboxEvent::Seen) => Ok(Self::Present),
            // Not seen yet is no proof of death before it was seen once.
            (Self::Expected, SandboxEvent::Missed) => Ok(Self::Expected),
            (Self::Present | Self::Gone, SandboxEvent::Missed) => Ok(Self::Gone),
            (Self::Gone, SandboxEvent::Seen) => Err(InvalidTransition::new("sandbox", self, event)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EndpointEvent::{DeleteBegun, JoinBegun, JoinDone, LeaveBegun, LeaveDone};
    use EndpointState::{Created, Deleting, Joined, Joining, Leaving};

    #[test]
    fn every_endpoint_transition_is_as_documented() {
        let allowed = [
            (Created, JoinBegun, Joining),
            (Joining, JoinBegun, Joining),
            (Joining, JoinDone, Joined),
            (Created, LeaveBegun, Created),
            (Created, LeaveDone, Created),
            (Joining, LeaveBegun, Leaving),
            (Joined, LeaveBegun, Leaving),
            (Leaving, LeaveBegun, Leaving),
            (Leaving, LeaveDone, Created),
        ];
        for state in [Created, Joining, Joined, Leaving, Deleting] {
            for event in [JoinBegun, JoinDone, LeaveBegun, LeaveDone, DeleteBegun] {
                let expected = allowed
                    .iter()
                    .find(|(s, e, _)| (*s, *e) == (state, event))
                    .map(|(_, _, next)| *next)
                    .or((event == DeleteBegun).then_some(Deleting));
                assert_eq!(
                    state.after(event).ok(),
                    expected,
                    "{state:?} after {event:?}"
                );
            }
        }
    }

    #[test]
    fn a_deleting_network_does_not_come_back() {
        assert!(NetworkState::Deleting.after(NetworkEvent::Built).is_err());
        assert_eq!(
            NetworkState::Creating.after(NetworkEvent::Built),
            Ok(NetworkState::Ready)
        );
    }

    #[test]
    fn a_sandbox_is_not_declared_dead_before_it_was_seen() {
        let state = SandboxState::Expected.after(SandboxEvent::Missed).unwrap();
        assert_eq!(state, SandboxState::Expected);
        let gone = SandboxState::Present.after(SandboxEvent::Missed).unwrap();
        assert!(gone.after(SandboxEvent::Seen).is_err());
    }
}
