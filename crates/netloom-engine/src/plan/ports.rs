//! What publishing and revoking mean.
//!
//! The wish goes on record before the driver hears of it: dockerd only logs a publication that was
//! cut short while a container passes from one network to the next, and never repeats it.

use netloom_core::{ControlError, DesiredEndpoint, EndpointState, EndpointView};
use netloom_types::{EndpointId, PortBinding};

use super::{Plan, Reply, Situation, Step, both};

pub(super) fn publish(
    situation: &Situation,
    id: &EndpointId,
    wanted: &[PortBinding],
) -> Result<Plan, ControlError> {
    let (network, endpoint) = both(situation, id)?;
    match endpoint.state {
        EndpointState::Joining | EndpointState::Joined => {}
        EndpointState::Created | EndpointState::Leaving | EndpointState::Deleting => {
            return Err(ControlError::Conflict(format!(
                "endpoint {} has not joined a sandbox: its ports cannot be published",
                id.short(12)
            )));
        }
    }
    let known = &endpoint.endpoint;
    let wanted = match (wanted, endpoint.ports_due.as_slice()) {
        ([], []) => &known.spec.ports,
        ([], due) => due,
        (wanted, _) => wanted,
    };
    if !known.ports.is_empty() || wanted.is_empty() {
        return Ok(Plan::build(Reply::Ports(known.ports.clone()), []));
    }
    let due = EndpointView {
        ports_due: wanted.to_vec(),
        ..endpoint.clone()
    };
    // What an earlier process left due is tried again from its own record, and stays due if it
    // fails again.
    let noted = (endpoint.ports_due != wanted).then(|| {
        let without = EndpointView {
            ports_due: Vec::new(),
            ..endpoint.clone()
        };
        let undo = Step::PutEndpoint(without);
        (Step::PutEndpoint(due.clone()), Some(undo))
    });
    let spec = &network.spec;
    let published = [
        (
            Step::Publish(spec.clone(), known.clone(), wanted.to_vec()),
            Some(Step::RevokePublished(spec.clone(), known.clone())),
        ),
        (Step::PutPublished(due), None),
    ];
    Ok(Plan::build(
        Reply::Ports(Vec::new()),
        noted.into_iter().chain(published),
    ))
}

pub(super) fn revoke(situation: &Situation) -> Plan {
    let (Some(network), Some(endpoint)) = (&situation.network, &situation.endpoint) else {
        return Plan::remove([]);
    };
    let published = !endpoint.endpoint.ports.is_empty();
    if !published && endpoint.ports_due.is_empty() {
        return Plan::remove([]);
    }
    let after = EndpointView {
        endpoint: DesiredEndpoint {
            ports: Vec::new(),
            ..endpoint.endpoint.clone()
        },
        ports_due: Vec::new(),
        ports_revoked: endpoint.endpoint.ports.clone(),
        ..endpoint.clone()
    };
    // The kernel first: a record without the ports could not say what is still to be revoked.
    let kernel = published.then(|| Step::Revoke(network.spec.clone(), endpoint.endpoint.clone()));
    Plan::remove(kernel.into_iter().chain([Step::PutEndpoint(after)]))
}
