//! Records in the store, as JSON. docs/records.md draws them.
//!
//! They are apart from the types that the rest of the crate uses: what comes out of a store is
//! hostile until it was read here, strictly.

mod chunks;
mod cluster;

pub(crate) use chunks::{AnswerRecord, AnswerWord, ChunkRecord, WantRecord, WantShape};
pub(crate) use cluster::{
    EpochRecord, HOST_VERSION, HealRecord, HostRecord, HostState, LetGoRecord, ShareRecord,
    StatusRecord,
};

use netloom_types::{ParseError, Subnet};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use std::net::IpAddr;

/// The newest version of a record that says nothing else.
pub(crate) const VERSION: u32 = 1;

/// `pools/SPACE/SUBNET`: a pool, and the tombstone of one. Never deleted, so that its generation
/// counts up over all of its lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolRecord {
    pub(crate) version: u32,
    /// The change that wrote this: tells after an unknown outcome whether it happened.
    pub(crate) operation: String,
    /// Which life of the pool.
    #[serde(deserialize_with = "count")]
    pub(crate) generation: u64,
    pub(crate) state: PoolState,
    /// The same on every host.
    pub(crate) gateway: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PoolState {
    /// In use; entered from nothing or released.
    Active,
    /// Nobody refers to it; entered from active.
    Released,
}

/// `references/SPACE/SUBNET/NONCE`: one grant of a pool, deleted when it is given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReferenceRecord {
    pub(crate) version: u32,
    pub(crate) operation: String,
    pub(crate) host: String,
    pub(crate) state: ReferenceState,
    /// Networks that name the same identity share a pool.
    pub(crate) identity: Option<String>,
    /// The part that automatic hand-out through this reference is confined to.
    #[serde(with = "subnet_text")]
    pub(crate) range: Option<Subnet>,
    pub(crate) gateway: GatewayHold,
    pub(crate) auxiliary: Vec<IpAddr>,
    /// Milliseconds since the Unix epoch.
    pub(crate) granted: u64,
}

impl ReferenceRecord {
    /// What the host has by it.
    pub(crate) fn holds(&self) -> (ReferenceState, GatewayHold, &[IpAddr]) {
        (self.state, self.gateway, &self.auxiliary)
    }

    /// Whether `there` lacks what this one holds: as a record of an earlier time does.
    pub(crate) fn has_more_than(&self, there: &Self) -> bool {
        let lost = |ip| !there.auxiliary.contains(ip);
        (self.state == ReferenceState::Used && there.state == ReferenceState::Offered)
            || (self.gateway == GatewayHold::Held && there.gateway == GatewayHold::None)
            || self.auxiliary.iter().any(lost)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReferenceState {
    /// Granted; whether the asker has the answer is not known.
    Offered,
    /// A request came through it; entered from offered.
    Used,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GatewayHold {
    /// Asked for no gateway.
    None,
    /// Asked for the pool's gateway and got it.
    Held,
}

/// `spaces/SPACE`: changed with every pool that comes into being, so that of two hosts that make
/// overlapping pools at once only one succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpaceRecord {
    pub(crate) version: u32,
    pub(crate) operation: String,
    /// Pools that came into being.
    #[serde(deserialize_with = "count")]
    pub(crate) generation: u64,
}

/// A record with the operation that wrote it.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// The newest version that this program reads and writes.
    const NEWEST: u32 = VERSION;

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record of plain fields always has a text")
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong with it, as words that follow the key's name.
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        checked_version(bytes, Self::NEWEST)?;
        serde_json::from_slice(bytes).map_err(|e| format!("cannot be read: {e}"))
    }
}

impl Record for PoolRecord {}
impl Record for ReferenceRecord {}
impl Record for SpaceRecord {}

/// A number that something was counted up to: never one that more could not be added to, whoever wrote
/// it.
fn count<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(from)?;
    let told = || D::Error::custom(format!("{number} is more than anything is ever counted to"));
    (number <= COUNT_MAX).then_some(number).ok_or_else(told)
}

/// A million changes a second for nine years; the counts of all hosts can still be added up.
const COUNT_MAX: u64 = 1 << 48;

/// The version of a record that this program can read.
fn checked_version(bytes: &[u8], newest: u32) -> Result<u32, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } =
        serde_json::from_slice(bytes).map_err(|e| format!("is no record: {e}"))?;
    if version > newest {
        return Err(format!(
            "has version {version}, this program knows up to {newest}; use the newer release again"
        ));
    }
    Ok(version)
}

/// The operation that wrote a record of any kind.
pub(crate) fn operation_of(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Written {
        operation: String,
    }
    serde_json::from_slice::<Written>(bytes)
        .ok()
        .map(|w| w.operation)
}

mod subnet_text {
    use super::{ParseError, Subnet};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[allow(
        clippy::ref_option,
        reason = "serde calls it with a reference to the field"
    )]
    pub(super) fn serialize<S: Serializer>(
        subnet: &Option<Subnet>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        subnet.map(|s| s.to_string()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Subnet>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|t| t.parse())
            .transpose()
            .map_err(|e: ParseError| D::Error::custom(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> PoolRecord {
        PoolRecord {
            version: VERSION,
            operation: "0a".to_owned(),
            generation: 1,
            state: PoolState::Active,
            gateway: Some("10.0.0.1".parse().unwrap()),
        }
    }

    #[test]
    fn records_round_trip_and_name_their_operation() {
        let bytes = pool().encode();
        assert_eq!(PoolRecord::decode(&bytes), Ok(pool()));
        assert_eq!(operation_of(&bytes).as_deref(), Some("0a"));
    }

    #[test]
    fn a_newer_record_is_refused_whatever_else_it_holds() {
        let error = PoolRecord::decode(br#"{"version":2,"shape":"unheard of"}"#).unwrap_err();
        assert!(error.contains("newer release"), "{error}");
    }

    #[test]
    fn a_count_that_cannot_go_on_is_refused() {
        let text = String::from_utf8(pool().encode()).unwrap();
        for (number, may) in [(COUNT_MAX, true), (COUNT_MAX + 1, false), (u64::MAX, false)] {
            let odd = text.replace("\"generation\":1", &format!("\"generation\":{number}"));
            assert_eq!(PoolRecord::decode(odd.as_bytes()).is_ok(), may, "{odd}");
        }
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let text = String::from_utf8(pool().encode()).unwrap();
        let odd = text.replace("\"generation\"", "\"x\":1,\"generation\"");
        assert!(PoolRecord::decode(odd.as_bytes()).is_err());
    }
}
