//! Ports whose publication a death cut short: the record says what was asked for, and dockerd does
//! not ask again.

use netloom_core::{EndpointState, EndpointView, Finding, FindingKind, Repair};
use netloom_types::{EndpointId, NetworkId};

use crate::apply::chain;
use crate::engine::Inner;
use crate::plan::Event;

impl Inner {
    /// Publishes what is due. What cannot be had stays due, is told of, and is tried again next
    /// time; one whose sandbox is gone needs no ports any more.
    pub(crate) async fn publish_due(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (network, endpoint) in self.due_now() {
            let event = Event::Publish(endpoint.clone(), Vec::new());
            match self.endpoint_event(&network, &endpoint, event).await {
                Ok(_) => findings.push(finding(&endpoint, Repair::Done, None)),
                Err(error) => {
                    let why = chain(&error);
                    tracing::warn!(%endpoint, error = why, "ports are still due");
                    findings.push(finding(&endpoint, Repair::ByRepair, Some(&why)));
                }
            }
        }
        findings
    }

    /// What is due, told of.
    pub(crate) fn due(&self) -> Vec<Finding> {
        let due = self.due_now();
        let due = due.iter();
        due.map(|(_, endpoint)| finding(endpoint, Repair::ByRepair, None))
            .collect()
    }

    fn due_now(&self) -> Vec<(NetworkId, EndpointId)> {
        let exists = self.parts.sandbox_exists;
        let lives = |view: &EndpointView| {
            let sandbox = view.endpoint.sandbox.as_ref();
            sandbox.is_some_and(|sandbox| exists(&sandbox.netns))
        };
        let memory = self.memory();
        memory
            .endpoints()
            .map(|entry| &entry.view)
            .filter(|view| !view.ports_due.is_empty())
            .filter(|view| matches!(view.state, EndpointState::Joining | EndpointState::Joined))
            .filter(|view| lives(view))
            .map(|view| &view.endpoint.spec)
            .map(|spec| (spec.network.clone(), spec.id.clone()))
            .collect()
    }
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
