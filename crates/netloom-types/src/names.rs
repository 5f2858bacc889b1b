//! Names of kernel objects.

use crate::ParseError;

/// The name of a network link: what the kernel's `dev_valid_name` accepts, and ASCII only, so that
/// it can be shown and matched everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkName(String);

/// `IFNAMSIZ` of the kernel is 16 with the closing NUL.
const LINK_NAME_CHARS_MAX: usize = 15;

impl LinkName {
    /// Checks and wraps `text`.
    ///
    /// # Errors
    /// When the kernel would refuse the name, or it is not printable ASCII, or it holds one of
    /// the characters that other tools read as a pattern (`%`, `*`, `+`, `:`).
    pub fn new(text: impl Into<String>) -> Result<Self, ParseError> {
        let text = text.into();
        let bad = |reason: &str| ParseError::new("interface name", &text, reason);
        if text.is_empty() || text.len() > LINK_NAME_CHARS_MAX {
            return Err(bad("it must have 1 to 15 characters"));
        }
        if text == "." || text == ".." {
            return Err(bad("it would be a path"));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
        if !text.chars().all(allowed) {
            return Err(bad(
                "only letters, digits, '.', '_', '-' and '@' are allowed",
            ));
        }
        Ok(Self(text))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::fmt::Display for LinkName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::str::FromStr for LinkName {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::new(text)
    }
}

impl AsRef<str> for LinkName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_refuses_do_not_exist() {
        for odd in [
            "",
            "..",
            "a/b",
            "a b",
            "sixteen-letters!",
            "sixteen-letters0",
            "eth%d",
            "eth+",
            "a:0",
        ] {
            assert!(LinkName::new(odd).is_err(), "{odd:?} was accepted");
        }
        assert!(LinkName::new("nl-0123456789ab").is_ok());
    }
}
