//! Records as JSON: texts and numbers, parsed strictly into the domain's types.

use netloom_core::{
    Addresses, DesiredEndpoint, EndpointSpec, EndpointState, EndpointView, NetworkSpec,
    NetworkState, NetworkView, PublishedPort, Reach, SandboxRef, SubnetSpec, Timestamp,
};
use netloom_types::{BootId, HostPorts, NetworkId, ParseError, PortBinding, SandboxId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    id: String,
    state: NetworkStateWire,
    created_ms: u64,
    driver: String,
    internal: bool,
    subnets: Vec<Subnet>,
    options: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NetworkStateWire {
    Creating,
    Ready,
    Deleting,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subnet {
    subnet: String,
    gateway: Option<IpAddr>,
    auxiliary: BTreeMap<String, IpAddr>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Endpoint {
    id: String,
    network: String,
    state: EndpointStateWire,
    created_ms: u64,
    boot: String,
    ipv4: Option<String>,
    ipv6: Option<String>,
    mac: String,
    mac_wanted: Option<String>,
    sandbox: Option<Sandbox>,
    ports_wanted: Vec<Binding>,
    ports: Vec<Port>,
    /// Only there while ports are being published, so that records stand as older releases wrote
    /// and read them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports_due: Vec<Binding>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports_revoked: Vec<Port>,
    exposed: Vec<Exposed>,
    options: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EndpointStateWire {
    Created,
    Joining,
    Joined,
    Leaving,
    Deleting,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sandbox {
    id: String,
    netns: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Binding {
    protocol: String,
    container_port: u16,
    host_ip: Option<IpAddr>,
    /// First and last host port; none means an ephemeral one.
    host_ports: Option<(u16, u16)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    protocol: String,
    host_ip: IpAddr,
    host_port: u16,
    container_ip: IpAddr,
    container_port: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exposed {
    protocol: String,
    port: u16,
}

impl From<&NetworkView> for Network {
    fn from(view: &NetworkView) -> Self {
        let NetworkView {
            spec,
            state,
            created,
        } = view;
        let NetworkSpec {
            id,
            driver,
            subnets,
            reach,
            options,
        } = spec;
        Self {
            id: id.to_string(),
            state: match state {
                NetworkState::Creating => NetworkStateWire::Creating,
                NetworkState::Ready => NetworkStateWire::Ready,
                NetworkState::Deleting => NetworkStateWire::Deleting,
            },
            created_ms: created.0,
            driver: driver.clone(),
            internal: matches!(reach, Reach::Internal),
            subnets: subnets.iter().map(Subnet::from).collect(),
            options: options.clone(),
        }
    }
}

impl From<&SubnetSpec> for Subnet {
    fn from(spec: &SubnetSpec) -> Self {
        let SubnetSpec {
            subnet,
            gateway,
            auxiliary,
        } = spec;
        Self {
            subnet: subnet.to_string(),
            gateway: *gateway,
            auxiliary: auxiliary.clone(),
        }
    }
}

impl TryFrom<Network> for NetworkView {
    type Error = ParseError;

    fn try_from(wire: Network) -> Result<Self, ParseError> {
        let Network {
            id,
            state,
            created_ms,
            driver,
            internal,
            subnets,
            options,
        } = wire;
        let subnets = subnets
            .into_iter()
            .map(|wire| {
                let Subnet {
                    subnet,
                    gateway,
                    auxiliary,
                } = wire;
                Ok(SubnetSpec {
                    subnet: subnet.parse()?,
                    gateway,
                    auxiliary,
                })
            })
            .collect::<Result<_, ParseError>>()?;
        Ok(Self {
            spec: NetworkSpec {
                id: NetworkId::new(id)?,
                driver,
                subnets,
                reach: if internal {
                    Reach::Internal
                } else {
                    Reach::External
                },
                options,
            },
            state: match state {
                NetworkStateWire::Creating => NetworkState::Creating,
                NetworkStateWire::Ready => NetworkState::Ready,
                NetworkStateWire::Deleting => NetworkState::Deleting,
            },
            created: Timestamp(created_ms),
        })
    }
}

impl Endpoint {
    pub(super) fn new(view: &EndpointView, boot: &BootId) -> Self {
        let EndpointView {
            endpoint,
            state,
            created,
            ports_due,
            ports_revoked,
        } = view;
        let DesiredEndpoint {
            spec,
            mac,
            sandbox,
            ports,
        } = endpoint;
        let EndpointSpec {
            id,
            network,
            addresses,
            mac: mac_wanted,
            ports: ports_wanted,
            exposed,
            options,
        } = spec;
        let Addresses { ipv4, ipv6 } = addresses;
        Self {
            id: id.to_string(),
            network: network.to_string(),
            state: state_to_wire(*state),
            created_ms: created.0,
            boot: boot.to_string(),
            ipv4: ipv4.map(|a| a.to_string()),
            ipv6: ipv6.map(|a| a.to_string()),
            mac: mac.to_string(),
            mac_wanted: mac_wanted.map(|m| m.to_string()),
            sandbox: sandbox.as_ref().map(|SandboxRef { id, netns }| Sandbox {
                id: id.to_string(),
                // A path that is not UTF-8 never came from Docker's JSON.
                netns: netns.to_string_lossy().into_owned(),
            }),
            ports_wanted: ports_wanted.iter().map(Binding::from).collect(),
            ports: ports.iter().map(Port::from).collect(),
            ports_due: ports_due.iter().map(Binding::from).collect(),
            ports_revoked: ports_revoked.iter().map(Port::from).collect(),
            exposed: exposed
                .iter()
                .map(|(protocol, port)| Exposed {
                    protocol: protocol.to_string(),
                    port: *port,
                })
                .collect(),
            options: options.clone(),
        }
    }

    pub(super) fn parse(self) -> Result<(EndpointView, BootId), ParseError> {
        let Self {
            id,
            network,
            state,
            created_ms,
            boot,
            ipv4,
            ipv6,
            mac,
            mac_wanted,
            sandbox,
            ports_wanted,
            ports,
            ports_due,
            ports_revoked,
            exposed,
            options,
        } = self;
        let spec = EndpointSpec {
            id: id.parse()?,
            network: network.parse()?,
            addresses: Addresses {
                ipv4: ipv4.map(|a| a.parse()).transpose()?,
                ipv6: ipv6.map(|a| a.parse()).transpose()?,
            },
            mac: mac_wanted.map(|m| m.parse()).transpose()?,
            ports: all(ports_wanted)?,
            exposed: exposed
                .into_iter()
                .map(|Exposed { protocol, port }| Ok((protocol.parse()?, port)))
                .collect::<Result<_, ParseError>>()?,
            options,
        };
        let view = EndpointView {
            endpoint: DesiredEndpoint {
                spec,
                mac: mac.parse()?,
                sandbox: sandbox
                    .map(|Sandbox { id, netns }| {
                        Ok::<_, ParseError>(SandboxRef {
                            id: SandboxId::new(id)?,
                            netns: PathBuf::from(netns),
                        })
                    })
                    .transpose()?,
                ports: all(ports)?,
            },
            state: state_from_wire(state),
            created: Timestamp(created_ms),
            ports_due: all(ports_due)?,
            ports_revoked: all(ports_revoked)?,
        };
        Ok((view, BootId::new(boot)?))
    }
}

fn all<W, T: TryFrom<W, Error = ParseError>>(wires: Vec<W>) -> Result<Vec<T>, ParseError> {
    wires.into_iter().map(T::try_from).collect()
}

fn state_to_wire(state: EndpointState) -> EndpointStateWire {
    match state {
        EndpointState::Created => EndpointStateWire::Created,
        EndpointState::Joining => EndpointStateWire::Joining,
        EndpointState::Joined => EndpointStateWire::Joined,
        EndpointState::Leaving => EndpointStateWire::Leaving,
        EndpointState::Deleting => EndpointStateWire::Deleting,
    }
}

fn state_from_wire(state: EndpointStateWire) -> EndpointState {
    match state {
        EndpointStateWire::Created => EndpointState::Created,
        EndpointStateWire::Joining => EndpointState::Joining,
        EndpointStateWire::Joined => EndpointState::Joined,
        EndpointStateWire::Leaving => EndpointState::Leaving,
        EndpointStateWire::Deleting => EndpointState::Deleting,
    }
}

impl From<&PortBinding> for Binding {
    fn from(binding: &PortBinding) -> Self {
        let PortBinding {
            protocol,
            container_port,
            host_ip,
            host_ports,
        } = binding;
        Self {
            protocol: protocol.to_string(),
            container_port: *container_port,
            host_ip: *host_ip,
            host_ports: match host_ports {
                HostPorts::Ephemeral => None,
                HostPorts::Range { first, last } => Some((*first, *last)),
            },
        }
    }
}

impl TryFrom<Binding> for PortBinding {
    type Error = ParseError;

    fn try_from(wire: Binding) -> Result<Self, ParseError> {
        let Binding {
            protocol,
            container_port,
            host_ip,
            host_ports,
        } = wire;
        Ok(Self {
            protocol: protocol.parse()?,
            container_port,
            host_ip,
            host_ports: match host_ports {
                None => HostPorts::Ephemeral,
                Some((first, last)) => HostPorts::range(first, last)?,
            },
        })
    }
}

impl From<&PublishedPort> for Port {
    fn from(port: &PublishedPort) -> Self {
        let PublishedPort {
            protocol,
            host_ip,
            host_port,
            container_ip,
            container_port,
        } = *port;
        Self {
            protocol: protocol.to_string(),
            host_ip,
            host_port,
            container_ip,
            container_port,
        }
    }
}

impl TryFrom<Port> for PublishedPort {
    type Error = ParseError;

    fn try_from(wire: Port) -> Result<Self, ParseError> {
        let Port {
            protocol,
            host_ip,
            host_port,
            container_ip,
            container_port,
        } = wire;
        Ok(Self {
            protocol: protocol.parse()?,
            host_ip,
            host_port,
            container_ip,
            container_port,
        })
    }
}
