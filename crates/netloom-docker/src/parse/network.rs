//! Networks.

use super::options::{flag, network_options, put};
use super::{GENERIC, address};
use crate::failure::Failure;
use crate::wire::{CreateNetworkRequest, Folded, IpamData};
use netloom_core::{NetworkSpec, Options, Reach, SubnetSpec};
use netloom_types::{Family, NetworkId, Subnet};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The id of a network; a request without one says nothing.
pub(crate) fn network_id(text: String) -> Result<NetworkId, Failure> {
    NetworkId::new(text).map_err(Failure::bad_body)
}

/// A network as Docker asks for it.
pub(crate) fn network_spec(
    request: CreateNetworkRequest,
    default_driver: &str,
) -> Result<NetworkSpec, Failure> {
    let CreateNetworkRequest {
        network_id: id,
        options: all,
        ipv4data,
        ipv6data,
    } = request;
    let id = network_id(id)?;
    let mut options = generic(&all)?;
    let mut subnets = Vec::new();
    for (family, key, data) in [
        (Family::V4, "com.docker.network.enable_ipv4", ipv4data),
        (Family::V6, "com.docker.network.enable_ipv6", ipv6data),
    ] {
        if !truth(&all, key)?.unwrap_or(true) {
            continue;
        }
        for Folded(entry) in data {
            subnets.extend(subnet_spec(family, entry, &mut options)?);
        }
    }
    let driver = options
        .get("netloom.driver")
        .map_or(default_driver, String::as_str)
        .to_owned();
    let reach = match truth(&all, "com.docker.network.internal")? {
        Some(true) => Reach::Internal,
        Some(false) | None => Reach::External,
    };
    Ok(NetworkSpec {
        id,
        driver,
        subnets,
        reach,
        options,
    })
}

/// For which families a network needs no gateway address: IPv4, IPv6.
///
/// An isolated network has no way out and keeps even the host away, so nothing would answer there.
pub(crate) fn gateway_skips(all: &Map<String, Value>) -> Result<(bool, bool), Failure> {
    let options = generic(all)?;
    let isolated = |name: &str| options.get(name).is_some_and(|mode| mode == "isolated");
    Ok((
        isolated("netloom.gateway_mode_ipv4"),
        isolated("netloom.gateway_mode_ipv6"),
    ))
}

fn generic(all: &Map<String, Value>) -> Result<Options, Failure> {
    match all.get(GENERIC) {
        Some(Value::Object(generic)) => network_options(generic),
        None | Some(Value::Null) => Ok(Options::new()),
        Some(_) => Err(Failure::bad_body(format!("{GENERIC} is no object"))),
    }
}

fn truth(all: &Map<String, Value>, key: &str) -> Result<Option<bool>, Failure> {
    match all.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(Value::String(text)) => flag(key, text).map(Some),
        Some(_) => Err(Failure::bad_body(format!(
            "{key} is neither true nor false"
        ))),
    }
}

/// A subnet, or none where the IPAM driver manages no addresses.
fn subnet_spec(
    family: Family,
    data: IpamData,
    options: &mut Options,
) -> Result<Option<SubnetSpec>, Failure> {
    let IpamData {
        pool,
        gateway,
        aux_addresses,
    } = data;
    if pool.is_empty() {
        return Ok(None);
    }
    let subnet: Subnet = pool.parse()?;
    // Docker's `null` IPAM driver says so that there is no pool.
    if subnet.prefix_len() == 0 {
        return Ok(None);
    }
    if subnet.family() != family {
        return Err(Failure::bad_body(format!(
            "the pool {subnet} stands among those of {family}"
        )));
    }
    let gateway = match gateway.as_str() {
        "" => None,
        text => Some(address::plain_ip("gateway", text)?),
    };
    let mut auxiliary = BTreeMap::new();
    for (name, text) in aux_addresses {
        auxiliary.insert(name, address::plain_ip("auxiliary address", &text)?);
    }
    for ip in gateway.iter().chain(auxiliary.values()) {
        if !subnet.contains(*ip) {
            return Err(Failure::refused(format!(
                "the address {ip} does not lie in the network's subnet {subnet}"
            )));
        }
    }
    // Docker's own bridge reads these two names so, and sets the containers' default gateway.
    let (docker, ours) = match family {
        Family::V4 => ("DefaultGatewayIPv4", "netloom.default_gateway_ipv4"),
        Family::V6 => ("DefaultGatewayIPv6", "netloom.default_gateway_ipv6"),
    };
    if let Some(ip) = auxiliary.get(docker) {
        put(options, ours, ip.to_string())?;
    }
    Ok(Some(SubnetSpec {
        subnet,
        gateway,
        auxiliary,
    }))
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "helpers take literals")]
mod tests {
    use super::*;
    use crate::wire::decode;
    use serde_json::json;

    fn spec(body: Value) -> Result<NetworkSpec, Failure> {
        network_spec(decode(body.to_string().as_bytes())?, "bridge")
    }

    fn with_data(v4: Value, v6: Value) -> Result<NetworkSpec, Failure> {
        spec(json!({"NetworkID": "n1", "Options": {}, "IPv4Data": v4, "IPv6Data": v6}))
    }

    #[test]
    fn the_null_ipam_driver_gives_no_subnet() {
        let v4 = json!([{"AddressSpace": "null", "Pool": "0.0.0.0/0"}]);
        let v6 = json!([{"AddressSpace": "null", "Pool": "::/0"}]);
        assert!(with_data(v4, v6).unwrap().subnets.is_empty());
    }

    #[test]
    fn default_gateway_aux_addresses_are_options_and_stay_reserved() {
        let v4 = json!([{
            "Pool": "10.1.0.0/16", "Gateway": "10.1.0.1/16",
            "AuxAddresses": {"DefaultGatewayIPv4": "10.1.0.9/16", "printer": "10.1.0.8/16"},
        }]);
        let spec = with_data(v4, json!(null)).unwrap();
        assert_eq!(spec.options["netloom.default_gateway_ipv4"], "10.1.0.9");
        assert_eq!(spec.subnets[0].auxiliary.len(), 2);
    }

    #[test]
    fn pools_in_the_wrong_place_and_addresses_outside_are_refused() {
        assert!(with_data(json!([{"Pool": "fd00::/64"}]), json!([])).is_err());
        let outside = json!([{"Pool": "10.1.0.0/16", "Gateway": "10.2.0.1/16"}]);
        assert!(with_data(outside, json!([])).is_err());
        assert!(with_data(json!([{"Pool": "10.1.0.7/16"}]), json!([])).is_err());
    }

    #[test]
    fn flags_of_docker_decide_reach_and_families() {
        let body = json!({
            "NetworkID": "n1",
            "Options": {
                "com.docker.network.enable_ipv6": false,
                "com.docker.network.internal": true,
                GENERIC: {"netloom.driver": "macvlan"},
            },
            "IPv4Data": [{"Pool": "10.1.0.0/16"}],
            "IPv6Data": [{"Pool": "fd00::/64"}],
        });
        let spec = spec(body).unwrap();
        assert_eq!(spec.reach, Reach::Internal);
        assert_eq!(spec.subnets.len(), 1);
        assert_eq!(spec.driver, "macvlan");
    }
}
