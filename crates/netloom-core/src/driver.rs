//! The seam between the engine and network drivers.

use crate::{EndpointSpec, Finding, NetworkSpec, PublishedPort, SandboxRef};
use async_trait::async_trait;
use netloom_types::{EndpointId, LinkName, MacAddr, PortBinding, Subnet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a driver cannot do, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The request itself is wrong; repeating it will not help. The text says how to mend it.
    #[error("{0}")]
    Invalid(String),
    /// Something else holds what the request needs (a bridge name, a port, a subnet).
    #[error("{0}")]
    Conflict(String),
    /// A limit is reached (ports of a bridge, ports of the ephemeral range).
    #[error("{0}")]
    Exhausted(String),
    /// It may work later: the kernel or a helper process did not answer.
    #[error("{what}")]
    Unavailable {
        /// What did not answer, and what to do.
        what: String,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The kernel refused a step; what was done before it has been undone.
    #[error("{what}")]
    Kernel {
        /// Which step, for which object.
        what: String,
        /// The kernel's answer.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// What the driver decided about an endpoint before it joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointGrant {
    /// The link address that the endpoint will have.
    pub mac: MacAddr,
}

/// Who puts the interface into the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfacePlacement {
    /// The link waits in the host's namespace; the caller moves it in, renames it to the prefix and
    /// a number, and gives it its addresses.
    CallerMoves {
        /// Name of the link in the host's namespace.
        link: LinkName,
        /// Prefix of the name inside, such as `eth`.
        prefix: String,
    },
    /// The driver has put it there, configured and up.
    Placed {
        /// Its name inside.
        link: LinkName,
    },
}

/// A route inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticRoute {
    /// Where it leads.
    pub destination: Subnet,
    /// The next hop; none means directly on the interface.
    pub next_hop: Option<IpAddr>,
}

/// Whether the caller may add a way out of its own (`docker_gwbridge`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GatewayService {
    /// It may.
    Allowed,
    /// It must not: the network is closed on purpose.
    Disabled,
}

/// The result of a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Where the interface is.
    pub interface: InterfacePlacement,
    /// The sandbox's IPv4 default gateway by this network.
    pub gateway_v4: Option<Ipv4Addr>,
    /// The sandbox's IPv6 default gateway by this network.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Further routes.
    pub routes: Vec<StaticRoute>,
    /// Whether the caller may add a way out.
    pub gateway_service: GatewayService,
}

/// An endpoint as it should stand in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredEndpoint {
    /// What was asked for.
    pub spec: EndpointSpec,
    /// Its link address.
    pub mac: MacAddr,
    /// The sandbox that it is joined to; none while it is only created.
    pub sandbox: Option<SandboxRef>,
    /// Its published ports.
    pub ports: Vec<PublishedPort>,
}

/// Everything of one driver as it should stand in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// The networks.
    pub networks: Vec<NetworkSpec>,
    /// The endpoints of these networks.
    pub endpoints: Vec<DesiredEndpoint>,
}

/// A kind of network.
///
/// Every method may be repeated: an effect that is there already is no error, and neither is one
/// that is gone already. Records are the engine's: a driver keeps no state that it could not read
/// from the kernel again.
#[async_trait]
pub trait Driver: core::fmt::Debug + Send + Sync {
    /// The name that chooses it (`-o netloom.driver=`).
    fn name(&self) -> &'static str;

    /// Checks a network against its options and the `others` of this host; changes nothing.
    ///
    /// # Errors
    /// `Invalid` or `Conflict`.
    fn validate_network(
        &self,
        network: &NetworkSpec,
        others: &[NetworkSpec],
    ) -> Result<(), DriverError>;

    /// Builds the network in the kernel; undoes what it did when it fails.
    ///
    /// # Errors
    /// By what can be done about it.
    async fn create_network(&self, network: &NetworkSpec) -> Result<(), DriverError>;

    /// Removes the network from the kernel.
    ///
    /// # Errors
    /// By what can be done about it.
    async fn delete_network(&self, network: &NetworkSpec) -> Result<(), DriverError>;

    /// Checks an endpoint and chooses its link address; changes nothing.
    ///
    /// # Errors
    /// `Invalid` or `Conflict`.
    fn validate_endpoint(
        &self,
        network: &NetworkSpec,
        endpoint: &EndpointSpec,
    ) -> Result<EndpointGrant, DriverError>;

    /// Makes the endpoint's link, in the sandbox where that exists; undoes what it did when it fails.
    ///
    /// # Errors
    /// By what can be done about it.
    async fn join(
        &self,
        network: &NetworkSpec,
        endpoint: &DesiredEndpoint,
        sandbox: &SandboxRef,
    ) -> Result<Attachment, DriverError>;

    /// Removes the endpoint's link and everything that hangs on it.
    ///
    /// # Errors
    /// By what can be done about it.
    async fn leave(
        &self,
        network: &NetworkSpec,
        endpoint: &DesiredEndpoint,
    ) -> Result<(), DriverError>;

    /// Whether the endpoint's link is there; a driver that cannot tell says so by `true`.
    ///
    /// # Errors
    /// When the kernel could not be read.
    async fn is_linked(&self, endpoint: &EndpointId) -> Result<bool, DriverError> {
        let _ = endpoint;
        Ok(true)
    }

    /// Brings the kernel to `desired` by difference, never by flush and refill; says what it mended.
    ///
    /// # Errors
    /// When the kernel could not be read; single failures are findings.
    async fn reconcile(&self, desired: &Desired) -> Result<Vec<Finding>, DriverError>;

    /// Compares the kernel with `desired`; changes nothing.
    ///
    /// # Errors
    /// When the kernel could not be read.
    async fn audit(&self, desired: &Desired) -> Result<Vec<Finding>, DriverError>;

    /// The capability to publish ports, for drivers that have it.
    fn publisher(&self) -> Option<&dyn Publisher> {
        None
    }
}

/// The capability to publish container ports on the host.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Chooses, reserves and programs host ports for all `wanted` bindings, or for none of them.
    /// A binding without a host address gives one port on IPv4 and the same on IPv6 where the
    /// endpoint has both.
    ///
    /// # Errors
    /// `Conflict` when a port is taken, `Exhausted` when a range has no free one.
    async fn publish(
        &self,
        network: &NetworkSpec,
        endpoint: &DesiredEndpoint,
        wanted: &[PortBinding],
    ) -> Result<Vec<PublishedPort>, DriverError>;

    /// Frees them again and forgets the flows that used them.
    ///
    /// # Errors
    /// By what can be done about it.
    async fn revoke(
        &self,
        network: &NetworkSpec,
        endpoint: &DesiredEndpoint,
        ports: &[PublishedPort],
    ) -> Result<(), DriverError>;
}
