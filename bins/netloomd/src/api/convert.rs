//! From the model's types to the wire's. Every conversion takes its value to pieces.

use netloom_api as wire;
use netloom_core::{
    AddressKind, AddressSpace, AddressView, EndpointState, EndpointView, Finding, NetworkState,
    NetworkView, PoolView, PublishedPort, Reach, Repair, RuntimeNetwork, SubnetSpec,
};
use netloom_types::{EndpointId, Subnet};
use std::net::IpAddr;

/// Docker's names, for people.
#[derive(Debug, Default)]
pub(crate) struct Names(Option<Vec<RuntimeNetwork>>);

impl Names {
    pub(crate) fn new(networks: Option<Vec<RuntimeNetwork>>) -> Self {
        Self(networks)
    }

    pub(crate) fn network(&self, id: &str) -> Option<String> {
        let networks = self.0.iter().flatten();
        let mut named = networks.filter(|n| n.id.as_str() == id);
        named.next().map(|n| n.name.clone())
    }

    /// The container that uses an address, or that it is pinned to.
    pub(crate) fn user_of(&self, ip: IpAddr) -> Option<String> {
        let networks = self.0.iter().flatten();
        let mut endpoints = networks.flat_map(|n| &n.endpoints);
        endpoints
            .find(|e| e.addresses.iter().any(|a| a.ip() == ip))
            .map(|e| e.name.clone())
    }

    pub(crate) fn container(&self, endpoint: &EndpointId) -> Option<String> {
        let networks = self.0.iter().flatten();
        let mut endpoints = networks.flat_map(|n| &n.endpoints);
        endpoints
            .find(|e| e.id.as_ref() == Some(endpoint))
            .map(|e| e.name.clone())
    }
}

pub(crate) fn network(view: NetworkView, names: &Names, endpoints: usize) -> wire::Network {
    let NetworkView {
        spec,
        state,
        created,
    } = view;
    let netloom_core::NetworkSpec {
        id,
        driver,
        subnets,
        reach,
        options,
    } = spec;
    wire::Network {
        name: names.network(id.as_str()),
        id: id.to_string(),
        driver,
        state: match state {
            NetworkState::Creating => wire::NetworkState::Creating,
            NetworkState::Ready => wire::NetworkState::Ready,
            NetworkState::Deleting => wire::NetworkState::Deleting,
        },
        internal: reach == Reach::Internal,
        subnets: subnets.into_iter().map(subnet).collect(),
        options,
        endpoints: count(endpoints),
        created_ms: created.0,
    }
}

fn subnet(spec: SubnetSpec) -> wire::Subnet {
    let SubnetSpec {
        subnet,
        gateway,
        auxiliary,
    } = spec;
    wire::Subnet {
        subnet: subnet.to_string(),
        gateway: gateway.map(|g| g.to_string()),
        auxiliary: auxiliary
            .into_iter()
            .map(|(name, ip)| (name, ip.to_string()))
            .collect(),
    }
}

pub(crate) fn endpoint(view: EndpointView, names: &Names) -> wire::Endpoint {
    let ports = ports(&view, names);
    let EndpointView {
        endpoint,
        state,
        created,
        ports_due: _,
        ports_revoked: _,
    } = view;
    let netloom_core::DesiredEndpoint {
        spec,
        mac,
        sandbox,
        ports: _,
    } = endpoint;
    wire::Endpoint {
        container: names.container(&spec.id),
        network_name: names.network(spec.network.as_str()),
        id: spec.id.to_string(),
        network: spec.network.to_string(),
        state: match state {
            EndpointState::Created => wire::EndpointState::Created,
            EndpointState::Joining => wire::EndpointState::Joining,
            EndpointState::Joined => wire::EndpointState::Joined,
            EndpointState::Leaving => wire::EndpointState::Leaving,
            EndpointState::Deleting => wire::EndpointState::Deleting,
        },
        mac: mac.to_string(),
        ipv4: spec.addresses.ipv4.map(|a| a.to_string()),
        ipv6: spec.addresses.ipv6.map(|a| a.to_string()),
        netns: sandbox.map(|s| s.netns.display().to_string()),
        ports,
        created_ms: created.0,
    }
}

pub(crate) fn ports(view: &EndpointView, names: &Names) -> Vec<wire::Port> {
    let id = &view.endpoint.spec.id;
    let container = names.container(id);
    let port = |port: &PublishedPort| {
        let PublishedPort {
            protocol,
            host_ip,
            host_port,
            container_ip,
            container_port,
        } = *port;
        wire::Port {
            protocol: protocol.to_string(),
            host_ip: host_ip.to_string(),
            host_port,
            container_ip: container_ip.to_string(),
            container_port,
            endpoint: id.to_string(),
            container: container.clone(),
        }
    };
    view.endpoint.ports.iter().map(port).collect()
}

pub(crate) fn pool(view: PoolView) -> wire::Pool {
    let PoolView {
        subnet,
        space,
        range,
        references,
        own: _,
        gateway,
        capacity,
        used,
        fill,
    } = view;
    wire::Pool {
        subnet: subnet.to_string(),
        space: match space {
            AddressSpace::Local => "local",
            AddressSpace::Global => "global",
        }
        .into(),
        range: range.map(|r| r.to_string()),
        gateway: gateway.map(|g| g.to_string()),
        references: references.iter().map(ToString::to_string).collect(),
        capacity,
        used,
        fill,
    }
}

pub(crate) fn address(view: AddressView, pool: Subnet, names: &Names) -> wire::Address {
    let AddressView {
        ip,
        kind,
        mac,
        name,
        since,
    } = view;
    wire::Address {
        ip: ip.to_string(),
        pool: pool.to_string(),
        kind: match kind {
            AddressKind::Gateway => wire::AddressKind::Gateway,
            AddressKind::Endpoint => wire::AddressKind::Endpoint,
            AddressKind::InDoubt => wire::AddressKind::InDoubt,
            AddressKind::Auxiliary => wire::AddressKind::Auxiliary,
            AddressKind::Reserved => wire::AddressKind::Reserved,
        },
        mac: mac.map(|m| m.to_string()),
        name: name.or_else(|| names.user_of(ip)),
        since_ms: since.0,
    }
}

pub(crate) fn finding(finding: Finding) -> wire::Finding {
    let Finding {
        kind,
        subject,
        detail,
        repair,
        next_step,
    } = finding;
    wire::Finding {
        kind: kind.name().into(),
        subject,
        detail,
        repair: match repair {
            Repair::Done => wire::Repair::Done,
            Repair::ByRepair => wire::Repair::ByRepair,
            Repair::ByHand => wire::Repair::ByHand,
        },
        next_step,
    }
}

pub(crate) fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
