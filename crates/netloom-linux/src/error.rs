//! What can go wrong between us and the kernel, sorted by what the caller can do about it.

use netloom_types::LinkName;
use std::path::PathBuf;

/// Why the kernel did not do, or did not tell, what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The object is there already; it was left as it is.
    #[error("{what} exists already; remove it, or choose another name")]
    Exists {
        /// What was to be made.
        what: String,
    },
    /// An object of that name is there, and it is not what was asked for; it was left as it is.
    #[error("{what} exists already and differs: {difference}; remove it, or choose another name")]
    Conflict {
        /// What was to be made.
        what: String,
        /// In what the two differ.
        difference: String,
    },
    /// What the step needs is not there.
    #[error("{what} does not exist; it may have been removed in the meantime")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// A Linux bridge carries at most 1,023 ports (`BR_MAX_PORTS` of the kernel).
    #[error(
        "bridge {bridge} is full: it carries 1023 ports; attach the container to another network"
    )]
    BridgeFull {
        /// The bridge.
        bridge: LinkName,
    },
    /// The process lacks a capability.
    #[error("{what} is not permitted; run with CAP_NET_ADMIN and CAP_SYS_ADMIN")]
    Denied {
        /// What was tried.
        what: String,
    },
    /// The running kernel lacks a feature.
    #[error("{what} is not supported by the running kernel: {reason}")]
    Unsupported {
        /// What was tried.
        what: String,
        /// What the kernel said.
        reason: String,
    },
    /// The kernel refused for a reason of its own.
    #[error("{what} was refused by the kernel: {reason}")]
    Refused {
        /// What was tried.
        what: String,
        /// What the kernel said (extended acknowledgement, if it gave one).
        reason: String,
        /// The error number.
        #[source]
        source: nix::Error,
    },
    /// Someone else changed the same objects while we read or wrote them, again and again.
    #[error("{what} was disturbed by other changes every time; try again")]
    Disturbed {
        /// What was tried.
        what: String,
    },
    /// The kernel did not answer in time.
    #[error("{what} got no answer from the kernel in time; whether it was done must be read again")]
    TimedOut {
        /// What was tried.
        what: String,
    },
    /// The path is not a network namespace.
    #[error("{path} is not a network namespace: {reason}", path = path.display())]
    NotANamespace {
        /// The path that was given.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// The path is a network namespace, but our own, that of the host.
    #[error("{path} is the network namespace of the host; a container needs its own", path = path.display())]
    HostNamespace {
        /// The path that was given.
        path: PathBuf,
    },
    /// The kernel's answer could not be understood.
    #[error("the kernel's answer to {what} is malformed: {reason}")]
    Malformed {
        /// What was asked.
        what: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The host filters with legacy iptables, whose rules we do not write.
    #[error(
        "this host uses legacy iptables; add by hand: iptables -I DOCKER-USER -i {bridge} -j ACCEPT \
         and iptables -I DOCKER-USER -o {bridge} -j ACCEPT (or switch to iptables-nft)"
    )]
    LegacyIptables {
        /// The bridge whose traffic needs the accept pair.
        bridge: LinkName,
    },
    /// A system call on a file or socket failed.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: String,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
}

impl KernelError {
    /// Whether the object was simply not there: for a deletion, as good as done.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    pub(crate) fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io {
            what: what.into(),
            source: source.into(),
        }
    }

    /// Sorts an error number of the kernel; `text` is the extended acknowledgement, if any.
    pub(crate) fn from_errno(what: &str, errno: nix::Error, text: Option<String>) -> Self {
        use nix::Error as E;
        let what = what.to_owned();
        let reason = text.unwrap_or_else(|| errno.desc().to_owned());
        match errno {
            E::EEXIST => Self::Exists { what },
            E::ENOENT | E::ENODEV | E::ESRCH | E::EADDRNOTAVAIL => Self::NotFound { what },
            E::EPERM | E::EACCES => Self::Denied { what },
            E::EOPNOTSUPP | E::EAFNOSUPPORT | E::EPROTONOSUPPORT => {
                Self::Unsupported { what, reason }
            }
            E::ERESTART | E::EINTR => Self::Disturbed { what },
            source => Self::Refused {
                what,
                reason,
                source,
            },
        }
    }
}

/// A list of steps failed half way; what had been done was undone in reverse order.
#[derive(Debug, thiserror::Error)]
#[error("step {} failed: {step}{}", index + 1, undo_note(undo_failures))]
pub struct ApplyError {
    /// Which step failed, counted from zero.
    pub index: usize,
    /// What that step was to do.
    pub step: String,
    /// Why it failed.
    #[source]
    pub source: KernelError,
    /// What could not be undone, in the order in which it was tried; empty means that everything
    /// which can be undone was undone.
    pub undo_failures: Vec<(String, KernelError)>,
}

fn undo_note(failures: &[(String, KernelError)]) -> String {
    if failures.is_empty() {
        return String::new();
    }
    let list: Vec<String> = failures
        .iter()
        .map(|(step, error)| format!("{step}: {error}"))
        .collect();
    format!("; not undone: {}", list.join("; "))
}
