//! Whether the store may still be believed.

use std::sync::OnceLock;

/// Healthy until the first disk error, then never again: after a failed write or sync nobody can
/// tell what the disk kept (the kernel may report a failed sync once and then call the pages
/// clean), so going on would build on sand.
#[derive(Debug, Default)]
pub(crate) struct Health {
    cause: OnceLock<String>,
}

/// The store was closed by a disk error.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "a disk error closed the store ({cause}); mend the disk or make room on it, then restart \
     the daemon, which opens the store again"
)]
pub(crate) struct Poisoned {
    cause: String,
}

impl Health {
    /// Closes the store for `cause`; the first cause stays.
    pub(crate) fn poison(&self, cause: &impl ToString) {
        let cause = cause.to_string();
        tracing::error!(
            cause,
            "the embedded store met a disk error and answers no more"
        );
        let _ = self.cause.set(cause);
    }

    /// Whether the store may be used.
    pub(crate) fn check(&self) -> Result<(), Poisoned> {
        match self.cause.get() {
            None => Ok(()),
            Some(cause) => Err(Poisoned {
                cause: cause.clone(),
            }),
        }
    }
}
