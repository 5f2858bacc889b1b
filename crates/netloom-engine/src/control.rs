//! The engine as its callers see it: each call is planned under its objects' locks and carried out
//! as a task of its own.

use async_trait::async_trait;
use netloom_core::{
    Attachment, ControlError, Controller, DriverError, EndpointGrant, EndpointSpec, EndpointView,
    Finding, NetworkSpec, NetworkView, PublishedPort, SandboxRef, crash_point,
};
use netloom_types::{EndpointId, NetworkId, PortBinding};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::apply::Outcome;
use crate::engine::{Engine, Inner};
use crate::plan::{Event, Plan, Reply, Situation, plan, unknown_network};

impl Engine {
    /// Runs `work` to its end whatever becomes of the caller: dockerd may hang up, a deadline may
    /// pass, and the change still ends wholly done or wholly undone.
    pub(crate) async fn run<T, F, W>(&self, work: W) -> Result<T, ControlError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ControlError>> + Send,
        W: FnOnce(Arc<Inner>) -> F + Send + 'static,
        F: 'static,
    {
        let task = tokio::spawn(work(Arc::clone(&self.inner)));
        let result = task.await.unwrap_or_else(|error| {
            Err(ControlError::Unavailable {
                what: "netloomd failed inside while it handled the request: please report its log"
                    .into(),
                source: Some(Box::new(error)),
            })
        });
        crash_point!("engine.reply");
        result
    }
}

impl Inner {
    async fn create_network(&self, spec: NetworkSpec) -> Result<(), ControlError> {
        self.may_build()?;
        let _world = self.world.read().await;
        let refused = match self.admit_network(spec.clone()).await {
            Err(error @ ControlError::Driver(DriverError::Conflict(_))) => error,
            result => return result,
        };
        // Nothing is locked here: the ones in the way are locked one by one.
        let rivals = self.doubtful_rivals(&spec);
        if rivals.is_empty() {
            return Err(refused);
        }
        for rival in rivals {
            self.remove_doubtful(&rival).await?;
        }
        self.admit_network(spec).await
    }

    async fn admit_network(&self, spec: NetworkSpec) -> Result<(), ControlError> {
        let _lock = self.networks.write(&spec.id).await;
        self.refresh_network(&spec.id).await?;
        let admitted = self.admission.lock().await;
        let known = self.memory().network(&spec.id).map(|e| e.view.clone());
        if known.is_none() {
            let others = self.memory().others(&spec.id);
            self.driver(&spec.driver)?
                .validate_network(&spec, &others)?;
        }
        let situation = Situation {
            network: known,
            ..Situation::default()
        };
        let plan = self.plan(&situation, &Event::CreateNetwork(spec))?;
        // Once the intent is on record, later checks against the others see it.
        self.apply_releasing(&plan, Some(admitted)).await.map(drop)
    }

    pub(crate) async fn delete_network(&self, id: &NetworkId) -> Result<(), ControlError> {
        let _lock = self.networks.write(id).await;
        self.delete_locked_network(id).await
    }

    /// Removes a network whose lock the caller holds.
    pub(crate) async fn delete_locked_network(&self, id: &NetworkId) -> Result<(), ControlError> {
        self.refresh_network(id).await?;
        let (network, members) = {
            let memory = self.memory();
            let members = memory.members_with_sandboxes(id, self.parts.sandbox_exists);
            (memory.network(id).map(|e| e.view.clone()), members)
        };
        let situation = Situation {
            network,
            members,
            endpoint: None,
        };
        let plan = self.plan(&situation, &Event::DeleteNetwork(id.clone()))?;
        self.apply(&plan).await.map(drop)
    }

    /// Whether anything may be built.
    fn may_build(&self) -> Result<(), ControlError> {
        if self.dismantled.load(Ordering::Relaxed) {
            return Err(ControlError::Unavailable {
                what: "everything of Netloom was taken out of this host's kernel by `netloom \
                       uninstall`: restart netloomd to use it again"
                    .into(),
                source: None,
            });
        }
        Ok(())
    }

    async fn create_endpoint(&self, spec: EndpointSpec) -> Result<EndpointGrant, ControlError> {
        let network = self.memory().network(&spec.network).map(|e| e.view.clone());
        let network = network.ok_or_else(|| unknown_network(&spec.network))?;
        let driver = self.driver(&network.spec.driver)?;
        let grant = driver.validate_endpoint(&network.spec, &spec)?;
        // Always the IPv4 address first, so that nobody waits for one who waits for him.
        let mut held = Vec::new();
        for address in spec.addresses.iter() {
            let key = (spec.network.clone(), address.ip());
            held.push(self.addresses.write(&key).await);
        }
        for rival in self.unjoined_rivals(&spec) {
            self.endpoint_event(&spec.network, &rival, Event::Forget(rival.clone()))
                .await?;
        }
        // After the forgetting: one of them may have joined meanwhile.
        self.refuse_twin(&spec).await?;
        let (n, e) = (spec.network.clone(), spec.id.clone());
        let (_, reply) = self
            .endpoint_event(&n, &e, Event::CreateEndpoint(spec, grant.mac))
            .await?;
        match reply {
            Reply::Granted(grant) => Ok(grant),
            Reply::Done | Reply::Attached | Reply::Ports(_) => Ok(grant),
        }
    }

    /// Plans and carries out an event about one endpoint.
    pub(crate) async fn endpoint_event(
        &self,
        network: &NetworkId,
        endpoint: &EndpointId,
        event: Event,
    ) -> Result<(Outcome, Reply), ControlError> {
        match event {
            Event::CreateEndpoint(..) | Event::Join(..) | Event::Publish(..) => self.may_build()?,
            Event::CreateNetwork(_)
            | Event::DeleteNetwork(_)
            | Event::DeleteEndpoint(_)
            | Event::Forget(_)
            | Event::Leave(_)
            | Event::Revoke(_) => {}
        }
        let _network = self.networks.read(network).await;
        let _endpoint = self.endpoints.write(endpoint).await;
        self.refresh_network(network).await?;
        self.refresh_endpoint(endpoint).await?;
        let situation = {
            let memory = self.memory();
            Situation {
                network: memory.network(network).map(|e| e.view.clone()),
                endpoint: memory.endpoint(endpoint).map(|e| e.view.clone()),
                members: Vec::new(),
            }
        };
        if let Some(view) = &situation.endpoint
            && view.endpoint.spec.network != *network
        {
            return Err(ControlError::Conflict(format!(
                "endpoint {} belongs to network {}, not to {}",
                endpoint.short(12),
                view.endpoint.spec.network.short(12),
                network.short(12)
            )));
        }
        let plan = self.plan(&situation, &event)?;
        let outcome = self.apply(&plan).await?;
        Ok((outcome, plan.reply))
    }

    fn plan(&self, situation: &Situation, event: &Event) -> Result<Plan, ControlError> {
        plan(situation, event, self.parts.clock.now())
    }
}

#[async_trait]
impl Controller for Engine {
    async fn create_network(&self, spec: NetworkSpec) -> Result<(), ControlError> {
        self.run(|inner| async move { inner.create_network(spec).await })
            .await
    }

    async fn delete_network(&self, id: &NetworkId) -> Result<(), ControlError> {
        let id = id.clone();
        self.run(|inner| async move {
            let _world = inner.world.read().await;
            inner.delete_network(&id).await
        })
        .await
    }

    async fn create_endpoint(&self, spec: EndpointSpec) -> Result<EndpointGrant, ControlError> {
        self.run(|inner| async move {
            let _world = inner.world.read().await;
            inner.create_endpoint(spec).await
        })
        .await
    }

    async fn delete_endpoint(&self, n: &NetworkId, e: &EndpointId) -> Result<(), ControlError> {
        self.event(n, e, Event::DeleteEndpoint(e.clone()))
            .await
            .map(drop)
    }

    async fn join(
        &self,
        network: &NetworkId,
        endpoint: &EndpointId,
        sandbox: SandboxRef,
    ) -> Result<Attachment, ControlError> {
        let event = Event::Join(endpoint.clone(), sandbox);
        let (outcome, _) = self.event(network, endpoint, event).await?;
        outcome.attachment.ok_or_else(|| ControlError::Unavailable {
            what: "the driver joined the endpoint and did not say how: please report it".into(),
            source: None,
        })
    }

    async fn leave(&self, n: &NetworkId, e: &EndpointId) -> Result<(), ControlError> {
        self.event(n, e, Event::Leave(e.clone())).await.map(drop)
    }

    async fn publish(
        &self,
        network: &NetworkId,
        endpoint: &EndpointId,
        ports: Vec<PortBinding>,
    ) -> Result<Vec<PublishedPort>, ControlError> {
        let (network, endpoint) = (network.clone(), endpoint.clone());
        let (outcome, reply) = self
            .run(|inner| async move {
                let _world = inner.world.read().await;
                inner.publish_at(&network, &endpoint, ports).await
            })
            .await?;
        Ok(match reply {
            Reply::Ports(known) if !known.is_empty() => known,
            Reply::Ports(_) | Reply::Done | Reply::Granted(_) | Reply::Attached => outcome.ports,
        })
    }

    async fn revoke(&self, n: &NetworkId, e: &EndpointId) -> Result<(), ControlError> {
        self.event(n, e, Event::Revoke(e.clone())).await.map(drop)
    }

    async fn networks(&self) -> Vec<NetworkView> {
        let memory = self.inner.memory();
        memory.networks().map(|e| e.view.clone()).collect()
    }

    async fn endpoints(&self) -> Vec<EndpointView> {
        let memory = self.inner.memory();
        memory.endpoints().map(|e| e.view.clone()).collect()
    }

    async fn audit(&self) -> Result<Vec<Finding>, ControlError> {
        self.run(|inner| async move { inner.audit_kernel().await })
            .await
    }

    async fn reconcile(&self) -> Result<Vec<Finding>, ControlError> {
        self.run(|inner| async move { inner.reconcile_kernel().await })
            .await
    }
}

impl Engine {
    async fn event(
        &self,
        network: &NetworkId,
        endpoint: &EndpointId,
        event: Event,
    ) -> Result<(Outcome, Reply), ControlError> {
        let (network, endpoint) = (network.clone(), endpoint.clone());
        self.run(|inner| async move {
            let _world = inner.world.read().await;
            inner.endpoint_event(&network, &endpoint, event).await
        })
        .await
    }
}
