//! Errors as Docker wants them: one text for the user, in both of the keys that it looks at.

use crate::CallOutcome;
use axum::http::StatusCode;
use netloom_core::{ControlError, IpamError};
use netloom_types::ParseError;
use serde_json::{Value, json};
use std::error::Error;

/// Longer texts are cut: they end on a person's terminal.
const TEXT_CHARS_MAX: usize = 2_000;

/// Why a call is not answered with a result.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    outcome: CallOutcome,
    /// What the user reads.
    outer: String,
    /// What only the log gets: the chain of causes.
    inner: Option<String>,
}

impl Failure {
    /// The request was not understood; no work was begun.
    pub(crate) fn protocol(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            outcome: CallOutcome::Malformed,
            outer: text.into(),
            inner: None,
        }
    }

    /// The body does not hold what the call needs.
    pub(crate) fn bad_body(text: impl core::fmt::Display) -> Self {
        Self::protocol(
            StatusCode::BAD_REQUEST,
            format!("the request is not valid: {text}; nothing was done"),
        )
    }

    /// The request was understood and is refused. Docker shows this text most cleanly when it
    /// comes with status 200.
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            outcome: CallOutcome::Refused,
            outer: text.into(),
            inner: None,
        }
    }

    /// The work took longer than dockerd may wait.
    pub(crate) fn timed_out(text: impl Into<String>) -> Self {
        Self {
            outcome: CallOutcome::TimedOut,
            ..Self::refused(text)
        }
    }

    /// A handler panicked.
    pub(crate) fn broken(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            outcome: CallOutcome::Broken,
            ..Self::refused(text)
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn outcome(&self) -> CallOutcome {
        self.outcome
    }

    pub(crate) fn outer(&self) -> &str {
        &self.outer
    }

    pub(crate) fn inner(&self) -> Option<&str> {
        self.inner.as_deref()
    }

    /// Network drivers' errors are read from `Err`, IPAM drivers' from `Error`: both are sent.
    pub(crate) fn body(&self) -> Value {
        let text: String = self
            .outer
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(TEXT_CHARS_MAX)
            .collect();
        json!({ "Err": text, "Error": text })
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Self {
            inner: causes(&error),
            ..Self::refused(error.to_string())
        }
    }
}

impl From<IpamError> for Failure {
    fn from(error: IpamError) -> Self {
        Self {
            inner: causes(&error),
            ..Self::refused(error.to_string())
        }
    }
}

/// A value that a user typed does not parse.
impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Self {
        Self::refused(error.to_string())
    }
}

/// The sources of an error, outermost first.
fn causes(error: &dyn Error) -> Option<String> {
    let mut texts = Vec::new();
    let mut next = error.source();
    while let Some(source) = next {
        texts.push(source.to_string());
        next = source.source();
    }
    (!texts.is_empty()).then(|| texts.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_goes_to_the_log_and_not_to_the_user() {
        let failure = Failure::from(IpamError::Unavailable {
            what: "the journal did not take the address; free some space".into(),
            source: Some(Box::new(std::io::Error::other("disk full"))),
        });
        assert_eq!(failure.inner(), Some("disk full"));
        assert_eq!(failure.body()["Err"], failure.body()["Error"]);
        assert!(!failure.body().to_string().contains("disk full"));
    }

    #[test]
    fn texts_cannot_flood_or_steer_a_terminal() {
        let failure = Failure::refused(format!("\u{1b}[2J{}", "x".repeat(100_000)));
        let text = failure.body()["Err"].as_str().unwrap().to_owned();
        assert!(text.len() <= TEXT_CHARS_MAX);
        assert!(!text.contains('\u{1b}'));
    }
}
