//! The options of a bridge network and of its endpoints, parsed once.

use netloom_core::{DriverError, EndpointSpec, NetworkSpec, Options, Reach};
use netloom_linux::Switch;
use netloom_types::{Family, LinkName};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What Ethernet carries (IEEE 802.3), and what Docker's bridge uses when nothing is said.
pub(super) const MTU_DEFAULT: u32 = 1500;
/// The smallest MTU of IPv4 (RFC 791).
const MTU_MIN: u32 = 68;
/// The smallest MTU of IPv6 (RFC 8200, section 5).
const MTU_MIN_IPV6: u32 = 1280;
/// `ETH_MAX_MTU` of the kernel.
const MTU_MAX: u32 = 65_535;

/// Name of the option that chooses the driver; the engine reads it.
const DRIVER: &str = "netloom.driver";
const BRIDGE_NAME: &str = "netloom.bridge.name";
const MTU: &str = "netloom.mtu";
const MASQUERADE: &str = "netloom.masquerade";
const ICC: &str = "netloom.icc";
const HOST_BINDING: &str = "netloom.host_binding";
const HOST_BINDING_V6: &str = "netloom.host_binding_ipv6";
const INHIBIT_GATEWAY: &str = "netloom.inhibit_gateway";
const GATEWAY_MODE_V4: &str = "netloom.gateway_mode_ipv4";
const GATEWAY_MODE_V6: &str = "netloom.gateway_mode_ipv6";
const TRUSTED: &str = "netloom.trusted_interfaces";
const SNAT_V4: &str = "netloom.snat_ipv4";
const SNAT_V6: &str = "netloom.snat_ipv6";
const DEFAULT_GATEWAY_V4: &str = "netloom.default_gateway_ipv4";
const DEFAULT_GATEWAY_V6: &str = "netloom.default_gateway_ipv6";
const IFNAME_PREFIX: &str = "netloom.ifname_prefix";
const PORTS: &str = "netloom.ports";
const SPOOF_GUARD: &str = "netloom.spoof_guard";
/// Who puts the interface into the container: `auto`, `inside` or `caller`; of a network or an endpoint.
const PLACEMENT: &str = "netloom.placement";
const IFNAME: &str = "netloom.ifname";
/// Settings that the caller applies to the interface after it has moved it.
const SYSCTLS: &str = "netloom.sysctls";

const OURS: &str = "netloom.";
const NETWORK_KEYS: &[&str] = &[
    DRIVER,
    BRIDGE_NAME,
    MTU,
    MASQUERADE,
    ICC,
    HOST_BINDING,
    HOST_BINDING_V6,
    INHIBIT_GATEWAY,
    GATEWAY_MODE_V4,
    GATEWAY_MODE_V6,
    TRUSTED,
    SNAT_V4,
    SNAT_V6,
    IFNAME_PREFIX,
    PORTS,
    SPOOF_GUARD,
    PLACEMENT,
    DEFAULT_GATEWAY_V4,
    DEFAULT_GATEWAY_V6,
];
const ENDPOINT_KEYS: &[&str] = &[IFNAME, SYSCTLS, PLACEMENT];

/// How the world reaches the containers of one address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GatewayMode {
    /// By published ports only; addresses are translated.
    Nat,
    /// Addresses are translated, but every container port may be addressed directly.
    NatUnprotected,
    /// By the container's own address, on the published ports only; nothing is translated.
    Routed,
    /// Not at all, and the host has no address on the bridge.
    Isolated,
}

/// Who publishes the ports of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortPublishing {
    /// This driver.
    Own,
    /// The caller, by a gateway network of its own, where `docker ps` shows them.
    Caller,
}

/// Who puts the interface into the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlacementWish {
    /// The driver, where the sandbox exists already and the caller's numbers are not in the way.
    Auto,
    /// The driver, where the sandbox exists already: none of its networks is the caller's own.
    Inside,
    /// Always the caller.
    Caller,
}

/// The options of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BridgeOptions {
    pub(super) bridge: Option<LinkName>,
    pub(super) mtu: u32,
    pub(super) masquerade: Switch,
    pub(super) icc: Switch,
    pub(super) host_binding: Option<Ipv4Addr>,
    pub(super) host_binding_v6: Option<Ipv6Addr>,
    pub(super) inhibit_gateway: Switch,
    pub(super) mode_v4: GatewayMode,
    pub(super) mode_v6: GatewayMode,
    pub(super) trusted: Vec<LinkName>,
    pub(super) snat_v4: Option<Ipv4Addr>,
    pub(super) snat_v6: Option<Ipv6Addr>,
    pub(super) default_gateway_v4: Option<Ipv4Addr>,
    pub(super) default_gateway_v6: Option<Ipv6Addr>,
    pub(super) ifname_prefix: String,
    pub(super) ports: PortPublishing,
    pub(super) spoof_guard: Switch,
    pub(super) placement: PlacementWish,
}

impl BridgeOptions {
    /// Reads them from a network.
    pub(super) fn parse(network: &NetworkSpec) -> Result<Self, DriverError> {
        let options = &network.options;
        refuse_unknown(options, NETWORK_KEYS)?;
        let parsed = Self {
            bridge: value(options, BRIDGE_NAME, parse_link)?,
            mtu: value(options, MTU, parse_mtu)?.unwrap_or(MTU_DEFAULT),
            masquerade: value(options, MASQUERADE, parse_switch)?.unwrap_or(Switch::On),
            icc: value(options, ICC, parse_switch)?.unwrap_or(Switch::On),
            host_binding: value(options, HOST_BINDING, parse_v4)?,
            host_binding_v6: value(options, HOST_BINDING_V6, parse_v6)?,
            inhibit_gateway: value(options, INHIBIT_GATEWAY, parse_switch)?.unwrap_or(Switch::Off),
            mode_v4: value(options, GATEWAY_MODE_V4, parse_mode)?.unwrap_or(GatewayMode::Nat),
            mode_v6: value(options, GATEWAY_MODE_V6, parse_mode)?.unwrap_or(GatewayMode::Nat),
            trusted: value(options, TRUSTED, parse_links)?.unwrap_or_default(),
            snat_v4: value(options, SNAT_V4, parse_v4)?,
            snat_v6: value(options, SNAT_V6, parse_v6)?,
            default_gateway_v4: value(options, DEFAULT_GATEWAY_V4, parse_v4)?,
            default_gateway_v6: value(options, DEFAULT_GATEWAY_V6, parse_v6)?,
            ifname_prefix: value(options, IFNAME_PREFIX, parse_prefix)?
                .unwrap_or_else(|| "eth".to_owned()),
            ports: value(options, PORTS, parse_ports)?.unwrap_or(PortPublishing::Own),
            spoof_guard: value(options, SPOOF_GUARD, parse_switch)?.unwrap_or(Switch::On),
            placement: value(options, PLACEMENT, parse_placement)?.unwrap_or(PlacementWish::Auto),
        };
        parsed.agree_with(network)?;
        Ok(parsed)
    }

    /// The gateway mode of one family.
    pub(super) fn mode(&self, family: Family) -> GatewayMode {
        match family {
            Family::V4 => self.mode_v4,
            Family::V6 => self.mode_v6,
        }
    }

    /// The source address for connections that leave, if one was chosen.
    pub(super) fn snat(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.snat_v4.map(IpAddr::V4),
            Family::V6 => self.snat_v6.map(IpAddr::V6),
        }
    }

    /// The containers' default gateway, if it is another than the network's.
    pub(super) fn default_gateway(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.default_gateway_v4.map(IpAddr::V4),
            Family::V6 => self.default_gateway_v6.map(IpAddr::V6),
        }
    }

    fn agree_with(&self, network: &NetworkSpec) -> Result<(), DriverError> {
        let has_v6 = network.subnets_of(Family::V6).next().is_some();
        if has_v6 && self.mtu < MTU_MIN_IPV6 {
            return Err(invalid(
                MTU,
                &self.mtu.to_string(),
                "IPv6 needs at least 1280 bytes",
            ));
        }
        for (key, mode) in [
            (GATEWAY_MODE_V4, self.mode_v4),
            (GATEWAY_MODE_V6, self.mode_v6),
        ] {
            if mode == GatewayMode::Isolated && network.reach == Reach::External {
                return Err(invalid(
                    key,
                    "isolated",
                    "only an internal network can be isolated, add --internal",
                ));
            }
        }
        Ok(())
    }
}

/// The options of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndpointOptions {
    /// The name that the interface shall have inside.
    pub(super) ifname: Option<LinkName>,
    /// Who puts it there.
    pub(super) placement: PlacementWish,
}

impl EndpointOptions {
    /// Reads them from an endpoint.
    pub(super) fn parse(endpoint: &EndpointSpec) -> Result<Self, DriverError> {
        let options = &endpoint.options;
        refuse_unknown(options, ENDPOINT_KEYS)?;
        // Whoever asked for settings of the interface wants them applied by the caller, who knows
        // their form; a link that the caller never moves would go without them.
        let has_sysctls = options
            .iter()
            .any(|(key, text)| key.ends_with(".sysctls") && !text.is_empty());
        let wish = value(options, PLACEMENT, parse_placement)?.unwrap_or(PlacementWish::Auto);
        Ok(Self {
            ifname: value(options, IFNAME, parse_link)?,
            placement: if has_sysctls {
                PlacementWish::Caller
            } else {
                wish
            },
        })
    }
}

/// Refuses keys of ours that nobody reads: a typing mistake must not silently mean the default.
fn refuse_unknown(options: &Options, known: &[&str]) -> Result<(), DriverError> {
    let Some(odd) = options
        .keys()
        .find(|key| key.starts_with(OURS) && !known.contains(&key.as_str()))
    else {
        return Ok(());
    };
    let nearest = known.iter().min_by_key(|name| distance(name, odd));
    let hint = nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"));
    Err(DriverError::Invalid(format!(
        "the bridge driver has no option {odd:?}{hint}"
    )))
}

/// Levenshtein's distance, in one row.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let above = *cell;
            let replaced = diagonal + usize::from(x != y);
            left = replaced.min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn invalid(key: &str, text: &str, reason: &str) -> DriverError {
    DriverError::Invalid(format!("option {key}={text:?} is not valid: {reason}"))
}

fn value<T>(
    options: &Options,
    key: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, DriverError> {
    match options.get(key) {
        None => Ok(None),
        Some(text) => parse(text)
            .map(Some)
            .map_err(|reason| invalid(key, text, &reason)),
    }
}

/// The spellings that Docker's command line takes for its own options (Go's `ParseBool`), and ours.
fn parse_switch(text: &str) -> Result<Switch, String> {
    match text {
        "on" | "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(Switch::On),
        "off" | "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(Switch::Off),
        _ => Err("write on, off, true or false".into()),
    }
}

fn parse_mtu(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|mtu| (MTU_MIN..=MTU_MAX).contains(mtu))
        .ok_or_else(|| format!("write a number from {MTU_MIN} to {MTU_MAX}"))
}

fn parse_v4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| "write an IPv4 address".into())
}

fn parse_v6(text: &str) -> Result<Ipv6Addr, String> {
    text.parse().map_err(|_| "write an IPv6 address".into())
}

fn parse_link(text: &str) -> Result<LinkName, String> {
    LinkName::new(text).map_err(|error| error.reason().to_owned())
}

fn parse_links(text: &str) -> Result<Vec<LinkName>, String> {
    // Docker separates the names with colons; people write commas.
    text.split([':', ','])
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(parse_link)
        .collect()
}

fn parse_prefix(text: &str) -> Result<String, String> {
    // Two digits stay free below the 15 characters of an interface name.
    parse_link(&format!("{text}00"))?;
    if text.is_empty() || text.ends_with(|last: char| last.is_ascii_digit()) {
        return Err("a number is appended, so it must not be empty nor end in a digit".into());
    }
    Ok(text.to_owned())
}

fn parse_mode(text: &str) -> Result<GatewayMode, String> {
    match text {
        "nat" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" => Ok(GatewayMode::Isolated),
        _ => Err("write nat, nat-unprotected, routed or isolated".into()),
    }
}

fn parse_ports(text: &str) -> Result<PortPublishing, String> {
    match text {
        "own" => Ok(PortPublishing::Own),
        "docker" => Ok(PortPublishing::Caller),
        _ => Err("write own or docker".into()),
    }
}

fn parse_placement(text: &str) -> Result<PlacementWish, String> {
    match text {
        "auto" => Ok(PlacementWish::Auto),
        "inside" => Ok(PlacementWish::Inside),
        "caller" => Ok(PlacementWish::Caller),
        _ => Err("write auto, inside or caller".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::testing::network;

    fn parse(options: &[(&str, &str)]) -> Result<BridgeOptions, DriverError> {
        let mut spec = network("a", &["10.9.0.0/24", "fd00:9::/64"]);
        for (key, text) in options {
            spec.options.insert((*key).to_owned(), (*text).to_owned());
        }
        BridgeOptions::parse(&spec)
    }

    #[test]
    fn a_typing_mistake_is_refused_with_the_nearest_name() {
        let error = parse(&[("netloom.masqerade", "on")]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("did you mean netloom.masquerade?"),
            "{error}"
        );
        assert!(parse(&[("someone.else", "x")]).is_ok());
    }

    #[test]
    fn bad_values_say_what_to_write() {
        for (key, text) in [
            ("netloom.mtu", "67"),
            ("netloom.mtu", "many"),
            ("netloom.mtu", "1279"),
            ("netloom.icc", "maybe"),
            ("netloom.host_binding", "::1"),
            ("netloom.host_binding_ipv6", "127.0.0.1"),
            ("netloom.gateway_mode_ipv4", "bridge"),
            ("netloom.gateway_mode_ipv4", "isolated"),
            ("netloom.trusted_interfaces", "eth0:a/b"),
            ("netloom.ifname_prefix", "eth0"),
            ("netloom.ifname_prefix", "fourteen-chars"),
            ("netloom.ports", "none"),
            ("netloom.bridge.name", "a b"),
        ] {
            assert!(
                matches!(parse(&[(key, text)]), Err(DriverError::Invalid(_))),
                "{key}={text} was accepted"
            );
        }
    }

    #[test]
    fn the_defaults_are_those_of_a_docker_bridge_with_a_guard() {
        let parsed = parse(&[]).unwrap();
        assert_eq!(parsed.mtu, 1500);
        assert_eq!(parsed.masquerade, Switch::On);
        assert_eq!(parsed.icc, Switch::On);
        assert_eq!(parsed.mode(Family::V6), GatewayMode::Nat);
        assert_eq!(parsed.spoof_guard, Switch::On);
        assert_eq!(parsed.ports, PortPublishing::Own);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
