//! What a network and its endpoints need in the kernel: pure functions of their specifications.

use super::names;
use super::options::{
    BridgeOptions, EndpointOptions, GatewayMode, MTU_DEFAULT, PlacementWish, PortPublishing,
};
use netloom_core::{
    DesiredEndpoint, DriverError, EndpointSpec, GatewayService, NetworkSpec, PublishedPort, Reach,
    StaticRoute, SubnetSpec,
};
use netloom_linux::{
    BridgeSpec, Element, HostAddress, InboundMode, InterfaceSpec, KernelStep, LinkAlias, NextHop,
    Place, PortFlags, PortMap, RouteSpec, Switch, SysctlKey, VethEnd, VethSpec,
};
use netloom_types::{EndpointId, Family, InterfaceAddr, LinkName, MacAddr, NetworkId, Subnet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// An auxiliary address of this name is the containers' default gateway, as in Docker's bridge.
const DEFAULT_GATEWAY_V4: &str = "DefaultGatewayIPv4";
/// The same for IPv6.
const DEFAULT_GATEWAY_V6: &str = "DefaultGatewayIPv6";

/// A network as it should stand in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetworkPlan {
    pub(super) id: NetworkId,
    pub(super) options: BridgeOptions,
    pub(super) reach: Reach,
    pub(super) bridge: BridgeSpec,
    /// What the bridge carries.
    pub(super) addresses: Vec<InterfaceAddr>,
    /// Settings of the bridge, where it is ours.
    pub(super) settings: Vec<(SysctlKey, i32)>,
    /// Switches of the host that must be on.
    pub(super) forwarding: Vec<SysctlKey>,
    /// The network's elements, without those of its endpoints.
    pub(super) elements: Vec<Element>,
    subnets: Vec<SubnetSpec>,
}

impl NetworkPlan {
    /// The plan of `network`.
    pub(super) fn of(network: &NetworkSpec) -> Result<Self, DriverError> {
        let options = BridgeOptions::parse(network)?;
        let name = bridge_name(network, &options);
        let addresses = bridge_addresses(network, &options);
        let gateway = network.subnets.iter().find_map(|subnet| subnet.gateway);
        let bridge = BridgeSpec {
            name: name.clone(),
            mac: Some(names::bridge_mac(&network.id, gateway)),
            mtu: Some(first_mtu(options.mtu)),
            alias: names::network_tag(&network.id),
        };
        Ok(Self {
            id: network.id.clone(),
            reach: network.reach,
            settings: bridge_settings(network, &name),
            forwarding: forwarding(network),
            elements: network_elements(network, &options, &name),
            options,
            bridge,
            addresses,
            subnets: network.subnets.clone(),
        })
    }

    /// The bridge's name.
    pub(super) fn name(&self) -> &LinkName {
        &self.bridge.name
    }

    /// The steps that make the bridge of this network from nothing.
    pub(super) fn own_bridge_steps(&self) -> Vec<KernelStep> {
        let mut steps = vec![
            KernelStep::CreateBridge(self.bridge.clone()),
            KernelStep::SetMtu {
                link: self.name().clone(),
                mtu: self.options.mtu,
            },
        ];
        steps.extend(
            self.settings
                .iter()
                .map(|(key, value)| KernelStep::SetSysctl {
                    key: key.clone(),
                    value: *value,
                }),
        );
        steps.extend(self.address_steps());
        steps
    }

    /// The steps that put the gateway addresses on the bridge.
    pub(super) fn address_steps(&self) -> Vec<KernelStep> {
        self.addresses
            .iter()
            .map(|address| KernelStep::AddAddress {
                link: self.name().clone(),
                address: *address,
            })
            .collect()
    }

    /// The steps that turn forwarding on. Nothing turns it off again: others may rely on it.
    pub(super) fn forwarding_steps(&self) -> Vec<KernelStep> {
        self.forwarding
            .iter()
            .map(|key| KernelStep::SetSysctl {
                key: key.clone(),
                value: 1,
            })
            .collect()
    }

    /// The network's subnets.
    pub(super) fn subnets(&self) -> impl Iterator<Item = Subnet> {
        self.subnets.iter().map(|spec| spec.subnet)
    }

    /// The default gateway of a container with the address `ip`: an auxiliary address of the
    /// name that Docker reads, the option, or the gateway of the address's subnet.
    fn default_gateway(&self, ip: IpAddr) -> Option<IpAddr> {
        let subnet = self.subnets.iter().find(|s| s.subnet.contains(ip))?;
        let name = match Family::of(ip) {
            Family::V4 => DEFAULT_GATEWAY_V4,
            Family::V6 => DEFAULT_GATEWAY_V6,
        };
        let chosen = self.options.default_gateway(Family::of(ip));
        let chosen = chosen.filter(|gateway| subnet.subnet.contains(*gateway));
        let named = subnet.auxiliary.get(name).copied();
        named.or(chosen).or(subnet.gateway)
    }
}

/// The MTU that a bridge is made with, before it gets its own.
///
/// A bridge whose MTU was never changed follows its smallest port (`br_mtu_auto_adjust` of the
/// kernel), and being set to what it has already is no change.
fn first_mtu(wanted: u32) -> u32 {
    if wanted == MTU_DEFAULT {
        MTU_DEFAULT - 1
    } else {
        wanted
    }
}

/// The name of a network's bridge.
pub(super) fn bridge_name(network: &NetworkSpec, options: &BridgeOptions) -> LinkName {
    options
        .bridge
        .clone()
        .unwrap_or_else(|| names::bridge(&network.id))
}

fn bridge_addresses(network: &NetworkSpec, options: &BridgeOptions) -> Vec<InterfaceAddr> {
    if options.inhibit_gateway == Switch::On {
        return Vec::new();
    }
    network
        .subnets
        .iter()
        .filter(|subnet| options.mode(subnet.subnet.family()) != GatewayMode::Isolated)
        .filter_map(|subnet| InterfaceAddr::in_subnet(subnet.gateway?, subnet.subnet).ok())
        .collect()
}

fn bridge_settings(network: &NetworkSpec, bridge: &LinkName) -> Vec<(SysctlKey, i32)> {
    // Without a subnet of IPv6, containers shall not reach the host by link-local addresses.
    let disable = i32::from(network.subnets_of(Family::V6).next().is_none());
    vec![
        (SysctlKey::DisableIpv6(bridge.clone()), disable),
        // Until its link-local address has passed duplicate detection, a bridge asks nobody for a
        // neighbour: for seconds, nothing from outside would reach a new network.
        (SysctlKey::AcceptDad(bridge.clone()), 0),
        // A container must not become the host's router (CVE-2020-13401).
        (SysctlKey::AcceptRa(bridge.clone()), 0),
    ]
}

fn forwarding(network: &NetworkSpec) -> Vec<SysctlKey> {
    let mut keys = Vec::new();
    if network.reach == Reach::Internal {
        return keys;
    }
    if network.subnets_of(Family::V4).next().is_some() {
        keys.push(SysctlKey::Ipv4Forward);
    }
    if network.subnets_of(Family::V6).next().is_some() {
        // The default first: a link that appears in between must not be left without.
        keys.push(SysctlKey::Ipv6ForwardDefault);
        keys.push(SysctlKey::Ipv6ForwardAll);
    }
    keys
}

fn network_elements(
    network: &NetworkSpec,
    options: &BridgeOptions,
    bridge: &LinkName,
) -> Vec<Element> {
    let mut elements = vec![Element::Bridge(bridge.clone())];
    elements.extend(
        bridge_addresses(network, options)
            .into_iter()
            .map(|address| Element::Gateway {
                bridge: bridge.clone(),
                address: address.ip(),
            }),
    );
    if options.icc == Switch::Off {
        elements.push(Element::Separate(bridge.clone()));
    }
    if network.reach == Reach::Internal {
        elements.push(Element::Internal(bridge.clone()));
        return elements;
    }
    for family in [Family::V4, Family::V6] {
        if network.subnets_of(family).next().is_some()
            && let Some(mode) = inbound(options.mode(family))
        {
            elements.push(Element::Inbound {
                bridge: bridge.clone(),
                family,
                mode,
            });
        }
    }
    for subnet in network.subnets.iter().map(|subnet| subnet.subnet) {
        elements.extend(subnet_elements(subnet, options));
    }
    elements.extend(options.trusted.iter().cloned().map(Element::Trusted));
    elements
}

fn inbound(mode: GatewayMode) -> Option<InboundMode> {
    match mode {
        GatewayMode::Nat => Some(InboundMode::Nat),
        GatewayMode::NatUnprotected => Some(InboundMode::Unprotected),
        GatewayMode::Routed => Some(InboundMode::Routed),
        GatewayMode::Isolated => None,
    }
}

fn subnet_elements(subnet: Subnet, options: &BridgeOptions) -> Vec<Element> {
    let mode = options.mode(subnet.family());
    let mut elements = Vec::new();
    let translated = matches!(mode, GatewayMode::Nat | GatewayMode::NatUnprotected);
    if translated && options.masquerade == Switch::On {
        elements.push(match options.snat(subnet.family()) {
            Some(address) => Element::SourceNat { subnet, address },
            None => Element::Masquerade { subnet },
        });
    }
    // Answers to untranslated connections are addressed to the container itself, and this check
    // stands before connections are known; new ones are dropped in the forward chain all the same.
    if mode == GatewayMode::Nat && options.masquerade == Switch::On {
        elements.push(Element::Direct { subnet });
    }
    elements
}

/// The Ethernet address of an endpoint: as wished, else derived from its address, so that
/// neighbours keep their tables when it comes back; else `random`.
pub(super) fn choose_mac(endpoint: &EndpointSpec, random: [u8; 6]) -> MacAddr {
    endpoint.mac.unwrap_or_else(|| {
        let mut addresses = endpoint.addresses.iter();
        addresses.next().map_or_else(
            || {
                let [first, rest @ ..] = random;
                let [b, c, d, e, g] = rest;
                // Locally administered, and no group (IEEE 802, section 8.2).
                MacAddr::new([(first | 0x02) & 0xfe, b, c, d, e, g])
            },
            |address| MacAddr::from_ip(address.ip()),
        )
    })
}

/// An endpoint as it should stand in the kernel while it is joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndpointPlan {
    pub(super) id: EndpointId,
    pub(super) mac: MacAddr,
    pub(super) host_end: LinkName,
    pub(super) alias: LinkAlias,
    pub(super) bridge: LinkName,
    pub(super) flags: PortFlags,
    pub(super) mtu: u32,
    pub(super) addresses: Vec<InterfaceAddr>,
    /// The checks of what it sends.
    pub(super) guard: Vec<Element>,
    /// Its published ports.
    pub(super) ports: Vec<Element>,
    pub(super) gateway_v4: Option<IpAddr>,
    pub(super) gateway_v6: Option<IpAddr>,
    /// The network's other subnets, which are on the same link.
    pub(super) other_subnets: Vec<Subnet>,
    pub(super) gateway_service: GatewayService,
    pub(super) ifname: Option<LinkName>,
    pub(super) ifname_prefix: String,
    pub(super) placement: PlacementWish,
}

impl EndpointPlan {
    /// The plan of `endpoint` in `network`.
    pub(super) fn of(
        network: &NetworkPlan,
        endpoint: &DesiredEndpoint,
    ) -> Result<Self, DriverError> {
        let spec = &endpoint.spec;
        let own = EndpointOptions::parse(spec)?;
        let addresses: Vec<InterfaceAddr> = spec.addresses.iter().collect();
        let host_end = names::host_end(&spec.id);
        let closed = network.reach == Reach::Internal;
        let way_out = !closed && network.options.ports == PortPublishing::Own;
        let gateway = |address: Option<InterfaceAddr>| {
            address
                .filter(|_| way_out)
                .and_then(|address| network.default_gateway(address.ip()))
        };
        let ports = port_elements(network, &endpoint.ports);
        let gateway_v4 = gateway(spec.addresses.ipv4);
        // A container that has no way out yet is given one by Docker, in a network of Docker's own.
        let stays_alone = closed || gateway_v4.is_some();
        let placement = match (own.placement, network.options.placement) {
            (PlacementWish::Caller, _) | (_, PlacementWish::Caller) => PlacementWish::Caller,
            (PlacementWish::Inside, _) | (_, PlacementWish::Inside) if stays_alone => {
                PlacementWish::Inside
            }
            _ => PlacementWish::Auto,
        };
        Ok(Self {
            id: spec.id.clone(),
            mac: endpoint.mac,
            alias: names::endpoint_tag(&spec.id),
            bridge: network.name().clone(),
            flags: port_flags(&network.options, hairpin(&ports)),
            mtu: network.options.mtu,
            guard: guard_elements(&network.options, &host_end, endpoint),
            ports,
            gateway_v4,
            gateway_v6: gateway(spec.addresses.ipv6),
            other_subnets: other_subnets(network, &addresses),
            gateway_service: if closed {
                GatewayService::Disabled
            } else {
                GatewayService::Allowed
            },
            ifname: own.ifname.clone(),
            ifname_prefix: own
                .ifname
                .as_ref()
                .and_then(first_of_prefix)
                .unwrap_or_else(|| network.options.ifname_prefix.clone()),
            placement,
            host_end,
            addresses,
        })
    }

    /// The veth pair with its container end at `place` under `name`.
    pub(super) fn veth(&self, place: Place, name: LinkName) -> KernelStep {
        KernelStep::CreateVeth(VethSpec {
            host: VethEnd {
                name: self.host_end.clone(),
                mac: None,
            },
            peer: VethEnd {
                name,
                mac: Some(self.mac),
            },
            place,
            master: Some(self.bridge.clone()),
            flags: self.flags,
            mtu: Some(self.mtu),
            alias: self.alias.clone(),
        })
    }

    /// The configuration of the container end `name`, inside `namespace`.
    pub(super) fn configure(
        &self,
        namespace: &Path,
        name: &LinkName,
        routes: Routes,
    ) -> KernelStep {
        let has_v6 = self.addresses.iter().any(|a| a.family() == Family::V6);
        let mut specs: Vec<RouteSpec> = self
            .other_subnets
            .iter()
            .map(|subnet| RouteSpec {
                destination: *subnet,
                gateway: None,
                link: name.clone(),
                source: None,
                metric: 0,
            })
            .collect();
        if routes == Routes::WithDefault {
            let gateways = [self.gateway_v4, self.gateway_v6];
            specs.extend(gateways.into_iter().flatten().map(|gateway| RouteSpec {
                destination: Subnet::truncating(gateway, 0),
                gateway: Some(NextHop::Via(gateway)),
                link: name.clone(),
                source: None,
                metric: 0,
            }));
        }
        KernelStep::ConfigureInterface(InterfaceSpec {
            namespace: PathBuf::from(namespace),
            name: name.clone(),
            rename: None,
            addresses: self.addresses.clone(),
            routes: specs,
            // As Docker does: no IPv6 where none was asked for, not even link-local.
            sysctls: vec![(SysctlKey::DisableIpv6(name.clone()), i32::from(!has_v6))],
        })
    }

    /// Tells the neighbours who has the endpoint's addresses now.
    pub(super) fn announcements(&self) -> Vec<KernelStep> {
        self.addresses
            .iter()
            .map(|address| KernelStep::Announce {
                link: self.bridge.clone(),
                mac: self.mac,
                address: address.ip(),
            })
            .collect()
    }

    /// The routes that a caller who moves the link has to add.
    pub(super) fn static_routes(&self) -> Vec<StaticRoute> {
        self.other_subnets
            .iter()
            .map(|subnet| StaticRoute {
                destination: *subnet,
                next_hop: None,
            })
            .collect()
    }
}

/// The prefix of a wished name that a caller who numbers from zero gives to its first interface.
fn first_of_prefix(ifname: &LinkName) -> Option<String> {
    let prefix = ifname.as_str().strip_suffix('0')?;
    let numbered = prefix.is_empty() || prefix.ends_with(|last: char| last.is_ascii_digit());
    (!numbered).then(|| prefix.to_owned())
}

/// Which routes the driver itself adds inside a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Routes {
    /// Those on the link; the caller adds its default route.
    OnLink,
    /// The default route as well: nobody else will.
    WithDefault,
}

/// Whether frames may leave through the port that they came from: so a container reaches itself
/// by its published port, where br_netfilter turns the packet round on the bridge. Without such a
/// port it stays off, because it also gives a container its own broadcasts back.
pub(super) fn hairpin(ports: &[Element]) -> Switch {
    if ports.iter().any(|port| matches!(port, Element::Port(_))) {
        Switch::On
    } else {
        Switch::Off
    }
}

fn port_flags(options: &BridgeOptions, hairpin: Switch) -> PortFlags {
    PortFlags {
        hairpin: Some(hairpin),
        isolated: Some(match options.icc {
            Switch::On => Switch::Off,
            Switch::Off => Switch::On,
        }),
        ..PortFlags::default()
    }
}

fn guard_elements(
    options: &BridgeOptions,
    port: &LinkName,
    endpoint: &DesiredEndpoint,
) -> Vec<Element> {
    let addresses: Vec<IpAddr> = endpoint.spec.addresses.iter().map(|a| a.ip()).collect();
    // An endpoint without addresses gets them from elsewhere (DHCP): nobody knows yet which.
    if options.spoof_guard == Switch::Off || addresses.is_empty() {
        return Vec::new();
    }
    let mut elements = vec![
        Element::PortMac {
            port: port.clone(),
            mac: endpoint.mac,
        },
        Element::Guarded(port.clone()),
    ];
    elements.extend(addresses.into_iter().map(|address| Element::PortAddress {
        port: port.clone(),
        address,
    }));
    elements
}

fn other_subnets(network: &NetworkPlan, addresses: &[InterfaceAddr]) -> Vec<Subnet> {
    network
        .subnets
        .iter()
        .map(|spec| spec.subnet)
        .filter(|subnet| {
            let same_family = |a: &&InterfaceAddr| a.family() == subnet.family();
            addresses
                .iter()
                .find(same_family)
                .is_some_and(|own| !own.subnet().overlaps(*subnet))
        })
        .collect()
}

/// The elements of published ports. Ports that the caller publishes, and those of a network
/// without a way in, have none.
pub(super) fn port_elements(network: &NetworkPlan, ports: &[PublishedPort]) -> Vec<Element> {
    let mut elements: Vec<Element> = Vec::new();
    for port in ports {
        // Two host ports of one container port open it once.
        for element in open_element(network, port)
            .into_iter()
            .chain(port_element(network, port))
        {
            if !elements.contains(&element) {
                elements.push(element);
            }
        }
    }
    elements
}

/// The container's own port, open without translation: in a routed network for all, in a
/// translated one for the links that it trusts.
fn open_element(network: &NetworkPlan, port: &PublishedPort) -> Option<Element> {
    let mode = network.options.mode(Family::of(port.container_ip));
    let open = match mode {
        GatewayMode::Routed => true,
        GatewayMode::Nat => !network.options.trusted.is_empty() && !port.host_ip.is_loopback(),
        GatewayMode::NatUnprotected | GatewayMode::Isolated => false,
    };
    open.then(|| Element::Open {
        bridge: network.name().clone(),
        address: port.container_ip,
        protocol: port.protocol,
        port: port.container_port,
    })
}

fn port_element(network: &NetworkPlan, port: &PublishedPort) -> Option<Element> {
    let family = Family::of(port.container_ip);
    if network.options.mode(family) == GatewayMode::Routed {
        return None;
    }
    // Loopback is the relay's: packets with such addresses must never reach a wire.
    if port.host_ip.is_loopback() {
        return None;
    }
    Some(Element::Port(PortMap {
        host: if port.host_ip.is_unspecified() {
            HostAddress::Any(family)
        } else {
            HostAddress::One(port.host_ip)
        },
        protocol: port.protocol,
        port: port.host_port,
        target: SocketAddr::new(port.container_ip, port.container_port),
    }))
}
