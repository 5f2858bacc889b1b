//! Handlers about the store that hosts share, and about those hosts.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use netloom_api as wire;
use netloom_core::{ClusterAdmin, ClusterView, HostView, Membership, Standing};
use netloom_types::{HostId, ParseError};
use std::sync::Arc;

use super::error::ApiError;
use crate::daemon::Daemon;

type Shared = State<Arc<Daemon>>;
type Body<T> = Result<Json<T>, JsonRejection>;

pub(super) async fn cluster(State(daemon): Shared) -> Json<wire::Cluster> {
    let view = daemon.addresses.cluster().await;
    Json(told(&daemon, view))
}

fn told(daemon: &Daemon, view: ClusterView) -> wire::Cluster {
    let ClusterView {
        store,
        epoch,
        standing,
    } = view;
    let (standing, why, waiting) = match standing {
        Standing::Alone => (wire::StandingKind::Alone, None, Vec::new()),
        Standing::Joined => (wire::StandingKind::Joined, None, Vec::new()),
        Standing::Healing { waiting } => (wire::StandingKind::Healing, None, waiting),
        Standing::Offline { why } => (wire::StandingKind::Offline, Some(why), Vec::new()),
        Standing::Starting { why } => (wire::StandingKind::Starting, Some(why), Vec::new()),
        Standing::Stopped { why } => (wire::StandingKind::Stopped, Some(why), Vec::new()),
    };
    wire::Cluster {
        host: daemon.host.clone(),
        url: daemon.config.store.url(),
        store,
        epoch,
        standing,
        why,
        waiting: waiting.iter().map(HostId::to_string).collect(),
    }
}

pub(super) async fn init(
    State(daemon): Shared,
    wish: Body<wire::Nothing>,
) -> Result<Json<wire::Initialised>, ApiError> {
    let Json(wire::Nothing {}) = wish.map_err(|rejection| ApiError::bad(rejection.body_text()))?;
    let epoch = daemon.addresses.initialise().await?;
    Ok(Json(wire::Initialised { epoch }))
}

pub(super) async fn hosts(State(daemon): Shared) -> Result<Json<Vec<wire::Host>>, ApiError> {
    let hosts = daemon.addresses.hosts().await?;
    Ok(Json(hosts.into_iter().map(host).collect()))
}

fn host(view: HostView) -> wire::Host {
    let HostView {
        host,
        membership,
        boot,
        starts,
        counter,
        last_heard,
        shares,
        here,
    } = view;
    wire::Host {
        id: host.to_string(),
        here,
        membership: match membership {
            Membership::Member => wire::Membership::Member,
            Membership::Forgotten => wire::Membership::Forgotten,
        },
        boot,
        starts,
        counter,
        last_heard_ms: last_heard,
        shares: shares
            .into_iter()
            .map(|share| wire::Share {
                subnet: share.subnet.to_string(),
                owned: share.owned,
                free: share.free,
            })
            .collect(),
    }
}

pub(super) async fn forget(
    State(daemon): Shared,
    wish: Body<wire::ForgetHost>,
) -> Result<Json<wire::Forgotten>, ApiError> {
    let Json(wish) = wish.map_err(|rejection| ApiError::bad(rejection.body_text()))?;
    let id = HostId::new(wish.host).map_err(|e: ParseError| ApiError::bad(e.to_string()))?;
    let done = daemon.addresses.forget(&id).await?;
    let freed = done
        .freed
        .into_iter()
        .map(|(subnet, addresses)| wire::Freed {
            subnet: subnet.to_string(),
            addresses,
        });
    Ok(Json(wire::Forgotten {
        freed: freed.collect(),
    }))
}
