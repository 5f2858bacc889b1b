//! Settles records with what Docker says exists: a request without an answer, a Leave that was
//! lost, a container that died with its host.

use netloom_core::{ControlError, Finding, FindingKind, Provider, Repair, RuntimeNetwork};
use netloom_types::{EndpointId, NetworkId, OperationId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use crate::apply::chain;
use crate::engine::{Engine, Inner};
use crate::memory::Subject;
use crate::plan::Event;

/// Between the two sightings that make a stray: dockerd repeats a request at 0, 1, 3, 7 and 15 s
/// and gives up before 30 s (measured, and so in its source); then its list is the truth.
const GRACE: Duration = Duration::from_secs(40);

/// A stray is told of only when its record is this old: dockerd's last repeat comes after 15 s, and
/// until then the object is being made, not stray.
const YOUNG_MS: u64 = 15_000;

/// What to do about strays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Name them.
    Report,
    /// Remove those that two sightings show, with the grace time between them.
    Remove,
}

/// A record that Docker's list lacks.
#[derive(Debug, Clone)]
struct Sighting {
    /// The record's write; another one means that something happened since, and begins anew.
    operation: OperationId,
    first: Duration,
}

/// What was sighted earlier.
#[derive(Debug)]
pub(crate) struct Sightings {
    grace: Duration,
    seen: BTreeMap<Subject, Sighting>,
}

impl Default for Sightings {
    fn default() -> Self {
        Self {
            grace: GRACE,
            seen: BTreeMap::new(),
        }
    }
}

impl Sightings {
    /// Notes which of the records Docker does not know, forgets the others, and says which ones
    /// it has not known for the grace time.
    fn note(
        &mut self,
        unknown: &BTreeMap<Subject, OperationId>,
        now: Duration,
    ) -> BTreeSet<Subject> {
        self.seen
            .retain(|subject, seen| unknown.get(subject) == Some(&seen.operation));
        for (subject, operation) in unknown {
            self.seen
                .entry(subject.clone())
                .or_insert_with(|| Sighting {
                    operation: operation.clone(),
                    first: now,
                });
        }
        self.seen
            .iter()
            .filter(|(_, seen)| now.saturating_sub(seen.first) >= self.grace)
            .map(|(subject, _)| subject.clone())
            .collect()
    }
}

/// The records that Docker's list lacks.
fn unknown_to(runtime: &[RuntimeNetwork], inner: &Inner) -> BTreeMap<Subject, (OperationId, u64)> {
    let networks: BTreeSet<&NetworkId> = runtime
        .iter()
        .filter(|n| n.driver == Provider::Ours)
        .map(|n| &n.id)
        .collect();
    let endpoints: BTreeSet<&EndpointId> = runtime
        .iter()
        .flat_map(|n| &n.endpoints)
        .filter_map(|e| e.id.as_ref())
        .collect();
    let memory = inner.memory();
    let strays_n = memory
        .networks()
        .filter(|entry| !networks.contains(&entry.view.spec.id))
        .map(|entry| {
            let subject = Subject::Network(entry.view.spec.id.clone());
            (subject, (entry.operation.clone(), entry.view.created.0))
        });
    let strays_e = memory
        .endpoints()
        .filter(|entry| !endpoints.contains(&entry.view.endpoint.spec.id))
        .map(|entry| {
            let subject = Subject::Endpoint(entry.view.endpoint.spec.id.clone());
            (subject, (entry.operation.clone(), entry.view.created.0))
        });
    strays_n.chain(strays_e).collect()
}

impl Engine {
    /// Sets the grace time between the two sightings that make a stray. The default, 40 s, is
    /// longer than dockerd repeats a request; less than 30 s is for tests alone.
    pub fn set_grace(&self, grace: Duration) {
        let sightings = self.inner.sightings.lock();
        sightings.unwrap_or_else(PoisonError::into_inner).grace = grace;
    }

    /// Compares the records with Docker's list, which the caller has just fetched. To be called
    /// from time to time and whenever Docker tells of a change, and never when Docker could not be
    /// asked: silence is no evidence.
    ///
    /// # Errors
    /// None at present; a removal that failed is a finding.
    pub async fn settle(
        &self,
        runtime: Vec<RuntimeNetwork>,
        remedy: Remedy,
    ) -> Result<Vec<Finding>, ControlError> {
        self.run(move |inner| async move {
            inner.confirm_networks(&runtime).await;
            let unknown = unknown_to(&runtime, &inner);
            let operations = unknown
                .iter()
                .map(|(subject, (operation, _))| (subject.clone(), operation.clone()))
                .collect();
            let ripe = {
                let now = inner.parts.clock.monotonic();
                let mut sightings = inner
                    .sightings
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                sightings.note(&operations, now)
            };
            let now = inner.parts.clock.now().0;
            let mut findings = Vec::new();
            for (subject, (operation, created)) in unknown {
                let is_ripe = ripe.contains(&subject);
                if is_ripe && remedy == Remedy::Remove {
                    findings.push(inner.remove_stray(&subject, &operation).await);
                } else if is_ripe || now.saturating_sub(created) >= YOUNG_MS {
                    findings.push(finding(&subject, Repair::ByRepair));
                }
            }
            Ok(findings)
        })
        .await
    }
}

impl Inner {
    /// Removes a stray, unless its record has changed since it was sighted.
    async fn remove_stray(&self, subject: &Subject, sighted: &OperationId) -> Finding {
        let _world = self.world.read().await;
        let (current, network) = {
            let memory = self.memory();
            match subject {
                Subject::Network(id) => (
                    memory.network(id).map(|e| e.operation.clone()),
                    Some(id.clone()),
                ),
                Subject::Endpoint(id) => {
                    let entry = memory.endpoint(id);
                    (
                        entry.map(|e| e.operation.clone()),
                        entry.map(|e| e.view.endpoint.spec.network.clone()),
                    )
                }
            }
        };
        let (true, Some(network)) = (current.as_ref() == Some(sighted), network) else {
            return finding(subject, Repair::ByRepair);
        };
        let result = match subject {
            Subject::Network(_) => self.delete_network(&network).await,
            Subject::Endpoint(id) => {
                let event = Event::DeleteEndpoint(id.clone());
                self.endpoint_event(&network, id, event).await.map(drop)
            }
        };
        match result {
            Ok(()) => {
                tracing::info!(?subject, "removed a record that Docker does not know");
                finding(subject, Repair::Done)
            }
            Err(error) => {
                let mut finding = finding(subject, Repair::ByRepair);
                finding.detail =
                    format!("{}; removing it failed: {}", finding.detail, chain(&error));
                finding
            }
        }
    }
}

fn finding(subject: &Subject, repair: Repair) -> Finding {
    let (kind, subject, what) = match subject {
        Subject::Network(id) => (FindingKind::StrayNetwork, id.to_string(), "network"),
        Subject::Endpoint(id) => (FindingKind::StrayEndpoint, id.to_string(), "endpoint"),
    };
    Finding {
        kind,
        subject,
        detail: format!("this {what} is on record, and Docker's list does not have it"),
        repair,
        next_step: match repair {
            Repair::Done => "nothing: it was removed".into(),
            Repair::ByRepair | Repair::ByHand => format!(
                "wait: it is removed after {} s without Docker knowing it; `netloom audit --repair` \
                 does not wait for the next round",
                GRACE.as_secs()
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(operation: &str) -> BTreeMap<Subject, OperationId> {
        let subject = Subject::Endpoint(EndpointId::new("e").unwrap());
        [(subject, OperationId::new(operation).unwrap())].into()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_sighting_is_not_enough() {
        let mut sightings = Sightings::default();
        assert!(sightings.note(&unknown("a"), at(1000)).is_empty());
        assert!(sightings.note(&unknown("a"), at(1039)).is_empty());
        assert_eq!(sightings.note(&unknown("a"), at(1040)).len(), 1);
    }

    #[test]
    fn a_change_in_between_begins_anew() {
        let mut sightings = Sightings::default();
        assert!(sightings.note(&unknown("a"), at(0)).is_empty());
        assert!(sightings.note(&unknown("b"), at(50)).is_empty());
        assert!(sightings.note(&BTreeMap::new(), at(60)).is_empty());
        assert!(sightings.note(&unknown("b"), at(100)).is_empty());
        assert_eq!(sightings.note(&unknown("b"), at(140)).len(), 1);
    }
}
