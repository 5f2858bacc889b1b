//! Carries plans out: record writes, driver calls, and their undoing.

use netloom_core::store::{Key, Version};
use netloom_core::{
    Attachment, ControlError, DesiredEndpoint, DriverError, EndpointView, NetworkSpec,
    NetworkState, NetworkView, PublishedPort, crash_point,
};
use netloom_types::{EndpointId, NetworkId, PortBinding};
use tokio::sync::MutexGuard;

use crate::doubt::Origin;
use crate::engine::Inner;
use crate::memory::{Entry, Subject};
use crate::plan::{OnFailure, Plan, Planned, Step};
use crate::record::{encode_endpoint, encode_network, endpoint_key, network_key};
use crate::write::{Change, WriteError, Written, write};

/// What the steps of one plan brought to light.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) attachment: Option<Attachment>,
    pub(crate) ports: Vec<PublishedPort>,
}

impl Inner {
    /// Carries out `plan`; the caller holds the locks of everything that it touches.
    pub(crate) async fn apply(&self, plan: &Plan) -> Result<Outcome, ControlError> {
        self.apply_releasing(plan, None).await
    }

    /// As [`apply`](Self::apply), and lets go of `admitted` once the first step is done.
    pub(crate) async fn apply_releasing(
        &self,
        plan: &Plan,
        mut admitted: Option<MutexGuard<'_, ()>>,
    ) -> Result<Outcome, ControlError> {
        let mut outcome = Outcome::default();
        let mut failure: Option<ControlError> = None;
        let mut also = Vec::new();
        for (done, planned) in plan.steps.iter().enumerate() {
            // A record is the last to go, and only when nothing is left of what it tells of: it
            // is what makes the next try possible.
            if failure.is_some() && planned.step.is_record() {
                continue;
            }
            let result = self.step(&planned.step, &mut outcome).await;
            admitted.take();
            let Err(error) = result else {
                continue;
            };
            match plan.on_failure {
                OnFailure::Undo => {
                    let finished = plan.steps.get(..done).unwrap_or_default();
                    return Err(self.undo(finished, error, &mut outcome).await);
                }
                OnFailure::GoOn if failure.is_none() => {
                    let before_any_act = done == 0 && planned.step.is_record();
                    failure = Some(error);
                    if before_any_act {
                        break;
                    }
                }
                OnFailure::GoOn => also.push(chain(&error)),
            }
        }
        match failure {
            Some(error) => Err(with_more(error, &also)),
            None => Ok(outcome),
        }
    }

    /// Undoes `finished` in reverse; the error says what could not be undone.
    async fn undo(
        &self,
        finished: &[Planned],
        error: ControlError,
        outcome: &mut Outcome,
    ) -> ControlError {
        let mut also = Vec::new();
        for step in finished.iter().rev().filter_map(|p| p.undo.as_ref()) {
            if !also.is_empty() && step.is_record() {
                continue;
            }
            if let Err(e) = self.step(step, outcome).await {
                also.push(format!("undoing it failed too: {}", chain(&e)));
                self.abandon(step);
            }
        }
        with_more(error, &also)
    }

    async fn step(&self, step: &Step, outcome: &mut Outcome) -> Result<(), ControlError> {
        match step {
            Step::PutNetwork(view) => self.put_network(view).await,
            Step::NoteNetwork(view) => {
                if let Some(entry) = self.memory().network_mut(&view.spec.id) {
                    entry.view = view.clone();
                }
                Ok(())
            }
            Step::DropNetwork(id) => self.drop_network(id).await,
            Step::PutEndpoint(view) => self.put_endpoint(view).await,
            Step::NoteEndpoint(view) => {
                if let Some(entry) = self.memory().endpoint_mut(&view.endpoint.spec.id) {
                    entry.view = view.clone();
                }
                Ok(())
            }
            Step::DropEndpoint(id) => self.drop_endpoint(id).await,
            Step::Build(network) => {
                crash_point!("engine.build.before");
                self.driver(&network.driver)?
                    .create_network(network)
                    .await?;
                crash_point!("engine.build.after");
                Ok(())
            }
            Step::Raze(network) => {
                crash_point!("engine.raze.before");
                self.driver(&network.driver)?
                    .delete_network(network)
                    .await?;
                crash_point!("engine.raze.after");
                Ok(())
            }
            Step::Attach(network, endpoint, sandbox) => {
                crash_point!("engine.attach.before");
                let driver = self.driver(&network.driver)?;
                outcome.attachment = Some(driver.join(network, endpoint, sandbox).await?);
                crash_point!("engine.attach.after");
                Ok(())
            }
            Step::Detach(network, endpoint) => {
                crash_point!("engine.detach.before");
                self.driver(&network.driver)?
                    .leave(network, endpoint)
                    .await?;
                crash_point!("engine.detach.after");
                Ok(())
            }
            Step::Publish(network, endpoint, wanted) => {
                outcome.ports = self.publish_now(network, endpoint, wanted).await?;
                Ok(())
            }
            Step::PutPublished(view) => {
                let mut view = view.clone();
                view.endpoint.ports.clone_from(&outcome.ports);
                view.ports_due.clear();
                view.ports_revoked.clear();
                self.put_endpoint(&view).await
            }
            Step::Revoke(network, endpoint) => {
                self.revoke_now(network, endpoint, &endpoint.ports).await
            }
            Step::RevokePublished(network, endpoint) => {
                self.revoke_now(network, endpoint, &outcome.ports).await
            }
        }
    }

    async fn publish_now(
        &self,
        network: &NetworkSpec,
        endpoint: &DesiredEndpoint,
        wanted: &[PortBinding],
    ) -> Result<Vec<PublishedPort>, ControlError> {
        crash_point!("engine.publish.before");
        let driver = self.driver(&network.driver)?;
        let publisher = driver.publisher().ok_or_else(|| {
            ControlError::Invalid(format!(
                "networks of the driver {:?} publish no ports: use another driver, or reach the \
                 container at its own address",
                driver.name()
            ))
        })?;
        let ports = publisher.publish(network, endpoint, wanted).await?;
        crash_point!("engine.publish.after");
        Ok(ports)
    }

    async fn revoke_now(
        &self,
        network: &NetworkSpec,
        endpoint: &DesiredEndpoint,
        ports: &[PublishedPort],
    ) -> Result<(), ControlError> {
        crash_point!("engine.revoke.before");
        if let Some(publisher) = self.driver(&network.driver)?.publisher() {
            publisher.revoke(network, endpoint, ports).await?;
        }
        crash_point!("engine.revoke.after");
        Ok(())
    }

    async fn put_network(&self, view: &NetworkView) -> Result<(), ControlError> {
        crash_point!("engine.network.put.before");
        let id = &view.spec.id;
        let key = network_key(id).map_err(|e| ControlError::Invalid(e.to_string()))?;
        let subject = Subject::Network(id.clone());
        let before = self.memory().network(id).map(|e| e.version.clone());
        let encode = |by: &_| encode_network(view, by);
        let written = self
            .write(subject, (&key, before), Change::Put(&encode))
            .await?;
        if let Written::Put(version, operation) = written {
            let made = Origin::Made(self.parts.clock.now());
            let mut memory = self.memory();
            match view.state {
                NetworkState::Creating => {
                    memory.unconfirmed.entry(id.clone()).or_insert(made);
                }
                NetworkState::Ready => {
                    memory.unconfirmed.remove(id);
                }
                NetworkState::Deleting => {}
            }
            memory.put_network(Entry {
                view: view.clone(),
                version,
                operation,
            });
        }
        crash_point!("engine.network.put.after");
        Ok(())
    }

    async fn drop_network(&self, id: &NetworkId) -> Result<(), ControlError> {
        crash_point!("engine.network.drop.before");
        let key = network_key(id).map_err(|e| ControlError::Invalid(e.to_string()))?;
        let subject = Subject::Network(id.clone());
        let before = self.memory().network(id).map(|e| e.version.clone());
        self.write(subject, (&key, before), Change::Delete).await?;
        self.memory().drop_network(id);
        crash_point!("engine.network.drop.after");
        Ok(())
    }

    async fn put_endpoint(&self, view: &EndpointView) -> Result<(), ControlError> {
        crash_point!("engine.endpoint.put.before");
        let id = &view.endpoint.spec.id;
        let key = endpoint_key(id).map_err(|e| ControlError::Invalid(e.to_string()))?;
        let subject = Subject::Endpoint(id.clone());
        let before = self.memory().endpoint(id).map(|e| e.version.clone());
        let encode = |by: &_| encode_endpoint(view, by, &self.parts.boot);
        let written = self
            .write(subject, (&key, before), Change::Put(&encode))
            .await?;
        if let Written::Put(version, operation) = written {
            self.memory().put_endpoint(Entry {
                view: view.clone(),
                version,
                operation,
            });
        }
        crash_point!("engine.endpoint.put.after");
        Ok(())
    }

    async fn drop_endpoint(&self, id: &EndpointId) -> Result<(), ControlError> {
        crash_point!("engine.endpoint.drop.before");
        let key = endpoint_key(id).map_err(|e| ControlError::Invalid(e.to_string()))?;
        let subject = Subject::Endpoint(id.clone());
        let before = self.memory().endpoint(id).map(|e| e.version.clone());
        self.write(subject, (&key, before), Change::Delete).await?;
        self.memory().drop_endpoint(id);
        crash_point!("engine.endpoint.drop.after");
        Ok(())
    }

    /// Carries out one step that only writes a record.
    pub(crate) async fn record(&self, step: Step) -> Result<(), ControlError> {
        self.step(&step, &mut Outcome::default()).await
    }

    async fn write(
        &self,
        subject: Subject,
        (key, before): (&Key, Option<Version>),
        change: Change<'_>,
    ) -> Result<Written, WriteError> {
        let parts = &self.parts;
        let target = (before.as_ref(), change);
        let result = write(&*parts.store, &*parts.ids, key, target).await;
        if let Err(WriteError::Doubtful { .. }) = &result {
            self.memory().doubtful.insert(subject);
        }
        result
    }

    /// An undo failed: what it should have removed is marked for removal in memory, so that the
    /// next reconciliation tries again. A process that dies before that finds the record as it was,
    /// keeps the object, and settles it with Docker's list.
    fn abandon(&self, step: &Step) {
        let mut memory = self.memory();
        match step {
            Step::DropNetwork(id) => {
                if let Some(entry) = memory.network_mut(id) {
                    entry.view.state = NetworkState::Deleting;
                }
            }
            Step::Raze(network) => {
                if let Some(entry) = memory.network_mut(&network.id) {
                    entry.view.state = NetworkState::Deleting;
                }
            }
            Step::DropEndpoint(id) => {
                if let Some(entry) = memory.endpoint_mut(id) {
                    entry.view.state = netloom_core::EndpointState::Deleting;
                }
            }
            Step::Detach(_, endpoint) => {
                if let Some(entry) = memory.endpoint_mut(&endpoint.spec.id) {
                    entry.view.state = netloom_core::EndpointState::Leaving;
                }
            }
            Step::PutNetwork(_)
            | Step::NoteNetwork(_)
            | Step::PutEndpoint(_)
            | Step::NoteEndpoint(_)
            | Step::Build(_)
            | Step::Attach(..)
            | Step::Publish(..)
            | Step::PutPublished(_)
            | Step::Revoke(..)
            | Step::RevokePublished(..) => {}
        }
    }
}

impl Step {
    fn is_record(&self) -> bool {
        match self {
            Self::PutNetwork(_)
            | Self::NoteNetwork(_)
            | Self::DropNetwork(_)
            | Self::PutEndpoint(_)
            | Self::NoteEndpoint(_)
            | Self::DropEndpoint(_)
            | Self::PutPublished(_) => true,
            Self::Build(_)
            | Self::Raze(_)
            | Self::Attach(..)
            | Self::Detach(..)
            | Self::Publish(..)
            | Self::Revoke(..)
            | Self::RevokePublished(..) => false,
        }
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Adds what else went wrong; the class, which says what the caller can do, stays.
fn with_more(error: ControlError, also: &[String]) -> ControlError {
    if also.is_empty() {
        return error;
    }
    let add = |text: String| format!("{text}; {}", also.join("; "));
    match error {
        ControlError::Invalid(text) => ControlError::Invalid(add(text)),
        ControlError::NotFound(text) => ControlError::NotFound(add(text)),
        ControlError::Conflict(text) => ControlError::Conflict(add(text)),
        ControlError::Unavailable { what, source } => ControlError::Unavailable {
            what: add(what),
            source,
        },
        ControlError::Driver(driver) => ControlError::Driver(match driver {
            DriverError::Invalid(text) => DriverError::Invalid(add(text)),
            DriverError::Conflict(text) => DriverError::Conflict(add(text)),
            DriverError::Exhausted(text) => DriverError::Exhausted(add(text)),
            DriverError::Unavailable { what, source } => DriverError::Unavailable {
                what: add(what),
                source,
            },
            DriverError::Kernel { what, source } => DriverError::Kernel {
                what: add(what),
                source,
            },
            other => other,
        }),
        other => other,
    }
}
