//! Records of the hosts that share a store, and of the epoch that they are in.

use super::{COUNT_MAX, Record, checked_version, count};
use netloom_types::Subnet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// `hosts/HOST`: which journal a host goes on with, and how far it came. Never deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostRecord {
    pub(crate) version: u32,
    pub(crate) operation: String,
    pub(crate) state: HostState,
    /// The host's id as it is; the key holds it in small letters.
    pub(crate) host: String,
    pub(crate) boot: String,
    /// Which machine it runs on, as far as it could tell; empty when it did not.
    pub(crate) machine: String,
    /// The journal's identity, 32 hexadecimal digits.
    pub(crate) journal: String,
    /// Counts the starts.
    #[serde(deserialize_with = "count")]
    pub(crate) starts: u64,
    /// Counts the changes that it committed.
    #[serde(deserialize_with = "count")]
    pub(crate) counter: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HostState {
    /// It may take part.
    Member,
    /// Never again; entered from member, by a person's word.
    Forgotten,
}

/// As the release before wrote it: a host without companions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoneHostRecord {
    #[serde(rename = "version")]
    _version: u32,
    operation: String,
    boot: String,
    journal: String,
    #[serde(deserialize_with = "count")]
    generation: u64,
}

impl HostRecord {
    /// Whether this is of an earlier time than that one.
    pub(crate) fn is_behind(&self, then: &Self) -> bool {
        self.counter < then.counter || self.starts < then.starts
    }
}

impl Record for HostRecord {
    const NEWEST: u32 = HOST_VERSION;

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let unreadable = |e: serde_json::Error| format!("cannot be read: {e}");
        if checked_version(bytes, Self::NEWEST)? > 1 {
            return serde_json::from_slice(bytes).map_err(unreadable);
        }
        let lone: LoneHostRecord = serde_json::from_slice(bytes).map_err(unreadable)?;
        Ok(Self {
            version: HOST_VERSION,
            operation: lone.operation,
            state: HostState::Member,
            host: String::new(),
            boot: lone.boot,
            machine: String::new(),
            journal: lone.journal,
            starts: lone.generation,
            counter: 0,
        })
    }
}

/// The newest version of a host's record: with membership and a count of changes.
pub(crate) const HOST_VERSION: u32 = 2;

/// `heal`: who has not said yet, in this epoch, what it owns. Nobody: addresses may change hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealRecord {
    pub(crate) version: u32,
    pub(crate) operation: String,
    #[serde(deserialize_with = "count")]
    pub(crate) epoch: u64,
    /// Ordered, without repetition.
    pub(crate) waiting: Vec<String>,
}

impl Record for HealRecord {}

/// `let-go/REFERENCE`, in a host's mirror alone: the gateway that a reference held when its host began to
/// give it back, if any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LetGoRecord {
    pub(crate) version: u32,
    pub(crate) gateway: Option<IpAddr>,
}

impl Record for LetGoRecord {}

/// `status/HOST`: hints about a host; nothing is decided by them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusRecord {
    pub(crate) version: u32,
    pub(crate) operation: String,
    pub(crate) host: String,
    /// Milliseconds since the Unix epoch, by its own clock.
    pub(crate) heard: u64,
    pub(crate) shares: Vec<ShareRecord>,
}

/// What a host has of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShareRecord {
    #[serde(with = "one_subnet")]
    pub(crate) subnet: Subnet,
    pub(crate) owned: u64,
    pub(crate) free: u64,
}

impl Record for StatusRecord {}

/// `epoch`: a number, or where the store's content went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EpochRecord {
    Number(u64),
    Moved(String),
}

impl EpochRecord {
    /// The number after `last`, if it could still be read.
    pub(crate) fn after(last: u64) -> Option<u64> {
        (last < COUNT_MAX).then_some(last + 1)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Number(number) => number.to_string().into_bytes(),
            Self::Moved(to) => format!("{MOVED}{to}").into_bytes(),
        }
    }

    /// Reads the record.
    ///
    /// # Errors
    /// What is wrong with it, as words that follow the key's name.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = core::str::from_utf8(bytes).map_err(|_| "is no text".to_owned())?;
        if let Some(to) = text.strip_prefix(MOVED) {
            return Ok(Self::Moved(to.to_owned()));
        }
        let number = text.parse().ok().filter(|number| *number <= COUNT_MAX);
        number
            .map(Self::Number)
            .ok_or_else(|| format!("holds {text:?}, which is no number of an epoch"))
    }
}

/// What the epoch record of a store that was left for another one begins with.
const MOVED: &str = "moved:";

mod one_subnet {
    use netloom_types::{ParseError, Subnet};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(subnet: &Subnet, to: S) -> Result<S::Ok, S::Error> {
        subnet.to_string().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Subnet, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|e: ParseError| D::Error::custom(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_the_release_before_is_a_member_without_changes() {
        let text = br#"{"version":1,"operation":"0a","boot":"b","journal":"0f","generation":3}"#;
        let record = HostRecord::decode(text).unwrap();
        assert_eq!(record.state, HostState::Member);
        assert_eq!((record.starts, record.counter), (3, 0));
        assert_eq!(record.journal, "0f");
        assert_eq!(HostRecord::decode(&record.encode()), Ok(record));
        assert!(HostRecord::decode(br#"{"version":3}"#).is_err());
    }

    #[test]
    fn an_epoch_is_a_number_or_another_store() {
        for epoch in [
            EpochRecord::Number(7),
            EpochRecord::Moved("etcd://h:2379/p".to_owned()),
        ] {
            assert_eq!(EpochRecord::decode(&epoch.encode()), Ok(epoch));
        }
        let beyond = [&b"18446744073709551615"[..], b"18446744073709551616"];
        for odd in [&b""[..], b"x", b"-1", b"\xff"].into_iter().chain(beyond) {
            assert!(EpochRecord::decode(odd).is_err(), "{odd:?}");
        }
    }
}
