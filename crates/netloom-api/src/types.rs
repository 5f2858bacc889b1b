//! The wire types. Addresses, subnets and ids are text here; the daemon parses what it is given.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// This host's id.
    pub host: String,
    /// The store's kind and identity.
    pub store: String,
    /// Docker's version; none while it does not answer.
    pub docker: Option<String>,
    /// Whether the port relay answers.
    pub relay: Health,
    /// Count of networks.
    pub networks: u64,
    /// Count of endpoints.
    pub endpoints: u64,
    /// Count of pools.
    pub pools: u64,
    /// Addresses in use over all pools.
    pub addresses: u64,
    /// Published ports.
    pub ports: u64,
    /// Findings of the last audit in the background.
    pub findings: Vec<Finding>,
    /// Plugin calls by method since the start.
    pub calls: Vec<CallMetric>,
}

/// Plugin calls of one method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallMetric {
    /// The method, such as `IpamDriver.RequestAddress`.
    pub method: String,
    /// How many were answered well.
    pub ok: u64,
    /// How many were answered with an error.
    pub failed: u64,
}

/// Whether a part answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It answers.
    Ok,
    /// It does not.
    Down,
    /// It is switched off in the configuration.
    Off,
}

/// Where a network stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkState {
    /// Recorded, not built wholly yet.
    Creating,
    /// It exists.
    Ready,
    /// It is being removed.
    Deleting,
}

/// One subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subnet {
    /// Such as `10.9.0.0/16`.
    pub subnet: String,
    /// The gateway's address.
    pub gateway: Option<String>,
    /// Auxiliary addresses by name.
    pub auxiliary: BTreeMap<String, String>,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Network {
    /// Docker's id of it.
    pub id: String,
    /// Docker's name of it; none while Docker does not answer.
    pub name: Option<String>,
    /// The driver.
    pub driver: String,
    /// Where it stands.
    pub state: NetworkState,
    /// Whether it has no way out.
    pub internal: bool,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Count of its endpoints.
    pub endpoints: u64,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// Where an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointState {
    /// Recorded, without a link.
    Created,
    /// Its link is being made.
    Joining,
    /// It is up.
    Joined,
    /// Its link is being removed.
    Leaving,
    /// It is being removed.
    Deleting,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Port {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The host address; `0.0.0.0` and `::` mean every one.
    pub host_ip: String,
    /// The host port.
    pub host_port: u16,
    /// The container's address.
    pub container_ip: String,
    /// The container's port.
    pub container_port: u16,
    /// The endpoint that it belongs to.
    pub endpoint: String,
    /// The container's name; none while Docker does not answer.
    pub container: Option<String>,
}

/// An endpoint: one container on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// Docker's id of it.
    pub id: String,
    /// The network's id.
    pub network: String,
    /// The network's name; none while Docker does not answer.
    pub network_name: Option<String>,
    /// The container's name; none while Docker does not answer.
    pub container: Option<String>,
    /// Where it stands.
    pub state: EndpointState,
    /// Its link address.
    pub mac: String,
    /// Such as `10.9.0.5/16`.
    pub ipv4: Option<String>,
    /// Such as `fd00::5/64`.
    pub ipv6: Option<String>,
    /// Path of its container's network namespace.
    pub netns: Option<String>,
    /// Its published ports.
    pub ports: Vec<Port>,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// A pool of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pool {
    /// Such as `10.9.0.0/16`.
    pub subnet: String,
    /// `local` or `global`.
    pub space: String,
    /// The part that automatic hand-out is confined to.
    pub range: Option<String>,
    /// The gateway.
    pub gateway: Option<String>,
    /// References to it.
    pub references: Vec<String>,
    /// Addresses that automatic hand-out may give at all; saturates at 2^64 - 1.
    pub capacity: u64,
    /// Of these, how many are in use.
    pub used: u64,
    /// The share in use, 0 to 255, of each of up to 64 equal parts.
    pub fill: Vec<u8>,
}

/// What an address is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AddressKind {
    /// A network's gateway.
    Gateway,
    /// A container's.
    Endpoint,
    /// Handed out, and not seen in use yet.
    InDoubt,
    /// Kept out of use at network creation.
    Auxiliary,
    /// Reserved, not in use.
    Reserved,
}

/// An address that is not free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// The address.
    pub ip: String,
    /// The pool's subnet.
    pub pool: String,
    /// What for.
    pub kind: AddressKind,
    /// The link address it was asked for with.
    pub mac: Option<String>,
    /// The container's name, where known.
    pub name: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// A wish to keep an address for somebody. At most one of `mac`, `name` and `container`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// The address.
    pub ip: String,
    /// For containers with this link address.
    pub mac: Option<String>,
    /// For containers of this name; Docker tells names from version 29 on.
    pub name: Option<String>,
    /// For this created or stopped container: Docker is told to ask for the address at every start.
    pub container: Option<String>,
}

/// A network to be made through Docker's API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "on the wire they are Docker's flags"
)]
pub struct CreateNetwork {
    /// Docker's name for it.
    pub name: String,
    /// Its subnets; empty means one from the default pools.
    #[serde(default)]
    pub subnets: Vec<String>,
    /// The gateways of these subnets, in their order.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// The range of each of these subnets to hand out from, in their order.
    #[serde(default)]
    pub ranges: Vec<String>,
    /// Whether it has no way out.
    #[serde(default)]
    pub internal: bool,
    /// Whether it has IPv6.
    #[serde(default)]
    pub ipv6: bool,
    /// The driver's options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// What can be done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Repair {
    /// It was mended just now.
    Done,
    /// `netloom audit --repair` mends it.
    ByRepair,
    /// A person has to act.
    ByHand,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// The kind's stable name, such as `stray-link`.
    pub kind: String,
    /// Which object.
    pub subject: String,
    /// What was seen, and what should be.
    pub detail: String,
    /// What can be done.
    pub repair: Repair,
    /// The next step for a person.
    pub next_step: String,
}

/// A wish for an audit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditRequest {
    /// Also mend what can be mended.
    #[serde(default)]
    pub repair: bool,
}

/// The result of an audit or of the doctor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditReport {
    /// Sources that could not be asked, so that the audit says less than it could.
    pub not_asked: Vec<String>,
    /// What was found; empty means that everything agrees.
    pub findings: Vec<Finding>,
}

/// A wish to remove everything of ours from the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UninstallRequest {
    /// Also while containers are attached.
    #[serde(default)]
    pub force: bool,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// One line for each thing.
    pub removed: Vec<String>,
}

/// The body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// What happened, why, and what to do.
    pub error: String,
}
