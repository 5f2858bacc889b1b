//! What an audit finds.

/// What kind of disorder was found. Each kind has one stable name for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FindingKind {
    /// An address is in use without a record, or recorded without a user.
    StrayAddress,
    /// Two live users have one address.
    DuplicateAddress,
    /// A pool reference whose network is gone.
    StrayPool,
    /// A record of an endpoint without a container.
    StrayEndpoint,
    /// A record of a network that Docker does not know.
    StrayNetwork,
    /// A link with our tag and without a record.
    StrayLink,
    /// A rule or chain in our table that does not belong.
    StrayRule,
    /// A set or map element in our table that does not belong.
    StrayElement,
    /// A network's bridge is gone.
    MissingBridge,
    /// A joined endpoint's link is gone.
    MissingLink,
    /// A rule, chain, set or table of ours is gone.
    MissingRule,
    /// A set or map element of ours is gone.
    MissingElement,
    /// A link has another MTU than its network.
    WrongMtu,
    /// A link or bridge has other settings (address, master, state) than it should.
    WrongSetting,
    /// The kernel does not forward packets.
    ForwardingOff,
    /// Rules of legacy iptables are in force, which our accept cannot pass.
    LegacyIptables,
    /// A plugin socket without a listener: it delays dockerd by 15 seconds per call.
    StaleSocket,
    /// A route of the host overlaps a network's subnet.
    OverlappingRoute,
    /// A bridge is close to the kernel's limit of 1,023 ports.
    BridgeNearlyFull,
    /// A published port is not reserved on the host.
    UnreservedPort,
    /// Something that the host lacks or that could not be looked at.
    HostProblem,
}

impl FindingKind {
    /// The stable name, such as `stray-link`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StrayAddress => "stray-address",
            Self::DuplicateAddress => "duplicate-address",
            Self::StrayPool => "stray-pool",
            Self::StrayEndpoint => "stray-endpoint",
            Self::StrayNetwork => "stray-network",
            Self::StrayLink => "stray-link",
            Self::StrayRule => "stray-rule",
            Self::StrayElement => "stray-element",
            Self::MissingBridge => "missing-bridge",
            Self::MissingLink => "missing-link",
            Self::MissingRule => "missing-rule",
            Self::MissingElement => "missing-element",
            Self::WrongMtu => "wrong-mtu",
            Self::WrongSetting => "wrong-setting",
            Self::ForwardingOff => "forwarding-off",
            Self::LegacyIptables => "legacy-iptables",
            Self::StaleSocket => "stale-socket",
            Self::OverlappingRoute => "overlapping-route",
            Self::BridgeNearlyFull => "bridge-nearly-full",
            Self::UnreservedPort => "unreserved-port",
            Self::HostProblem => "host-problem",
        }
    }
}

/// What can be done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Repair {
    /// It was mended just now.
    Done,
    /// `netloom audit --repair` mends it.
    ByRepair,
    /// A person has to act; the finding says how.
    ByHand,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub kind: FindingKind,
    /// Which object: a link name, an address, an id.
    pub subject: String,
    /// What was seen, and what should be.
    pub detail: String,
    /// What can be done.
    pub repair: Repair,
    /// The next step for a person, as a command where there is one.
    pub next_step: String,
}
