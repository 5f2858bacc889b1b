//! Handlers that change something.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use netloom_api as wire;
use netloom_core::{Controller, EndpointState, Finding, Reach, Reservation, ReservedFor};
use netloom_engine::Remedy;
use netloom_types::{MacAddr, ParseError, Subnet};
use std::net::IpAddr;
use std::sync::Arc;

use super::convert;
use super::error::ApiError;
use super::read::find_network;
use crate::daemon::Daemon;
use crate::docker_admin::{Ipv6, NetworkFlags, NetworkWish, SubnetWish};
use crate::{error_chain, uninstall as remove};

type Shared = State<Arc<Daemon>>;
type Body<T> = Result<Json<T>, JsonRejection>;

fn body<T>(body: Body<T>) -> Result<T, ApiError> {
    body.map(|Json(value)| value)
        .map_err(|rejection| ApiError::bad(rejection.body_text()))
}

fn parsed<T: std::str::FromStr<Err = ParseError>>(text: &str) -> Result<T, ApiError> {
    text.parse()
        .map_err(|e: ParseError| ApiError::bad(e.to_string()))
}

fn address(text: &str) -> Result<IpAddr, ApiError> {
    text.parse()
        .map_err(|_| ApiError::bad(format!("{text:?} is not an address")))
}

pub(super) async fn create_network(
    State(daemon): Shared,
    wish: Body<wire::CreateNetwork>,
) -> Result<Json<wire::Network>, ApiError> {
    let wish = network_wish(body(wish)?)?;
    let id = daemon.docker.create_network(&wish).await?;
    find_network(&daemon, &id).await.map(Json)
}

fn network_wish(wish: wire::CreateNetwork) -> Result<NetworkWish, ApiError> {
    let wire::CreateNetwork {
        name,
        subnets,
        gateways,
        ranges,
        internal,
        ipv6,
        options,
    } = wish;
    if name.is_empty() {
        return Err(ApiError::bad("a network needs a name"));
    }
    if gateways.len() > subnets.len() || ranges.len() > subnets.len() {
        return Err(ApiError::bad(
            "there are more gateways or ranges than subnets: give a --subnet for each, in order",
        ));
    }
    let mut any_v6 = ipv6;
    let mut gateways = gateways.into_iter();
    let mut ranges = ranges.into_iter();
    let subnets = subnets
        .into_iter()
        .map(|text| {
            let subnet: Subnet = parsed(&text)?;
            any_v6 |= subnet.family() == netloom_types::Family::V6;
            let gateway = gateways.next();
            if let Some(gateway) = &gateway
                && !subnet.contains(address(gateway)?)
            {
                return Err(ApiError::bad(format!(
                    "the gateway {gateway} does not lie in {subnet}"
                )));
            }
            let range = ranges.next();
            if let Some(range) = &range
                && !parsed::<Subnet>(range)?.is_subnet_of(subnet)
            {
                return Err(ApiError::bad(format!(
                    "the range {range} does not lie in {subnet}"
                )));
            }
            Ok(SubnetWish {
                subnet: subnet.to_string(),
                gateway,
                range,
            })
        })
        .collect::<Result<_, ApiError>>()?;
    Ok(NetworkWish {
        name,
        subnets,
        flags: NetworkFlags {
            reach: if internal {
                Reach::Internal
            } else {
                Reach::External
            },
            ipv6: if any_v6 { Ipv6::With } else { Ipv6::Without },
        },
        options,
    })
}

pub(super) async fn remove_network(
    State(daemon): Shared,
    Path(wanted): Path<String>,
) -> Result<StatusCode, ApiError> {
    let network = find_network(&daemon, &wanted).await?;
    daemon.docker.remove_network(&network.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn reserve(
    State(daemon): Shared,
    wish: Body<wire::Reservation>,
) -> Result<StatusCode, ApiError> {
    let wire::Reservation {
        ip,
        mac,
        name,
        container,
    } = body(wish)?;
    let ip = address(&ip)?;
    let holder = match (mac, name, &container) {
        (Some(mac), None, None) => ReservedFor::Mac(parsed::<MacAddr>(&mac)?),
        (None, Some(name), None) => ReservedFor::Name(name),
        (None, None, _) => ReservedFor::Explicit,
        _ => {
            return Err(ApiError::bad(
                "an address is kept for one holder: give one of mac, name and container",
            ));
        }
    };
    daemon.ipam.reserve(Reservation { ip, holder }).await?;
    if let Some(container) = container
        && let Err(error) = pin(&daemon, &container, ip).await
    {
        // Without the pin nobody would ever ask for the address: as if nothing had been asked.
        if let Err(e) = daemon.ipam.unreserve(ip).await {
            tracing::warn!(%ip, error = error_chain(&e), "a useless reservation stays");
        }
        return Err(error);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Has Docker ask for `ip` itself whenever the container starts.
async fn pin(daemon: &Daemon, container: &str, ip: IpAddr) -> Result<(), ApiError> {
    let networks = daemon.runtime.networks().await?;
    let network = networks
        .iter()
        .find(|n| n.subnets.iter().any(|(subnet, _)| subnet.contains(ip)))
        .ok_or_else(|| ApiError::not_found(format!("no network of Docker has {ip} in a subnet")))?;
    daemon.runtime.pin(container, &network.name, ip).await?;
    Ok(())
}

pub(super) async fn unreserve(
    State(daemon): Shared,
    Path(ip): Path<String>,
) -> Result<StatusCode, ApiError> {
    daemon.ipam.unreserve(address(&ip)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn audit(
    State(daemon): Shared,
    wish: Body<wire::AuditRequest>,
) -> Result<Json<wire::AuditReport>, ApiError> {
    let wire::AuditRequest { repair } = body(wish)?;
    let runtime = daemon.runtime_networks().await;
    let mut not_asked = Vec::new();
    let mut findings: Vec<Finding> = if repair {
        daemon.engine.reconcile().await?
    } else {
        daemon.engine.audit().await?
    };
    let evidence = daemon.evidence(runtime.clone()).await;
    if let Some(networks) = runtime {
        let remedy = if repair {
            Remedy::Remove
        } else {
            Remedy::Report
        };
        findings.extend(daemon.engine.settle(networks, remedy).await?);
    } else {
        not_asked.push(format!(
            "Docker at {}: strays that only its list could show are not looked for",
            daemon.config.docker_socket.display()
        ));
    }
    findings.extend(if repair {
        daemon.ipam.repair(&evidence).await?
    } else {
        daemon.ipam.audit(&evidence).await
    });
    Ok(Json(wire::AuditReport {
        not_asked,
        findings: findings.into_iter().map(convert::finding).collect(),
    }))
}

pub(super) async fn uninstall(
    State(daemon): Shared,
    wish: Body<wire::UninstallRequest>,
) -> Result<Json<wire::Removed>, ApiError> {
    let wire::UninstallRequest { force } = body(wish)?;
    let endpoints = daemon.engine.endpoints().await;
    let joined = endpoints
        .iter()
        .filter(|e| matches!(e.state, EndpointState::Joining | EndpointState::Joined))
        .count();
    if joined > 0 && !force {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            format!(
                "{joined} endpoints of containers are joined and would lose their network: stop \
                 the containers first, or use --force"
            ),
        ));
    }
    let removed = remove::everything(&daemon)
        .await
        .map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error_chain(&error)))?;
    Ok(Json(wire::Removed { removed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_that_cannot_be_is_refused_before_docker_hears_of_it() {
        let base = || wire::CreateNetwork {
            name: "n".into(),
            subnets: vec!["10.1.0.0/16".into(), "fd00::/64".into()],
            ..wire::CreateNetwork::default()
        };
        let wish = network_wish(base()).unwrap();
        assert_eq!(wish.flags.ipv6, Ipv6::With);
        for spoil in [
            |w: &mut wire::CreateNetwork| w.name.clear(),
            |w: &mut wire::CreateNetwork| w.subnets = vec!["10.1.0.1/16".into()],
            |w: &mut wire::CreateNetwork| w.gateways = vec!["10.2.0.1".into()],
            |w: &mut wire::CreateNetwork| w.gateways = vec!["x".into()],
            |w: &mut wire::CreateNetwork| w.ranges = vec!["10.2.0.0/24".into()],
            |w: &mut wire::CreateNetwork| w.ranges = vec!["10.1.0.0/24".into(); 3],
        ] {
            let mut wish = base();
            spoil(&mut wish);
            assert!(network_wish(wish).is_err());
        }
    }
}
