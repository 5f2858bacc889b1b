//! What an event means: a pure function of what is known, the event and the time.

use netloom_core::{
    ControlError, DesiredEndpoint, EndpointEvent, EndpointGrant, EndpointSpec, EndpointState,
    EndpointView, NetworkEvent, NetworkSpec, NetworkState, NetworkView, SandboxRef, SandboxState,
    Timestamp,
};
use netloom_types::{EndpointId, MacAddr, NetworkId, PortBinding};

/// What is known of the objects that an event is about.
#[derive(Debug, Clone, Default)]
pub struct Situation {
    /// The network.
    pub network: Option<NetworkView>,
    /// The endpoint, for events about one.
    pub endpoint: Option<EndpointView>,
    /// The network's endpoints with their sandboxes, for events about a network.
    pub members: Vec<(EndpointView, SandboxState)>,
}

/// What is to happen.
#[derive(Debug, Clone)]
pub enum Event {
    /// A network was asked for; its driver found nothing wrong with it.
    CreateNetwork(NetworkSpec),
    /// A network is unwanted.
    DeleteNetwork(NetworkId),
    /// An endpoint was asked for; its driver chose this link address.
    CreateEndpoint(EndpointSpec, MacAddr),
    /// An endpoint is unwanted.
    DeleteEndpoint(EndpointId),
    /// An endpoint that never joined is to be forgotten: another one has its address.
    Forget(EndpointId),
    /// An endpoint shall join a sandbox.
    Join(EndpointId, SandboxRef),
    /// An endpoint shall leave its sandbox.
    Leave(EndpointId),
    /// An endpoint's ports shall be published; none named means those that are due, or else those
    /// that it was created with.
    Publish(EndpointId, Vec<PortBinding>),
    /// An endpoint's ports shall be revoked.
    Revoke(EndpointId),
}

/// One change of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write a network's record.
    PutNetwork(NetworkView),
    /// Change a network in memory alone: the record says the same by the rules of recovery.
    NoteNetwork(NetworkView),
    /// Remove a network's record.
    DropNetwork(NetworkId),
    /// Write an endpoint's record.
    PutEndpoint(EndpointView),
    /// Change an endpoint in memory alone: the record says the same by the rules of recovery.
    NoteEndpoint(EndpointView),
    /// Remove an endpoint's record.
    DropEndpoint(EndpointId),
    /// Have the driver build the network.
    Build(NetworkSpec),
    /// Have the driver remove the network.
    Raze(NetworkSpec),
    /// Have the driver make the endpoint's link.
    Attach(NetworkSpec, DesiredEndpoint, SandboxRef),
    /// Have the driver remove the endpoint's link.
    Detach(NetworkSpec, DesiredEndpoint),
    /// Have the driver publish ports; what it must do is on record as due.
    Publish(NetworkSpec, DesiredEndpoint, Vec<PortBinding>),
    /// Write the endpoint's record with the ports that were just published, and none due.
    PutPublished(EndpointView),
    /// Have the driver revoke the endpoint's ports.
    Revoke(NetworkSpec, DesiredEndpoint),
    /// Have the driver revoke what this plan has just published.
    RevokePublished(NetworkSpec, DesiredEndpoint),
}

/// A step and how it is undone when a later one fails. A driver undoes its own failed step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The step.
    pub step: Step,
    /// Its undo.
    pub undo: Option<Step>,
}

/// What to do when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Undo in reverse: something was being built.
    Undo,
    /// Take what else can be taken down, keep the record that says so, and report everything:
    /// something was being removed. Reconciliation tries again.
    GoOn,
}

/// What the caller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// That it is done.
    Done,
    /// The endpoint's link address.
    Granted(EndpointGrant),
    /// What the driver's join answered.
    Attached,
    /// The ports on record, or those that this plan has just published.
    Ports(Vec<netloom_core::PublishedPort>),
}

/// Steps, in order, and the answer when all of them worked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Planned>,
    /// What happens when one fails.
    pub on_failure: OnFailure,
    /// The answer.
    pub reply: Reply,
}

impl Plan {
    fn build(reply: Reply, steps: impl IntoIterator<Item = (Step, Option<Step>)>) -> Self {
        Self {
            steps: steps
                .into_iter()
                .map(|(step, undo)| Planned { step, undo })
                .collect(),
            on_failure: OnFailure::Undo,
            reply,
        }
    }

    fn remove(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps
                .into_iter()
                .map(|step| Planned { step, undo: None })
                .collect(),
            on_failure: OnFailure::GoOn,
            reply: Reply::Done,
        }
    }
}

/// Decides what `event` means in `situation`.
///
/// # Errors
/// When the situation does not allow it; nothing is to be done then.
pub fn plan(situation: &Situation, event: &Event, now: Timestamp) -> Result<Plan, ControlError> {
    match event {
        Event::CreateNetwork(spec) => create_network(situation, spec, now),
        Event::DeleteNetwork(id) => delete_network(situation, id),
        Event::CreateEndpoint(spec, mac) => create_endpoint(situation, spec, *mac, now),
        Event::DeleteEndpoint(_) => delete_endpoint(situation),
        Event::Forget(id) => Ok(forget(situation, id)),
        Event::Join(id, sandbox) => join(situation, id, sandbox),
        Event::Leave(_) => leave(situation),
        Event::Publish(id, wanted) => ports::publish(situation, id, wanted),
        Event::Revoke(_) => Ok(ports::revoke(situation)),
    }
}

fn create_network(
    situation: &Situation,
    spec: &NetworkSpec,
    now: Timestamp,
) -> Result<Plan, ControlError> {
    let view = |state, created| NetworkView {
        spec: spec.clone(),
        state,
        created,
    };
    let created = match &situation.network {
        None => now,
        Some(known) if known.state == NetworkState::Deleting => {
            return Err(ControlError::Conflict(format!(
                "network {} is still being removed: try again in a few seconds, or see `netloom \
                 audit`",
                spec.id.short(12)
            )));
        }
        Some(known) if known.spec != *spec => {
            return Err(ControlError::Conflict(format!(
                "network {} exists already with another definition: remove it first with `docker \
                 network rm`",
                spec.id.short(12)
            )));
        }
        Some(known) if known.state == NetworkState::Ready => {
            return Ok(Plan::build(Reply::Done, []));
        }
        Some(known) => known.created,
    };
    let ready = NetworkState::Creating.after(NetworkEvent::Built)?;
    Ok(Plan::build(
        Reply::Done,
        [
            (
                Step::PutNetwork(view(NetworkState::Creating, created)),
                Some(Step::DropNetwork(spec.id.clone())),
            ),
            (Step::Build(spec.clone()), Some(Step::Raze(spec.clone()))),
            // The record stays `creating`, which recovery builds, until Docker was seen to know the
            // network: the answer to this request may be lost.
            (Step::NoteNetwork(view(ready, created)), None),
        ],
    ))
}

fn delete_network(situation: &Situation, id: &NetworkId) -> Result<Plan, ControlError> {
    let Some(network) = &situation.network else {
        return Ok(Plan::remove([]));
    };
    let attached = |(member, sandbox): &&(EndpointView, SandboxState)| {
        let joined = matches!(member.state, EndpointState::Joining | EndpointState::Joined);
        // Docker removes a network only when it knows of no endpoint; one whose sandbox is gone is
        // the rest of a container that ended while nobody could tell us.
        joined && *sandbox != SandboxState::Gone
    };
    if let Some((member, _)) = situation.members.iter().find(attached) {
        return Err(ControlError::Conflict(format!(
            "network {} still has joined endpoints, such as {}: disconnect its containers first",
            id.short(12),
            member.endpoint.spec.id.short(12)
        )));
    }
    let mut steps = vec![Step::PutNetwork(NetworkView {
        state: network.state.after(NetworkEvent::DeleteBegun)?,
        ..network.clone()
    })];
    for (member, _) in &situation.members {
        steps.extend(take_down(&network.spec, member));
        steps.push(Step::DropEndpoint(member.endpoint.spec.id.clone()));
    }
    steps.push(Step::Raze(network.spec.clone()));
    steps.push(Step::DropNetwork(id.clone()));
    Ok(Plan::remove(steps))
}

/// The driver's steps that leave nothing of an endpoint in the kernel.
fn take_down(network: &NetworkSpec, view: &EndpointView) -> Vec<Step> {
    let mut steps = Vec::new();
    if !view.endpoint.ports.is_empty() {
        steps.push(Step::Revoke(network.clone(), view.endpoint.clone()));
    }
    if view.state != EndpointState::Created {
        steps.push(Step::Detach(network.clone(), view.endpoint.clone()));
    }
    steps
}

fn create_endpoint(
    situation: &Situation,
    spec: &EndpointSpec,
    mac: MacAddr,
    now: Timestamp,
) -> Result<Plan, ControlError> {
    let network = &spec.network;
    match &situation.network {
        None => return Err(unknown_network(network)),
        Some(known) if known.state == NetworkState::Deleting => {
            return Err(ControlError::Conflict(format!(
                "network {} is being removed",
                network.short(12)
            )));
        }
        Some(_) => {}
    }
    if let Some(known) = &situation.endpoint {
        // The repeat of a request whose answer was lost: the first choice stands.
        let same = known.endpoint.spec == *spec && known.state != EndpointState::Deleting;
        return if same {
            let mac = known.endpoint.mac;
            Ok(Plan::build(Reply::Granted(EndpointGrant { mac }), []))
        } else {
            Err(ControlError::Conflict(format!(
                "endpoint {} exists already with another definition, or is being removed",
                spec.id.short(12)
            )))
        };
    }
    let view = EndpointView {
        endpoint: DesiredEndpoint {
            spec: spec.clone(),
            mac,
            sandbox: None,
            ports: Vec::new(),
        },
        state: EndpointState::Created,
        created: now,
        ports_due: Vec::new(),
        ports_revoked: Vec::new(),
    };
    Ok(Plan::build(
        Reply::Granted(EndpointGrant { mac }),
        [(
            Step::PutEndpoint(view),
            Some(Step::DropEndpoint(spec.id.clone())),
        )],
    ))
}

/// Why an endpoint cannot be made or used, with what to do.
pub(crate) fn unknown_network(id: &NetworkId) -> ControlError {
    ControlError::NotFound(format!(
        "network {0} is not on record here: Docker knows a network that netloomd does not (a lost \
         or restored state directory); remove it with `docker network rm {0}` and create it again",
        id.short(12)
    ))
}

fn unknown_endpoint(id: &EndpointId) -> ControlError {
    ControlError::NotFound(format!(
        "endpoint {} is not on record here: disconnect its container and connect it again",
        id.short(12)
    ))
}

/// The network and endpoint of an event about one of both that must exist.
fn both<'a>(
    situation: &'a Situation,
    id: &EndpointId,
) -> Result<(&'a NetworkView, &'a EndpointView), ControlError> {
    let endpoint = situation
        .endpoint
        .as_ref()
        .ok_or_else(|| unknown_endpoint(id))?;
    let network = situation
        .network
        .as_ref()
        .ok_or_else(|| unknown_network(&endpoint.endpoint.spec.network))?;
    Ok((network, endpoint))
}

fn delete_endpoint(situation: &Situation) -> Result<Plan, ControlError> {
    let Some(endpoint) = &situation.endpoint else {
        return Ok(Plan::remove([]));
    };
    let id = endpoint.endpoint.spec.id.clone();
    let Some(network) = &situation.network else {
        // Without its network, only the record is left of it.
        return Ok(Plan::remove([Step::DropEndpoint(id)]));
    };
    let kernel = take_down(&network.spec, endpoint);
    let mut steps = Vec::new();
    if !kernel.is_empty() {
        steps.push(Step::PutEndpoint(EndpointView {
            state: endpoint.state.after(EndpointEvent::DeleteBegun)?,
            ..endpoint.clone()
        }));
        steps.extend(kernel);
    }
    steps.push(Step::DropEndpoint(id));
    Ok(Plan::remove(steps))
}

fn forget(situation: &Situation, id: &EndpointId) -> Plan {
    match &situation.endpoint {
        Some(view) if view.state == EndpointState::Created => {
            Plan::remove([Step::DropEndpoint(id.clone())])
        }
        // It was joined meanwhile: then Docker knows it, whatever else it asks for.
        Some(_) | None => Plan::remove([]),
    }
}

fn join(
    situation: &Situation,
    id: &EndpointId,
    sandbox: &SandboxRef,
) -> Result<Plan, ControlError> {
    let (network, before) = both(situation, id)?;
    if network.state == NetworkState::Deleting {
        return Err(ControlError::Conflict(format!(
            "network {} is being removed",
            network.spec.id.short(12)
        )));
    }
    let attach = |view: &EndpointView| {
        Step::Attach(network.spec.clone(), view.endpoint.clone(), sandbox.clone())
    };
    let same = before.endpoint.sandbox.as_ref() == Some(sandbox);
    if before.state == EndpointState::Joined && same {
        // The repeat of a join whose answer was lost: the driver finds its work done.
        return Ok(Plan::build(Reply::Attached, [(attach(before), None)]));
    }
    if before.state == EndpointState::Joining && !same {
        return Err(ControlError::Conflict(format!(
            "endpoint {} is joining another sandbox",
            id.short(12)
        )));
    }
    let with = |state| EndpointView {
        endpoint: DesiredEndpoint {
            sandbox: Some(sandbox.clone()),
            ..before.endpoint.clone()
        },
        state,
        created: before.created,
        ports_due: Vec::new(),
        ports_revoked: Vec::new(),
    };
    let joining = with(before.state.after(EndpointEvent::JoinBegun)?);
    let joined = with(joining.state.after(EndpointEvent::JoinDone)?);
    let created = EndpointView {
        endpoint: DesiredEndpoint {
            sandbox: None,
            ports: Vec::new(),
            ..before.endpoint.clone()
        },
        state: EndpointState::Created,
        created: before.created,
        ports_due: Vec::new(),
        ports_revoked: Vec::new(),
    };
    let attach_step = attach(&joining);
    let detach = Step::Detach(network.spec.clone(), joining.endpoint.clone());
    Ok(Plan::build(
        Reply::Attached,
        [
            (Step::PutEndpoint(joining), Some(Step::PutEndpoint(created))),
            (attach_step, Some(detach)),
            // Recovery treats `Joining` as `Joined` (Docker may have the answer), so the second
            // state costs no write of its own; the next one carries it.
            (Step::NoteEndpoint(joined), None),
        ],
    ))
}

fn leave(situation: &Situation) -> Result<Plan, ControlError> {
    let (Some(network), Some(before)) = (&situation.network, &situation.endpoint) else {
        return Ok(Plan::remove([]));
    };
    let leaving = before.state.after(EndpointEvent::LeaveBegun)?;
    if leaving == EndpointState::Created {
        return Ok(Plan::remove([]));
    }
    let leaving = EndpointView {
        state: leaving,
        ports_due: Vec::new(),
        ..before.clone()
    };
    let created = EndpointView {
        endpoint: DesiredEndpoint {
            sandbox: None,
            ports: Vec::new(),
            ..before.endpoint.clone()
        },
        state: leaving.state.after(EndpointEvent::LeaveDone)?,
        created: before.created,
        ports_due: Vec::new(),
        ports_revoked: Vec::new(),
    };
    let kernel = take_down(&network.spec, &leaving);
    let mut steps = vec![Step::PutEndpoint(leaving)];
    steps.extend(kernel);
    // Recovery finishes `Leaving`, so `Created` costs no write of its own.
    steps.push(Step::NoteEndpoint(created));
    Ok(Plan::remove(steps))
}

mod ports;
#[cfg(test)]
mod tests;
