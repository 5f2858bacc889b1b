//! Bugs put into the world around the code, each of which a run must find sooner or later.

use serde::Serialize;

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Bug {
    /// The disk says synced before it is.
    EarlySync,
    /// A full disk swallows writes and says that it took them.
    SilentlyFull,
    /// The snapshot is not durable when the disk says so.
    TornReplace,
    /// The store does not compare versions.
    NoVersionCheck,
    /// The store counts versions by key, from its creation on: delete and create bring one back,
    /// and a transaction is checked by its first operation alone.
    FirstCheckOnly,
    /// A conflict is told as success.
    ConflictAsSuccess,
    /// An unknown outcome is told as a refusal.
    UnknownAsRefusal,
    /// The fences of a transaction, what it checks and does not write, get lost.
    DroppedFences,
    /// Of a transaction, only its first half happens.
    HalfTransaction,
    /// Ranges of hosts that were silent for a while become nobody's.
    TakenByTime,
    /// Two machines run with one host's identity and state directory.
    TwinHost,
    /// A forgotten host's record is removed instead of marked, and it comes back.
    ForgottenComesBack,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::EarlySync,
        Self::SilentlyFull,
        Self::TornReplace,
        Self::NoVersionCheck,
        Self::FirstCheckOnly,
        Self::ConflictAsSuccess,
        Self::UnknownAsRefusal,
        Self::DroppedFences,
        Self::HalfTransaction,
        Self::TakenByTime,
        Self::TwinHost,
        Self::ForgottenComesBack,
    ];
}
