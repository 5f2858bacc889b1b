//! Networks and endpoints that Docker may or may not know.
//!
//! A network whose creation was begun, and that Docker has not been seen to have, is in doubt: the
//! answer may have been lost with the process. Its record stays `creating`, which the next start
//! builds, until Docker's list shows it. Usually Docker's list, or its absence from it for the grace
//! time, settles the matter. One case does not wait: Docker asks for another network in its place.
//! Docker never holds two networks with the same subnet, so it cannot know the one in doubt. The
//! same goes for endpoints with the same address.

use netloom_core::{
    ControlError, DriverError, EndpointSpec, EndpointState, NetworkSpec, NetworkState, Provider,
    RuntimeNetwork, Timestamp,
};
use netloom_types::{EndpointId, NetworkId};
use std::collections::BTreeMap;

use crate::apply::chain;
use crate::engine::Inner;
use crate::give_way::share_an_address;
use crate::plan::Step;

/// Since when a network's creation is unconfirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An earlier process began it.
    Loaded,
    /// This process began it then.
    Made(Timestamp),
}

/// Networks that Docker has not been seen to have.
pub(crate) type Unconfirmed = BTreeMap<NetworkId, Origin>;

/// dockerd repeats a request for the last time after 15 s: until then the answer to it may still
/// be on its way.
const ON_ITS_WAY_MS: u64 = 15_000;

impl Inner {
    /// The networks in doubt, without endpoints, that stand in the way of `wanted`.
    pub(crate) fn doubtful_rivals(&self, wanted: &NetworkSpec) -> Vec<NetworkId> {
        let now = self.parts.clock.now().0;
        let memory = self.memory();
        memory
            .unconfirmed
            .iter()
            .filter(|(_, origin)| match origin {
                Origin::Loaded => true,
                Origin::Made(then) => now.saturating_sub(then.0) >= ON_ITS_WAY_MS,
            })
            .filter_map(|(id, _)| memory.network(id))
            .map(|entry| &entry.view.spec)
            .filter(|other| other.id != wanted.id && self.are_rivals(wanted, other))
            .filter(|other| memory.members(&other.id).next().is_none())
            .map(|other| other.id.clone())
            .collect()
    }

    /// Whether two networks want the same thing: a subnet, or what their driver says.
    fn are_rivals(&self, wanted: &NetworkSpec, other: &NetworkSpec) -> bool {
        let overlap = wanted
            .subnets
            .iter()
            .any(|a| other.subnets.iter().any(|b| a.subnet.overlaps(b.subnet)));
        let refused = |others: &[NetworkSpec]| {
            let driver = self.driver(&wanted.driver);
            driver.is_ok_and(|driver| {
                let checked = driver.validate_network(wanted, others);
                matches!(checked, Err(DriverError::Conflict(_)))
            })
        };
        overlap || (refused(std::slice::from_ref(other)) && !refused(&[]))
    }

    /// Removes a network, if it is still in doubt and nobody has begun to use it.
    pub(crate) async fn remove_doubtful(&self, id: &NetworkId) -> Result<(), ControlError> {
        let _lock = self.networks.write(id).await;
        {
            let memory = self.memory();
            let used = memory.members(id).next().is_some();
            if used || !memory.unconfirmed.contains_key(id) {
                return Ok(());
            }
        }
        tracing::info!(
            network = %id,
            "removing a network whose creation Docker got no answer to: another one takes its place"
        );
        self.delete_locked_network(id).await
    }

    /// Endpoints that never joined and have an address of `wanted`. An address is Docker's to give
    /// once, so it got no answer about them, or has released them.
    pub(crate) fn unjoined_rivals(&self, wanted: &EndpointSpec) -> Vec<EndpointId> {
        let memory = self.memory();
        memory
            .members(&wanted.network)
            .filter(|entry| entry.view.state == EndpointState::Created)
            .map(|entry| &entry.view.endpoint.spec)
            .filter(|other| other.id != wanted.id && share_an_address(wanted, other))
            .map(|other| other.id.clone())
            .collect()
    }

    /// Notes which networks Docker has; their creation is in doubt no more.
    pub(crate) async fn confirm_networks(&self, runtime: &[RuntimeNetwork]) {
        let unconfirmed: Vec<_> = {
            let memory = self.memory();
            let ours = runtime.iter().filter(|n| n.driver == Provider::Ours);
            ours.map(|n| n.id.clone())
                .filter(|id| memory.unconfirmed.contains_key(id))
                .collect()
        };
        for id in unconfirmed {
            let _world = self.world.read().await;
            let _lock = self.networks.write(&id).await;
            let view = self.memory().network(&id).map(|e| e.view.clone());
            let Some(view) = view.filter(|view| view.state == NetworkState::Ready) else {
                continue;
            };
            if let Err(error) = self.record(Step::PutNetwork(view)).await {
                tracing::warn!(network = %id, error = chain(&error), "not confirmed yet");
            }
        }
    }
}
