//! Bodies of the network driver's calls.

use super::{Folded, or_default};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
pub(crate) struct NetworkRef {
    #[serde(rename = "networkid", default, deserialize_with = "or_default")]
    pub(crate) network_id: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct EndpointRef {
    #[serde(rename = "networkid", default, deserialize_with = "or_default")]
    pub(crate) network_id: String,
    #[serde(rename = "endpointid", default, deserialize_with = "or_default")]
    pub(crate) endpoint_id: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct GatewayCheckRequest {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) options: Map<String, Value>,
}

/// Also what `AllocateNetwork` carries, whose options are plain texts.
pub(crate) type AllocateRequest = CreateNetworkRequest;

#[derive(Debug, Deserialize)]
pub(crate) struct CreateNetworkRequest {
    #[serde(rename = "networkid", default, deserialize_with = "or_default")]
    pub(crate) network_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) options: Map<String, Value>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ipv4data: Vec<Folded<IpamData>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ipv6data: Vec<Folded<IpamData>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct IpamData {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) pool: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) gateway: String,
    /// Go's own type encodes an address with its mask as a text.
    #[serde(rename = "auxaddresses", default, deserialize_with = "or_default")]
    pub(crate) aux_addresses: BTreeMap<String, String>,
}

/// In requests: what IPAM gave. In answers: only what the request lacked.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Interface {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) address: String,
    #[serde(rename = "addressipv6", default, deserialize_with = "or_default")]
    pub(crate) address_ipv6: String,
    #[serde(rename = "macaddress", default, deserialize_with = "or_default")]
    pub(crate) mac_address: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CreateEndpointRequest {
    #[serde(rename = "networkid", default, deserialize_with = "or_default")]
    pub(crate) network_id: String,
    #[serde(rename = "endpointid", default, deserialize_with = "or_default")]
    pub(crate) endpoint_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) interface: Folded<Interface>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) options: Map<String, Value>,
}

/// One entry of `com.docker.network.portmap`.
#[derive(Debug, Deserialize)]
pub(crate) struct PortMapping {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) proto: u8,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) port: u16,
    #[serde(rename = "hostip", default, deserialize_with = "or_default")]
    pub(crate) host_ip: String,
    #[serde(rename = "hostport", default, deserialize_with = "or_default")]
    pub(crate) host_port: u16,
    #[serde(rename = "hostportend", default, deserialize_with = "or_default")]
    pub(crate) host_port_end: u16,
}

/// One entry of `com.docker.network.endpoint.exposedports`.
#[derive(Debug, Deserialize)]
pub(crate) struct ExposedPort {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) proto: u8,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) port: u16,
}

#[derive(Debug, Deserialize)]
pub(crate) struct JoinRequest {
    #[serde(rename = "networkid", default, deserialize_with = "or_default")]
    pub(crate) network_id: String,
    #[serde(rename = "endpointid", default, deserialize_with = "or_default")]
    pub(crate) endpoint_id: String,
    #[serde(rename = "sandboxkey", default, deserialize_with = "or_default")]
    pub(crate) sandbox_key: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ConnectivityRequest {
    #[serde(rename = "networkid", default, deserialize_with = "or_default")]
    pub(crate) network_id: String,
    #[serde(rename = "endpointid", default, deserialize_with = "or_default")]
    pub(crate) endpoint_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) options: Map<String, Value>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct JoinResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interface_name: Option<InterfaceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<String>,
    #[serde(rename = "GatewayIPv6", skip_serializing_if = "Option::is_none")]
    pub(crate) gateway_ipv6: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) static_routes: Vec<Route>,
    pub(crate) disable_gateway_service: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct InterfaceName {
    pub(crate) src_name: String,
    pub(crate) dst_prefix: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Route {
    pub(crate) destination: String,
    /// 0: by the next hop; 1: directly on the interface.
    pub(crate) route_type: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_hop: Option<String>,
}
