//! The seam that drivers use: steps that change the kernel's state, and views of it.

use crate::{
    AcceptNeed, ApplyError, ForwardAccept, KernelError, KernelStep, Link, LinkAddress, Neighbour,
    Route, SysctlKey, TableSnapshot,
};
use netloom_types::LinkName;
use std::fmt::Debug;
use std::path::Path;

/// What applying a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Applied {
    /// The kernel's state changed.
    Changed,
    /// It was so already; undoing must leave it.
    AlreadySo,
}

impl From<bool> for Applied {
    /// Whether something changed.
    fn from(changed: bool) -> Self {
        if changed {
            Self::Changed
        } else {
            Self::AlreadySo
        }
    }
}

/// The kernel, as drivers see it. [`crate::LinuxKernel`] is the real one,
/// [`crate::RecordingKernel`] a model for tests.
///
/// Calls block for as long as the kernel takes: microseconds to a few milliseconds. An async
/// program calls them on a thread that may block.
pub trait Kernel: Send + Sync + Debug {
    /// Applies one step. Applying it again is harmless and says [`Applied::AlreadySo`].
    ///
    /// # Errors
    /// By what the caller can do, see [`KernelError`]; the step then changed nothing, except
    /// [`KernelStep::ConfigureInterface`] and [`KernelStep::DeleteLinks`], which may stop half
    /// way and are safe to repeat.
    fn apply(&self, step: &KernelStep) -> Result<Applied, KernelError>;

    /// Applies steps in order; when one fails, undoes in reverse what had been changed.
    ///
    /// Element steps next to each other go to the kernel in one transaction.
    ///
    /// # Errors
    /// The first failure, with everything that could not be undone.
    fn apply_all(&self, steps: &[KernelStep]) -> Result<Vec<Applied>, ApplyError> {
        apply_in_order(self, steps)
    }

    /// Every link of this namespace.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    fn links(&self) -> Result<Vec<Link>, KernelError>;

    /// One link by name.
    ///
    /// # Errors
    /// When the kernel cannot be read; a missing link is none, not an error.
    fn link(&self, name: &LinkName) -> Result<Option<Link>, KernelError>;

    /// Whether there is a link of this name in the network namespace at `namespace`.
    ///
    /// # Errors
    /// When that is no network namespace, or the host's, or it cannot be read.
    fn has_link_in(&self, namespace: &Path, name: &LinkName) -> Result<bool, KernelError>;

    /// Every address of this namespace.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    fn addresses(&self) -> Result<Vec<LinkAddress>, KernelError>;

    /// Every unicast route of this namespace, of every table but `local`.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    fn routes(&self) -> Result<Vec<Route>, KernelError>;

    /// Every neighbour entry of this namespace.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    fn neighbours(&self) -> Result<Vec<Neighbour>, KernelError>;

    /// A setting's value; none where this kernel does not have it.
    ///
    /// # Errors
    /// When the setting is there but cannot be read.
    fn sysctl(&self, key: &SysctlKey) -> Result<Option<i32>, KernelError>;

    /// Our tables.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    fn netloom_table(&self) -> Result<TableSnapshot, KernelError>;

    /// Where accepts are needed.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    fn accept_need(&self) -> Result<AcceptNeed, KernelError>;

    /// Our rules in the chains DOCKER-USER.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    fn forward_accepts(&self) -> Result<Vec<ForwardAccept>, KernelError>;
}

/// Applies one step after the other and undoes in reverse on failure: the default of
/// [`Kernel::apply_all`].
pub(crate) fn apply_in_order<K: Kernel + ?Sized>(
    kernel: &K,
    steps: &[KernelStep],
) -> Result<Vec<Applied>, ApplyError> {
    let mut done = Vec::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        match kernel.apply(step) {
            Ok(applied) => done.push(applied),
            Err(source) => {
                return Err(ApplyError {
                    index,
                    step: step.to_string(),
                    source,
                    undo_failures: undo_changed(kernel, steps, &done),
                });
            }
        }
    }
    Ok(done)
}

/// Undoes, in reverse, those of the first steps that changed something.
pub(crate) fn undo_changed<K: Kernel + ?Sized>(
    kernel: &K,
    steps: &[KernelStep],
    done: &[Applied],
) -> Vec<(String, KernelError)> {
    let mut failures = Vec::new();
    for (step, applied) in steps.iter().zip(done).rev() {
        if *applied == Applied::AlreadySo {
            continue;
        }
        let Some(undo) = step.undo() else { continue };
        match kernel.apply(&undo) {
            Ok(_) => {}
            // What is gone with something else, a port with its bridge, is undone.
            Err(error) if error.is_not_found() => {}
            Err(error) => failures.push((undo.to_string(), error)),
        }
    }
    failures
}
