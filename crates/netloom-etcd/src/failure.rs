//! What an error of etcd's means for the caller: did the request happen, may it be sent again?

use core::fmt;
use etcd_client::Error;
use netloom_core::store::{CommitError, StoreError};
use std::error::Error as StdError;
use tonic::{Code, Status};

/// The reason in words, for the log and for people.
type Reason = Box<dyn StdError + Send + Sync>;

/// Why a call brought no answer that can be used.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing left this host: there was no connection.
    NotSent(Reason),
    /// The member refused before it did anything, and may not do so later.
    Refused(Reason),
    /// It may have happened.
    Lost(Reason),
    /// The member refused before it did anything: the token is no longer good.
    Token(String),
    /// The access rules forbid it: nothing happened.
    Denied(String),
    /// It is larger than etcd takes: nothing happened.
    TooLarge(String),
    /// The store is another one, or went back in time.
    WrongEpoch(String),
}

/// A connection that had ended before the request was handed to it.
#[derive(Debug)]
pub(crate) struct ConnectionGone;

impl fmt::Display for ConnectionGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection has ended")
    }
}

impl StdError for ConnectionGone {}

/// A token that ran out, one of another login, or none where one has become needed. All of them
/// are found before a request is proposed to the members, or when it is applied but before it
/// changes anything.
const TOKEN: [&str; 2] = [
    "etcdserver: revision of auth store is old",
    "etcdserver: user name is empty",
];

/// Refused by a member before it looks at the request. What is not listed here may have happened:
/// "request timed out", "leader changed" and "server stopped" do come after a proposal, and even
/// "database space exceeded" comes for a change that was made, when it was the one that hit the
/// limit.
const REFUSED: [&str; 3] = [
    "etcdserver: no leader",
    "etcdserver: rpc not supported for learner",
    "etcdserver: too many requests",
];

const TOO_LARGE: [&str; 3] = [
    "etcdserver: request is too large",
    "etcdserver: too many operations in txn request",
    // The gRPC layer of the server, for what is larger than any request may be.
    "grpc: received message larger than max",
];

const WRONG_LOGIN: &str = "etcdserver: authentication failed";

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::GRpcStatus(status) => Self::from_status(&status),
            other if is_gone(&other) => Self::NotSent(other.into()),
            other => Self::Lost(other.into()),
        }
    }
}

impl Failure {
    fn from_status(status: &Status) -> Self {
        let message = status.message();
        let starts = |texts: &[&str]| texts.iter().any(|text| message.starts_with(text));
        let reason = || format!("{}: {message}", status.code()).into();
        if is_gone(status) {
            return Self::NotSent(ConnectionGone.into());
        }
        match status.code() {
            Code::Unauthenticated => Self::Token(message.to_owned()),
            Code::PermissionDenied => Self::Denied(message.to_owned()),
            _ if starts(&TOKEN) => Self::Token(message.to_owned()),
            _ if starts(&REFUSED) => Self::Refused(reason()),
            _ if starts(&TOO_LARGE) => Self::TooLarge(message.to_owned()),
            _ if message.starts_with(WRONG_LOGIN) => Self::Denied(message.to_owned()),
            _ => Self::Lost(reason()),
        }
    }

    /// Of a login or of the first look through a new connection: whatever failed there, the request
    /// that waits for the connection was not sent.
    pub(crate) fn before_the_request(self) -> Self {
        match self {
            Self::Lost(reason) | Self::Refused(reason) => Self::NotSent(reason),
            Self::Token(why) | Self::TooLarge(why) => Self::NotSent(why.into()),
            other => other,
        }
    }

    /// Whether the connection can be expected to serve the next request better.
    pub(crate) fn keeps_the_connection(&self) -> bool {
        match self {
            Self::Denied(_) | Self::TooLarge(_) => true,
            // A member that is too busy is not less so after one more handshake.
            Self::Refused(reason) => reason.to_string().contains("too many requests"),
            Self::NotSent(_) | Self::Lost(_) | Self::Token(_) | Self::WrongEpoch(_) => false,
        }
    }
}

/// Walks the chain of causes, because every layer wraps the connector's word once more.
fn is_gone(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<ConnectionGone>() {
            return true;
        }
        next = error.source();
    }
    false
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(reason) | Failure::Refused(reason) | Failure::Lost(reason) => {
                Self::Unavailable(Some(reason))
            }
            Failure::Token(why) | Failure::Denied(why) => Self::Denied(why),
            Failure::TooLarge(why) => Self::Corrupt(why),
            Failure::WrongEpoch(why) => Self::WrongEpoch(why),
        }
    }
}

impl From<Failure> for CommitError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(reason) | Failure::Refused(reason) => Self::Unavailable(Some(reason)),
            Failure::Lost(reason) => Self::Unknown(Some(reason)),
            Failure::Token(why) | Failure::Denied(why) => Self::Denied(why),
            Failure::TooLarge(_) => Self::TooLarge,
            Failure::WrongEpoch(why) => Self::WrongEpoch(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(status: Status) -> CommitError {
        Failure::from(Error::GRpcStatus(status)).into()
    }

    #[test]
    fn what_may_have_happened_is_unknown() {
        for status in [
            Status::unavailable("etcdserver: request timed out"),
            Status::unavailable(
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            Status::unavailable("etcdserver: leader changed"),
            Status::unavailable("etcdserver: server stopped"),
            Status::unavailable("error reading a body from connection: connection reset"),
            Status::resource_exhausted("etcdserver: mvcc: database space exceeded"),
            Status::cancelled("Timeout expired"),
            Status::unknown("something new"),
            Status::internal("h2 protocol error"),
        ] {
            let told = status.to_string();
            assert!(matches!(commit(status), CommitError::Unknown(_)), "{told}");
        }
    }

    #[test]
    fn what_was_refused_before_anything_happened_is_not_unknown() {
        assert!(matches!(
            commit(Status::unavailable("etcdserver: no leader")),
            CommitError::Unavailable(_)
        ));
        assert!(matches!(
            commit(Status::invalid_argument("etcdserver: request is too large")),
            CommitError::TooLarge
        ));
        assert!(matches!(
            commit(Status::resource_exhausted(
                "grpc: received message larger than max (9 vs. 8)"
            )),
            CommitError::TooLarge
        ));
        assert!(matches!(
            commit(Status::permission_denied("etcdserver: permission denied")),
            CommitError::Denied(_)
        ));
    }

    #[test]
    fn a_connection_that_had_ended_is_told_from_one_that_broke() {
        let from_connector = |word| Status::from_error(Box::new(tonic::ConnectError(word)));
        let gone = from_connector(Box::new(ConnectionGone));
        assert!(matches!(commit(gone), CommitError::Unavailable(_)));
        let broke = from_connector("broken pipe".into());
        assert!(matches!(commit(broke), CommitError::Unknown(_)));
    }
}
