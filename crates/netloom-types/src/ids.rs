//! All ids of the domain in one list: alphabetical, append only.

use crate::ParseError;

/// Docker's ids have 64 characters; 128 leaves room and bounds every record and key.
const ID_CHARS_MAX: usize = 128;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// 1 to 128 characters of `[A-Za-z0-9._-]`, not starting with a dot: safe as a part of a
        /// store key and of a file name.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps `text`.
            ///
            /// # Errors
            /// When the text is empty, too long or holds another character.
            pub fn new(text: impl Into<String>) -> Result<Self, ParseError> {
                let text = text.into();
                check($what, &text)?;
                Ok(Self(text))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first `count` characters: what people and interface names see.
            #[must_use]
            pub fn short(&self, count: usize) -> &str {
                self.0.get(..count).unwrap_or(&self.0)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl core::str::FromStr for $name {
            type Err = ParseError;
            fn from_str(text: &str) -> Result<Self, ParseError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}

ids! {
    /// One boot of one host's kernel (`/proc/sys/kernel/random/boot_id`).
    BootId, "boot id";
    /// An attachment of one sandbox to one network; Docker makes a new one at every start.
    EndpointId, "endpoint id";
    /// A host that takes part, for its whole life.
    HostId, "host id";
    /// A network on one host; Docker invents one per host.
    NetworkId, "network id";
    /// One try at one change, so that an unknown outcome can be recognised afterwards.
    OperationId, "operation id";
    /// One reference to an address pool, as handed to Docker.
    PoolId, "pool id";
    /// A container's network stack.
    SandboxId, "sandbox id";
}

fn check(what: &'static str, text: &str) -> Result<(), ParseError> {
    if text.is_empty() {
        return Err(ParseError::new(what, text, "it is empty"));
    }
    if text.len() > ID_CHARS_MAX {
        return Err(ParseError::new(
            what,
            text,
            format!("it has more than {ID_CHARS_MAX} bytes"),
        ));
    }
    if text.starts_with('.') {
        return Err(ParseError::new(what, text, "it starts with a dot"));
    }
    match text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    {
        Some(odd) => Err(ParseError::new(
            what,
            text,
            format!("it holds the character {odd:?}"),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_leave_their_directory_are_refused() {
        for hostile in [
            "",
            "..",
            ".",
            "../x",
            "a/b",
            "a\0b",
            "a\nb",
            "a b",
            "\u{e9}",
            &"x".repeat(129),
        ] {
            assert!(NetworkId::new(hostile).is_err(), "{hostile:?} was accepted");
        }
    }

    #[test]
    fn docker_ids_are_accepted_and_shortened() {
        let id = EndpointId::new("a".repeat(64)).unwrap();
        assert_eq!(id.short(12), "aaaaaaaaaaaa");
        assert_eq!(NetworkId::new("abc").unwrap().short(12), "abc");
    }
}
