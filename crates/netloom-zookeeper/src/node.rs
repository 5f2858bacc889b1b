//! What a key looks like as a node: its path, its data, its version.

use netloom_core::store::{Key, Version, Versioned};
use std::hash::{BuildHasher, Hasher, RandomState};

/// Names of nodes that are no part of any key start with it; no key's part can.
pub(crate) const OURS: char = '@';
/// The data of a node that holds a value, in bytes before the value: its kind and its life.
const HEAD: usize = 9;
const MORTAL: u8 = b'M';
const PERMANENT: u8 = b'P';

/// The path of a key's node.
pub(crate) fn path(key: &Key) -> String {
    format!("/{key}")
}

/// The path of the node that exists exactly as long as the value that began this life.
pub(crate) fn witness(path: &str, life: Life) -> String {
    format!("{path}/{OURS}{:016x}", life.number)
}

/// All directories above a path, the highest first; none for a node below the root.
pub(crate) fn ancestors(path: &str) -> Vec<&str> {
    path.match_indices('/')
        .filter(|(at, _)| *at > 0)
        .filter_map(|(at, _)| path.get(..at))
        .collect()
}

/// One value's time from its creation to its deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Life {
    number: u64,
    end: End,
}

/// What becomes of the node when its value is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// It is removed, unless other keys lie below it.
    Removed,
    /// It stays for ever, empty: it has held a value and been a directory at once, so somebody may
    /// hold a version of it as an empty node, and that must not fit a later node in its place.
    Kept,
}

impl Life {
    /// A new one, with a number that was never used before.
    pub(crate) fn new(end: End) -> Self {
        // Each RandomState has keys of its own, from the system's random source.
        let number = RandomState::new().build_hasher().finish();
        Self { number, end }
    }

    pub(crate) fn end(self) -> End {
        self.end
    }

    /// The data of a node with this value.
    pub(crate) fn frame(self, value: &[u8]) -> Vec<u8> {
        let mut data = Vec::with_capacity(HEAD + value.len());
        data.push(self.kind());
        data.extend_from_slice(&self.number.to_be_bytes());
        data.extend_from_slice(value);
        data
    }

    fn kind(self) -> u8 {
        match self.end {
            End::Removed => MORTAL,
            End::Kept => PERMANENT,
        }
    }

    fn read(kind: u8, number: [u8; 8]) -> Option<Self> {
        let end = match kind {
            MORTAL => End::Removed,
            PERMANENT => End::Kept,
            _ => return None,
        };
        let number = u64::from_be_bytes(number);
        Some(Self { number, end })
    }
}

/// What a version token says: which life, and how often the node was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    /// The life.
    pub(crate) life: Life,
    /// ZooKeeper's version of the node; never negative, since -1 would mean "any".
    pub(crate) version: i32,
}

impl Token {
    pub(crate) fn encode(self) -> Version {
        let mut bytes = vec![self.life.kind()];
        bytes.extend_from_slice(&self.life.number.to_be_bytes());
        bytes.extend_from_slice(&self.version.to_be_bytes());
        Version::from_bytes(bytes)
    }

    /// `None` for a version that this backend never gave out.
    pub(crate) fn decode(version: &Version) -> Option<Self> {
        let (kind, rest) = version.as_bytes().split_first()?;
        let (number, rest) = rest.split_first_chunk()?;
        let version = i32::from_be_bytes(rest.try_into().ok()?);
        let life = Life::read(*kind, *number)?;
        (version >= 0).then_some(Self { life, version })
    }
}

/// What stands at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// No node.
    Missing,
    /// A node without a value: a directory, or what is left of a deleted value; with its version.
    Empty(i32),
    /// A value.
    Holds(Token, Vec<u8>),
    /// Data that this backend never wrote.
    Foreign,
}

impl Node {
    /// Reads a node's data.
    pub(crate) fn parse(data: &[u8], version: i32) -> Self {
        if version < 0 {
            return Self::Foreign;
        }
        if data.is_empty() {
            return Self::Empty(version);
        }
        let parsed = data.split_first().and_then(|(kind, rest)| {
            let (number, value) = rest.split_first_chunk()?;
            let life = Life::read(*kind, *number)?;
            Some(Self::Holds(Token { life, version }, value.to_vec()))
        });
        parsed.unwrap_or(Self::Foreign)
    }

    /// The value with its version; `Err` for foreign data.
    pub(crate) fn value(self) -> Result<Option<Versioned>, ForeignData> {
        match self {
            Self::Missing | Self::Empty(_) => Ok(None),
            Self::Holds(token, value) => Ok(Some(Versioned {
                value,
                version: token.encode(),
            })),
            Self::Foreign => Err(ForeignData),
        }
    }
}

/// A node holds what this backend never wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node holds data that was not written by Netloom")]
pub(crate) struct ForeignData;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_bytes_come_back_and_are_never_taken_for_a_directory() {
        for value in [&b""[..], &[0], b"M", &[0xff; 300]] {
            for end in [End::Removed, End::Kept] {
                let life = Life::new(end);
                let node = Node::parse(&life.frame(value), 7);
                let token = Token { life, version: 7 };
                assert_eq!(node, Node::Holds(token, value.to_vec()));
                assert_eq!(Token::decode(&token.encode()), Some(token));
            }
        }
        assert_eq!(Node::parse(b"", 3), Node::Empty(3));
    }

    #[test]
    fn bytes_of_strangers_are_neither_values_nor_versions() {
        for data in [&b"x"[..], b"M", b"M1234567", b"\0\0\0\0\0\0\0\0\0\0"] {
            assert_eq!(Node::parse(data, 1), Node::Foreign);
        }
        for version in [&b""[..], b"M", &[b'M'; 12], &[b'M'; 14], &[0; 13]] {
            assert_eq!(Token::decode(&Version::from_bytes(version)), None);
        }
    }

    /// ZooKeeper takes -1 for "whatever version it has".
    #[test]
    fn minus_one_is_never_a_version() {
        let life = Life::new(End::Removed);
        for version in [-1, i32::MIN] {
            let token = Token { life, version };
            assert_eq!(Token::decode(&token.encode()), None);
            assert_eq!(Node::parse(&life.frame(b""), version), Node::Foreign);
        }
    }

    #[test]
    fn ancestors_are_told_from_the_top() {
        assert_eq!(ancestors("/a/b/c"), ["/a", "/a/b"]);
        assert!(ancestors("/a").is_empty());
    }
}
