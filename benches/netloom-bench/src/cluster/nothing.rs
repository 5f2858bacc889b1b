//! What stands behind the plugin protocol when its own cost is measured.

use async_trait::async_trait;
use netloom_core::{
    AddressRequest, Attachment, ControlError, Controller, EndpointGrant, EndpointSpec,
    EndpointView, Finding, Ipam, IpamError, NetworkSpec, NetworkView, PoolGrant, PoolRequest,
    PublishedPort, SandboxRef,
};
use netloom_types::{EndpointId, InterfaceAddr, MacAddr, NetworkId, PoolId, PortBinding};
use std::net::IpAddr;

/// Answers every request for an address with the same one, and knows no network.
#[derive(Debug)]
pub(super) struct Nothing;

#[async_trait]
impl Ipam for Nothing {
    async fn request_pool(&self, _: PoolRequest) -> Result<PoolGrant, IpamError> {
        Err(IpamError::Exhausted("there are no pools here".to_owned()))
    }

    async fn release_pool(&self, _: &PoolId) -> Result<(), IpamError> {
        Ok(())
    }

    async fn request_address(&self, _: AddressRequest) -> Result<InterfaceAddr, IpamError> {
        Ok("10.16.0.5/12".parse().expect("the text is an address"))
    }

    async fn release_address(&self, _: &PoolId, _: IpAddr) -> Result<(), IpamError> {
        Ok(())
    }

    async fn confirm(&self, _: IpAddr, _: Option<MacAddr>) -> Result<(), IpamError> {
        Ok(())
    }
}

fn none<T>() -> Result<T, ControlError> {
    Err(ControlError::NotFound("there are no networks".to_owned()))
}

#[async_trait]
impl Controller for Nothing {
    async fn create_network(&self, _: NetworkSpec) -> Result<(), ControlError> {
        none()
    }

    async fn delete_network(&self, _: &NetworkId) -> Result<(), ControlError> {
        Ok(())
    }

    async fn create_endpoint(&self, _: EndpointSpec) -> Result<EndpointGrant, ControlError> {
        none()
    }

    async fn delete_endpoint(&self, _: &NetworkId, _: &EndpointId) -> Result<(), ControlError> {
        Ok(())
    }

    async fn join(
        &self,
        _: &NetworkId,
        _: &EndpointId,
        _: SandboxRef,
    ) -> Result<Attachment, ControlError> {
        none()
    }

    async fn leave(&self, _: &NetworkId, _: &EndpointId) -> Result<(), ControlError> {
        Ok(())
    }

    async fn publish(
        &self,
        _: &NetworkId,
        _: &EndpointId,
        _: Vec<PortBinding>,
    ) -> Result<Vec<PublishedPort>, ControlError> {
        none()
    }

    async fn revoke(&self, _: &NetworkId, _: &EndpointId) -> Result<(), ControlError> {
        Ok(())
    }

    async fn networks(&self) -> Vec<NetworkView> {
        Vec::new()
    }

    async fn endpoints(&self) -> Vec<EndpointView> {
        Vec::new()
    }

    async fn audit(&self) -> Result<Vec<Finding>, ControlError> {
        Ok(Vec::new())
    }

    async fn reconcile(&self) -> Result<Vec<Finding>, ControlError> {
        Ok(Vec::new())
    }
}
