//! The settings that are in force: flags over environment over file over defaults.

mod layer;
mod store;

pub(crate) use layer::{Layer, LogFormat, Toggle};
pub(crate) use store::{FILE as STORE_FILE, StoreSetting};

use netloom_types::{ParseError, Subnet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Read when no other file is named; it may be missing.
const DEFAULT_FILE: &str = "/etc/netloom/netloom.toml";

/// Docker's client waits for ever, so ours ends: below the 15 s after which dockerd gives up a
/// plugin that does not listen.
const DEADLINE_MS: u64 = 10_000;

/// A deadline below this would refuse what a busy host does well.
const DEADLINE_MS_MIN: u64 = 100;

/// Two sightings of a stray lie at least 40 s apart; half a minute adds little to that.
const AUDIT_INTERVAL_S: u64 = 30;

/// dockerd tries a call at 0, 1, 3, 7 and 15 s and gives up at 30 s (measured); a third more for a
/// slow machine. The engine and address management have the same default.
const SETTLE_AFTER_S: u64 = 40;

/// The settings in force, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) state_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) store: StoreSetting,
    pub(crate) plugin_socket: PathBuf,
    pub(crate) api_socket: PathBuf,
    pub(crate) api_group: Option<String>,
    pub(crate) docker_socket: PathBuf,
    pub(crate) relay_socket: PathBuf,
    pub(crate) relay: Toggle,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    pub(crate) deadline: Duration,
    pub(crate) audit_interval: Duration,
    pub(crate) settle_after: Duration,
    pub(crate) watch: Toggle,
    /// None means those that address management chooses for this host.
    pub(crate) default_pools: Option<Vec<DefaultPool>>,
    /// None means a number that keeps away from Docker's counter.
    pub(crate) first_interface_number: Option<u16>,
}

/// A base that is cut into subnets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DefaultPool {
    pub(crate) base: Subnet,
    pub(crate) prefix_len: u8,
}

/// What is wrong with the settings, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    #[error("the configuration file {path} could not be read")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the configuration file {path} is not valid: {source}")]
    File {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("the setting {key} is not valid: {reason}")]
    Value { key: &'static str, reason: String },
}

impl ConfigError {
    fn value(key: &'static str, reason: impl Into<String>) -> Self {
        Self::Value {
            key,
            reason: reason.into(),
        }
    }
}

impl Config {
    /// The settings in force. `file` is the one that the caller named.
    pub(crate) fn load(flags: Layer, file: Option<&Path>) -> Result<Self, ConfigError> {
        let below = match file {
            Some(path) => read(path)?,
            None => match read(Path::new(DEFAULT_FILE)) {
                Err(ConfigError::Read { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    Layer::default()
                }
                other => other?,
            },
        };
        Self::resolve(flags.over(below))
    }

    fn resolve(layer: Layer) -> Result<Self, ConfigError> {
        let state_dir = layer
            .state_dir
            .clone()
            .unwrap_or_else(|| "/var/lib/netloom".into());
        let store = StoreSetting::resolve(&layer, &state_dir)?;
        let run_dir = layer.run_dir.unwrap_or_else(|| "/run/netloom".into());
        let deadline_ms = layer.deadline_ms.unwrap_or(DEADLINE_MS);
        if deadline_ms < DEADLINE_MS_MIN {
            let reason = format!("{deadline_ms} is less than {DEADLINE_MS_MIN}");
            return Err(ConfigError::value("deadline_ms", reason));
        }
        let audit_interval_s = layer.audit_interval_s.unwrap_or(AUDIT_INTERVAL_S);
        if audit_interval_s == 0 {
            return Err(ConfigError::value(
                "audit_interval_s",
                "it must be 1 or more",
            ));
        }
        Ok(Self {
            state_dir,
            store,
            plugin_socket: layer
                .plugin_socket
                .unwrap_or_else(|| "/run/docker/plugins/netloom.sock".into()),
            api_socket: layer.api_socket.unwrap_or_else(|| run_dir.join("api.sock")),
            api_group: layer.api_group,
            docker_socket: layer
                .docker_socket
                .unwrap_or_else(|| "/run/docker.sock".into()),
            relay_socket: layer
                .relay_socket
                .unwrap_or_else(|| run_dir.join("relay.sock")),
            relay: layer.relay.unwrap_or(Toggle::On),
            metrics_listen: layer.metrics_listen.map(|a| loopback(&a)).transpose()?,
            log: layer.log.unwrap_or_else(|| "info".into()),
            log_format: layer.log_format.unwrap_or(LogFormat::Human),
            deadline: Duration::from_millis(deadline_ms),
            audit_interval: Duration::from_secs(audit_interval_s),
            settle_after: Duration::from_secs(layer.settle_after_s.unwrap_or(SETTLE_AFTER_S)),
            watch: layer.watch.unwrap_or(Toggle::On),
            default_pools: layer
                .default_pools
                .map(|pools| default_pools(&pools))
                .transpose()?,
            first_interface_number: layer.first_interface_number,
            run_dir,
        })
    }

    /// The settings in force, as a file that would give them.
    pub(crate) fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let millis = u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX);
        let mut layer = Layer {
            state_dir: Some(self.state_dir.clone()),
            run_dir: Some(self.run_dir.clone()),
            plugin_socket: Some(self.plugin_socket.clone()),
            api_socket: Some(self.api_socket.clone()),
            api_group: self.api_group.clone(),
            docker_socket: Some(self.docker_socket.clone()),
            relay_socket: Some(self.relay_socket.clone()),
            relay: Some(self.relay),
            metrics_listen: self.metrics_listen.map(|a| a.to_string()),
            log: Some(self.log.clone()),
            log_format: Some(self.log_format),
            deadline_ms: Some(millis),
            audit_interval_s: Some(self.audit_interval.as_secs()),
            settle_after_s: Some(self.settle_after.as_secs()),
            watch: Some(self.watch),
            default_pools: self.default_pools.as_ref().map(|pools| {
                let text = |p: &DefaultPool| format!("{}:{}", p.base, p.prefix_len);
                pools.iter().map(text).collect()
            }),
            first_interface_number: self.first_interface_number,
            ..Layer::default()
        };
        self.store.write(&mut layer);
        toml::to_string(&layer)
    }

    /// The plugin's name: what stands behind `docker network create -d`.
    pub(crate) fn plugin_name(&self) -> Result<String, ConfigError> {
        let stem = self.plugin_socket.file_stem();
        stem.and_then(|stem| stem.to_str())
            .map(str::to_owned)
            .ok_or_else(|| ConfigError::value("plugin_socket", "it has no file name"))
    }
}

fn read(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| ConfigError::File {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// Metrics tell who talks to whom: they leave the host by a proxy that asks who reads them, or not
/// at all.
fn loopback(text: &str) -> Result<SocketAddr, ConfigError> {
    let address: SocketAddr = text.parse().map_err(|_| {
        ConfigError::value("metrics_listen", format!("{text:?} is not ADDRESS:PORT"))
    })?;
    if !address.ip().is_loopback() {
        let reason = format!("{} is not a loopback address", address.ip());
        return Err(ConfigError::value("metrics_listen", reason));
    }
    Ok(address)
}

fn default_pools(texts: &[String]) -> Result<Vec<DefaultPool>, ConfigError> {
    let bad = |reason: String| ConfigError::value("default_pools", reason);
    texts
        .iter()
        .map(|text| {
            let (base, len) = text
                .rsplit_once(':')
                .filter(|(_, len)| !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| bad(format!("{text:?} is not BASE:LENGTH, as 10.128.0.0/10:20")))?;
            let base: Subnet = base.parse().map_err(|e: ParseError| bad(e.to_string()))?;
            let prefix_len: u8 = len
                .parse()
                .map_err(|_| bad(format!("{len} is no prefix length")))?;
            if prefix_len < base.prefix_len() || prefix_len > base.family().bits() {
                return Err(bad(format!(
                    "{base} cannot be cut into subnets of /{prefix_len}"
                )));
            }
            Ok(DefaultPool { base, prefix_len })
        })
        .collect()
}

#[cfg(test)]
mod tests;
