//! What a host's journal remembers of the store.

/// How far this host came with the store: what it compares the store with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Changes of this host that the store took.
    pub(crate) counter: u64,
    /// Starts of this host that the store took.
    pub(crate) starts: u64,
    /// The latest epoch that this host joined.
    pub(crate) epoch: u64,
    /// Changes and starts of all hosts that it saw in that epoch.
    pub(crate) mark: u64,
    /// Whether that store was this host's own.
    pub(crate) alone: bool,
    /// Which store it was, as it names itself, as far as there is room.
    pub(crate) store: Box<str>,
}

impl Memory {
    /// Whether it never met a store.
    pub(crate) fn is_blank(&self) -> bool {
        self.starts == 0
    }
}
