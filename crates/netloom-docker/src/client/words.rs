//! The JSON of Docker's API, as far as it is read here. Everything may be missing or `null`.

use crate::wire::or_default;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Docker 20.10, the oldest that is tried.
const OLDEST: (u32, u32) = (1, 41);
/// Docker 29, the newest whose API is known here; a newer daemon is spoken to in this version.
const NEWEST: (u32, u32) = (1, 54);
/// An error's message ends in a log or on a terminal.
const MESSAGE_CHARS_MAX: usize = 500;

#[derive(Debug, Deserialize)]
pub(super) struct Version {
    #[serde(rename = "ApiVersion", default, deserialize_with = "or_default")]
    api: String,
    #[serde(rename = "MinAPIVersion", default, deserialize_with = "or_default")]
    min: String,
}

/// A prefix of paths, such as `/v1.41`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiVersion(String);

impl core::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The newest version that both sides know.
pub(super) fn negotiate(version: &Version) -> Result<ApiVersion, String> {
    let newest = pair(&version.api)
        .ok_or_else(|| format!("Docker's API version {:?} is no version", version.api))?;
    // Daemons before 1.24 do not name a minimum, and are too old anyhow.
    let oldest = pair(&version.min).unwrap_or(OLDEST);
    if newest < OLDEST {
        return Err(format!(
            "Docker speaks API version {}, but 1.41 (Docker 20.10) is the oldest that netloom \
             knows; update Docker",
            version.api
        ));
    }
    if oldest > NEWEST {
        return Err(format!(
            "Docker speaks no API version before {}, but 1.54 is the newest that netloom knows; \
             update netloom",
            version.min
        ));
    }
    let (major, minor) = newest.min(NEWEST);
    Ok(ApiVersion(format!("/v{major}.{minor}")))
}

fn pair(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The message of an error answer.
pub(super) fn message(bytes: &Bytes) -> String {
    #[derive(Deserialize)]
    struct Error {
        #[serde(default, deserialize_with = "or_default")]
        message: String,
    }
    let text = serde_json::from_slice::<Error>(bytes).map_or_else(
        |_| String::from_utf8_lossy(bytes).into_owned(),
        |e| e.message,
    );
    text.chars()
        .filter(|c| !c.is_control())
        .take(MESSAGE_CHARS_MAX)
        .collect()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Network {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) driver: String,
    #[serde(rename = "IPAM", default, deserialize_with = "or_default")]
    pub(super) ipam: Ipam,
    /// By container id, or `ep-` and the endpoint's id. Filled by inspection, empty in lists.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) containers: BTreeMap<String, Attached>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Ipam {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) driver: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) config: Vec<IpamConfig>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct IpamConfig {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) subnet: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) gateway: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) auxiliary_addresses: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Attached {
    #[serde(rename = "Name", default, deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(rename = "EndpointID", default, deserialize_with = "or_default")]
    pub(super) endpoint: String,
    #[serde(rename = "MacAddress", default, deserialize_with = "or_default")]
    pub(super) mac: String,
    #[serde(rename = "IPv4Address", default, deserialize_with = "or_default")]
    pub(super) ipv4: String,
    #[serde(rename = "IPv6Address", default, deserialize_with = "or_default")]
    pub(super) ipv6: String,
}

/// An entry of the list of containers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) names: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) network_settings: NetworkSettings,
}

/// A container as inspection shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ContainerDetails {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) state: ContainerState,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) network_settings: RawNetworkSettings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ContainerState {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) status: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkSettings {
    /// By network name.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) networks: BTreeMap<String, Option<EndpointSettings>>,
}

/// As [`NetworkSettings`], kept whole, to be sent back.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RawNetworkSettings {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) networks: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct EndpointSettings {
    #[serde(rename = "NetworkID", default, deserialize_with = "or_default")]
    pub(super) network: String,
    #[serde(rename = "MacAddress", default, deserialize_with = "or_default")]
    pub(super) mac: String,
    #[serde(rename = "IPAMConfig", default, deserialize_with = "or_default")]
    pub(super) pinned: Pinned,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Pinned {
    #[serde(rename = "IPv4Address", default, deserialize_with = "or_default")]
    pub(super) ipv4: String,
    #[serde(rename = "IPv6Address", default, deserialize_with = "or_default")]
    pub(super) ipv6: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(api: &str, min: &str) -> Version {
        Version {
            api: api.into(),
            min: min.into(),
        }
    }

    #[test]
    fn the_newest_version_that_both_know_is_spoken() {
        for (api, min, expected) in [
            ("1.41", "1.12", "/v1.41"),
            ("1.51", "1.24", "/v1.51"),
            ("1.54", "1.44", "/v1.54"),
            ("1.99", "1.50", "/v1.54"),
            ("1.45", "", "/v1.45"),
        ] {
            assert_eq!(negotiate(&version(api, min)).unwrap().0, expected);
        }
        for (api, min) in [
            ("1.40", "1.12"),
            ("2.0", "1.60"),
            ("", ""),
            ("x.y", "1.1"),
            ("1", ""),
        ] {
            assert!(negotiate(&version(api, min)).is_err(), "{api} was accepted");
        }
    }
}
