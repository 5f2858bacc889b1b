//! One error for everything that does not parse.

/// A text or number that is not what it should be.
///
/// The message names the kind of thing, the text that was given and the reason, so that it can be
/// shown to the person who typed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not valid: {reason}")]
pub struct ParseError {
    what: &'static str,
    given: String,
    reason: String,
}

impl ParseError {
    /// An error about `given`, which should have been a `what`.
    ///
    /// Over-long input is cut, so that hostile text cannot flood a log.
    #[must_use]
    pub fn new(what: &'static str, given: &str, reason: impl Into<String>) -> Self {
        let mut given: String = given.chars().take(GIVEN_CHARS_MAX + 1).collect();
        if given.chars().count() > GIVEN_CHARS_MAX {
            given.pop();
            given.push_str("...");
        }
        Self {
            what,
            given,
            reason: reason.into(),
        }
    }

    /// The kind of thing that was expected, such as `subnet`.
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Why it was refused.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Longer than any valid input of this crate (ids have 128 characters).
const GIVEN_CHARS_MAX: usize = 140;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_input_is_cut_in_the_message() {
        let error = ParseError::new("id", &"x".repeat(10_000), "too long");
        assert!(error.to_string().len() < 220);
    }
}
