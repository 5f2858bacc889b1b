//! The IPAM driver's calls: parse, ask for pools and addresses, answer.

use crate::PluginState;
use crate::failure::Failure;
use crate::parse;
use crate::server::Answer;
use crate::wire::{
    PoolRef, ReleaseAddressRequest, RequestAddressRequest, RequestPoolRequest, decode,
};
use netloom_types::PoolId;
use serde_json::{Value, json};

/// The link address joins a request for an address to the endpoint that comes after it. A replay of
/// old requests is not wanted: every answer is durable.
pub(crate) fn capabilities() -> Value {
    json!({ "RequiresMACAddress": true, "RequiresRequestReplay": false })
}

pub(crate) fn address_spaces() -> Value {
    json!({
        "LocalDefaultAddressSpace": parse::LOCAL_SPACE,
        "GlobalDefaultAddressSpace": parse::GLOBAL_SPACE,
    })
}

pub(crate) async fn request_pool(state: &PluginState, body: &[u8]) -> Answer {
    let request: RequestPoolRequest = decode(body)?;
    let grant = state
        .ipam
        .request_pool(parse::pool_request(request)?)
        .await?;
    Ok(json!({
        "PoolID": grant.id.as_str(),
        "Pool": grant.subnet.to_string(),
        "Data": {},
    }))
}

/// The pool reference in an answer to `RequestPool`.
pub(crate) fn granted(answer: &Value) -> Option<PoolId> {
    PoolId::new(answer.get("PoolID")?.as_str()?).ok()
}

pub(crate) async fn release_pool(state: &PluginState, body: &[u8]) -> Answer {
    let PoolRef { pool_id } = decode(body)?;
    let pool = parse::pool_id(pool_id)?;
    state.ipam.release_pool(&pool).await?;
    Ok(json!({}))
}

pub(crate) async fn request_address(state: &PluginState, body: &[u8]) -> Answer {
    let request: RequestAddressRequest = decode(body)?;
    let request = parse::address_request(request)?;
    let addr = state.ipam.request_address(request).await?;
    Ok(json!({ "Address": addr.to_string(), "Data": {} }))
}

pub(crate) async fn release_address(state: &PluginState, body: &[u8]) -> Answer {
    let ReleaseAddressRequest { pool_id, address } = decode(body)?;
    let pool = parse::pool_id(pool_id)?;
    if address.is_empty() {
        return Err(Failure::bad_body("Address is missing"));
    }
    let ip = parse::plain_ip("address", &address)?;
    state.ipam.release_address(&pool, ip).await?;
    Ok(json!({}))
}
