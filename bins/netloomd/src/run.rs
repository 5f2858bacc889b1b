//! The life of the daemon: restore, serve, drain.

use anyhow::Context;
use netloom_docker::PluginState;
use sd_notify::NotifyState;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api::{self, Admission};
use crate::config::{Config, Toggle};
use crate::daemon::Daemon;
use crate::sockets::{Sockets, group_id};
use crate::state_dir::StateDir;
use crate::{background, parts, serve};

/// Signs of life within the time that the manager grants: systemd advises two, one more may be late.
const BEATS: u32 = 4;

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn daemon(
    config: Config,
    state: StateDir,
    sockets: Sockets,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watching for SIGINT")?;
    let group = config.api_group.as_deref().map(group_id).transpose()?;
    let (daemon, plugin) = parts::build(config, &state).await?;
    // Nothing is handed out before what was handed out is known, and stands in the kernel. Callers
    // wait meanwhile: the sockets listen already.
    background::reconcile(&daemon).await;
    let (stop, stopping) = watch::channel(false);
    let mut servers = JoinSet::new();
    let guards = serve_all(
        &mut servers,
        (Arc::clone(&daemon), plugin),
        (sockets, Admission::new(group)),
        &stopping,
    )
    .await?;
    let rounds = tokio::spawn(background::rounds(Arc::clone(&daemon), stopping.clone()));
    let watcher = match daemon.config.watch {
        Toggle::On => Some(tokio::spawn(background::watch_kernel(
            Arc::clone(&daemon),
            stopping,
        ))),
        Toggle::Off => None,
    };
    let tending = tokio::spawn(Arc::clone(&daemon.addresses).tend());
    tokio::spawn(beat());
    notify(&[NotifyState::Ready]);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "serving");

    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(ended) = servers.join_next() => match ended {
            Ok(Ok(())) => Err(anyhow::anyhow!("a server ended by itself")),
            Ok(Err(error)) => Err(error).context("a socket failed"),
            Err(error) => Err(error).context("a server failed inside"),
        },
    };
    notify(&[NotifyState::Stopping]);
    tracing::info!("stopping: finishing the answers that are under way");
    // Nobody listens any more if this fails, which is what was wanted.
    let _ = stop.send(true);
    let drain = async { while servers.join_next().await.is_some() {} };
    if timeout(serve::DRAIN, drain).await.is_err() {
        tracing::warn!("some answers were not finished in time; their work is on record");
    }
    rounds.abort();
    tending.abort();
    if let Some(watcher) = watcher {
        watcher.abort();
    }
    drop(guards);
    ended
}

/// Starts a server for each socket. The guards remove the files of sockets bound here.
async fn serve_all(
    servers: &mut JoinSet<std::io::Result<()>>,
    (daemon, plugin): (Arc<Daemon>, PluginState),
    (sockets, admission): (Sockets, Admission),
    stopping: &background::Stop,
) -> anyhow::Result<impl Send + use<>> {
    let (listener, plugin_file) = sockets.plugin.into_tokio()?;
    servers.spawn(serve::plugin(
        listener,
        netloom_docker::router(plugin),
        stopping.clone(),
    ));
    let (listener, api_file) = sockets.api.into_tokio()?;
    let router = api::router(Arc::clone(&daemon), admission);
    servers.spawn(serve::api(listener, router, stopping.clone()));
    if let Some(address) = daemon.config.metrics_listen {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("listening for metrics at {address}"))?;
        let router = api::public_router(daemon);
        servers.spawn(serve::metrics(listener, router, stopping.clone()));
    }
    Ok((plugin_file, api_file))
}

/// Says again and again that this process lives, where its manager listens for that: dockerd waits
/// without end for one that stands still. It is said from the runtime, so that a runtime whose
/// threads are all stuck says it no more.
async fn beat() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut ticks = tokio::time::interval(limit / BEATS);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

/// Tells systemd, where it started us.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}
