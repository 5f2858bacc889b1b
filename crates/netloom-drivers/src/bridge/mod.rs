//! Containers of one host on a Linux bridge: the driver `bridge`.
//!
//! ```text
//!   options ──► plan (pure) ──► apply (the kernel, in order, undone in reverse)
//!                 │
//!                 └──► audit (pure): plan minus snapshot = findings and their cures ──► reconcile
//! ```

mod apply;
mod audit;
mod audit_links;
mod check;
mod choose;
mod inside;
mod names;
mod options;
mod plan;
mod publish;
mod reaper;
mod snapshot;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use inside::{Inside, InsideRule};

use crate::ports::PortKeeper;
use apply::Join;
use async_trait::async_trait;
use audit::{Cure, Mend, Wanted};
use netloom_core::{
    Attachment, Desired, DesiredEndpoint, Driver, DriverError, EndpointGrant, EndpointSpec,
    Finding, NetworkSpec, Publisher, Repair, SandboxRef, crash_point,
};
use netloom_linux::{Element, Kernel, KernelStep, Place};
use netloom_types::{EndpointId, LinkName, NetworkId};
use options::EndpointOptions;
use plan::{EndpointPlan, NetworkPlan, Routes};
use reaper::Reaper;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The name that chooses this driver.
const NAME: &str = "bridge";

/// The lowest number, besides 0, of an interface that the driver itself puts into a sandbox.
///
/// 1 gives `eth0`, `eth1` as a caller would. A caller that counts by itself without looking (Docker
/// before 28) needs a higher one, so that its numbers and ours do not meet: a sandbox that holds
/// an `eth0` gets `eth100` then. Clones share the number, which may be learned while the driver is
/// in use.
#[derive(Debug, Clone)]
pub struct FirstInterfaceNumber(Arc<AtomicU16>);

impl FirstInterfaceNumber {
    /// Starts with `number`.
    #[must_use]
    pub fn new(number: u16) -> Self {
        Self(Arc::new(AtomicU16::new(number)))
    }

    /// Uses `number` from now on.
    pub fn set(&self, number: u16) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// The number in use.
    #[must_use]
    pub fn get(&self) -> u16 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for FirstInterfaceNumber {
    fn default() -> Self {
        Self::new(1)
    }
}

/// Settings of the driver for the whole host.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BridgeConfig {
    /// Where the numbers of placed interfaces start.
    pub first_interface_number: FirstInterfaceNumber,
    /// Into which sandboxes the driver itself puts interfaces.
    pub inside: Inside,
}

impl BridgeConfig {
    /// The same with other numbers for placed interfaces.
    #[must_use]
    pub fn with_first_interface_number(mut self, number: FirstInterfaceNumber) -> Self {
        self.first_interface_number = number;
        self
    }

    /// The same with another rule for interfaces inside sandboxes.
    #[must_use]
    pub fn with_inside(mut self, inside: Inside) -> Self {
        self.inside = inside;
        self
    }
}

/// The driver `bridge`.
#[derive(Debug, Clone)]
pub struct BridgeDriver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kernel: Arc<dyn Kernel>,
    keeper: Arc<dyn PortKeeper>,
    config: BridgeConfig,
    reaper: Reaper,
    /// Changes share it; repair takes it alone, so that it never sees a change half done.
    gate: tokio::sync::RwLock<()>,
    /// Links that networks trust: one element each, whichever and however many networks name it.
    /// Filled by every network that is built or repaired, so a repair at start is enough.
    trusted: Mutex<BTreeMap<NetworkId, Vec<LinkName>>>,
    next_port: choose::Cursor,
}

impl BridgeDriver {
    /// A driver on `kernel` whose published ports `keeper` keeps.
    #[must_use]
    pub fn new(kernel: Arc<dyn Kernel>, keeper: Arc<dyn PortKeeper>, config: BridgeConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                kernel,
                keeper,
                config,
                reaper: Reaper::default(),
                gate: tokio::sync::RwLock::new(()),
                trusted: Mutex::default(),
                next_port: choose::Cursor::default(),
            }),
        }
    }

    /// Runs kernel work on a thread that may block.
    async fn on_kernel<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Kernel) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let kernel = Arc::clone(&self.shared.kernel);
        tokio::task::spawn_blocking(move || work(&*kernel))
            .await
            .map_err(|error| DriverError::Unavailable {
                what: "the kernel work was broken off; try again".into(),
                source: Some(Box::new(error)),
            })?
    }

    fn note_trusted(&self, plan: &NetworkPlan) {
        self.trusted()
            .insert(plan.id.clone(), plan.options.trusted.clone());
    }

    /// The steps that take away the elements of a network that no other network shares.
    fn own_elements(&self, plan: &NetworkPlan) -> Vec<KernelStep> {
        let mut trusted = self.trusted();
        trusted.remove(&plan.id);
        let shared = |element: &&Element| match element {
            Element::Trusted(link) => trusted.values().flatten().any(|other| other == link),
            _ => false,
        };
        plan.elements
            .iter()
            .filter(|element| !shared(element))
            .cloned()
            .map(KernelStep::DeleteElement)
            .collect()
    }

    fn trusted(&self) -> std::sync::MutexGuard<'_, BTreeMap<NetworkId, Vec<LinkName>>> {
        // Every statement leaves the map whole, so a panic elsewhere spoils nothing.
        self.shared
            .trusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is not as it should be, with the cures.
    async fn compare(&self, wanted: &Arc<Wanted>) -> Result<Vec<Mend>, DriverError> {
        let wanted = Arc::clone(wanted);
        self.on_kernel(move |kernel| {
            let have = snapshot::take(kernel, &wanted)?;
            Ok(audit::diff(&wanted, &have))
        })
        .await
    }

    /// What is nobody's fault and no finding: Docker's own bridges, and tables without a use.
    async fn tidy(&self, wanted: &Wanted) {
        let idle = wanted.networks.is_empty();
        let tidied = self
            .on_kernel(move |kernel| match idle {
                true => snapshot::remove_tables(kernel),
                false => snapshot::wall_off_docker(kernel),
            })
            .await;
        if let Err(error) = tidied {
            tracing::warn!(%error, "the tables are not tidy");
        }
    }

    async fn cure(
        &self,
        wanted: &Arc<Wanted>,
        mends: Vec<Mend>,
    ) -> Result<Vec<Finding>, DriverError> {
        let wanted = Arc::clone(wanted);
        let first_number = self.shared.config.first_interface_number.get();
        self.on_kernel(move |kernel| {
            Ok(mends
                .into_iter()
                .map(|mend| {
                    let finding = cure_one(kernel, &wanted, &mend, first_number);
                    crash_point!("driver.reconcile.mended");
                    finding
                })
                .collect())
        })
        .await
    }
}

fn cure_one(kernel: &dyn Kernel, wanted: &Wanted, mend: &Mend, first_number: u16) -> Finding {
    let cured = match &mend.cure {
        Cure::Person => return mend.finding(Repair::ByHand),
        Cure::Steps(steps) => snapshot::apply_leniently(kernel, steps),
        Cure::Attach(id) => match wanted.endpoints.get(id) {
            Some(endpoint) => Join {
                kernel,
                plan: &endpoint.plan,
                first_number,
                routes: Routes::WithDefault,
            }
            .at(&Place::Namespace(endpoint.netns.clone()))
            .map(drop),
            None => Ok(()),
        },
    };
    match cured {
        Ok(()) => mend.finding(Repair::Done),
        Err(error) => {
            let mut finding = mend.finding(Repair::ByHand);
            finding.detail = format!(
                "{}; mending failed: {error}: {}",
                finding.detail, error.source
            );
            finding
        }
    }
}

#[async_trait]
impl Driver for BridgeDriver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn validate_network(
        &self,
        network: &NetworkSpec,
        others: &[NetworkSpec],
    ) -> Result<(), DriverError> {
        let plan = check::network(network, others)?;
        check::host(&*self.shared.kernel, &plan)
    }

    async fn create_network(&self, network: &NetworkSpec) -> Result<(), DriverError> {
        let _gate = self.shared.gate.read().await;
        let plan = NetworkPlan::of(network)?;
        self.note_trusted(&plan);
        self.on_kernel(move |kernel| {
            apply::create_network(kernel, &plan)?;
            // Containers of Docker's own bridges must not be within reach until the next repair.
            snapshot::wall_off_docker(kernel)
        })
        .await
    }

    async fn delete_network(&self, network: &NetworkSpec) -> Result<(), DriverError> {
        let _gate = self.shared.gate.read().await;
        let plan = NetworkPlan::of(network)?;
        let elements = self.own_elements(&plan);
        self.on_kernel(move |kernel| apply::delete_network(kernel, &plan, elements))
            .await
    }

    fn validate_endpoint(
        &self,
        network: &NetworkSpec,
        endpoint: &EndpointSpec,
    ) -> Result<EndpointGrant, DriverError> {
        EndpointOptions::parse(endpoint)?;
        check::endpoint(network, endpoint)?;
        Ok(EndpointGrant {
            mac: plan::choose_mac(endpoint, choose::random_bytes()),
        })
    }

    async fn join(
        &self,
        network: &NetworkSpec,
        endpoint: &DesiredEndpoint,
        sandbox: &SandboxRef,
    ) -> Result<Attachment, DriverError> {
        let _gate = self.shared.gate.read().await;
        let network = NetworkPlan::of(network)?;
        let mut plan = EndpointPlan::of(&network, endpoint)?;
        let sandbox = sandbox.clone();
        let first_number = self.shared.config.first_interface_number.get();
        let rule = self.shared.config.inside.get();
        self.on_kernel(move |kernel| {
            plan.placement = inside::placement(rule, kernel, &plan, &sandbox);
            apply::join(kernel, &network, &plan, &sandbox, first_number)
        })
        .await
    }

    async fn leave(
        &self,
        network: &NetworkSpec,
        endpoint: &DesiredEndpoint,
    ) -> Result<(), DriverError> {
        let _gate = self.shared.gate.read().await;
        let network = NetworkPlan::of(network)?;
        let plan = EndpointPlan::of(&network, endpoint)?;
        let what = format!("endpoint {} could not be detached", plan.id);
        let link = plan.host_end.clone();
        self.shared
            .reaper
            .delete(&self.shared.kernel, &link)
            .await
            .map_err(|reason| DriverError::Kernel {
                what: format!("{what}: {reason}"),
                source: None,
            })?;
        crash_point!("driver.leave.unlinked");
        // The guard falls after the link that it guards.
        let flows = publish::flows(&endpoint.ports);
        self.on_kernel(move |kernel| {
            apply::delete_all(kernel, &apply::leave_steps(&plan))
                .map_err(|error| apply::apply_error(what, error))?;
            publish::forget(kernel, flows);
            Ok(())
        })
        .await?;
        crash_point!("driver.leave.elements");
        self.release(&endpoint.spec.id, &endpoint.ports).await;
        crash_point!("driver.leave.released");
        Ok(())
    }

    async fn is_linked(&self, endpoint: &EndpointId) -> Result<bool, DriverError> {
        let link = names::host_end(endpoint);
        let found = self
            .on_kernel(move |kernel| {
                kernel.link(&link).map_err(|error| DriverError::Kernel {
                    what: format!("the link {link} could not be looked for"),
                    source: Some(Box::new(error)),
                })
            })
            .await?;
        Ok(found.is_some())
    }

    async fn reconcile(&self, desired: &Desired) -> Result<Vec<Finding>, DriverError> {
        let _gate = self.shared.gate.write().await;
        let (wanted, mut findings) = Wanted::of(desired);
        wanted
            .networks
            .values()
            .for_each(|plan| self.note_trusted(plan));
        self.trusted()
            .retain(|id, _| wanted.networks.contains_key(id));
        let wanted = Arc::new(wanted);
        let mends = self.compare(&wanted).await?;
        let damaged = mends.iter().any(Mend::is_of_tables);
        findings.extend(self.cure(&wanted, mends).await?);
        if damaged {
            // Sets of a wrong form were made anew, without what was in them.
            let mends = self.compare(&wanted).await?;
            let again = self.cure(&wanted, mends).await?;
            findings.extend(again.into_iter().filter(|f| f.repair != Repair::Done));
        }
        self.tidy(&wanted).await;
        findings.extend(self.reserve_all(desired).await);
        crash_point!("driver.reconcile.ports");
        Ok(findings)
    }

    async fn audit(&self, desired: &Desired) -> Result<Vec<Finding>, DriverError> {
        let _gate = self.shared.gate.write().await;
        let (wanted, mut findings) = Wanted::of(desired);
        let wanted = Arc::new(wanted);
        let mends = self.compare(&wanted).await?;
        findings.extend(mends.iter().map(|mend| {
            mend.finding(match mend.cure {
                Cure::Person => Repair::ByHand,
                Cure::Steps(_) | Cure::Attach(_) => Repair::ByRepair,
            })
        }));
        findings.extend(self.unreserved(desired).await);
        Ok(findings)
    }

    fn publisher(&self) -> Option<&dyn Publisher> {
        Some(self)
    }
}
