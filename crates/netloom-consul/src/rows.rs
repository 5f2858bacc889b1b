//! The rows that Consul keeps, parsed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use netloom_core::store::{Key, StoreError, Version, Versioned};
use serde::Deserialize;

/// A row as Consul tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Row {
    pub(crate) key: String,
    /// Base64; `null` for no bytes at all, and always in a transaction's results.
    value: Option<String>,
    flags: u64,
    modify_index: u64,
    /// The session that holds it.
    pub(crate) session: Option<String>,
}

impl Row {
    /// The rows of an answer.
    pub(crate) fn parse_all(body: &[u8]) -> Result<Vec<Self>, StoreError> {
        serde_json::from_slice(body).map_err(|error| {
            StoreError::Corrupt(format!("Consul told rows that are none: {error}"))
        })
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            index: self.modify_index,
            flags: self.flags,
        }
    }

    pub(crate) fn versioned(&self) -> Result<Versioned, StoreError> {
        let value = match &self.value {
            None => Vec::new(),
            Some(text) => STANDARD.decode(text).map_err(|error| {
                StoreError::Corrupt(format!("the value of {:?} is no base64: {error}", self.key))
            })?,
        };
        Ok(Versioned {
            value,
            version: self.stamp().version(),
        })
    }
}

/// Bytes as Consul's JSON carries them.
pub(crate) fn encode(value: &[u8]) -> String {
    STANDARD.encode(value)
}

/// What tells one state of a key from every other: the number of the log's entry that wrote it,
/// which is never used twice, and the number that the writer put into its flags. The latter keeps
/// states apart that a store put back from a copy gave the same index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) index: u64,
    pub(crate) flags: u64,
}

impl Stamp {
    pub(crate) fn version(self) -> Version {
        let mut bytes = self.index.to_be_bytes().to_vec();
        bytes.extend(self.flags.to_be_bytes());
        Version::from_bytes(bytes)
    }

    /// `None` for a version that no row of Consul can have had.
    pub(crate) fn of(version: &Version) -> Option<Self> {
        let (index, flags) = version.as_bytes().split_first_chunk::<8>()?;
        let stamp = Self {
            index: u64::from_be_bytes(*index),
            flags: u64::from_be_bytes(flags.try_into().ok()?),
        };
        (stamp.index > 0).then_some(stamp)
    }
}

/// The rows of a directory, ordered.
///
/// Keys that are none of ours, such as the empty `directory/` that Consul's own pages make, are
/// not shown: nobody could name them.
pub(crate) fn below(prefix: &Key, rows: &[Row]) -> Result<Vec<(Key, Versioned)>, StoreError> {
    let mut listed = Vec::with_capacity(rows.len());
    for row in rows {
        let Ok(key) = Key::new(row.key.as_str()) else {
            continue;
        };
        if !key.is_below(prefix) {
            return Err(StoreError::Corrupt(format!(
                "Consul listed {key}, which is not below {prefix}"
            )));
        }
        listed.push((key, row.versioned()?));
    }
    listed.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(body: &str) -> Result<Vec<(Key, Versioned)>, StoreError> {
        below(&Key::new("a").unwrap(), &Row::parse_all(body.as_bytes())?)
    }

    fn row(key: &str, value: &str) -> String {
        format!(
            r#"{{"LockIndex":0,"Key":"{key}","Flags":18446744073709551615,"Value":{value},"CreateIndex":1,"ModifyIndex":2}}"#
        )
    }

    #[test]
    fn rows_are_bytes_and_versions() {
        let listed = rows(&format!(
            "[{},{}]",
            row("a/z", "null"),
            row("a/b", "\"AP8=\"")
        ))
        .unwrap();
        let stamp = Stamp {
            index: 2,
            flags: u64::MAX,
        };
        let wanted = [("a/b", vec![0, 0xff]), ("a/z", vec![])].map(|(key, value)| {
            let version = stamp.version();
            (Key::new(key).unwrap(), Versioned { value, version })
        });
        assert_eq!(listed, wanted);
        assert_eq!(Stamp::of(&stamp.version()), Some(stamp));
    }

    #[test]
    fn what_a_person_made_by_hand_is_not_shown() {
        let body = format!("[{},{}]", row("a/", "null"), row("a/UPPER", "null"));
        assert_eq!(rows(&body).unwrap(), []);
    }

    #[test]
    fn hostile_bodies_are_refused() {
        for odd in [
            "".to_owned(),
            "null".to_owned(),
            "{}".to_owned(),
            "[{}]".to_owned(),
            "[".repeat(10_000),
            format!("[{}]", row("a/b", "\"no base64!\"")),
            format!("[{}]", row("a/b", "7")),
            format!("[{}]", row("b/c", "null")),
            format!("[{}]", row("a/b", "null").replace(":2}", ":-2}")),
            format!(
                "[{}]",
                row("a/b", "null").replace(":2}", ":18446744073709551616}")
            ),
        ] {
            assert!(
                matches!(rows(&odd), Err(StoreError::Corrupt(_))),
                "{odd:?} was believed"
            );
        }
    }

    #[test]
    fn versions_of_other_stores_are_none_of_ours() {
        for odd in [&[][..], &[0; 15], &[1; 17], &[0; 16]] {
            assert_eq!(Stamp::of(&Version::from_bytes(odd)), None);
        }
    }
}
