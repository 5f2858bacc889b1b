//! The store contract: what etcd v3, Consul, ZooKeeper and an embedded store all keep.
//!
//! Safety rests on a committed [`Transaction`] alone: never on a read, a watch, a lease or a clock.

use async_trait::async_trait;
use netloom_types::HostId;

/// At most so many operations in one transaction: old Consul allows 64, and every backend adds
/// fences of its own.
pub const TRANSACTION_OPS_MAX: usize = 16;
/// Bytes of all keys and values of a transaction: far below ZooKeeper's packet limit of 1 MiB.
pub const TRANSACTION_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one value: far below Consul's limit of 512 KiB.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one key.
pub const KEY_BYTES_MAX: usize = 200;

/// A key: parts of `[a-z0-9._-]` joined by single slashes, not starting or ending with one, no part
/// `.` or `..`. Every backend can hold it unescaped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Checks and wraps `text`.
    ///
    /// # Errors
    /// When it does not have the form of a key.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        let part_ok = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
                })
        };
        if text.len() > KEY_BYTES_MAX || !text.split('/').all(part_ok) {
            return Err(InvalidKey { text });
        }
        Ok(Self(text))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it lies below the directory `prefix` (`a/b` lies below `a`, not below `a/b`).
    #[must_use]
    pub fn is_below(&self, prefix: &Self) -> bool {
        self.0
            .strip_prefix(&prefix.0)
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

impl core::fmt::Display for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a store key: parts of [a-z0-9._-], joined by '/', up to 200 bytes in all")]
pub struct InvalidKey {
    text: String,
}

/// The version of a key's value, made by a backend: equality has a meaning, order has none.
/// It includes the key's creation, so that delete and create never bring an old one back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(Vec<u8>);

impl Version {
    /// Wraps what the backend uses.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// What the backend put in.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A value and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes.
    pub value: Vec<u8>,
    /// Their version.
    pub version: Version,
}

/// One operation of a transaction. A key may occur only once in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// The key must not exist.
    CheckAbsent(Key),
    /// The key must have this version.
    CheckVersion(Key, Version),
    /// The key must not exist, and gets this value.
    Create(Key, Vec<u8>),
    /// The key must have this version, and gets this value.
    Update(Key, Vec<u8>, Version),
    /// The key must have this version, and is removed.
    Delete(Key, Version),
}

impl Operation {
    /// The key that it is about.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::CheckAbsent(key)
            | Self::CheckVersion(key, _)
            | Self::Create(key, _)
            | Self::Update(key, _, _)
            | Self::Delete(key, _) => key,
        }
    }
}

/// Up to [`TRANSACTION_OPS_MAX`] operations that all happen, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The operations.
    pub operations: Vec<Operation>,
}

impl Transaction {
    /// A transaction of these operations.
    #[must_use]
    pub fn new(operations: impl IntoIterator<Item = Operation>) -> Self {
        Self {
            operations: operations.into_iter().collect(),
        }
    }

    /// Checks the contract's limits, for backends.
    ///
    /// # Errors
    /// `TooLarge`, or `Invalid` for an empty transaction or one that names a key twice.
    pub fn validate(&self) -> Result<(), CommitError> {
        let mut keys: Vec<&Key> = self.operations.iter().map(Operation::key).collect();
        keys.sort_unstable();
        let twice = keys.iter().zip(keys.iter().skip(1)).any(|(a, b)| a == b);
        if keys.is_empty() || twice {
            return Err(CommitError::Invalid(
                "a transaction names each of its keys once",
            ));
        }
        let value_of = |op: &Operation| match op {
            Operation::Create(_, value) | Operation::Update(_, value, _) => value.len(),
            Operation::CheckAbsent(_) | Operation::CheckVersion(..) | Operation::Delete(..) => 0,
        };
        let largest = self.operations.iter().map(value_of).max().unwrap_or(0);
        let bytes: usize = self
            .operations
            .iter()
            .map(|op| op.key().as_str().len() + value_of(op))
            .sum();
        if keys.len() > TRANSACTION_OPS_MAX
            || largest > VALUE_BYTES_MAX
            || bytes > TRANSACTION_BYTES_MAX
        {
            return Err(CommitError::TooLarge);
        }
        Ok(())
    }
}

/// A transaction that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The new version of every created or updated key, in the order of the operations.
    pub versions: Vec<(Key, Version)>,
}

/// How a key differed from what a transaction demanded. These three never merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conflict {
    /// It exists, and should not.
    Exists,
    /// It does not exist, and should.
    Absent,
    /// It has another version.
    VersionDiffers,
}

/// Why a transaction is not known to have happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// It did not happen: a key was not as demanded. Backends that cannot tell which key was the
    /// first to differ name any one of them.
    #[error("the store's key {key} is not as expected: {conflict:?}")]
    Conflict {
        /// The key.
        key: Key,
        /// How it differed.
        conflict: Conflict,
    },
    /// Nobody knows whether it happened. Read again and look for the own operation id; never act
    /// as if it had failed.
    #[error("the store did not say whether the change happened")]
    Unknown(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// It did not happen; it may later.
    #[error("the store is not available")]
    Unavailable(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// It did not happen: the store's access rules forbid it.
    #[error("the store denied the change: {0}")]
    Denied(String),
    /// It did not happen: it exceeds the contract's limits.
    #[error("the change exceeds the store contract's limits")]
    TooLarge,
    /// It did not happen: the transaction is malformed.
    #[error("the transaction is malformed: {0}")]
    Invalid(&'static str),
    /// It did not happen: the store was rolled back, replaced or fenced since this host last looked.
    #[error("the store is in another epoch: {0}")]
    WrongEpoch(String),
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It may work later.
    #[error("the store is not available")]
    Unavailable(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The store's access rules forbid it.
    #[error("the store denied the read: {0}")]
    Denied(String),
    /// The store holds bytes that it could not have been given.
    #[error("the store's content is damaged: {0}")]
    Corrupt(String),
    /// The store was rolled back, replaced or fenced since this host last looked.
    #[error("the store is in another epoch: {0}")]
    WrongEpoch(String),
}

/// Which store this is: two stores with different content never share an identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreIdentity(pub String);

/// Bytes under keys with compare-and-swap.
#[async_trait]
pub trait Store: core::fmt::Debug + Send + Sync {
    /// Which store this is.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn identity(&self) -> Result<StoreIdentity, StoreError>;

    /// The latest committed value.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError>;

    /// All keys below `prefix`, ordered; not a snapshot: a change in the middle may show or not.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError>;

    /// Makes all operations happen, or none.
    ///
    /// # Errors
    /// See [`CommitError`]; only `Unknown` leaves the outcome open.
    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError>;

    /// Watches everything below `prefix`, from now on.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError>;
}

/// A watch: it says only that something may have changed or was lost. List again.
#[async_trait]
pub trait Watch: Send {
    /// Waits until something below the prefix may have changed since the last call.
    ///
    /// # Errors
    /// When the watch broke; open another one and list again.
    async fn changed(&mut self) -> Result<(), StoreError>;
}

/// The capability to tell which hosts are probably alive: a hint for people and for the choice of
/// whom to ask first. No address is ever given away because of it.
#[async_trait]
pub trait Liveness: core::fmt::Debug + Send + Sync {
    /// Says that `host` is alive now; to be repeated.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn announce(&self, host: &HostId) -> Result<(), StoreError>;

    /// The hosts that are probably alive.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn alive(&self) -> Result<Vec<HostId>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_a_backend_could_misread_do_not_exist() {
        for odd in [
            "",
            "/a",
            "a/",
            "a//b",
            "a/../b",
            ".",
            "A",
            "a b",
            "a\0",
            &"x".repeat(201),
        ] {
            assert!(Key::new(odd).is_err(), "{odd:?} was accepted");
        }
        assert!(Key::new("networks/0a1b.2-c_d").is_ok());
    }

    #[test]
    fn a_sibling_with_the_same_start_is_not_below() {
        let key = |text: &str| Key::new(text).unwrap();
        assert!(key("a/b/c").is_below(&key("a/b")));
        assert!(!key("a/bc").is_below(&key("a/b")));
        assert!(!key("a/b").is_below(&key("a/b")));
    }

    #[test]
    fn limits_are_checked_before_anything_happens() {
        let key = |n: usize| Key::new(format!("k/{n}")).unwrap();
        let creates = |count, bytes| {
            Transaction::new((0..count).map(|n| Operation::Create(key(n), vec![0; bytes])))
        };
        assert!(creates(16, 10).validate().is_ok());
        assert!(matches!(
            creates(17, 10).validate(),
            Err(CommitError::TooLarge)
        ));
        assert!(matches!(
            creates(1, VALUE_BYTES_MAX + 1).validate(),
            Err(CommitError::TooLarge)
        ));
        assert!(matches!(
            creates(5, 60 * 1024).validate(),
            Err(CommitError::TooLarge)
        ));
        let twice = Transaction::new([
            Operation::CheckAbsent(key(1)),
            Operation::CheckAbsent(key(1)),
        ]);
        assert!(matches!(twice.validate(), Err(CommitError::Invalid(_))));
    }
}
