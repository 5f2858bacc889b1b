//! How servers are wanted.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use netloom_core::{StoreKind, StoreTransport};

/// How many servers a store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One.
    Single,
    /// Three, of which any two are a majority.
    Three,
}

impl Shape {
    pub(super) const fn members(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Three => 3,
        }
    }
}

/// Which etcd is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtcdVersion {
    /// 3.4, the machine's own package.
    Debian34,
    /// 3.5, unpacked from Debian unstable.
    Sid35,
}

/// What distinguishes one store from another.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    pub(super) kind: StoreKind,
    pub(super) shape: Shape,
    pub(super) transport: StoreTransport,
    pub(super) login: bool,
    pub(super) etcd: EtcdVersion,
    pub(super) session_ttl_min: Duration,
    pub(super) listen: IpAddr,
    pub(super) netns: Option<PathBuf>,
    pub(super) more: Vec<String>,
}

impl StoreOptions {
    /// Plain servers on 127.0.0.1 that let everybody in.
    #[must_use]
    pub fn new(kind: StoreKind, shape: Shape) -> Self {
        Self {
            kind,
            shape,
            transport: StoreTransport::Plain,
            login: false,
            etcd: EtcdVersion::Debian34,
            session_ttl_min: Duration::from_secs(1),
            listen: Ipv4Addr::LOCALHOST.into(),
            netns: None,
            more: Vec::new(),
        }
    }

    /// Clients speak TLS and show a certificate.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.transport = StoreTransport::Tls;
        self
    }

    /// Clients say who they are: a user with a password; for Consul, a token. They may read and
    /// write all keys, and nothing else.
    #[must_use]
    pub fn login(mut self) -> Self {
        self.login = true;
        self
    }

    /// Another etcd.
    #[must_use]
    pub fn etcd(mut self, version: EtcdVersion) -> Self {
        self.etcd = version;
        self
    }

    /// The bytes that etcd takes before it refuses more.
    #[must_use]
    pub fn quota(self, bytes: u64) -> Self {
        self.setting(&format!("--quota-backend-bytes={bytes}"))
    }

    /// The shortest life of a session that Consul grants; 1 s unless said otherwise, where Consul's
    /// own is 10 s.
    #[must_use]
    pub fn session_ttl_min(mut self, shortest: Duration) -> Self {
        self.session_ttl_min = shortest;
        self
    }

    /// One more setting: an argument of etcd or Consul, a line of ZooKeeper's configuration.
    #[must_use]
    pub fn setting(mut self, setting: &str) -> Self {
        self.more.push(setting.to_owned());
        self
    }

    /// Servers listen on `address`, inside of network namespace `netns` if one is named; that
    /// needs root.
    #[must_use]
    pub fn listen(mut self, address: IpAddr, netns: Option<PathBuf>) -> Self {
        self.listen = address;
        self.netns = netns;
        self
    }
}
