//! One list of settings for flags, environment and file, so that they cannot disagree.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Each setting, perhaps given. The flag `--state-dir`, the variable `NETLOOM_STATE_DIR` and the key
/// `state_dir` of the file are the same field.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layer {
    /// Where records and the address journal lie; lives as long as the host [default: /var/lib/netloom]
    #[arg(long, value_name = "DIR", env = "NETLOOM_STATE_DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state_dir: Option<PathBuf>,

    /// Where sockets lie; lives as long as the boot [default: /run/netloom]
    #[arg(long, value_name = "DIR", env = "NETLOOM_RUN_DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run_dir: Option<PathBuf>,

    /// The store: file:///PATH for this host alone, or etcd://, consul:// or zk:// with
    /// HOST[:PORT][,HOST[:PORT]...][/PREFIX] for one that hosts share; +tls behind the scheme for TLS
    /// [default: store.redb in the state directory]
    #[arg(long, value_name = "URL", env = "NETLOOM_STORE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,

    /// Certificates (PEM) that the store's server is checked with [default: the system's]
    #[arg(long, value_name = "FILE", env = "NETLOOM_STORE_CA")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store_ca: Option<PathBuf>,

    /// The certificate (PEM) that this host shows to the store; read again for every connection
    #[arg(long, value_name = "FILE", env = "NETLOOM_STORE_CERT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store_cert: Option<PathBuf>,

    /// The key (PEM) of that certificate
    #[arg(long, value_name = "FILE", env = "NETLOOM_STORE_KEY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store_key: Option<PathBuf>,

    /// The user that this host is to etcd or ZooKeeper
    #[arg(long, value_name = "NAME", env = "NETLOOM_STORE_USER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store_user: Option<String>,

    /// The file with that user's password
    #[arg(long, value_name = "FILE", env = "NETLOOM_STORE_PASSWORD_FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store_password_file: Option<PathBuf>,

    /// The file with the token that this host shows to Consul
    #[arg(long, value_name = "FILE", env = "NETLOOM_STORE_TOKEN_FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store_token_file: Option<PathBuf>,

    /// The socket that dockerd looks for; its file name is the plugin's name
    /// [default: /run/docker/plugins/netloom.sock]
    #[arg(long, value_name = "PATH", env = "NETLOOM_PLUGIN_SOCKET")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plugin_socket: Option<PathBuf>,

    /// The socket of the local API [default: api.sock in the run directory]
    #[arg(long, value_name = "PATH", env = "NETLOOM_API_SOCKET")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api_socket: Option<PathBuf>,

    /// A group whose members may use the local API besides root
    #[arg(long, value_name = "GROUP", env = "NETLOOM_API_GROUP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api_group: Option<String>,

    /// Docker's own socket, for lists and events [default: /run/docker.sock]
    #[arg(long, value_name = "PATH", env = "NETLOOM_DOCKER_SOCKET")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) docker_socket: Option<PathBuf>,

    /// The port relay's socket [default: relay.sock in the run directory]
    #[arg(long, value_name = "PATH", env = "NETLOOM_RELAY_SOCKET")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) relay_socket: Option<PathBuf>,

    /// Whether published ports are reserved by netloom-relay, which also carries 127.0.0.1 and ::1
    /// to containers [default: on]
    #[arg(long, value_name = "on|off", env = "NETLOOM_RELAY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) relay: Option<Toggle>,

    /// A loopback address for metrics and health over HTTP, such as 127.0.0.1:9324 [default: none]
    #[arg(long, value_name = "ADDRESS", env = "NETLOOM_METRICS_LISTEN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics_listen: Option<String>,

    /// What is logged: error, warn, info, debug, trace, or a filter per module [default: info]
    #[arg(long, value_name = "FILTER", env = "NETLOOM_LOG")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<String>,

    /// How log lines are written [default: human]
    #[arg(long, value_name = "human|json", env = "NETLOOM_LOG_FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_format: Option<LogFormat>,

    /// After how many milliseconds a plugin call is answered with an error; its work goes on
    /// [default: 10000]
    #[arg(long, value_name = "MS", env = "NETLOOM_DEADLINE_MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deadline_ms: Option<u64>,

    /// Seconds between two comparisons with Docker's list and the kernel; changes that are told of
    /// are looked at at once [default: 30]
    #[arg(long, value_name = "SECONDS", env = "NETLOOM_AUDIT_INTERVAL_S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) audit_interval_s: Option<u64>,

    /// Seconds that something which Docker asked for and nobody uses stays in doubt before it is
    /// taken back; Docker repeats a call for 15 s, so less than 30 is for tests alone [default: 40]
    #[arg(long, value_name = "SECONDS", env = "NETLOOM_SETTLE_AFTER_S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) settle_after_s: Option<u64>,

    /// Whether changes that others make to our rules and links are mended as soon as the kernel
    /// tells of them; without, the rounds of --audit-interval-s mend them [default: on]
    #[arg(long, value_name = "on|off", env = "NETLOOM_WATCH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) watch: Option<Toggle>,

    /// The pools that networks without --subnet get theirs from: BASE:LENGTH cuts BASE into subnets
    /// of that prefix length [default: 10.128.0.0/10:20 and a unique local IPv6 prefix of the host]
    #[arg(
        long,
        value_name = "BASE:LENGTH",
        env = "NETLOOM_DEFAULT_POOLS",
        value_delimiter = ','
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_pools: Option<Vec<String>>,

    /// The lowest number, besides 0, of an interface that is made inside a running container. Docker
    /// numbers those that it moves there by a counter, without looking, so that ours must keep away
    /// [default: 100]
    #[arg(long, value_name = "NUMBER", env = "NETLOOM_FIRST_INTERFACE_NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_interface_number: Option<u16>,
}

/// Something that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Toggle {
    /// It is used.
    On,
    /// It is not.
    Off,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Layer {
    /// This layer where it says something, else `below`.
    pub(crate) fn over(self, below: Self) -> Self {
        Self {
            state_dir: self.state_dir.or(below.state_dir),
            run_dir: self.run_dir.or(below.run_dir),
            store: self.store.or(below.store),
            store_ca: self.store_ca.or(below.store_ca),
            store_cert: self.store_cert.or(below.store_cert),
            store_key: self.store_key.or(below.store_key),
            store_user: self.store_user.or(below.store_user),
            store_password_file: self.store_password_file.or(below.store_password_file),
            store_token_file: self.store_token_file.or(below.store_token_file),
            plugin_socket: self.plugin_socket.or(below.plugin_socket),
            api_socket: self.api_socket.or(below.api_socket),
            api_group: self.api_group.or(below.api_group),
            docker_socket: self.docker_socket.or(below.docker_socket),
            relay_socket: self.relay_socket.or(below.relay_socket),
            relay: self.relay.or(below.relay),
            metrics_listen: self.metrics_listen.or(below.metrics_listen),
            log: self.log.or(below.log),
            log_format: self.log_format.or(below.log_format),
            deadline_ms: self.deadline_ms.or(below.deadline_ms),
            audit_interval_s: self.audit_interval_s.or(below.audit_interval_s),
            settle_after_s: self.settle_after_s.or(below.settle_after_s),
            watch: self.watch.or(below.watch),
            default_pools: self.default_pools.or(below.default_pools),
            first_interface_number: self.first_interface_number.or(below.first_interface_number),
        }
    }
}
