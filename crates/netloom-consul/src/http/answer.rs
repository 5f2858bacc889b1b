//! A whole answer, and what its status means.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::http::response::Parts;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// `X-Consul-Index`, if it is there and means anything: 0 never does.
    pub(crate) index: Option<u64>,
    /// Whether rows were left out that the token may not read; newer servers say so.
    pub(crate) filtered: bool,
    pub(crate) body: Bytes,
}

/// An answer that is a refusal.
#[derive(Debug, thiserror::Error)]
#[error("Consul answers with status {status}: {message}")]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

/// How much of a refusal is kept for people.
const MESSAGE_CHARS_MAX: usize = 300;

impl Answer {
    pub(crate) fn new(head: &Parts, body: Bytes) -> Self {
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            status: head.status,
            index: text("x-consul-index")
                .and_then(|text| text.parse().ok())
                .filter(|index| *index > 0),
            filtered: text("x-consul-results-filtered-by-acls") == Some("true"),
            body,
        }
    }

    /// A server error that certainly changed nothing, by Consul's own rule for its own retries:
    /// "No leader errors are always safe to retry since no state could have been changed". So is
    /// a refusal for too many connections. Any other server error may hide a change that
    /// happened: a leader that was deposed while it committed answers with one too.
    pub(crate) fn nothing_happened(&self) -> bool {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::INTERNAL_SERVER_ERROR => {
                matches!(
                    self.body.trim_ascii(),
                    b"No cluster leader" | b"rpc error making call: No cluster leader"
                )
            }
            _ => false,
        }
    }

    /// The answer as a refusal, for people.
    pub(crate) fn refused(&self) -> Refused {
        let message = String::from_utf8_lossy(&self.body);
        Refused {
            status: self.status,
            message: message.trim().chars().take(MESSAGE_CHARS_MAX).collect(),
        }
    }
}
