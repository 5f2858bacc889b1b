//! The seam between callers and address management.

use crate::{Finding, Options, RuntimeNetwork, Timestamp};
use async_trait::async_trait;
use netloom_types::{Family, InterfaceAddr, MacAddr, PoolId, Subnet};
use std::net::IpAddr;

/// A space in which subnets must not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressSpace {
    /// Pools of this host.
    Local,
    /// Pools that all hosts share.
    Global,
}

/// Which pool is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedPool {
    /// Any free one of the configured default pools; successive requests get different ones.
    Any(Family),
    /// Any free one with this prefix length.
    Sized(Family, u8),
    /// Exactly this subnet.
    Exact {
        /// The subnet.
        subnet: Subnet,
        /// Hand out only from this part of it (`--ip-range`).
        range: Option<Subnet>,
    },
}

/// A request for a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRequest {
    /// The space.
    pub space: AddressSpace,
    /// The wish.
    pub wanted: WantedPool,
    /// IPAM options of the network (`--ipam-opt`), by name.
    pub options: Options,
}

/// A granted reference to a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolGrant {
    /// The reference; every grant has another one, also for the same pool.
    pub id: PoolId,
    /// The pool's subnet.
    pub subnet: Subnet,
}

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The network's gateway; asking again for the same pool gives the same address.
    Gateway,
    /// A container, or an address to be kept out of use.
    Endpoint,
}

/// A request for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRequest {
    /// The reference to the pool.
    pub pool: PoolId,
    /// Exactly this one; none means any.
    pub wanted: Option<IpAddr>,
    /// What for.
    pub purpose: Purpose,
    /// The link address it will be used with, if known: joins this request to the endpoint.
    pub mac: Option<MacAddr>,
    /// The container's name, where the caller tells it (Docker 29).
    pub name: Option<String>,
}

/// Why there is no pool or address, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IpamError {
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The pool reference is unknown.
    #[error("{0}")]
    NotFound(String),
    /// The subnet or address belongs to somebody; the text names who.
    #[error("{0}")]
    InUse(String),
    /// Every address or every default pool is in use.
    #[error("{0}")]
    Exhausted(String),
    /// The journal or the store did not take it; nothing was handed out. It may work later.
    #[error("{what}")]
    Unavailable {
        /// What did not work, and what to do.
        what: String,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// Address management. Every answer is durable before it is given.
#[async_trait]
pub trait Ipam: core::fmt::Debug + Send + Sync {
    /// Grants a reference to a pool.
    ///
    /// # Errors
    /// `InUse` when it would overlap another network's, `Exhausted` when no default pool is left.
    async fn request_pool(&self, request: PoolRequest) -> Result<PoolGrant, IpamError>;

    /// Gives a reference back, with the gateway and auxiliary addresses that only it holds.
    /// Releasing an unknown reference is no error: Docker repeats releases.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn release_pool(&self, pool: &PoolId) -> Result<(), IpamError>;

    /// Hands out an address.
    ///
    /// # Errors
    /// By what can be done about it.
    async fn request_address(&self, request: AddressRequest) -> Result<InterfaceAddr, IpamError>;

    /// Takes an address back. Releasing a free address is no error: Docker repeats releases.
    ///
    /// # Errors
    /// `NotFound` for an unknown reference, `Unavailable`.
    async fn release_address(&self, pool: &PoolId, ip: IpAddr) -> Result<(), IpamError>;

    /// Tells that the caller has the answer to a request: an endpoint with this address exists.
    /// An address that is never confirmed is in doubt, and settled by [`IpamAdmin::audit`].
    ///
    /// # Errors
    /// `Unavailable`.
    async fn confirm(&self, ip: IpAddr, mac: Option<MacAddr>) -> Result<(), IpamError>;
}

/// For whom an address is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReservedFor {
    /// A container with this link address (`--mac-address`).
    Mac(MacAddr),
    /// A container with this name; automatic from Docker 29, by pinning before it.
    Name(String),
    /// Nobody: only an explicit request gets it.
    Explicit,
}

/// An address kept out of automatic hand-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The address.
    pub ip: IpAddr,
    /// For whom.
    pub holder: ReservedFor,
}

/// What an address in use is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// A network's gateway.
    Gateway,
    /// Confirmed by an endpoint.
    Endpoint,
    /// Handed out, not confirmed yet.
    InDoubt,
    /// Asked for by its value at network creation (`--aux-address`).
    Auxiliary,
    /// Reserved and not in use.
    Reserved,
}

/// One address of a pool that is not free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressView {
    /// The address.
    pub ip: IpAddr,
    /// What it is.
    pub kind: AddressKind,
    /// The link address that it was asked for with.
    pub mac: Option<MacAddr>,
    /// The container's name, where it was told.
    pub name: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

/// A pool as people see it. Counts saturate at `u64::MAX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolView {
    /// Its subnet.
    pub subnet: Subnet,
    /// Its space.
    pub space: AddressSpace,
    /// The part that automatic hand-out is confined to.
    pub range: Option<Subnet>,
    /// The references to it.
    pub references: Vec<PoolId>,
    /// Of these, this host's own, those in use first.
    pub own: Vec<PoolId>,
    /// Its gateway.
    pub gateway: Option<IpAddr>,
    /// Addresses that automatic hand-out may give at all.
    pub capacity: u64,
    /// Of these, how many are in use, reserved ones included.
    pub used: u64,
    /// For a picture of how full it is: the share in use, 0 to 255, of each of up to 64 equal parts.
    pub fill: Vec<u8>,
}

/// What Docker and the kernel show, for comparison with the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Docker's networks with their endpoints; none when Docker could not be asked.
    pub runtime: Option<Vec<RuntimeNetwork>>,
    /// Addresses of endpoints that the engine has on record.
    pub recorded: Vec<(InterfaceAddr, Option<MacAddr>)>,
    /// Addresses that the kernel shows on container links or bridges of ours.
    pub kernel: Vec<IpAddr>,
}

/// Management of pools, for people and for the background.
#[async_trait]
pub trait IpamAdmin: Ipam {
    /// All pools, ordered by subnet.
    async fn pools(&self) -> Vec<PoolView>;

    /// The id by which [`pools`](Self::pools) lists a reference. It is another one than was granted where the
    /// host had a store of its own then and shares one now.
    fn listed_as(&self, reference: &PoolId) -> PoolId;

    /// Takes an endpoint's address back, as far as this very reference gave it. Unlike
    /// [`release_address`](Ipam::release_address), it leaves gateways and auxiliary addresses alone.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn release_endpoint(&self, pool: &PoolId, ip: IpAddr) -> Result<(), IpamError>;

    /// The addresses of a pool that are not free, ordered.
    ///
    /// # Errors
    /// `NotFound`.
    async fn addresses(&self, subnet: Subnet) -> Result<Vec<AddressView>, IpamError>;

    /// Keeps an address for somebody.
    ///
    /// # Errors
    /// `NotFound` when no pool holds it, `InUse` when another holder has it.
    async fn reserve(&self, reservation: Reservation) -> Result<(), IpamError>;

    /// Ends a reservation; an address in use stays in use.
    ///
    /// # Errors
    /// `NotFound` when it is not reserved.
    async fn unreserve(&self, ip: IpAddr) -> Result<(), IpamError>;

    /// Compares the journal with `evidence`; changes nothing but the memory of what was sighted.
    async fn audit(&self, evidence: &Evidence) -> Vec<Finding>;

    /// As [`audit`](Self::audit), and mends what two sightings with a grace time between them, and
    /// a re-check right before, show to be stray.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn repair(&self, evidence: &Evidence) -> Result<Vec<Finding>, IpamError>;
}
