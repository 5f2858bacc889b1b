//! What is wrong with this host, and how to mend it. Cheap looks only; nothing is changed.

mod host;
mod paths;

use netloom_core::{Controller, Finding, FindingKind, Repair};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::config::Toggle;
use crate::daemon::Daemon;
use crate::error_chain;

/// A local socket with a living listener is there within microseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What the doctor says.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) not_asked: Vec<String>,
    pub(crate) findings: Vec<Finding>,
}

/// Whether somebody listens at a socket.
pub(crate) async fn answers(socket: &Path) -> bool {
    matches!(
        timeout(CONNECT_TIMEOUT, UnixStream::connect(socket)).await,
        Ok(Ok(_))
    )
}

/// A finding that a person has to act on.
fn by_hand(
    kind: FindingKind,
    subject: impl Into<String>,
    detail: impl Into<String>,
    next_step: impl Into<String>,
) -> Finding {
    Finding {
        kind,
        subject: subject.into(),
        detail: detail.into(),
        repair: Repair::ByHand,
        next_step: next_step.into(),
    }
}

/// Examines the host.
pub(crate) async fn examine(daemon: &Daemon) -> Report {
    let mut report = Report::default();
    let networks: Vec<_> = daemon
        .engine
        .networks()
        .await
        .into_iter()
        .map(|view| view.spec)
        .collect();
    let kernel = Arc::clone(&daemon.kernel);
    let looked = tokio::task::spawn_blocking(move || host::examine(&*kernel, &networks)).await;
    match looked {
        Ok((findings, not_asked)) => {
            report.findings.extend(findings);
            report.not_asked.extend(not_asked);
        }
        Err(error) => report.not_asked.push(format!(
            "the kernel: the examination failed inside: {error}"
        )),
    }
    let plugin_dir = daemon.config.plugin_socket.parent();
    if let Some(dir) = plugin_dir {
        report.findings.extend(paths::stale_sockets(dir).await);
    }
    report.findings.extend(docker(daemon).await);
    report.findings.extend(relay(daemon).await);
    match daemon.engine.audit().await {
        Ok(findings) => report.findings.extend(findings),
        Err(error) => report
            .not_asked
            .push(format!("the drivers: {}", error_chain(&error))),
    }
    report.findings = without_repeats(report.findings);
    report
}

/// A driver may see what the doctor saw: each thing is told once.
fn without_repeats(findings: Vec<Finding>) -> Vec<Finding> {
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        let same = |k: &Finding| k.kind == finding.kind && k.subject == finding.subject;
        if !kept.iter().any(same) {
            kept.push(finding);
        }
    }
    kept
}

async fn docker(daemon: &Daemon) -> Option<Finding> {
    let socket = daemon.config.docker_socket.display().to_string();
    match daemon.docker_version().await {
        Ok(version) => {
            let major: Option<u32> = version.split('.').next().and_then(|n| n.parse().ok());
            let too_old = major.is_some_and(|major| major < OLDEST_DOCKER);
            too_old.then(|| {
                by_hand(
                    FindingKind::HostProblem,
                    "docker",
                    format!("Docker {version} is older than any that Netloom is tried with"),
                    "install Docker 20.10 or newer",
                )
            })
        }
        Err(error) => Some(by_hand(
            FindingKind::HostProblem,
            socket,
            error,
            "start Docker (`systemctl start docker`), or set docker_socket",
        )),
    }
}

/// The oldest release that the end-to-end suite runs on.
const OLDEST_DOCKER: u32 = 20;

async fn relay(daemon: &Daemon) -> Option<Finding> {
    let socket = &daemon.config.relay_socket;
    if daemon.config.relay == Toggle::Off || answers(socket).await {
        return None;
    }
    Some(by_hand(
        FindingKind::HostProblem,
        socket.display().to_string(),
        "netloom-relay does not answer: published ports are not reserved on the host and are not \
         reachable at 127.0.0.1 and ::1",
        "systemctl start netloom-relay, or set relay = \"off\"",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_looks_saw_is_told_once() {
        let one = || by_hand(FindingKind::StaleSocket, "/a", "x", "y");
        let other = by_hand(FindingKind::StaleSocket, "/b", "x", "y");
        assert_eq!(without_repeats(vec![one(), other, one()]).len(), 2);
    }
}
