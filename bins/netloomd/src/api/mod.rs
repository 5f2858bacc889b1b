//! The local API: every route of netloom-api's table, with its handler.

mod change;
mod cluster;
pub(crate) mod convert;
mod error;
mod peer;
mod read;

pub(crate) use peer::{Admission, PeerInfo};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, delete, get, post};
use netloom_api::{Method, ROUTES, Route};
use std::sync::Arc;

use crate::daemon::Daemon;
use error::ApiError;

/// The API, for callers whom `admission` lets in.
pub(crate) fn router(daemon: Arc<Daemon>, admission: Admission) -> Router {
    routes(ROUTES.iter())
        .layer(axum::middleware::from_fn_with_state(
            admission,
            peer::only_admitted,
        ))
        .with_state(daemon)
}

/// What may be read without being admitted, over a loopback port: metrics and health.
pub(crate) fn public_router(daemon: Arc<Daemon>) -> Router {
    let public = ROUTES
        .iter()
        .filter(|route| matches!(route.operation, "metrics" | "health"));
    // Prometheus looks at /metrics unless it is told otherwise.
    routes(public)
        .route("/metrics", get(read::metrics))
        .with_state(daemon)
}

fn routes<'a>(table: impl Iterator<Item = &'a Route>) -> Router<Arc<Daemon>> {
    let unknown = || async { ApiError::not_found("this daemon's API has no such path") };
    table
        .filter_map(|route| Some((route.path, handler(route)?)))
        .fold(Router::new(), |router, (path, handler)| {
            router.route(path, handler)
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path has another method",
            )
        })
        .fallback(unknown)
}

/// The handler of a route; none only if the table has one that this daemon does not know, which a
/// test refuses.
fn handler(route: &Route) -> Option<MethodRouter<Arc<Daemon>>> {
    Some(match (route.method, route.operation) {
        (Method::Get, "status") => get(read::status),
        (Method::Get, "health") => get(read::health),
        (Method::Get, "metrics") => get(read::metrics),
        (Method::Get, "openapi") => get(read::openapi),
        (Method::Get, "networks") => get(read::networks),
        (Method::Get, "network") => get(read::network),
        (Method::Post, "create_network") => post(change::create_network),
        (Method::Delete, "remove_network") => delete(change::remove_network),
        (Method::Get, "endpoints") => get(read::endpoints),
        (Method::Get, "endpoint") => get(read::endpoint),
        (Method::Get, "ports") => get(read::ports),
        (Method::Get, "pools") => get(read::pools),
        (Method::Get, "addresses") => get(read::addresses),
        (Method::Post, "reserve") => post(change::reserve),
        (Method::Delete, "unreserve") => delete(change::unreserve),
        (Method::Post, "audit") => post(change::audit),
        (Method::Get, "doctor") => get(read::doctor),
        (Method::Post, "uninstall") => post(change::uninstall),
        (Method::Get, "cluster") => get(cluster::cluster),
        (Method::Post, "init_cluster") => post(cluster::init),
        (Method::Get, "hosts") => get(cluster::hosts),
        (Method::Post, "forget_host") => post(cluster::forget),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_of_the_table_has_a_handler() {
        for route in ROUTES {
            assert!(handler(route).is_some(), "{} has none", route.operation);
        }
        // Routes that clash would panic here, and not at the first start.
        let _: Router<Arc<Daemon>> = routes(ROUTES.iter());
    }
}
