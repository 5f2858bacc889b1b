//! Who gives way when a port, or an address, is asked for that somebody has.
//!
//! A Leave may be lost with dockerd. The record then holds host ports until Docker's list settles
//! the matter, which takes two sightings. Two cases need not wait: the holder's sandbox and link
//! are both gone, so nothing of it can be reached; or the holder is in the asker's own sandbox, and
//! Docker moves the ports within it.

use netloom_core::{
    ControlError, DriverError, EndpointSpec, EndpointState, EndpointView, PublishedPort,
    crash_point,
};
use netloom_types::{EndpointId, HostPorts, NetworkId, PortBinding};

use crate::apply::{Outcome, chain};
use crate::engine::Inner;
use crate::plan::{Event, Reply};

impl Inner {
    /// Publishes an endpoint's ports. Where they are taken by what is left of another endpoint,
    /// that one gives way.
    pub(crate) async fn publish_at(
        &self,
        network: &NetworkId,
        endpoint: &EndpointId,
        wanted: Vec<PortBinding>,
    ) -> Result<(Outcome, Reply), ControlError> {
        // Nothing of the wish is on record yet.
        crash_point!("engine.publish.asked");
        let event = Event::Publish(endpoint.clone(), wanted.clone());
        let refused = match self.endpoint_event(network, endpoint, event.clone()).await {
            Err(error) if is_taken(&error) => error,
            result => return result,
        };
        // Nothing is locked here: the holders are locked one by one.
        let mut gave_way = false;
        for (network, holder, event) in self.remains_with_ports(endpoint, &wanted).await {
            tracing::info!(%holder, asker = %endpoint, "a port passes from what is left of its holder");
            match self.endpoint_event(&network, &holder, event).await {
                Ok(_) => gave_way = true,
                Err(error) => {
                    tracing::warn!(%holder, error = chain(&error), "it did not give way");
                }
            }
        }
        if gave_way {
            self.endpoint_event(network, endpoint, event).await
        } else {
            Err(refused)
        }
    }

    /// The holders of wanted ports that give way, each with how it does.
    async fn remains_with_ports(
        &self,
        asker: &EndpointId,
        wanted: &[PortBinding],
    ) -> Vec<(NetworkId, EndpointId, Event)> {
        let (sandbox, holders) = {
            let memory = self.memory();
            let Some(entry) = memory.endpoint(asker) else {
                return Vec::new();
            };
            let view = &entry.view;
            let wanted = match (wanted, view.ports_due.as_slice()) {
                ([], []) => view.endpoint.spec.ports.clone(),
                ([], due) => due.to_vec(),
                (wanted, _) => wanted.to_vec(),
            };
            let others = memory.endpoints().map(|entry| &entry.view);
            let holders: Vec<EndpointView> = others
                .filter(|other| other.endpoint.spec.id != *asker)
                .filter(|other| in_each_others_way(&wanted, &other.endpoint.ports))
                .cloned()
                .collect();
            (view.endpoint.sandbox.clone(), holders)
        };
        let mut remains = Vec::new();
        for holder in holders {
            let spec = &holder.endpoint.spec;
            let id = spec.id.clone();
            let own =
                holder.endpoint.sandbox.as_ref().map(|s| &s.id) == sandbox.as_ref().map(|s| &s.id);
            let event = if own {
                Event::Revoke(id.clone())
            } else if self.is_gone(&holder).await {
                Event::Leave(id.clone())
            } else {
                continue;
            };
            remains.push((spec.network.clone(), id, event));
        }
        remains
    }

    /// Whether neither the sandbox nor the link of an endpoint that joined exists. What cannot be
    /// looked at counts as there.
    async fn is_gone(&self, view: &EndpointView) -> bool {
        if self.lives(view) {
            return false;
        }
        let spec = &view.endpoint.spec;
        let network = self.memory().network(&spec.network).map(|e| e.view.clone());
        let Some(network) = network else {
            return false;
        };
        let Ok(driver) = self.driver(&network.spec.driver) else {
            return false;
        };
        matches!(driver.is_linked(&spec.id).await, Ok(false))
    }

    /// Refuses an endpoint whose address and link address a joined one uses: no packet could tell
    /// the two apart, and the second would take the first one's traffic.
    pub(crate) async fn refuse_twin(&self, wanted: &EndpointSpec) -> Result<(), ControlError> {
        let twins: Vec<EndpointView> = {
            let memory = self.memory();
            memory
                .members(&wanted.network)
                .map(|entry| &entry.view)
                .filter(|view| matches!(view.state, EndpointState::Joining | EndpointState::Joined))
                .filter(|view| view.endpoint.spec.id != wanted.id)
                .filter(|view| wanted.mac == Some(view.endpoint.mac))
                .filter(|view| share_an_address(wanted, &view.endpoint.spec))
                .cloned()
                .collect()
        };
        for twin in twins {
            // The rest of a container that ended while nobody could tell us is in nobody's way.
            if !self.is_gone(&twin).await {
                return Err(ControlError::Conflict(format!(
                    "endpoint {} has joined with the same address and the same MAC address {}: \
                     stop its container first, or choose another address",
                    twin.endpoint.spec.id.short(12),
                    twin.endpoint.mac
                )));
            }
        }
        Ok(())
    }
}

fn is_taken(error: &ControlError) -> bool {
    matches!(
        error,
        ControlError::Driver(DriverError::Conflict(_) | DriverError::Exhausted(_))
    )
}

pub(crate) fn share_an_address(one: &EndpointSpec, other: &EndpointSpec) -> bool {
    let mut pairs = one
        .addresses
        .iter()
        .flat_map(|a| other.addresses.iter().map(move |b| (a, b)));
    pairs.any(|(a, b)| a.ip() == b.ip())
}

fn in_each_others_way(wanted: &[PortBinding], held: &[PublishedPort]) -> bool {
    let any = |ip: Option<std::net::IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
    wanted.iter().any(|wish| {
        held.iter().any(|port| {
            let number = match wish.host_ports {
                HostPorts::Range { first, last } => (first..=last).contains(&port.host_port),
                HostPorts::Ephemeral => false,
            };
            let address =
                any(wish.host_ip) || any(Some(port.host_ip)) || wish.host_ip == Some(port.host_ip);
            number && address && wish.protocol == port.protocol
        })
    })
}
