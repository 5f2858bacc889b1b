//! What an error of the client library says about what happened.

use netloom_core::store::{CommitError, StoreError};
use zookeeper_client::Error;

/// Why nothing was done, or why nobody knows.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Trouble {
    /// It may work later.
    #[error("{0}")]
    Unavailable(String),
    /// The server refuses this client.
    #[error("{0}")]
    Denied(String),
    /// Another store, or an older state of it, answers.
    #[error("{0}")]
    WrongEpoch(String),
    /// Bytes that this backend never wrote.
    #[error("{0}")]
    Corrupt(String),
}

impl Trouble {
    /// What to do about an error of a request that changes nothing.
    pub(crate) fn of_read(error: &Error) -> Self {
        match error {
            Error::NoAuth | Error::AuthFailed | Error::InvalidAcl => {
                Self::Denied(error.to_string())
            }
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Denied(why) => Self::Denied(why),
            Trouble::WrongEpoch(why) => Self::WrongEpoch(why),
            Trouble::Corrupt(why) => Self::Corrupt(why),
            Trouble::Unavailable(_) => Self::Unavailable(Some(Box::new(trouble))),
        }
    }
}

/// Only for what is known not to have happened.
impl From<Trouble> for CommitError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Denied(why) | Trouble::Corrupt(why) => Self::Denied(why),
            Trouble::WrongEpoch(why) => Self::WrongEpoch(why),
            Trouble::Unavailable(_) => Self::Unavailable(Some(Box::new(trouble))),
        }
    }
}

/// Whether the session, or the connection below it, broke: a read may be tried again on the next.
pub(crate) fn is_broken(error: &Error) -> bool {
    !is_answer(error)
}

/// Whether the server itself answered this request, so that a write certainly did not happen.
///
/// The library hands a broken connection's or session's error to every request under way, sent or
/// not: all of those are left out here, although their names sound final (`SessionExpired`).
pub(crate) fn is_answer(error: &Error) -> bool {
    matches!(
        error,
        Error::NoNode
            | Error::NoAuth
            | Error::BadVersion
            | Error::NoChildrenForEphemerals
            | Error::NodeExists
            | Error::NotEmpty
            | Error::InvalidAcl
            | Error::NotReadOnly
            | Error::QuotaExceeded
            | Error::Throttled
            | Error::Unimplemented
            | Error::BadArguments(_)
    )
}

/// The error of a change whose request was handed over and failed as a whole.
pub(crate) fn of_request(error: Error) -> CommitError {
    if is_answer(&error) {
        Trouble::of_read(&error).into()
    } else {
        CommitError::Unknown(Some(Box::new(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_session_says_leaves_the_outcome_open() {
        for error in [
            Error::ConnectionLoss,
            Error::SessionExpired,
            Error::SessionMoved,
            Error::AuthFailed,
            Error::ClientClosed,
            Error::Timeout,
            Error::UnexpectedError(String::new()),
        ] {
            assert!(matches!(of_request(error), CommitError::Unknown(_)));
        }
    }

    #[test]
    fn what_the_server_answers_is_final() {
        assert!(matches!(of_request(Error::NoAuth), CommitError::Denied(_)));
        let busy = of_request(Error::Throttled);
        assert!(matches!(busy, CommitError::Unavailable(_)));
    }
}
