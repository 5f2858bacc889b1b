//! Ports whose publication a death cut short: the record says what was asked for, and dockerd does
//! not ask again.
//!
//! When a container leaves the network that its ports are published on, dockerd revokes them there,
//! has the endpoint leave, has another endpoint of the sandbox publish them, and deletes the first
//! one, in this order. It logs a publication that fails, and goes on. So a record that says
//! `leaving` and had ports, in a sandbox without any, is the sign of a publication that may have
//! been lost before it was on record. If it comes after all, it finds its work done.

use netloom_core::{
    EndpointState, EndpointView, Finding, FindingKind, PublishedPort, Reach, Repair,
};
use netloom_types::{EndpointId, HostPorts, NetworkId, PortBinding};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use crate::apply::chain;
use crate::engine::Inner;
use crate::memory::Memory;

/// An endpoint whose ports are to be published: those named, or else those that are due.
type Late = (NetworkId, EndpointId, Vec<PortBinding>);

impl Inner {
    /// Ports that were passing from one endpoint of a sandbox to another when the last process
    /// died. To be asked once, before removals are finished: that forgets the sandbox.
    pub(crate) fn cut_short(&self) -> Vec<Late> {
        if self.hand_overs_seen.swap(true, Ordering::Relaxed) {
            return Vec::new();
        }
        let memory = self.memory();
        memory
            .endpoints()
            .map(|entry| &entry.view)
            .filter(|view| view.state == EndpointState::Leaving && self.lives(view))
            .filter_map(|view| heir(&memory, view))
            .collect()
    }

    /// Publishes what is due and what was `passing`. What is due and cannot be had stays due, is
    /// told of, and is tried again next time; what was only passing may have found another way.
    pub(crate) async fn publish_due(&self, passing: Vec<Late>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let due = self.due_now().into_iter().chain(passing);
        for (network, endpoint, wanted) in due.collect::<Vec<_>>() {
            let is_due = wanted.is_empty();
            match self.publish_at(&network, &endpoint, wanted).await {
                Ok(_) => findings.push(finding(&endpoint, Repair::Done, None)),
                Err(error) => {
                    let why = chain(&error);
                    tracing::warn!(%endpoint, error = why, "ports could not be published late");
                    if is_due {
                        findings.push(finding(&endpoint, Repair::ByRepair, Some(&why)));
                    }
                }
            }
        }
        findings
    }

    /// What is due, told of.
    pub(crate) fn due(&self) -> Vec<Finding> {
        let due = self.due_now();
        due.iter()
            .map(|(_, endpoint, _)| finding(endpoint, Repair::ByRepair, None))
            .collect()
    }

    fn due_now(&self) -> Vec<Late> {
        let memory = self.memory();
        memory
            .endpoints()
            .map(|entry| &entry.view)
            .filter(|view| !view.ports_due.is_empty() && is_joined(view) && self.lives(view))
            .map(|view| &view.endpoint.spec)
            .map(|spec| (spec.network.clone(), spec.id.clone(), Vec::new()))
            .collect()
    }

    /// Whether the endpoint's sandbox exists; one that is gone needs no ports any more.
    pub(crate) fn lives(&self, view: &EndpointView) -> bool {
        let sandbox = view.endpoint.sandbox.as_ref();
        sandbox.is_some_and(|sandbox| (self.parts.sandbox_exists)(&sandbox.netns))
    }
}

fn is_joined(view: &EndpointView) -> bool {
    matches!(view.state, EndpointState::Joining | EndpointState::Joined)
}

/// The endpoint that takes over the ports of one that left; none where there were no ports, where
/// somebody has taken them over, or where nobody can.
fn heir(memory: &Memory, left: &EndpointView) -> Option<Late> {
    let ports = if left.ports_revoked.is_empty() {
        &left.endpoint.ports
    } else {
        &left.ports_revoked
    };
    if ports.is_empty() {
        return None;
    }
    let sandbox = left.endpoint.sandbox.as_ref().map(|sandbox| &sandbox.id);
    let others: Vec<&EndpointView> = memory
        .endpoints()
        .map(|entry| &entry.view)
        .filter(|view| is_joined(view))
        .filter(|view| view.endpoint.sandbox.as_ref().map(|s| &s.id) == sandbox)
        .collect();
    let has_ports = |v: &&EndpointView| !v.endpoint.ports.is_empty() || !v.ports_due.is_empty();
    if others.iter().any(has_ports) {
        return None;
    }
    let leads_out = |view: &&&EndpointView| {
        let network = memory.network(&view.endpoint.spec.network);
        network.is_some_and(|entry| entry.view.spec.reach == Reach::External)
    };
    // The one that the container was started with knows of ports: it is the likelier one.
    let heir = others
        .iter()
        .filter(leads_out)
        .max_by_key(|view| !view.endpoint.spec.ports.is_empty())?;
    let spec = &heir.endpoint.spec;
    Some((spec.network.clone(), spec.id.clone(), as_wishes(ports)))
}

/// The wishes that lead to `ports` again.
fn as_wishes(ports: &[PublishedPort]) -> Vec<PortBinding> {
    let wish = |port: &PublishedPort| {
        Some(PortBinding {
            protocol: port.protocol,
            container_port: port.container_port,
            // Every address of both families is one wish.
            host_ip: Some(port.host_ip).filter(|ip| !ip.is_unspecified()),
            host_ports: HostPorts::range(port.host_port, port.host_port).ok()?,
        })
    };
    let wishes: BTreeSet<_> = ports.iter().filter_map(wish).collect();
    wishes.into_iter().collect()
}

fn finding(endpoint: &EndpointId, repair: Repair, why: Option<&str>) -> Finding {
    let what = "the daemon ended while it published the ports of this endpoint";
    Finding {
        kind: FindingKind::UnreservedPort,
        subject: endpoint.to_string(),
        detail: match why {
            Some(why) => format!("{what}; publishing them now failed: {why}"),
            None => what.into(),
        },
        repair,
        next_step: match repair {
            Repair::Done => "nothing: they were published".into(),
            Repair::ByRepair | Repair::ByHand => {
                "netloom audit --repair, when what is in the way is gone".into()
            }
        },
    }
}
