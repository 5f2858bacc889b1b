//! Brings the kernel to what is on record, and finishes what was begun.

use netloom_core::{
    ControlError, Desired, DriverError, EndpointState, Finding, FindingKind, NetworkState, Repair,
};
use netloom_types::{EndpointId, NetworkId};
use std::sync::atomic::Ordering;

use crate::apply::chain;
use crate::engine::{Engine, Inner};
use crate::memory::Subject;
use crate::plan::Event;

impl Engine {
    /// Takes everything of ours out of the kernel, and builds nothing any more until the next
    /// start. The records stay: the next start builds what they say.
    ///
    /// # Errors
    /// When the kernel could not be read.
    pub async fn dismantle(&self) -> Result<Vec<Finding>, ControlError> {
        self.run(|inner| async move {
            let _world = inner.world.write().await;
            inner.dismantled.store(true, Ordering::Relaxed);
            let mut removed = Vec::new();
            for driver in &inner.parts.drivers {
                removed.extend(driver.reconcile(&Desired::default()).await?);
            }
            Ok(removed)
        })
        .await
    }
}

impl Inner {
    /// Compares every driver's part of the kernel with the records.
    pub(crate) async fn audit_kernel(&self) -> Result<Vec<Finding>, ControlError> {
        let _world = self.world.write().await;
        let mut findings = self.unfinished();
        for driver in &self.parts.drivers {
            let desired = self.memory().desired(driver.name());
            findings.extend(driver.audit(&desired).await?);
        }
        findings.extend(self.due());
        Ok(findings)
    }

    /// Finishes removals, and has every driver bring its part of the kernel to the records.
    pub(crate) async fn reconcile_kernel(&self) -> Result<Vec<Finding>, ControlError> {
        let _world = self.world.write().await;
        if self.dismantled.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        self.resolve_doubts().await;
        let passing = self.cut_short();
        self.finish_removals().await;
        let mut findings = Vec::new();
        let mut failed: Option<DriverError> = None;
        for driver in &self.parts.drivers {
            let desired = self.memory().desired(driver.name());
            match driver.reconcile(&desired).await {
                Ok(found) => {
                    findings.extend(found);
                    self.mark_built(driver.name());
                }
                Err(error) => {
                    tracing::error!(
                        driver = driver.name(),
                        error = chain(&error),
                        "a driver could not reconcile"
                    );
                    failed = Some(error);
                }
            }
        }
        // After the drivers: they have removed what a publication left that was cut short, and it
        // begins anew.
        findings.extend(self.publish_due(passing).await);
        findings.extend(self.unfinished());
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(findings),
        }
    }

    /// Reads again what earlier writes left in doubt; what cannot be read stays in doubt.
    async fn resolve_doubts(&self) {
        let doubtful: Vec<_> = self.memory().doubtful.iter().cloned().collect();
        for subject in doubtful {
            let result = match &subject {
                Subject::Network(id) => self.refresh_network(id).await,
                Subject::Endpoint(id) => self.refresh_endpoint(id).await,
            };
            if let Err(error) = result {
                tracing::warn!(
                    ?subject,
                    error = chain(&error),
                    "a record is still in doubt"
                );
            }
        }
    }

    async fn finish_removals(&self) {
        let (endpoints, networks) = self.to_finish();
        for (network, endpoint, event) in endpoints {
            if let Err(error) = self.endpoint_event(&network, &endpoint, event).await {
                tracing::warn!(%endpoint, error = chain(&error), "a removal is still unfinished");
            }
        }
        for network in networks {
            if let Err(error) = self.delete_network(&network).await {
                tracing::warn!(%network, error = chain(&error), "a removal is still unfinished");
            }
        }
    }

    #[allow(
        clippy::type_complexity,
        reason = "one private caller takes it to pieces at once"
    )]
    fn to_finish(&self) -> (Vec<(NetworkId, EndpointId, Event)>, Vec<NetworkId>) {
        let memory = self.memory();
        let endpoints = memory
            .endpoints()
            .filter_map(|entry| {
                let spec = &entry.view.endpoint.spec;
                let id = spec.id.clone();
                let event = match entry.view.state {
                    EndpointState::Leaving => Event::Leave(id),
                    EndpointState::Deleting => Event::DeleteEndpoint(id),
                    EndpointState::Created | EndpointState::Joining | EndpointState::Joined => {
                        // An endpoint whose network has no record can neither be used nor built.
                        if memory.network(&spec.network).is_some() {
                            return None;
                        }
                        Event::DeleteEndpoint(id)
                    }
                };
                Some((spec.network.clone(), spec.id.clone(), event))
            })
            .collect();
        let networks = memory
            .networks()
            .filter(|entry| entry.view.state == NetworkState::Deleting)
            .map(|entry| entry.view.spec.id.clone())
            .collect();
        (endpoints, networks)
    }

    /// The kernel holds all of what was being built: says so.
    fn mark_built(&self, driver: &str) {
        let mut memory = self.memory();
        let networks: Vec<_> = memory
            .networks()
            .map(|entry| &entry.view)
            .filter(|v| v.spec.driver == driver && v.state == NetworkState::Creating)
            .map(|view| view.spec.id.clone())
            .collect();
        for id in networks {
            if let Some(entry) = memory.network_mut(&id) {
                entry.view.state = NetworkState::Ready;
            }
        }
        let endpoints: Vec<_> = memory
            .endpoints()
            .filter(|entry| entry.view.state == EndpointState::Joining)
            .map(|entry| entry.view.endpoint.spec.id.clone())
            .collect();
        for id in endpoints {
            if let Some(entry) = memory.endpoint_mut(&id) {
                entry.view.state = EndpointState::Joined;
            }
        }
    }

    /// Removals that were begun and could not be finished yet.
    fn unfinished(&self) -> Vec<Finding> {
        let memory = self.memory();
        let finding = |kind, subject: &str, what: &str| Finding {
            kind,
            subject: subject.to_owned(),
            detail: format!("the removal of this {what} was begun and is not finished"),
            repair: Repair::ByRepair,
            next_step: "netloom audit --repair".into(),
        };
        let networks = memory
            .networks()
            .filter(|entry| entry.view.state == NetworkState::Deleting)
            .map(|e| {
                finding(
                    FindingKind::StrayNetwork,
                    e.view.spec.id.as_str(),
                    "network",
                )
            });
        let endpoints = memory
            .endpoints()
            .filter(|entry| {
                matches!(
                    entry.view.state,
                    EndpointState::Leaving | EndpointState::Deleting
                )
            })
            .map(|e| {
                let id = &e.view.endpoint.spec.id;
                finding(FindingKind::StrayEndpoint, id.as_str(), "endpoint")
            });
        networks.chain(endpoints).collect()
    }
}
