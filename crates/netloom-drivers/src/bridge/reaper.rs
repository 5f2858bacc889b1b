//! Deletes links in groups: the kernel waits about 16 ms for its grace period per deletion, and
//! once for all links that go together.

use netloom_linux::{Kernel, KernelStep};
use netloom_types::LinkName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Collects links while a group is being deleted; who comes next deletes all that came.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    waiting: Mutex<Vec<LinkName>>,
    /// Failures by link, until its caller takes them.
    failed: Mutex<BTreeMap<LinkName, String>>,
    turn: tokio::sync::Mutex<()>,
}

impl Reaper {
    /// Deletes `link`, together with those that others ask for at the same time. A link that is
    /// not there is no error.
    pub(super) async fn delete(
        &self,
        kernel: &Arc<dyn Kernel>,
        link: &LinkName,
    ) -> Result<(), String> {
        lock(&self.waiting).push(link.clone());
        let turn = self.turn.lock().await;
        let group = std::mem::take(&mut *lock(&self.waiting));
        if !group.is_empty() {
            let kernel = Arc::clone(kernel);
            let links = group.clone();
            let failures = tokio::task::spawn_blocking(move || delete_group(&*kernel, links)).await;
            let failures = failures.unwrap_or_else(|error| {
                let text = error.to_string();
                group.into_iter().map(|link| (link, text.clone())).collect()
            });
            lock(&self.failed).extend(failures);
        }
        drop(turn);
        lock(&self.failed).remove(link).map_or(Ok(()), Err)
    }

    /// Keeps every group waiting, as one that is being deleted does, until the guard is dropped.
    #[cfg(test)]
    pub(super) async fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// How many links wait for the next group.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        lock(&self.waiting).len()
    }
}

fn delete_group(kernel: &dyn Kernel, links: Vec<LinkName>) -> Vec<(LinkName, String)> {
    let single = |link: LinkName| match kernel.apply(&KernelStep::DeleteLink { link: link.clone() })
    {
        Ok(_) => None,
        Err(error) if error.is_not_found() => None,
        Err(error) => Some((link, error.to_string())),
    };
    if links.len() > 1
        && kernel
            .apply(&KernelStep::DeleteLinks {
                links: links.clone(),
            })
            .is_ok()
    {
        return Vec::new();
    }
    links.into_iter().filter_map(single).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The values are whole after every statement, so a panic elsewhere spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
