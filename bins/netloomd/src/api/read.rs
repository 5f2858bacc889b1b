//! Handlers that change nothing.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use netloom_api as wire;
use netloom_core::Controller;
use netloom_types::Subnet;
use serde::Deserialize;
use std::sync::Arc;

use super::convert::{self, Names, count};
use super::error::ApiError;
use crate::daemon::Daemon;
use crate::{config::Toggle, doctor};

type Shared = State<Arc<Daemon>>;

/// The text format's version that Prometheus' client library writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn status(State(daemon): Shared) -> Json<wire::Status> {
    let snapshot = daemon.snapshot().await;
    let uptime = daemon.clock.monotonic().saturating_sub(daemon.started);
    let relay = match daemon.config.relay {
        Toggle::Off => wire::Health::Off,
        Toggle::On if doctor::answers(&daemon.config.relay_socket).await => wire::Health::Ok,
        Toggle::On => wire::Health::Down,
    };
    let calls = daemon.metrics.calls_by_method();
    Json(wire::Status {
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_s: uptime.as_secs(),
        host: daemon.host.clone(),
        store: daemon.store.clone(),
        docker: daemon.docker_version().await.ok(),
        relay,
        networks: count(snapshot.networks),
        endpoints: count(snapshot.endpoints),
        pools: count(snapshot.pools.len()),
        addresses: snapshot
            .pools
            .iter()
            .fold(0, |sum, (_, used, _)| sum.saturating_add(*used)),
        ports: count(snapshot.ports),
        findings: daemon
            .seen
            .findings()
            .into_iter()
            .map(convert::finding)
            .collect(),
        calls: calls
            .into_iter()
            .map(|(method, ok, failed)| wire::CallMetric {
                method: method.to_owned(),
                ok,
                failed,
            })
            .collect(),
    })
}

pub(super) async fn health(State(daemon): Shared) -> impl IntoResponse {
    if daemon.seen.is_restored() {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the kernel was not brought to the records yet: see the log\n",
        )
    }
}

pub(super) async fn metrics(State(daemon): Shared) -> Result<impl IntoResponse, ApiError> {
    let snapshot = daemon.snapshot().await;
    let text = daemon.metrics.text(&snapshot).map_err(|_| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics could not be written",
        )
    })?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text))
}

pub(super) async fn openapi() -> impl IntoResponse {
    Json(wire::openapi())
}

async fn names(daemon: &Daemon) -> Names {
    Names::new(daemon.runtime_networks().await)
}

async fn all_networks(daemon: &Daemon) -> Vec<wire::Network> {
    let names = names(daemon).await;
    let endpoints = daemon.engine.endpoints().await;
    let networks = daemon.engine.networks().await;
    networks
        .into_iter()
        .map(|view| {
            let id = view.spec.id.clone();
            let members = endpoints
                .iter()
                .filter(|e| e.endpoint.spec.network == id)
                .count();
            convert::network(view, &names, members)
        })
        .collect()
}

pub(super) async fn networks(State(daemon): Shared) -> Json<Vec<wire::Network>> {
    Json(all_networks(&daemon).await)
}

/// The one network that `wanted` names: its id, its name, or the beginning of an id.
pub(super) async fn find_network(daemon: &Daemon, wanted: &str) -> Result<wire::Network, ApiError> {
    let networks = all_networks(daemon).await;
    let exact = |n: &&wire::Network| n.id == wanted || n.name.as_deref() == Some(wanted);
    if let Some(network) = networks.iter().find(exact) {
        return Ok(network.clone());
    }
    let mut begins = networks.iter().filter(|n| n.id.starts_with(wanted));
    match (begins.next(), begins.next()) {
        (Some(network), None) => Ok(network.clone()),
        (Some(_), Some(_)) => Err(ApiError::bad(format!(
            "several networks have ids that begin with {wanted:?}: write more of it"
        ))),
        (None, _) => Err(ApiError::not_found(format!(
            "there is no network {wanted:?} of Netloom: see `netloom network ls`"
        ))),
    }
}

pub(super) async fn network(
    State(daemon): Shared,
    Path(wanted): Path<String>,
) -> Result<Json<wire::Network>, ApiError> {
    find_network(&daemon, &wanted).await.map(Json)
}

async fn all_endpoints(daemon: &Daemon) -> Vec<wire::Endpoint> {
    let names = names(daemon).await;
    let endpoints = daemon.engine.endpoints().await;
    endpoints
        .into_iter()
        .map(|view| convert::endpoint(view, &names))
        .collect()
}

pub(super) async fn endpoints(State(daemon): Shared) -> Json<Vec<wire::Endpoint>> {
    Json(all_endpoints(&daemon).await)
}

pub(super) async fn endpoint(
    State(daemon): Shared,
    Path(wanted): Path<String>,
) -> Result<Json<wire::Endpoint>, ApiError> {
    let endpoints = all_endpoints(&daemon).await;
    let named =
        |e: &&wire::Endpoint| e.id == wanted || e.container.as_deref() == Some(wanted.as_str());
    let matching: Vec<_> = {
        let exact: Vec<_> = endpoints.iter().filter(named).collect();
        if exact.is_empty() {
            let begins = endpoints.iter().filter(|e| e.id.starts_with(&wanted));
            begins.collect()
        } else {
            exact
        }
    };
    match matching.as_slice() {
        [one] => Ok(Json((*one).clone())),
        [] => Err(ApiError::not_found(format!(
            "there is no endpoint {wanted:?} of Netloom: see `netloom endpoint ls`"
        ))),
        several => Err(ApiError::bad(format!(
            "{wanted:?} has {} endpoints: name one by its id of `netloom endpoint ls`",
            several.len()
        ))),
    }
}

pub(super) async fn ports(State(daemon): Shared) -> Json<Vec<wire::Port>> {
    let names = names(&daemon).await;
    let endpoints = daemon.engine.endpoints().await;
    let mut ports: Vec<_> = endpoints
        .iter()
        .flat_map(|view| convert::ports(view, &names))
        .collect();
    ports.sort_by_key(|port| (port.host_port, port.protocol.clone(), port.host_ip.clone()));
    Json(ports)
}

pub(super) async fn pools(State(daemon): Shared) -> Json<Vec<wire::Pool>> {
    let pools = daemon.ipam.pools().await;
    Json(pools.into_iter().map(convert::pool).collect())
}

/// Which pool's addresses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfPool {
    subnet: Option<String>,
}

pub(super) async fn addresses(
    State(daemon): Shared,
    Query(wanted): Query<OfPool>,
) -> Result<Json<Vec<wire::Address>>, ApiError> {
    let subnets: Vec<Subnet> = match wanted.subnet {
        Some(text) => vec![
            text.parse()
                .map_err(|e: netloom_types::ParseError| ApiError::bad(e.to_string()))?,
        ],
        None => daemon.ipam.pools().await.iter().map(|p| p.subnet).collect(),
    };
    let names = names(&daemon).await;
    let mut addresses = Vec::new();
    for subnet in subnets {
        let found = daemon.ipam.addresses(subnet).await?;
        addresses.extend(
            found
                .into_iter()
                .map(|a| convert::address(a, subnet, &names)),
        );
    }
    Ok(Json(addresses))
}

pub(super) async fn doctor(State(daemon): Shared) -> Json<wire::AuditReport> {
    let report = doctor::examine(&daemon).await;
    Json(wire::AuditReport {
        not_asked: report.not_asked,
        findings: report.findings.into_iter().map(convert::finding).collect(),
    })
}
