//! Docker's networks and endpoints, from three kinds of lists.

use super::words::{Attached, Container, EndpointSettings, IpamConfig, Network, Pinned};
use super::{ClientError, DockerClient, encoded};
use crate::wire::Object;
use netloom_core::{Addresses, Provider, RuntimeEndpoint, RuntimeNetwork};
use netloom_types::{EndpointId, Family, InterfaceAddr, MacAddr, NetworkId, ParseError, Subnet};
use serde_json::json;
use std::net::IpAddr;
use tracing::debug;

/// States in which a container has no endpoint but may have a pinned address. Between two starts by
/// a restart policy it has none either.
const WITHOUT_ENDPOINT: [&str; 4] = ["created", "exited", "dead", "restarting"];

/// All networks, their running endpoints, and pinned addresses of stopped containers.
///
/// The lists are not of one moment: a container that starts or stops meanwhile may appear in both
/// ways, in one or in none, which is why audits want two sightings.
pub(super) async fn networks(client: &DockerClient) -> Result<Vec<RuntimeNetwork>, ClientError> {
    let version = client.version().await?;
    let list = format!("{version}/networks");
    let mut networks = Vec::new();
    for Object(listed) in client.get::<Vec<Object<Network>>>(&list).await? {
        let path = format!("{version}/networks/{}", encoded(&listed.id));
        match client.get::<Object<Network>>(&path).await {
            Ok(Object(network)) => networks.extend(parse_network(client, network, &path)?),
            // It was removed after it was listed.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let filters = json!({ "status": WITHOUT_ENDPOINT }).to_string();
    let stopped = format!(
        "{version}/containers/json?all=1&filters={}",
        encoded(&filters)
    );
    for Object(container) in client.get::<Vec<Object<Container>>>(&stopped).await? {
        add_pinned(&mut networks, container, &stopped)?;
    }
    networks.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(networks)
}

/// A network; one of other drivers is left out where it cannot be read, since nothing of ours
/// depends on it. One of ours that cannot be read is an error: a list without it would say that all
/// its addresses are free.
fn parse_network(
    client: &DockerClient,
    network: Network,
    path: &str,
) -> Result<Option<RuntimeNetwork>, ClientError> {
    let driver = provider(client, &network.driver);
    let ipam = provider(client, &network.ipam.driver);
    match runtime_network(network, driver, ipam) {
        Ok(network) => Ok(Some(network)),
        Err(error) if driver == Provider::Other && ipam == Provider::Other => {
            debug!(%error, path, "a network of another driver was not understood");
            Ok(None)
        }
        Err(error) => Err(ClientError::nonsense(path, error)),
    }
}

fn runtime_network(
    network: Network,
    driver: Provider,
    ipam: Provider,
) -> Result<RuntimeNetwork, ParseError> {
    let mut subnets = Vec::new();
    let mut auxiliary = Vec::new();
    for config in network.ipam.config {
        let IpamConfig {
            subnet,
            gateway,
            auxiliary_addresses,
        } = config;
        if subnet.is_empty() {
            continue;
        }
        // Docker before 25 shows a subnet as it was typed, host bits included.
        let subnet = subnet.parse::<InterfaceAddr>()?.subnet();
        subnets.push((subnet, optional_ip(&gateway)?));
        for text in auxiliary_addresses.values() {
            auxiliary.extend(optional_ip(text)?);
        }
    }
    let endpoints = network
        .containers
        .into_iter()
        .map(|(container, attached)| running(container, attached))
        .collect::<Result<_, _>>()?;
    Ok(RuntimeNetwork {
        id: NetworkId::new(network.id)?,
        name: network.name,
        driver,
        ipam,
        subnets,
        auxiliary,
        endpoints,
    })
}

fn running(container: String, attached: Attached) -> Result<RuntimeEndpoint, ParseError> {
    let Attached {
        name,
        endpoint,
        mac,
        ipv4,
        ipv6,
    } = attached;
    Ok(RuntimeEndpoint {
        id: optional(endpoint, EndpointId::new)?,
        container,
        name,
        addresses: Addresses {
            ipv4: of_family(Family::V4, optional(ipv4, |text| text.parse())?)?,
            ipv6: of_family(Family::V6, optional(ipv6, |text| text.parse())?)?,
        },
        mac: optional(mac, |text| text.parse())?,
    })
}

/// Adds what a container without endpoints will ask for at its next start.
fn add_pinned(
    networks: &mut [RuntimeNetwork],
    container: Container,
    path: &str,
) -> Result<(), ClientError> {
    let Container {
        id,
        names,
        network_settings,
    } = container;
    let name = names
        .first()
        .map_or("", |name| name.trim_start_matches('/'))
        .to_owned();
    for (network_name, settings) in network_settings.networks {
        let settings = settings.unwrap_or_default();
        let Some(network) = find(networks, &network_name, &settings.network) else {
            continue;
        };
        let endpoint = match pinned(network, settings) {
            Ok(Some((addresses, mac))) => RuntimeEndpoint {
                id: None,
                container: id.clone(),
                name: name.clone(),
                addresses,
                mac,
            },
            Ok(None) => continue,
            Err(_) if network.ipam == Provider::Other => continue,
            Err(error) => return Err(ClientError::nonsense(path, error)),
        };
        // It may have started after the network was inspected, or before this list was made.
        if network.endpoints.iter().all(|known| known.container != id) {
            network.endpoints.push(endpoint);
        }
    }
    Ok(())
}

/// A container that never started names its network by name only.
fn find<'a>(
    networks: &'a mut [RuntimeNetwork],
    name: &str,
    id: &str,
) -> Option<&'a mut RuntimeNetwork> {
    networks.iter_mut().find(|network| {
        if id.is_empty() {
            network.name == name
        } else {
            network.id.as_str() == id
        }
    })
}

fn pinned(
    network: &RuntimeNetwork,
    settings: EndpointSettings,
) -> Result<Option<(Addresses, Option<MacAddr>)>, ParseError> {
    let Pinned { ipv4, ipv6 } = settings.pinned;
    let with_length = |text: &str| -> Result<Option<InterfaceAddr>, ParseError> {
        let Some(ip) = optional_ip(text)? else {
            return Ok(None);
        };
        let inside = |(subnet, _): &&(Subnet, Option<IpAddr>)| subnet.contains(ip);
        let subnet = network.subnets.iter().find(inside);
        InterfaceAddr::in_subnet(ip, subnet.map_or(Subnet::host(ip), |(subnet, _)| *subnet))
            .map(Some)
    };
    let addresses = Addresses {
        ipv4: of_family(Family::V4, with_length(&ipv4)?)?,
        ipv6: of_family(Family::V6, with_length(&ipv6)?)?,
    };
    if addresses == Addresses::default() {
        return Ok(None);
    }
    let mac = optional(settings.mac, |text| text.parse())?;
    Ok(Some((addresses, mac)))
}

fn of_family(
    family: Family,
    addr: Option<InterfaceAddr>,
) -> Result<Option<InterfaceAddr>, ParseError> {
    match addr {
        Some(addr) if addr.family() != family => Err(ParseError::new(
            "address",
            &addr.to_string(),
            format!("it stands where an {family} address belongs"),
        )),
        addr => Ok(addr),
    }
}

fn optional_ip(text: &str) -> Result<Option<IpAddr>, ParseError> {
    if text.is_empty() {
        return Ok(None);
    }
    crate::parse::plain_ip("address", text).map(Some)
}

fn optional<T>(
    text: String,
    parse: impl FnOnce(String) -> Result<T, ParseError>,
) -> Result<Option<T>, ParseError> {
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some)
}

/// Ours by the plugin's name, with or without the tag that managed plugins carry.
fn provider(client: &DockerClient, driver: &str) -> Provider {
    let name = driver.split_once(':').map_or(driver, |(name, _tag)| name);
    if name == client.plugin {
        Provider::Ours
    } else {
        Provider::Other
    }
}
