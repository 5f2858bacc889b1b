//! What runs without being asked: keeping the kernel as it should be, and settling with Docker.

use netloom_core::{Controller, Finding, Repair};
use netloom_engine::Remedy;
use netloom_linux::Change;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::daemon::Daemon;
use crate::docker_numbers;
use crate::error_chain;

/// Docker lists thousands of containers within a second; a daemon that is stuck never does.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Changes come in bursts (`compose up`): the list is fetched once for all within this time.
const BURST: Duration = Duration::from_secs(1);
/// Docker's events are asked for again after this, when they broke or Docker is away.
const EVENTS_RETRY: Duration = Duration::from_secs(5);

/// Ends when the sender of the daemon's end is gone or says so.
pub(crate) type Stop = watch::Receiver<bool>;

/// Compares records, kernel and Docker from time to time and whenever Docker tells of a change,
/// until the daemon stops.
pub(crate) async fn rounds(daemon: Arc<Daemon>, mut stop: Stop) {
    let mut ticks = interval(daemon.config.audit_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = ticks.tick() => {}
            () = changed(&daemon) => sleep(BURST).await,
        }
        round(&daemon).await;
    }
}

/// Waits until Docker tells of a change.
async fn changed(daemon: &Daemon) {
    if let Err(error) = daemon.runtime.changed().await {
        tracing::debug!(
            error = error_chain(&error),
            "Docker's events are not to be had"
        );
        // A Docker that was restarted may have other settings.
        daemon.seen.docker_is_new();
        sleep(EVENTS_RETRY).await;
        // Nobody knows what was missed, so the next try is no change; the ticks look anyhow.
        std::future::pending::<()>().await;
    }
}

/// One comparison of everything with everything.
pub(crate) async fn round(daemon: &Daemon) {
    let mut findings = reconcile(daemon).await;
    let runtime = match timeout(LIST_TIMEOUT, daemon.runtime.networks()).await {
        Ok(Ok(networks)) => Some(networks),
        Ok(Err(error)) => {
            tracing::debug!(
                error = error_chain(&error),
                "Docker's list is not to be had"
            );
            None
        }
        Err(_) => {
            tracing::warn!("Docker did not answer within {LIST_TIMEOUT:?}");
            None
        }
    };
    match &runtime {
        Some(_) if daemon.seen.docker_came() => docker_numbers::learn(daemon).await,
        Some(_) => {}
        None => daemon.seen.docker_went(),
    }
    if let Some(networks) = runtime.clone() {
        match daemon.engine.settle(networks, Remedy::Remove).await {
            Ok(found) => findings.extend(found),
            Err(error) => tracing::warn!(error = error_chain(&error), "settling failed"),
        }
    }
    let evidence = daemon.evidence(runtime).await;
    match daemon.ipam.repair(&evidence).await {
        Ok(found) => findings.extend(found),
        Err(error) => tracing::warn!(error = error_chain(&error), "the address audit failed"),
    }
    daemon.metrics.rounds.inc();
    note(daemon, findings);
}

/// Brings the kernel to the records.
pub(crate) async fn reconcile(daemon: &Daemon) -> Vec<Finding> {
    match daemon.engine.reconcile().await {
        Ok(found) => {
            daemon.seen.set_restored();
            found
        }
        Err(error) => {
            tracing::error!(
                error = error_chain(&error),
                "the kernel could not be brought to the records; tried again in the background"
            );
            Vec::new()
        }
    }
}

fn tell_mended(daemon: &Daemon, findings: &[Finding]) {
    for finding in findings.iter().filter(|f| f.repair == Repair::Done) {
        daemon.metrics.mended.inc();
        tracing::info!(
            kind = finding.kind.name(),
            subject = finding.subject,
            detail = finding.detail,
            "mended"
        );
    }
}

/// Logs what was mended, and keeps what was not for `netloom status`.
fn note(daemon: &Daemon, findings: Vec<Finding>) {
    let (mended, open): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|f| f.repair == Repair::Done);
    tell_mended(daemon, &mended);
    let known = daemon.seen.findings();
    for finding in open.iter().filter(|f| !known.contains(f)) {
        tracing::warn!(
            kind = finding.kind.name(),
            subject = finding.subject,
            detail = finding.detail,
            next_step = finding.next_step,
            "found"
        );
    }
    daemon.seen.set_findings(open);
}

/// Changes of the ruleset may open a wall: they are answered nearly at once.
const RULESET_PAUSE: Duration = Duration::from_millis(50);
/// A new bridge of Docker's is walled off from ours after this, before a container can run on it
/// (0.3 s); our own links are told of, too, and one look serves all that change meanwhile.
const LINKS_PAUSE: Duration = Duration::from_millis(100);
/// How long the watching thread waits before it looks whether the daemon stops.
const WATCH_STEP: Duration = Duration::from_millis(500);

/// Reconciles when somebody else changed the kernel, until the daemon stops.
pub(crate) async fn watch_kernel(daemon: Arc<Daemon>, mut stop: Stop) {
    let Some(linux) = daemon.monitor.clone() else {
        return;
    };
    let mut monitor = match linux.monitor() {
        Ok(monitor) => monitor,
        Err(error) => {
            tracing::error!(
                error = error_chain(&error),
                "changes of the kernel are not told of: they are looked for in rounds alone"
            );
            return;
        }
    };
    let (sender, mut changes) = tokio::sync::mpsc::channel(1);
    let stopping = stop.clone();
    let watching = std::thread::Builder::new().name("kernel-watch".into());
    let started = watching.spawn(move || {
        while !*stopping.borrow() && !sender.is_closed() {
            match monitor.wait(WATCH_STEP) {
                // A full channel means that somebody is about to look anyhow.
                Ok(Some(change)) => drop(sender.try_send(change)),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(error = error_chain(&error), "watching the kernel failed");
                    std::thread::sleep(WATCH_STEP);
                }
            }
        }
    });
    if let Err(error) = started {
        tracing::error!(%error, "the thread that watches the kernel did not start");
        return;
    }
    loop {
        let change = tokio::select! {
            _ = stop.changed() => return,
            change = changes.recv() => change,
        };
        match change {
            Some(Change::Ruleset) => sleep(RULESET_PAUSE).await,
            Some(Change::Links) => sleep(LINKS_PAUSE).await,
            None => return,
        }
        // What came during the pause is looked at now; what comes from here on, next time.
        while changes.try_recv().is_ok() {}
        let findings = reconcile(&daemon).await;
        tell_mended(&daemon, &findings);
    }
}
