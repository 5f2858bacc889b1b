//! What an address manager needs to be told, and the seams that it works through.

use crate::journal::{Disk, JournalOptions};
use netloom_core::store::Store;
use netloom_core::{Clock, Ids};
use netloom_types::{BootId, HostId, Subnet};
use std::sync::Arc;
use std::time::Duration;

/// How address management behaves on this host.
#[derive(Debug, Clone)]
pub struct IpamConfig {
    /// Which host this is, for life.
    pub host: HostId,
    /// Which boot of it.
    pub boot: BootId,
    /// Where pools come from when no subnet is named: larger subnets, each with the prefix length
    /// that it is cut into. Used in order; both families may be mixed.
    pub default_pools: Vec<(Subnet, u8)>,
    /// How long an address that nobody confirmed stays in doubt, and how far apart two sightings
    /// of a stray must be.
    pub settle_after: Duration,
    /// How the journal keeps its files.
    pub journal: JournalOptions,
    /// Whether other hosts share the store.
    pub sharing: Sharing,
}

/// Whether other hosts share the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Sharing {
    /// No: the store is this host's own, which it initialises itself.
    #[default]
    Alone,
    /// Yes: all pools belong to all hosts, and addresses change hands.
    Cluster(ClusterConfig),
}

/// How a host behaves among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Which machine this is: tells a copy of a state directory from the original. Empty when that
    /// is not known.
    pub machine: String,
    /// How long one request may look for an address at other hosts.
    pub answer_time: Duration,
    /// How often this host says that it lives, and looks at the store, while there are few hosts;
    /// with many it is done less often.
    pub status_every: Duration,
}

impl ClusterConfig {
    /// The defaults for a machine.
    #[must_use]
    pub fn new(machine: impl Into<String>) -> Self {
        Self {
            machine: machine.into(),
            answer_time: ANSWER_TIME,
            status_every: STATUS_EVERY,
        }
    }
}

impl IpamConfig {
    /// The defaults for a host.
    #[must_use]
    pub fn new(host: HostId, boot: BootId) -> Self {
        Self {
            default_pools: standard_pools(&host),
            host,
            boot,
            settle_after: SETTLE_AFTER,
            journal: JournalOptions::default(),
            sharing: Sharing::Alone,
        }
    }
}

/// What address management works through.
#[derive(Debug, Clone)]
pub struct Seams {
    /// Where the journal lives.
    pub disk: Arc<dyn Disk>,
    /// Where pools live.
    pub store: Arc<dyn Store>,
    /// Where this host keeps what it saw of that store, to start from while it is away; none for a
    /// store that is always there.
    pub mirror: Option<Arc<dyn Store>>,
    /// What the host's own routes occupy.
    pub routes: Arc<dyn HostRoutes>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub ids: Arc<dyn Ids>,
}

/// The destinations of the host's routes, which no default pool may overlap.
pub trait HostRoutes: core::fmt::Debug + Send + Sync {
    /// All of them; default routes do not count.
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn destinations(&self) -> Result<Vec<Subnet>, Box<dyn std::error::Error + Send + Sync>>;
}

/// A host without routes, or one that does not mind.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRoutes;

impl HostRoutes for NoRoutes {
    fn destinations(&self) -> Result<Vec<Subnet>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Vec::new())
    }
}

/// 1,024 IPv4 networks of 4,094 addresses in a part of 10.0.0.0/8 that few sites use, and 65,536
/// IPv6 networks in a unique local prefix (RFC 4193) that the host's id chooses, so that two
/// hosts' networks can be joined later.
fn standard_pools(host: &HostId) -> Vec<(Subnet, u8)> {
    let hash = host
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| {
            (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
    // RFC 4193 section 3.1: fd, 40 bits that identify the site, 16 of subnet.
    let global_id = u128::from(hash >> 24) << 80;
    let ula = std::net::Ipv6Addr::from_bits(0xfd << 120 | global_id);
    let v4 = std::net::Ipv4Addr::new(10, 128, 0, 0);
    vec![
        (Subnet::truncating(v4.into(), 10), 20),
        (Subnet::truncating(ula.into(), 48), 64),
    ]
}

/// dockerd tries a plugin call at 0, 1, 3, 7 and 15 seconds and gives up at 30 (measured with
/// 20.10; the same code in later ones); a third more for a slow machine.
const SETTLE_AFTER: Duration = Duration::from_secs(40);

/// A caller shall have its error within a second.
const ANSWER_TIME: Duration = Duration::from_millis(900);
/// Often enough that a look at the list of hosts says who is there.
const STATUS_EVERY: Duration = Duration::from_secs(5);
