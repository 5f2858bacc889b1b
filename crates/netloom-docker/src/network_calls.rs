//! The network driver's calls: parse, ask the controller, answer.

use crate::PluginState;
use crate::failure::Failure;
use crate::parse;
use crate::server::Answer;
use crate::wire::{
    AllocateRequest, ConnectivityRequest, CreateEndpointRequest, CreateNetworkRequest, EndpointRef,
    GatewayCheckRequest, InterfaceName, JoinRequest, JoinResponse, NetworkRef, Route, decode,
};
use netloom_core::{
    Attachment, EndpointSpec, GatewayService, InterfacePlacement, IpamError, StaticRoute,
};
use netloom_types::{EndpointId, NetworkId};
use serde_json::{Map, Value, json};
use tracing::{debug, warn};

/// Local scope, because Docker before 24 cannot create global networks outside of swarm mode.
pub(crate) fn capabilities() -> Value {
    json!({ "Scope": "local", "ConnectivityScope": "global", "GwAllocChecker": true })
}

/// Asked by Docker 28 and newer before it asks IPAM for a gateway.
pub(crate) fn gateway_check(body: &[u8]) -> Answer {
    let GatewayCheckRequest { options } = decode(body)?;
    let (ipv4, ipv6) = parse::gateway_skips(&options)?;
    Ok(json!({ "SkipIPv4": ipv4, "SkipIPv6": ipv6 }))
}

/// Only a swarm manager asks, and only for networks of a scope that is not offered here.
pub(crate) fn allocate_network(body: &[u8]) -> Answer {
    let request: AllocateRequest = decode(body)?;
    parse::network_id(request.network_id)?;
    Err(Failure::refused(
        "netloom has no networks of swarm's global scope; create the network on each host with \
         `docker network create -d netloom`",
    ))
}

/// Nothing was allocated, so there is nothing to free.
pub(crate) fn free_network(body: &[u8]) -> Answer {
    let NetworkRef { network_id } = decode(body)?;
    parse::network_id(network_id)?;
    Ok(json!({}))
}

pub(crate) async fn create_network(state: &PluginState, body: &[u8]) -> Answer {
    let request: CreateNetworkRequest = decode(body)?;
    let spec = parse::network_spec(request, &state.settings.default_driver)?;
    state.controller.create_network(spec).await?;
    Ok(json!({}))
}

pub(crate) async fn delete_network(state: &PluginState, body: &[u8]) -> Answer {
    let NetworkRef { network_id } = decode(body)?;
    let id = parse::network_id(network_id)?;
    state.controller.delete_network(&id).await?;
    Ok(json!({}))
}

pub(crate) async fn create_endpoint(state: &PluginState, body: &[u8]) -> Answer {
    let request: CreateEndpointRequest = decode(body)?;
    let lacks_mac = request.interface.0.mac_address.is_empty();
    let spec = parse::endpoint_spec(request)?;
    // First the address, then the record: an endpoint that comes too late must not push aside the
    // one that its address belongs to by now. Docker releases the addresses of a refused endpoint.
    confirm(state, &spec).await?;
    let grant = state.controller.create_endpoint(spec).await?;
    // Docker refuses an endpoint whose answer repeats a field of its request.
    Ok(if lacks_mac {
        json!({ "Interface": { "MacAddress": grant.mac.to_string() } })
    } else {
        json!({})
    })
}

/// Docker has the addresses: it names them. An address that another container got meanwhile must not
/// be used. Those of another IPAM driver are not ours to confirm, and a confirmation that could not
/// be written is made up for by the audit, which sees the endpoint on record.
async fn confirm(state: &PluginState, spec: &EndpointSpec) -> Result<(), Failure> {
    for addr in spec.addresses.iter() {
        match state.ipam.confirm(addr.ip(), spec.mac).await {
            Ok(()) | Err(IpamError::NotFound(_)) => {}
            Err(error @ (IpamError::InUse(_) | IpamError::Invalid(_))) => return Err(error.into()),
            Err(error) => {
                let why = error.to_string();
                warn!(%addr, why, "an address was not confirmed; the audit will do it");
            }
        }
    }
    Ok(())
}

/// Docker only looks for port mappings here, which it cannot show for remote drivers.
pub(crate) fn oper_info(body: &[u8]) -> Answer {
    ids(body)?;
    Ok(json!({ "Value": {} }))
}

pub(crate) async fn delete_endpoint(state: &PluginState, body: &[u8]) -> Answer {
    let (network, endpoint) = ids(body)?;
    state
        .controller
        .delete_endpoint(&network, &endpoint)
        .await?;
    Ok(json!({}))
}

pub(crate) async fn join(state: &PluginState, body: &[u8]) -> Answer {
    let request: JoinRequest = decode(body)?;
    let (network, endpoint) = parse::endpoint_ids(request.network_id, request.endpoint_id)?;
    let sandbox = parse::sandbox(&request.sandbox_key)?;
    let attachment = state.controller.join(&network, &endpoint, sandbox).await?;
    serde_json::to_value(join_response(attachment))
        .map_err(|error| Failure::broken(format!("the answer to Join cannot be written: {error}")))
}

fn join_response(attachment: Attachment) -> JoinResponse {
    let Attachment {
        interface,
        gateway_v4,
        gateway_v6,
        routes,
        gateway_service,
    } = attachment;
    JoinResponse {
        interface_name: match interface {
            InterfacePlacement::CallerMoves { link, prefix } => Some(InterfaceName {
                src_name: link.to_string(),
                dst_prefix: prefix,
            }),
            InterfacePlacement::Placed { .. } => None,
        },
        gateway: gateway_v4.map(|ip| ip.to_string()),
        gateway_ipv6: gateway_v6.map(|ip| ip.to_string()),
        static_routes: routes.iter().map(route).collect(),
        disable_gateway_service: gateway_service == GatewayService::Disabled,
    }
}

fn route(route: &StaticRoute) -> Route {
    Route {
        destination: route.destination.to_string(),
        route_type: u8::from(route.next_hop.is_none()),
        next_hop: route.next_hop.map(|ip| ip.to_string()),
    }
}

pub(crate) async fn leave(state: &PluginState, body: &[u8]) -> Answer {
    let (network, endpoint) = ids(body)?;
    state.controller.leave(&network, &endpoint).await?;
    Ok(json!({}))
}

/// The endpoint became its sandbox' way out. Docker repeats the port map here; where it does not,
/// the ports of the endpoint's creation count.
pub(crate) async fn publish(state: &PluginState, body: &[u8]) -> Answer {
    let ConnectivityRequest {
        network_id,
        endpoint_id,
        options,
    } = decode(body)?;
    let (network, endpoint) = parse::endpoint_ids(network_id, endpoint_id)?;
    let ports = parse::port_bindings(&options)?;
    let published = state.controller.publish(&network, &endpoint, ports).await?;
    debug!(%endpoint, ports = published.len(), "ports were published");
    Ok(json!({}))
}

pub(crate) async fn revoke(state: &PluginState, body: &[u8]) -> Answer {
    let (network, endpoint) = ids(body)?;
    state.controller.revoke(&network, &endpoint).await?;
    Ok(json!({}))
}

/// Nodes of a swarm come and go; no network of local scope needs to know.
pub(crate) fn discover(body: &[u8]) -> Answer {
    decode::<Map<String, Value>>(body)?;
    Ok(json!({}))
}

fn ids(body: &[u8]) -> Result<(NetworkId, EndpointId), Failure> {
    let EndpointRef {
        network_id,
        endpoint_id,
    } = decode(body)?;
    parse::endpoint_ids(network_id, endpoint_id)
}
