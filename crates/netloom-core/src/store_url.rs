//! Where a store is and how to get in: what an operator writes, parsed once.

use crate::store::Key;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A store's address as people write it: `file:///var/lib/netloom/store.redb`,
/// `etcd://h1:2379,h2:2379/netloom`, `consul://h1`, `zk://h1,h2,h3/site/netloom`; `etcd+tls://`,
/// `consul+tls://` and `zk+tls://` speak TLS.
///
/// ```
/// use netloom_core::{StoreKind, StoreUrl};
///
/// let url: StoreUrl = "etcd://h1,h2:12379/site-a/netloom".parse()?;
/// let StoreUrl::Remote(remote) = &url else { unreachable!() };
/// assert_eq!(remote.kind, StoreKind::Etcd);
/// assert_eq!(remote.endpoints[0].to_string(), "h1:2379");
/// assert_eq!(remote.prefix.as_str(), "site-a/netloom");
/// assert_eq!(url.to_string(), "etcd://h1:2379,h2:12379/site-a/netloom");
/// assert!("etcd:///netloom".parse::<StoreUrl>().is_err());
/// # Ok::<(), netloom_core::InvalidStoreUrl>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// The embedded store of one host, in this file.
    File(PathBuf),
    /// A store that hosts share.
    Remote(RemoteUrl),
}

/// The address of a store that hosts share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteUrl {
    /// Which program it is.
    pub kind: StoreKind,
    /// Its servers; at least one.
    pub endpoints: Vec<StoreEndpoint>,
    /// The directory below which everything of ours lies; `netloom` when none is named.
    pub prefix: Key,
    /// Whether the connection is encrypted.
    pub transport: StoreTransport,
}

/// Which program a shared store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreKind {
    /// etcd v3.
    Etcd,
    /// Consul.
    Consul,
    /// Apache ZooKeeper.
    ZooKeeper,
}

impl StoreKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Etcd, Self::Consul, Self::ZooKeeper];

    /// The scheme of its addresses.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Consul => "consul",
            Self::ZooKeeper => "zk",
        }
    }

    /// The port that its servers listen on by custom.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Etcd => 2379,
            Self::Consul => 8500,
            Self::ZooKeeper => 2181,
        }
    }
}

/// Whether a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreTransport {
    /// As it is.
    Plain,
    /// TLS.
    Tls,
}

/// One server of a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreEndpoint {
    /// A name, an IPv4 address or an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl core::fmt::Display for StoreEndpoint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How to get into a shared store.
///
/// Files are read anew whenever a connection is made, so that certificates and passwords are
/// changed without a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteStoreConfig {
    /// Where it is.
    pub url: RemoteUrl,
    /// What TLS trusts and shows; the system's roots and no certificate when it is empty.
    pub tls: TlsFiles,
    /// Who to say one is.
    pub login: Login,
    /// How long one operation may take before its outcome is called unknown or unavailable.
    pub timeout: Duration,
}

impl RemoteStoreConfig {
    /// Nobody in particular, with three seconds for every operation: of the five that a plugin
    /// call has, two are left for what else it does.
    #[must_use]
    pub fn new(url: RemoteUrl) -> Self {
        Self {
            url,
            tls: TlsFiles::default(),
            login: Login::Nobody,
            timeout: Duration::from_secs(3),
        }
    }
}

/// PEM files for TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates to trust, instead of the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate with its key.
    pub identity: Option<ClientIdentity>,
}

/// A certificate chain and the key that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The chain, own certificate first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Who a client says it is. Secrets are read from files, never written in a URL or an argument,
/// where every process on the host could see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// Nobody.
    Nobody,
    /// A user with a password (etcd, ZooKeeper).
    Password {
        /// The name.
        user: String,
        /// The file that holds the password; a line end behind it does not count.
        password_file: PathBuf,
    },
    /// A token (Consul).
    Token {
        /// The file that holds it; a line end behind it does not count.
        token_file: PathBuf,
    },
}

/// A text that is no store's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a store address: {why}; write file:///PATH, or etcd://, consul:// or zk:// \
     with HOST[:PORT][,HOST[:PORT]...][/PREFIX], with +tls behind the scheme for TLS"
)]
pub struct InvalidStoreUrl {
    text: String,
    why: &'static str,
}

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<Self, InvalidStoreUrl> {
        let wrong = |why| InvalidStoreUrl {
            text: text.to_owned(),
            why,
        };
        let (scheme, rest) = text.split_once("://").ok_or(wrong("it has no scheme"))?;
        if scheme == "file" {
            return if rest.starts_with('/') && rest.len() > 1 {
                Ok(Self::File(PathBuf::from(rest)))
            } else {
                Err(wrong("the file's path is not absolute"))
            };
        }
        let (scheme, transport) = match scheme.strip_suffix("+tls") {
            Some(scheme) => (scheme, StoreTransport::Tls),
            None => (scheme, StoreTransport::Plain),
        };
        let kind = StoreKind::ALL
            .into_iter()
            .find(|kind| kind.scheme() == scheme)
            .ok_or(wrong("the scheme is not known"))?;
        let (servers, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let endpoints: Result<Vec<_>, _> = servers
            .split(',')
            .map(|server| endpoint(server, kind))
            .collect();
        let prefix = match prefix.trim_end_matches('/') {
            "" => PREFIX,
            prefix => prefix,
        };
        Ok(Self::Remote(RemoteUrl {
            kind,
            endpoints: endpoints.map_err(wrong)?,
            prefix: Key::new(prefix)
                .map_err(|_| wrong("the prefix is not of parts of [a-z0-9._-]"))?,
            transport,
        }))
    }
}

fn endpoint(text: &str, kind: StoreKind) -> Result<StoreEndpoint, &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("a bracket is not closed")?;
            host.parse::<core::net::Ipv6Addr>()
                .map_err(|_| "what stands in brackets is no IPv6 address")?;
            match port.strip_prefix(':') {
                None if !port.is_empty() => return Err("something stands behind a bracket"),
                port => (host, port),
            }
        }
        None => match text.split_once(':') {
            None => (text, None),
            Some((host, port)) => (host, Some(port)),
        },
    };
    let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'));
    if host.is_empty() || host.contains(odd) {
        return Err("a server has no name");
    }
    let port = match port {
        None => kind.default_port(),
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or("a port is no number from 1 to 65535")?,
    };
    let host = host.to_owned();
    Ok(StoreEndpoint { host, port })
}

impl core::fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}

impl core::fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let tls = match self.transport {
            StoreTransport::Plain => "",
            StoreTransport::Tls => "+tls",
        };
        let servers: Vec<_> = self.endpoints.iter().map(ToString::to_string).collect();
        let servers = servers.join(",");
        write!(f, "{}{tls}://{servers}/{}", self.kind.scheme(), self.prefix)
    }
}

/// Everything of ours lies below it when no prefix is named.
const PREFIX: &str = "netloom";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them_round_trip() {
        for (text, canonical) in [
            ("consul://h1", "consul://h1:8500/netloom"),
            ("zk://a,b,c:1/x/y/", "zk://a:2181,b:2181,c:1/x/y"),
            ("etcd+tls://[fd00::1]", "etcd+tls://[fd00::1]:2379/netloom"),
            ("zk://[::1]:99", "zk://[::1]:99/netloom"),
            ("file:///a/b", "file:///a/b"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(url));
        }
    }

    #[test]
    fn texts_that_name_no_store_are_refused() {
        for odd in [
            "",
            "etcd",
            "etcd://",
            "etcd:///netloom",
            "etcd://a,,b",
            "etcd://a:0",
            "etcd://a:x",
            "etcd://[::1",
            "etcd://[x]:1",
            "etcd://[::1]x",
            "etcd://user@a",
            "etcd://a/UPPER",
            "etcd+ssl://a",
            "redis://a",
            "file://a",
            "file:///",
        ] {
            assert!(odd.parse::<StoreUrl>().is_err(), "{odd:?} was accepted");
        }
    }
}
