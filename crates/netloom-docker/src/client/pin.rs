//! Pinning: Docker itself asks for the same address at every start of a container.

use super::words::ContainerDetails;
use super::{ClientError, DockerClient, encoded};
use crate::wire::Object;
use hyper::Method;
use netloom_types::Family;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// What a person chose about an endpoint, and Docker wants to hear again. Everything else in an
/// endpoint's settings is what Docker found out by itself.
const CHOSEN: [&str; 6] = [
    "IPAMConfig",
    "Links",
    "Aliases",
    "DriverOpts",
    "GwPriority",
    "MacAddress",
];

/// Reconnects a stopped container with the address as its own wish.
///
/// Docker has no call that changes an endpoint's settings, so it is disconnected and connected
/// again; where that fails, it is connected as it was.
pub(super) async fn pin(
    client: &DockerClient,
    container: &str,
    network: &str,
    ip: IpAddr,
) -> Result<(), ClientError> {
    let version = client.version().await?;
    let path = format!("{version}/containers/{}/json", encoded(container));
    let Object(details): Object<ContainerDetails> = client.get(&path).await?;
    let status = details.state.status.as_str();
    if !matches!(status, "created" | "exited") {
        return Err(ClientError::Unfit(format!(
            "the container is {status:?}; an address is pinned while a container is stopped, so run \
             `docker stop {container}` first"
        )));
    }
    let settings = details
        .network_settings
        .networks
        .iter()
        .find(|(name, settings)| name.as_str() == network || is_of(settings, network))
        .map(|(_, settings)| settings)
        .ok_or_else(|| {
            ClientError::Unfit(format!(
                "the container is not connected to the network {network:?}"
            ))
        })?;
    let before = chosen(settings);
    let after = with_address(before.clone(), ip);
    if after == before {
        return Ok(());
    }
    let base = format!("{version}/networks/{}", encoded(network));
    let gone = json!({ "Container": container, "Force": false });
    let disconnect = format!("{base}/disconnect");
    client.call(Method::POST, &disconnect, Some(&gone)).await?;
    let connect = format!("{base}/connect");
    let wish =
        |config: Map<String, Value>| json!({ "Container": container, "EndpointConfig": config });
    match client
        .call(Method::POST, &connect, Some(&wish(after)))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) => match client
            .call(Method::POST, &connect, Some(&wish(before)))
            .await
        {
            Ok(_) => Err(error),
            Err(second) => Err(ClientError::Unfit(format!(
                "the container was disconnected and could not be connected again ({error}; {second}); \
                 run `docker network connect {network} {container}`"
            ))),
        },
    }
}

fn is_of(settings: &Value, network: &str) -> bool {
    settings.get("NetworkID").and_then(Value::as_str) == Some(network)
}

/// The part of an endpoint's settings that a person chose.
fn chosen(settings: &Value) -> Map<String, Value> {
    let mut config = Map::new();
    for key in CHOSEN {
        match settings.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.is_empty() => {}
            Some(value) => {
                config.insert(key.to_owned(), value.clone());
            }
        }
    }
    config
}

fn with_address(mut config: Map<String, Value>, ip: IpAddr) -> Map<String, Value> {
    let key = match Family::of(ip) {
        Family::V4 => "IPv4Address",
        Family::V6 => "IPv6Address",
    };
    let mut pinned = match config.remove("IPAMConfig") {
        Some(Value::Object(pinned)) => pinned,
        _ => Map::new(),
    };
    pinned.insert(key.to_owned(), Value::String(ip.to_string()));
    config.insert("IPAMConfig".to_owned(), Value::Object(pinned));
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_keeps_what_a_person_chose_and_drops_what_docker_found() {
        let settings = json!({
            "IPAMConfig": {"IPv6Address": "fd00::7"}, "Aliases": ["web"], "Links": null,
            "NetworkID": "n", "EndpointID": "", "IPAddress": "10.9.0.3", "MacAddress": "",
        });
        let config = with_address(chosen(&settings), "10.9.0.9".parse().unwrap());
        let expected = json!({
            "IPAMConfig": {"IPv4Address": "10.9.0.9", "IPv6Address": "fd00::7"},
            "Aliases": ["web"],
        });
        assert_eq!(Value::Object(config), expected);
    }
}
