//! What networks and endpoints are, as their creators asked for them.

use netloom_types::{
    EndpointId, Family, InterfaceAddr, MacAddr, NetworkId, PortBinding, Protocol, SandboxId, Subnet,
};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Driver options under their `netloom.*` names; the driver parses the values.
pub type Options = BTreeMap<String, String>;

/// Whether a network may talk to the world outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reach {
    /// Containers reach the outside by the network's gateway.
    #[default]
    External,
    /// No way in or out (`docker network create --internal`).
    Internal,
}

/// One subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetSpec {
    /// The addresses of the network's endpoints lie in it.
    pub subnet: Subnet,
    /// The gateway's address, inside the subnet.
    pub gateway: Option<IpAddr>,
    /// Addresses that are kept out of use, by name (`--aux-address`).
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// A network as its creator asked for it. It lives from create to delete and never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Docker invents one per host.
    pub id: NetworkId,
    /// The driver's name, such as `bridge`.
    pub driver: String,
    /// Its subnets, IPv4 before IPv6; empty when addresses come from elsewhere.
    pub subnets: Vec<SubnetSpec>,
    /// Whether it may talk to the outside.
    pub reach: Reach,
    /// The driver's options.
    pub options: Options,
}

impl NetworkSpec {
    /// The subnets of one family.
    pub fn subnets_of(&self, family: Family) -> impl Iterator<Item = &SubnetSpec> {
        self.subnets
            .iter()
            .filter(move |s| s.subnet.family() == family)
    }

    /// The subnet that holds `ip`.
    #[must_use]
    pub fn subnet_of(&self, ip: IpAddr) -> Option<&SubnetSpec> {
        self.subnets.iter().find(|s| s.subnet.contains(ip))
    }
}

/// The addresses of an endpoint: at most one of each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Addresses {
    /// The IPv4 address with its subnet's prefix length.
    pub ipv4: Option<InterfaceAddr>,
    /// The IPv6 address with its subnet's prefix length.
    pub ipv6: Option<InterfaceAddr>,
}

impl Addresses {
    /// Those that exist, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = InterfaceAddr> {
        self.ipv4.into_iter().chain(self.ipv6)
    }
}

/// An endpoint as its creator asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Docker makes a new one at every start of a container.
    pub id: EndpointId,
    /// The network that it belongs to, for life.
    pub network: NetworkId,
    /// Its addresses, given by an IPAM driver.
    pub addresses: Addresses,
    /// The link address, if the caller has chosen one.
    pub mac: Option<MacAddr>,
    /// Ports to publish on the host.
    pub ports: Vec<PortBinding>,
    /// Ports that the image exposes or the user named, whether published or not.
    pub exposed: Vec<(Protocol, u16)>,
    /// Options of this endpoint alone.
    pub options: Options,
}

/// Where a container's network stack is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SandboxRef {
    /// Its id.
    pub id: SandboxId,
    /// Path of its network namespace. It may not exist yet when an endpoint joins.
    pub netns: PathBuf,
}

/// One container port that is published on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublishedPort {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The host address; unspecified (`0.0.0.0`, `::`) means every address of that family.
    pub host_ip: IpAddr,
    /// The chosen host port.
    pub host_port: u16,
    /// The container's address.
    pub container_ip: IpAddr,
    /// The container's port.
    pub container_port: u16,
}
