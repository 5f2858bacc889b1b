//! Takes everything of ours out of the kernel. Records stay: the next start builds it all again.

use netloom_core::ControlError;
use netloom_linux::{Applied, KernelError, KernelStep};
use std::sync::Arc;

use crate::daemon::Daemon;

/// Removes links, rules and tables, and says what was removed.
pub(crate) async fn everything(daemon: &Daemon) -> Result<Vec<String>, ControlError> {
    let mut removed: Vec<String> = daemon
        .engine
        .dismantle()
        .await?
        .into_iter()
        .map(|finding| format!("{} {}", finding.kind.name(), finding.subject))
        .collect();
    let kernel = Arc::clone(&daemon.kernel);
    let rest = tokio::task::spawn_blocking(move || {
        let mut removed = Vec::new();
        for accept in kernel.forward_accepts()? {
            let step = KernelStep::DeleteForwardAccept {
                bridge: accept.bridge,
            };
            if kernel.apply(&step)? == Applied::Changed {
                removed.push(step.to_string());
            }
        }
        if kernel.apply(&KernelStep::RemoveTable)? == Applied::Changed {
            removed.push(KernelStep::RemoveTable.to_string());
        }
        Ok::<_, KernelError>(removed)
    });
    let unavailable =
        |source: Box<dyn std::error::Error + Send + Sync>| ControlError::Unavailable {
            what: "the tables and rules of Netloom could not be removed".into(),
            source: Some(source),
        };
    let rest = rest.await.map_err(|e| unavailable(e.into()))?;
    removed.extend(rest.map_err(|e| unavailable(e.into()))?);
    removed.push(format!(
        "kept: the records in {}; remove the directory to forget all networks",
        daemon.config.state_dir.display()
    ));
    Ok(removed)
}
