//! The shell: runs planned steps on the kernel, in order, and takes them back in reverse.

use super::names;
use super::options::PlacementWish;
use super::plan::{EndpointPlan, NetworkPlan, Routes};
use netloom_core::{Attachment, DriverError, InterfacePlacement, SandboxRef, crash_point};
use netloom_linux::{
    Applied, ApplyError, ConntrackFilter, Element, Kernel, KernelError, KernelStep, Link, Place,
    SysctlKey,
};
use netloom_types::{Family, LinkName};
use std::net::IpAddr;
use std::path::Path;

/// A bridge carries no more ports, so no sandbox needs a higher number than this.
const INTERFACE_NUMBERS: u16 = 1024;

/// Steps that were applied and may have to be taken back.
#[derive(Debug)]
pub(super) struct Transaction<'k> {
    kernel: &'k dyn Kernel,
    done: Vec<KernelStep>,
}

impl<'k> Transaction<'k> {
    /// Runs `work`; when it fails, takes back in reverse what had changed.
    pub(super) fn run<T>(
        kernel: &'k dyn Kernel,
        work: impl FnOnce(&mut Self) -> Result<T, ApplyError>,
    ) -> Result<T, ApplyError> {
        let mut transaction = Self {
            kernel,
            done: Vec::new(),
        };
        work(&mut transaction).map_err(|mut error| {
            error.undo_failures.extend(transaction.undo());
            error
        })
    }

    /// Applies steps that belong together.
    pub(super) fn apply(&mut self, steps: &[KernelStep]) -> Result<(), ApplyError> {
        let applied = self.kernel.apply_all(steps)?;
        self.done.extend(
            steps
                .iter()
                .zip(applied)
                .filter(|(_, applied)| *applied == Applied::Changed)
                .map(|(step, _)| step.clone()),
        );
        Ok(())
    }

    fn undo(&mut self) -> Vec<(String, KernelError)> {
        let mut failures = Vec::new();
        for undo in self.done.drain(..).rev().filter_map(|step| step.undo()) {
            match self.kernel.apply(&undo) {
                Ok(_) => {}
                // What is gone with something else, a port with its bridge, is undone.
                Err(error) if error.is_not_found() => {}
                Err(error) => failures.push((undo.to_string(), error)),
            }
        }
        failures
    }
}

fn failed(step: &KernelStep, source: KernelError) -> ApplyError {
    ApplyError {
        index: 0,
        step: step.to_string(),
        source,
        undo_failures: Vec::new(),
    }
}

/// Whose a bridge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody's: it is not there.
    Nobody,
    /// This network's.
    Network,
    /// Made by someone else, who named it in the options: used, never deleted.
    Foreign,
}

/// Finds out whose the bridge is that `plan` names.
pub(super) fn owner(plan: &NetworkPlan, link: Option<&Link>) -> Result<Owner, String> {
    let name = plan.name();
    let Some(link) = link else {
        return Ok(Owner::Nobody);
    };
    if link.kind.as_deref() != Some("bridge") {
        return Err(format!(
            "{name} exists and is no bridge; choose another name with netloom.bridge.name"
        ));
    }
    match link.alias.as_deref() {
        Some(tag) if tag == plan.bridge.alias.as_str() => Ok(Owner::Network),
        Some(tag) if tag.starts_with(names::TAG) => Err(format!(
            "bridge {name} belongs to another network ({tag}); choose another name with \
             netloom.bridge.name"
        )),
        _ if plan.options.bridge.is_some() => Ok(Owner::Foreign),
        // The name is made of the network's id: one of ours that lost its tag.
        _ => Ok(Owner::Network),
    }
}

/// Builds a network.
pub(super) fn create_network(kernel: &dyn Kernel, plan: &NetworkPlan) -> Result<(), DriverError> {
    let what = || format!("network {} could not be built", plan.id);
    let link = kernel
        .link(plan.name())
        .map_err(|e| read_error(&what(), e))?;
    let owner = owner(plan, link.as_ref()).map_err(DriverError::Conflict)?;
    let built = Transaction::run(kernel, |tx| {
        tx.apply(&[KernelStep::EnsureTable])?;
        crash_point!("driver.network.table");
        // The walls stand before there is anything to wall off.
        let elements = plan.elements.iter().cloned().map(KernelStep::AddElement);
        tx.apply(&elements.collect::<Vec<_>>())?;
        crash_point!("driver.network.elements");
        make_bridge(tx, plan, owner)?;
        crash_point!("driver.network.bridge");
        accept(tx, plan.name())?;
        crash_point!("driver.network.accepted");
        tx.apply(&plan.forwarding_steps())?;
        crash_point!("driver.network.forwarding");
        Ok(())
    });
    built.map_err(|error| apply_error(what(), error))
}

fn make_bridge(
    tx: &mut Transaction<'_>,
    plan: &NetworkPlan,
    owner: Owner,
) -> Result<(), ApplyError> {
    let steps = match owner {
        Owner::Foreign => plan.address_steps(),
        Owner::Nobody | Owner::Network => plan.own_bridge_steps(),
    };
    for step in &steps {
        match tx.apply(std::slice::from_ref(step)) {
            Err(error) if error.source.is_not_found() && optional(step) => {}
            other => other?,
        }
        crash_point!("driver.network.bridge_step");
    }
    Ok(())
}

/// Settings that a kernel without IPv6 does not have, and does not need.
fn optional(step: &KernelStep) -> bool {
    matches!(
        step,
        KernelStep::SetSysctl {
            key: SysctlKey::DisableIpv6(_) | SysctlKey::AcceptRa(_) | SysctlKey::AcceptDad(_),
            ..
        }
    )
}

/// Adds the accept pair. Where rules of legacy iptables are in force we cannot, and audit tells a
/// person what to type; the network works all the same as long as those rules let it.
fn accept(tx: &mut Transaction<'_>, bridge: &LinkName) -> Result<(), ApplyError> {
    let step = KernelStep::AddForwardAccept {
        bridge: bridge.clone(),
    };
    match tx.apply(std::slice::from_ref(&step)) {
        Err(error) if matches!(error.source, KernelError::LegacyIptables { .. }) => {
            tracing::warn!(%bridge, error = %error.source, "no accept in DOCKER-USER");
            Ok(())
        }
        other => other,
    }
}

/// Removes a network; `elements` are those that no other network needs.
pub(super) fn delete_network(
    kernel: &dyn Kernel,
    plan: &NetworkPlan,
    elements: Vec<KernelStep>,
) -> Result<(), DriverError> {
    let what = || format!("network {} could not be removed", plan.id);
    let link = kernel
        .link(plan.name())
        .map_err(|e| read_error(&what(), e))?;
    let mut steps = Vec::new();
    // The bridge first: the walls fall last.
    if owner(plan, link.as_ref()) == Ok(Owner::Network) {
        steps.push(KernelStep::DeleteLink {
            link: plan.name().clone(),
        });
    }
    steps.push(KernelStep::DeleteForwardAccept {
        bridge: plan.name().clone(),
    });
    steps.extend(elements);
    delete_all(kernel, &steps).map_err(|error| apply_error(what(), error))
}

/// Applies deletions; what is gone already is done. A failure stops nothing else, and the first
/// one is told.
pub(super) fn delete_all(kernel: &dyn Kernel, steps: &[KernelStep]) -> Result<(), ApplyError> {
    // In one go first, because element steps side by side are one transaction.
    if kernel.apply_all(steps).is_ok() {
        crash_point!("driver.deleted");
        return Ok(());
    }
    let mut first = None;
    for step in steps {
        match kernel.apply(step) {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(KernelError::LegacyIptables { .. }) => {}
            Err(error) => {
                first.get_or_insert(failed(step, error));
            }
        }
    }
    first.map_or(Ok(()), Err)
}

/// Makes an endpoint's link and everything on it.
pub(super) fn join(
    kernel: &dyn Kernel,
    network: &NetworkPlan,
    plan: &EndpointPlan,
    sandbox: &SandboxRef,
    first_number: u16,
) -> Result<Attachment, DriverError> {
    let wanted = if plan.placement != PlacementWish::Caller && sandbox.netns.exists() {
        Place::Namespace(sandbox.netns.clone())
    } else {
        Place::Host
    };
    let what = || format!("endpoint {} could not be attached", plan.id);
    let join = Join {
        kernel,
        plan,
        first_number,
        routes: Routes::OnLink,
    };
    let mut attached = join.at(&wanted);
    if let Err(error) = &attached
        && matches!(error.source, KernelError::NotFound { .. })
        && kernel.link(network.name()).is_ok_and(|link| link.is_none())
    {
        // Someone removed the bridge: make it again rather than fail until the next repair.
        create_network(kernel, network)?;
        attached = join.at(&wanted);
    }
    if let Err(error) = &attached
        && wanted != Place::Host
        && matches!(
            error.source,
            KernelError::NotANamespace { .. } | KernelError::NotFound { .. }
        )
    {
        // The sandbox is not there yet: its caller moves the link when it is.
        attached = join.at(&Place::Host);
    }
    let (place, link) = attached.map_err(|error| apply_error(what(), error))?;
    Ok(attachment(plan, &place, link))
}

fn attachment(plan: &EndpointPlan, place: &Place, link: LinkName) -> Attachment {
    let (interface, routes) = match place {
        Place::Host => (
            InterfacePlacement::CallerMoves {
                link,
                prefix: plan.ifname_prefix.clone(),
            },
            plan.static_routes(),
        ),
        Place::Namespace(_) => (InterfacePlacement::Placed { link }, Vec::new()),
    };
    Attachment {
        interface,
        gateway_v4: plan.gateway_v4.and_then(|ip| match ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        }),
        gateway_v6: plan.gateway_v6.and_then(|ip| match ip {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        }),
        routes,
        gateway_service: plan.gateway_service,
    }
}

/// Adds elements. The tables are there, as a rule: looking at them first would cost more than all
/// the rest.
pub(super) fn add_elements(
    tx: &mut Transaction<'_>,
    elements: &[Element],
) -> Result<(), ApplyError> {
    if elements.is_empty() {
        return Ok(());
    }
    let steps: Vec<_> = elements
        .iter()
        .cloned()
        .map(KernelStep::AddElement)
        .collect();
    match tx.apply(&steps) {
        Err(error) if error.source.is_not_found() => {
            tx.apply(&[KernelStep::EnsureTable])?;
            tx.apply(&steps)
        }
        other => other,
    }
}

/// One try at attaching an endpoint.
pub(super) struct Join<'a> {
    pub(super) kernel: &'a dyn Kernel,
    pub(super) plan: &'a EndpointPlan,
    pub(super) first_number: u16,
    pub(super) routes: Routes,
}

impl Join<'_> {
    /// Attaches with the container's end at `place`; says where it is, and under which name.
    pub(super) fn at(&self, place: &Place) -> Result<(Place, LinkName), ApplyError> {
        let plan = self.plan;
        self.clear_the_way()?;
        Transaction::run(self.kernel, |tx| {
            // The guard before the link: not one frame passes unchecked.
            add_elements(tx, &plan.guard)?;
            crash_point!("driver.join.guarded");
            let name = self.make_pair(tx, place)?;
            crash_point!("driver.join.linked");
            if let Place::Namespace(path) = place {
                tx.apply(&[self.plan.configure(path, &name, self.routes)])?;
                self.await_port();
                crash_point!("driver.join.configured");
            }
            add_elements(tx, &plan.ports)?;
            crash_point!("driver.join.ports");
            // Neighbours learn it sooner or later by themselves.
            if let Err(error) = self.kernel.apply_all(&plan.announcements()) {
                tracing::debug!(endpoint = %plan.id, %error, "not announced");
            }
            crash_point!("driver.join.announced");
            Ok((place.clone(), name))
        })
    }

    /// Has the kernel let the bridge's port forward now rather than some time later: a question
    /// that is lost on a port that is not ready yet is asked again after a whole second. Kernels
    /// from 6.9 on do it when they are asked for the link (`linkwatch_sync_dev`); older ones do it
    /// in their own time, a few milliseconds later as a rule.
    fn await_port(&self) {
        if let Err(error) = self.kernel.link(&self.plan.host_end) {
            tracing::debug!(endpoint = %self.plan.id, %error, "the link was not looked at");
        }
    }

    /// Removes what an earlier join of the same endpoint left, whose answer never arrived: where
    /// that put the other end is not known here.
    fn clear_the_way(&self) -> Result<(), ApplyError> {
        let step = KernelStep::DeleteLink {
            link: self.plan.host_end.clone(),
        };
        let link = self
            .kernel
            .link(&self.plan.host_end)
            .map_err(|e| failed(&step, e))?;
        let ours = link.is_some_and(|link| {
            link.alias
                .as_deref()
                .is_none_or(|alias| alias == self.plan.alias.as_str())
        });
        if ours {
            self.kernel.apply(&step).map_err(|e| failed(&step, e))?;
        }
        Ok(())
    }

    fn make_pair(&self, tx: &mut Transaction<'_>, place: &Place) -> Result<LinkName, ApplyError> {
        let plan = self.plan;
        let single = match place {
            Place::Host => Some(names::container_end(&plan.id)),
            Place::Namespace(_) => plan.ifname.clone(),
        };
        if let Some(name) = single {
            tx.apply(&[plan.veth(place.clone(), name.clone())])?;
            return Ok(name);
        }
        // Number 0 meets no counter: whoever counts starts with a sandbox's first interface.
        let first = self.first_number.max(1);
        let rest = first..first.saturating_add(INTERFACE_NUMBERS);
        let mut taken = None;
        for number in std::iter::once(0).chain(rest) {
            let Ok(name) = LinkName::new(format!("{}{number}", plan.ifname_prefix)) else {
                break;
            };
            match tx.apply(&[plan.veth(place.clone(), name.clone())]) {
                Ok(()) => return Ok(name),
                Err(error) if matches!(error.source, KernelError::Exists { .. }) => {
                    taken = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(taken.unwrap_or_else(|| {
            let what = format!("an interface name with prefix {}", plan.ifname_prefix);
            failed(&KernelStep::EnsureTable, KernelError::Exists { what })
        }))
    }
}

/// The steps that take an endpoint's elements away, and the flows that used them.
pub(super) fn leave_steps(plan: &EndpointPlan) -> Vec<KernelStep> {
    plan.ports
        .iter()
        .chain(&plan.guard)
        .cloned()
        .map(KernelStep::DeleteElement)
        .collect()
}

/// Forgets the flows to these container addresses: a translation is decided once per flow, and
/// would outlive its port (moby #8795).
pub(super) fn forget_flows(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<KernelStep> {
    addresses
        .into_iter()
        .map(|ip| KernelStep::FlushConntrack {
            family: Family::of(ip),
            filter: ConntrackFilter {
                reply_source: Some(ip),
                ..ConntrackFilter::default()
            },
        })
        .collect()
}

/// Whether a directory entry is there; what cannot be looked at is not there.
pub(super) fn sandbox_lives(path: &Path) -> bool {
    path.exists()
}

/// A kernel that could not be read.
pub(super) fn read_error(what: &str, error: KernelError) -> DriverError {
    DriverError::Unavailable {
        what: format!("{what}: the kernel could not be read"),
        source: Some(Box::new(error)),
    }
}

/// Sorts a failed step by what the caller can do.
pub(super) fn apply_error(what: String, error: ApplyError) -> DriverError {
    match &error.source {
        KernelError::Exists { .. } | KernelError::Conflict { .. } => {
            DriverError::Conflict(format!("{what}: {}", error.source))
        }
        KernelError::BridgeFull { .. } => {
            DriverError::Exhausted(format!("{what}: {}", error.source))
        }
        KernelError::NotANamespace { .. } | KernelError::HostNamespace { .. } => {
            DriverError::Invalid(format!("{what}: {}", error.source))
        }
        KernelError::Disturbed { .. } | KernelError::TimedOut { .. } => DriverError::Unavailable {
            what: format!("{what}; try again"),
            source: Some(Box::new(error)),
        },
        _ => DriverError::Kernel {
            what,
            source: Some(Box::new(error)),
        },
    }
}
