//! The names and tags of the bridge driver's kernel objects.

use netloom_linux::{Link, LinkAlias};
use netloom_types::{EndpointId, LinkName, MacAddr, NetworkId};
use std::net::IpAddr;

/// Every alias of ours begins with it.
pub(super) const TAG: &str = "netloom:";

/// Interface names have at most 15 characters: `nl-` and 12 of the id.
const NETWORK_CHARS: usize = 12;

/// `nlv` or `nlc` and 10 characters of the id, which leaves two for a suffix by hand.
const ENDPOINT_CHARS: usize = 10;

/// The bridge of a network that names none.
pub(super) fn bridge(network: &NetworkId) -> LinkName {
    link("nl-", network.short(NETWORK_CHARS))
}

/// The host's end of an endpoint's veth pair.
pub(super) fn host_end(endpoint: &EndpointId) -> LinkName {
    link("nlv", endpoint.short(ENDPOINT_CHARS))
}

/// The container's end, for as long as it waits in the host's namespace.
pub(super) fn container_end(endpoint: &EndpointId) -> LinkName {
    link("nlc", endpoint.short(ENDPOINT_CHARS))
}

fn link(prefix: &str, id: &str) -> LinkName {
    LinkName::new(format!("{prefix}{id}"))
        .expect("a short prefix and at most 12 characters of an id are an interface name")
}

/// The tag on a network's bridge.
pub(super) fn network_tag(network: &NetworkId) -> LinkAlias {
    tag(network.as_str())
}

/// The tag on an endpoint's host end.
pub(super) fn endpoint_tag(endpoint: &EndpointId) -> LinkAlias {
    tag(endpoint.as_str())
}

fn tag(id: &str) -> LinkAlias {
    LinkAlias::new(format!("{TAG}{id}"))
        .expect("an id has at most 128 plain characters, an alias 255")
}

/// A bridge's own Ethernet address: from its gateway address, so that containers keep it when the
/// bridge is made again, else from the network's id.
pub(super) fn bridge_mac(network: &NetworkId, gateway: Option<IpAddr>) -> MacAddr {
    if let Some(ip) = gateway {
        return MacAddr::from_ip(ip);
    }
    // FNV-1a of 32 bits: any spread will do, the address must only be stable.
    let hash = network
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
    let [a, b, c, d] = hash.to_be_bytes();
    MacAddr::new([0x02, 0x42, a, b, c, d])
}

/// Whether a link is one of ours: by its tag, or, where its maker died before it could tag it, by
/// kind and the full form of its name.
pub(super) fn is_ours(link: &Link) -> bool {
    if let Some(alias) = &link.alias {
        return alias.starts_with(TAG);
    }
    let form = |prefix: &str, chars: usize| {
        link.name
            .strip_prefix(prefix)
            .is_some_and(|id| id.len() == chars && id.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    match link.kind.as_deref() {
        Some("bridge") => form("nl-", NETWORK_CHARS),
        Some("veth") => form("nlv", ENDPOINT_CHARS),
        _ => false,
    }
}

/// Whether a bridge is one of Docker's own, by the names that Docker gives.
pub(super) fn is_dockers(link: &Link) -> bool {
    let generated = |id: &str| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit());
    link.kind.as_deref() == Some("bridge")
        && link.alias.is_none()
        && (matches!(link.name.as_str(), "docker0" | "docker_gwbridge")
            || link.name.strip_prefix("br-").is_some_and(generated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_ids_become_names_that_fit() {
        let id = "0123456789abcdef".repeat(4);
        let endpoint = EndpointId::new(id.as_str()).unwrap();
        assert_eq!(
            bridge(&NetworkId::new(id.as_str()).unwrap()).as_str(),
            "nl-0123456789ab"
        );
        assert_eq!(host_end(&endpoint).as_str(), "nlv0123456789");
        assert_eq!(container_end(&endpoint).as_str(), "nlc0123456789");
    }

    #[test]
    fn a_bridge_without_a_gateway_has_a_stable_address() {
        let id = NetworkId::new("abc").unwrap();
        assert_eq!(bridge_mac(&id, None), bridge_mac(&id, None));
        assert!(bridge_mac(&id, None).is_unicast());
    }
}
