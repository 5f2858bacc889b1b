//! The seam between callers and the engine.

use crate::{
    Attachment, DesiredEndpoint, DriverError, EndpointGrant, EndpointSpec, EndpointState, Finding,
    InvalidTransition, NetworkSpec, NetworkState, PublishedPort, SandboxRef, Timestamp,
};
use async_trait::async_trait;
use netloom_types::{EndpointId, NetworkId, PortBinding};

/// Why the engine did not do it, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// There is no such network or endpoint.
    #[error("{0}")]
    NotFound(String),
    /// It exists already with another content, or something else holds what it needs.
    #[error("{0}")]
    Conflict(String),
    /// The object's state does not allow it.
    #[error(transparent)]
    State(#[from] InvalidTransition),
    /// The driver could not.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The store did not take the record; nothing was changed, or it was undone.
    #[error("{what}")]
    Unavailable {
        /// What did not work, and what to do.
        what: String,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// A network as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkView {
    /// What was asked for.
    pub spec: NetworkSpec,
    /// Where it stands.
    pub state: NetworkState,
    /// Since when it is on record.
    pub created: Timestamp,
}

/// An endpoint as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView {
    /// What was asked for, its link address, sandbox and ports.
    pub endpoint: DesiredEndpoint,
    /// Where it stands.
    pub state: EndpointState,
    /// Since when it is on record.
    pub created: Timestamp,
    /// Ports that were asked for and are not yet on record as published: a process that died while
    /// it published them leaves them here, and the next comparison publishes them.
    pub ports_due: Vec<PortBinding>,
    /// What was published until it was revoked in this sandbox: when the endpoint leaves, the
    /// ports pass to another one of the same sandbox, and a death may cut that short.
    pub ports_revoked: Vec<PublishedPort>,
}

/// The engine, as its callers see it. All of it may be repeated.
#[async_trait]
pub trait Controller: core::fmt::Debug + Send + Sync {
    /// Makes a network. The same spec again is no error; another spec under the same id is.
    ///
    /// # Errors
    /// By what can be done about it; nothing is left behind.
    async fn create_network(&self, spec: NetworkSpec) -> Result<(), ControlError>;

    /// Removes a network. An unknown one is no error.
    ///
    /// # Errors
    /// `Conflict` while it has joined endpoints.
    async fn delete_network(&self, id: &NetworkId) -> Result<(), ControlError>;

    /// Records an endpoint and chooses its link address.
    ///
    /// # Errors
    /// `NotFound` for an unknown network.
    async fn create_endpoint(&self, spec: EndpointSpec) -> Result<EndpointGrant, ControlError>;

    /// Removes an endpoint, its link and its ports. An unknown one is no error.
    ///
    /// # Errors
    /// By what can be done about it.
    async fn delete_endpoint(&self, n: &NetworkId, e: &EndpointId) -> Result<(), ControlError>;

    /// Attaches an endpoint to a sandbox.
    ///
    /// # Errors
    /// By what can be done about it; nothing is left behind.
    async fn join(
        &self,
        network: &NetworkId,
        endpoint: &EndpointId,
        sandbox: SandboxRef,
    ) -> Result<Attachment, ControlError>;

    /// Detaches an endpoint from its sandbox; its ports are revoked first.
    ///
    /// # Errors
    /// By what can be done about it.
    async fn leave(&self, n: &NetworkId, e: &EndpointId) -> Result<(), ControlError>;

    /// Publishes ports: the endpoint became its sandbox's way out.
    /// An empty list publishes what the endpoint was created with.
    ///
    /// # Errors
    /// By what can be done about it; all or none are published.
    async fn publish(
        &self,
        network: &NetworkId,
        endpoint: &EndpointId,
        ports: Vec<PortBinding>,
    ) -> Result<Vec<PublishedPort>, ControlError>;

    /// Revokes all ports of an endpoint.
    ///
    /// # Errors
    /// By what can be done about it.
    async fn revoke(&self, n: &NetworkId, e: &EndpointId) -> Result<(), ControlError>;

    /// All networks, ordered by id.
    async fn networks(&self) -> Vec<NetworkView>;

    /// All endpoints, ordered by network and id.
    async fn endpoints(&self) -> Vec<EndpointView>;

    /// Compares records and kernel; changes nothing.
    ///
    /// # Errors
    /// When the kernel could not be read.
    async fn audit(&self) -> Result<Vec<Finding>, ControlError>;

    /// Brings the kernel to what is on record, and says what it mended.
    ///
    /// # Errors
    /// When the kernel could not be read.
    async fn reconcile(&self) -> Result<Vec<Finding>, ControlError>;
}
