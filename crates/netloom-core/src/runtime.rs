//! What the container runtime says exists: evidence for audits, never a source of truth.

use crate::Addresses;
use async_trait::async_trait;
use netloom_types::{EndpointId, MacAddr, NetworkId, Subnet};
use std::net::IpAddr;

/// Whose driver does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Netloom.
    Ours,
    /// Somebody else.
    Other,
}

/// A network that the runtime has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeNetwork {
    /// Its id.
    pub id: NetworkId,
    /// Its name, which plugins are never told.
    pub name: String,
    /// Whose network driver made it.
    pub driver: Provider,
    /// Whose IPAM driver gives its addresses.
    pub ipam: Provider,
    /// Its subnets with their gateways.
    pub subnets: Vec<(Subnet, Option<IpAddr>)>,
    /// Its auxiliary addresses.
    pub auxiliary: Vec<IpAddr>,
    /// Its endpoints: running containers, and stopped ones with a pinned address.
    pub endpoints: Vec<RuntimeEndpoint>,
}

/// An endpoint that the runtime has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEndpoint {
    /// Its id; none while its container is stopped.
    pub id: Option<EndpointId>,
    /// The container's id.
    pub container: String,
    /// The container's name.
    pub name: String,
    /// Its addresses, in use or pinned.
    pub addresses: Addresses,
    /// Its link address.
    pub mac: Option<MacAddr>,
}

/// The runtime did not tell.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct RuntimeError {
    /// What was asked, and what to do.
    pub what: String,
    /// Why it failed.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A container runtime that can be asked, outside of any plugin call.
#[async_trait]
pub trait Runtime: core::fmt::Debug + Send + Sync {
    /// All networks with their endpoints.
    ///
    /// # Errors
    /// When the runtime does not answer or answers nonsense.
    async fn networks(&self) -> Result<Vec<RuntimeNetwork>, RuntimeError>;

    /// Waits until something may have changed; a hint only, events may be lost.
    ///
    /// # Errors
    /// When the stream of events broke; list again and call again.
    async fn changed(&self) -> Result<(), RuntimeError>;

    /// Pins `ip` to a created or stopped container, so that the runtime itself asks for it at
    /// every start.
    ///
    /// # Errors
    /// When the container is unknown or running, or the runtime refuses.
    async fn pin(&self, container: &str, network: &str, ip: IpAddr) -> Result<(), RuntimeError>;
}
