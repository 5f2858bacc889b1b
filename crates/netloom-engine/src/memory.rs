//! What is on record, held in memory: the store is read at start, and again only where a write's
//! outcome was in doubt.

use netloom_core::store::Version;
use netloom_core::{
    Desired, EndpointState, EndpointView, NetworkSpec, NetworkState, NetworkView, SandboxState,
};
use netloom_types::{EndpointId, NetworkId, OperationId};
use std::collections::{BTreeMap, BTreeSet};

use crate::doubt::Unconfirmed;

/// Which object. Endpoints come first, so that whatever goes through a set of them takes the
/// endpoints of a network away before the network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Endpoint(EndpointId),
    Network(NetworkId),
}

/// An object with the version of its record.
#[derive(Debug, Clone)]
pub(crate) struct Entry<T> {
    pub(crate) view: T,
    pub(crate) version: Version,
    /// The write that made the record: changes with every write.
    pub(crate) operation: OperationId,
}

/// All objects.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    networks: BTreeMap<NetworkId, Entry<NetworkView>>,
    endpoints: BTreeMap<EndpointId, Entry<EndpointView>>,
    members: BTreeMap<NetworkId, BTreeSet<EndpointId>>,
    /// Networks that Docker has not been seen to have.
    pub(crate) unconfirmed: Unconfirmed,
    /// Records that have to be read again before anything is decided about them.
    pub(crate) doubtful: BTreeSet<Subject>,
}

impl Memory {
    pub(crate) fn network(&self, id: &NetworkId) -> Option<&Entry<NetworkView>> {
        self.networks.get(id)
    }

    pub(crate) fn network_mut(&mut self, id: &NetworkId) -> Option<&mut Entry<NetworkView>> {
        self.networks.get_mut(id)
    }

    pub(crate) fn endpoint(&self, id: &EndpointId) -> Option<&Entry<EndpointView>> {
        self.endpoints.get(id)
    }

    pub(crate) fn endpoint_mut(&mut self, id: &EndpointId) -> Option<&mut Entry<EndpointView>> {
        self.endpoints.get_mut(id)
    }

    pub(crate) fn put_network(&mut self, entry: Entry<NetworkView>) {
        self.networks.insert(entry.view.spec.id.clone(), entry);
    }

    pub(crate) fn put_endpoint(&mut self, entry: Entry<EndpointView>) {
        let spec = &entry.view.endpoint.spec;
        let (id, network) = (spec.id.clone(), spec.network.clone());
        self.members.entry(network).or_default().insert(id.clone());
        self.endpoints.insert(id, entry);
    }

    pub(crate) fn drop_network(&mut self, id: &NetworkId) {
        self.unconfirmed.remove(id);
        self.networks.remove(id);
    }

    pub(crate) fn drop_endpoint(&mut self, id: &EndpointId) {
        let Some(entry) = self.endpoints.remove(id) else {
            return;
        };
        let network = &entry.view.endpoint.spec.network;
        if let Some(members) = self.members.get_mut(network) {
            members.remove(id);
            if members.is_empty() {
                self.members.remove(network);
            }
        }
    }

    pub(crate) fn networks(&self) -> impl Iterator<Item = &Entry<NetworkView>> {
        self.networks.values()
    }

    /// All endpoints, ordered by network and id.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Entry<EndpointView>> {
        self.members
            .values()
            .flatten()
            .filter_map(|id| self.endpoints.get(id))
    }

    /// The endpoints of one network.
    pub(crate) fn members(&self, id: &NetworkId) -> impl Iterator<Item = &Entry<EndpointView>> {
        self.members
            .get(id)
            .into_iter()
            .flatten()
            .filter_map(|id| self.endpoints.get(id))
    }

    /// The specs of all networks but one.
    pub(crate) fn others(&self, than: &NetworkId) -> Vec<NetworkSpec> {
        self.networks
            .values()
            .filter(|entry| entry.view.spec.id != *than)
            .map(|entry| entry.view.spec.clone())
            .collect()
    }

    /// What one driver should find in the kernel: all that is not being removed.
    pub(crate) fn desired(&self, driver: &str) -> Desired {
        let networks: Vec<_> = self
            .networks
            .values()
            .filter(|e| e.view.spec.driver == driver && e.view.state != NetworkState::Deleting)
            .map(|e| e.view.spec.clone())
            .collect();
        let endpoints = networks
            .iter()
            .flat_map(|network| self.members(&network.id))
            .filter_map(|entry| match entry.view.state {
                EndpointState::Created | EndpointState::Joining | EndpointState::Joined => {
                    Some(entry.view.endpoint.clone())
                }
                EndpointState::Leaving | EndpointState::Deleting => None,
            })
            .collect();
        Desired {
            networks,
            endpoints,
        }
    }

    /// The members of a network with the state of their sandboxes, by `exists`.
    pub(crate) fn members_with_sandboxes(
        &self,
        id: &NetworkId,
        exists: fn(&std::path::Path) -> bool,
    ) -> Vec<(EndpointView, SandboxState)> {
        self.members(id)
            .map(|entry| {
                let sandbox = entry.view.endpoint.sandbox.as_ref();
                let state = match sandbox {
                    Some(sandbox) if exists(&sandbox.netns) => SandboxState::Present,
                    Some(_) | None => SandboxState::Gone,
                };
                (entry.view.clone(), state)
            })
            .collect()
    }
}
