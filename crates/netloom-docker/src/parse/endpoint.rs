//! Endpoints, their ports, and sandboxes.

use super::options::endpoint_options;
use super::{PORT_MAP, network};
use crate::failure::Failure;
use crate::wire::{
    CreateEndpointRequest, ExposedPort, Folded, Interface, PortMapping, decode_value,
};
use netloom_core::{Addresses, EndpointSpec, SandboxRef};
use netloom_types::{
    EndpointId, Family, HostPorts, InterfaceAddr, MacAddr, NetworkId, PortBinding, Protocol,
    SandboxId,
};
use serde_json::{Map, Value};
use std::path::{Component, Path};

const EXPOSED: &str = "com.docker.network.endpoint.exposedports";
const MAC: &str = "com.docker.network.endpoint.macaddress";

/// Linux' `PATH_MAX` is 4096 with the closing NUL.
const PATH_BYTES_MAX: usize = 4095;

/// The ids that most calls carry.
pub(crate) fn endpoint_ids(
    network: String,
    endpoint: String,
) -> Result<(NetworkId, EndpointId), Failure> {
    let network = network::network_id(network)?;
    let endpoint = EndpointId::new(endpoint).map_err(Failure::bad_body)?;
    Ok((network, endpoint))
}

/// An endpoint as Docker asks for it.
pub(crate) fn endpoint_spec(request: CreateEndpointRequest) -> Result<EndpointSpec, Failure> {
    let CreateEndpointRequest {
        network_id,
        endpoint_id,
        interface: Folded(interface),
        options: all,
    } = request;
    let (network, id) = endpoint_ids(network_id, endpoint_id)?;
    let Interface {
        address,
        address_ipv6,
        mac_address,
    } = interface;
    Ok(EndpointSpec {
        id,
        network,
        addresses: Addresses {
            ipv4: interface_addr(Family::V4, &address)?,
            ipv6: interface_addr(Family::V6, &address_ipv6)?,
        },
        mac: mac(&mac_address, all.get(MAC))?,
        ports: port_bindings(&all)?,
        exposed: exposed(&all)?,
        options: endpoint_options(&all)?,
    })
}

/// The sandbox behind a `SandboxKey`, the path of its network namespace, whose last part Docker
/// makes from the sandbox' id. The namespace may not exist yet.
pub(crate) fn sandbox(key: &str) -> Result<SandboxRef, Failure> {
    let bad = |why: &str| Failure::bad_body(format!("SandboxKey {why}"));
    let path = Path::new(key);
    if key.is_empty() {
        return Err(bad("is missing"));
    }
    if key.len() > PATH_BYTES_MAX || key.contains('\0') {
        return Err(bad("is not a path"));
    }
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(bad("must be an absolute path without '..'"));
    }
    let name = path.file_name().and_then(|name| name.to_str());
    let id =
        SandboxId::new(name.ok_or_else(|| bad("names no file"))?).map_err(Failure::bad_body)?;
    Ok(SandboxRef {
        id,
        netns: path.to_owned(),
    })
}

/// The ports to publish.
pub(crate) fn port_bindings(all: &Map<String, Value>) -> Result<Vec<PortBinding>, Failure> {
    list::<PortMapping>(all, PORT_MAP)?
        .into_iter()
        .map(|Folded(mapping)| port_binding(&mapping))
        .collect()
}

fn port_binding(mapping: &PortMapping) -> Result<PortBinding, Failure> {
    let protocol = Protocol::from_number(mapping.proto).ok_or_else(|| {
        Failure::refused(format!(
            "ports of protocol number {} cannot be published; tcp, udp and sctp can",
            mapping.proto
        ))
    })?;
    if mapping.port == 0 {
        return Err(Failure::refused(
            "port 0 of a container cannot be published",
        ));
    }
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        text => Some(super::plain_ip("host address", text)?),
    };
    let host_ports = match (mapping.host_port, mapping.host_port_end) {
        (0, _) => HostPorts::Ephemeral,
        (first, 0) => HostPorts::range(first, first)?,
        (first, last) => HostPorts::range(first, last)?,
    };
    Ok(PortBinding {
        protocol,
        container_port: mapping.port,
        host_ip,
        host_ports,
    })
}

/// Exposed ports only inform; protocols that cannot be published are left out.
fn exposed(all: &Map<String, Value>) -> Result<Vec<(Protocol, u16)>, Failure> {
    Ok(list::<ExposedPort>(all, EXPOSED)?
        .into_iter()
        .filter_map(|Folded(port)| Some((Protocol::from_number(port.proto)?, port.port)))
        .collect())
}

fn list<T: serde::de::DeserializeOwned>(
    all: &Map<String, Value>,
    key: &str,
) -> Result<Vec<Folded<T>>, Failure> {
    match all.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => decode_value(key, value.clone()),
    }
}

fn interface_addr(family: Family, text: &str) -> Result<Option<InterfaceAddr>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let addr: InterfaceAddr = text.parse()?;
    if addr.family() == family {
        Ok(Some(addr))
    } else {
        Err(Failure::bad_body(format!(
            "{addr} stands where the {family} address belongs"
        )))
    }
}

/// The link address: as text in the interface, and in base 64 in the options if the user chose it.
fn mac(text: &str, option: Option<&Value>) -> Result<Option<MacAddr>, Failure> {
    let stated = match text {
        "" => None,
        text => Some(text.parse::<MacAddr>()?),
    };
    let chosen = match option {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) => Some(mac_from_base64(text).ok_or_else(|| {
            Failure::bad_body(format!("{MAC} is no link address of six bytes in base 64"))
        })?),
        Some(_) => return Err(Failure::bad_body(format!("{MAC} is no text"))),
    };
    let mac = match (stated, chosen) {
        (Some(a), Some(b)) if a != b => {
            return Err(Failure::bad_body(format!(
                "the endpoint has two link addresses, {a} and {b}"
            )));
        }
        (stated, chosen) => stated.or(chosen),
    };
    match mac {
        Some(mac) if !mac.is_unicast() => Err(Failure::refused(format!(
            "the link address {mac} cannot belong to a container: it is a group address or zero"
        ))),
        mac => Ok(mac),
    }
}

/// Six bytes are exactly eight characters of RFC 4648 base 64, without padding.
fn mac_from_base64(text: &str) -> Option<MacAddr> {
    if text.len() != 8 {
        return None;
    }
    let mut bits = 0u64;
    for byte in text.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u64::from(digit);
    }
    let [_, _, a, b, c, d, e, f] = bits.to_be_bytes();
    Some(MacAddr::new([a, b, c, d, e, f]))
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "helpers take literals")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mac_in_base_64_is_read() {
        // RFC 4648 of the bytes 02 42 0a 01 00 05.
        let mac = mac_from_base64("AkIKAQAF").unwrap();
        assert_eq!(mac.to_string(), "02:42:0a:01:00:05");
        for odd in [
            "",
            "AkIKAQA=",
            "AkIKAQAFAA",
            "AkIK AQA",
            "\u{e9}\u{e9}\u{e9}\u{e9}",
        ] {
            assert_eq!(mac_from_base64(odd), None, "{odd:?} was accepted");
        }
    }

    #[test]
    fn a_mac_stated_twice_must_be_one() {
        let option = json!("AkIKAQAF");
        assert!(mac("02:42:0a:01:00:05", Some(&option)).is_ok());
        assert!(mac("02:42:0a:01:00:06", Some(&option)).is_err());
        assert_eq!(mac("", Some(&option)).unwrap().unwrap().octets()[5], 5);
        assert!(mac("ff:ff:ff:ff:ff:ff", None).is_err());
    }

    fn ports(entry: Value) -> Result<Vec<PortBinding>, Failure> {
        port_bindings(json!({ PORT_MAP: [entry] }).as_object().unwrap())
    }

    #[test]
    fn ports_single_range_and_random() {
        let one = ports(json!({"Proto": 6, "Port": 80, "HostPort": 8080})).unwrap();
        assert_eq!(one[0].host_ports, HostPorts::range(8080, 8080).unwrap());
        let range = json!({"Proto": 17, "Port": 53, "HostPort": 5300, "HostPortEnd": 5310});
        assert_eq!(
            ports(range).unwrap()[0].host_ports,
            HostPorts::range(5300, 5310).unwrap()
        );
        let any = ports(json!({"Proto": 132, "Port": 9, "HostIP": "::1"})).unwrap();
        assert_eq!(any[0].host_ports, HostPorts::Ephemeral);
        assert_eq!(any[0].host_ip, Some("::1".parse().unwrap()));
    }

    #[test]
    fn ports_that_cannot_be_published_are_refused() {
        for odd in [
            json!({"Proto": 1, "Port": 80}),
            json!({"Proto": 6, "Port": 0}),
            json!({"Proto": 6, "Port": 80, "HostPort": 9, "HostPortEnd": 8}),
            json!({"Proto": 6, "Port": 80, "HostIP": "localhost"}),
            json!({"Proto": 6, "Port": 65536}),
            json!({"Proto": -6, "Port": 80}),
            json!("6/80"),
        ] {
            assert!(ports(odd.clone()).is_err(), "{odd} was accepted");
        }
    }

    #[test]
    fn sandbox_keys_that_could_lead_elsewhere_are_refused() {
        let ok = sandbox("/var/run/docker/netns/0123456789ab").unwrap();
        assert_eq!(ok.id.as_str(), "0123456789ab");
        for odd in ["", "netns/x", "/run/../etc/x", "/", "/a\0b", "/run/a b"] {
            assert!(sandbox(odd).is_err(), "{odd:?} was accepted");
        }
    }
}
