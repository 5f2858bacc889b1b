//! Published ports: which host port each gets, and what the kernel needs for it.

use super::BridgeDriver;
use super::apply::{self, Transaction, forget_flows};
use super::choose::{
    Wish, all_reservations, chosen_already, exhausted, first_repeat, opened, reservations, spread,
    wish, without_repeats,
};
use super::names;
use super::options::{GatewayMode, PortPublishing};
use super::plan::{NetworkPlan, hairpin, port_elements};
use crate::ports::KeeperError;
use crate::relay::{Refusal, Reservation};
use async_trait::async_trait;
use netloom_core::{
    Desired, DesiredEndpoint, DriverError, Finding, FindingKind, NetworkSpec, PublishedPort,
    Publisher, Reach, Repair, crash_point,
};
use netloom_linux::{ConntrackFilter, Kernel, KernelStep, PortFlags, Switch};
use netloom_types::{EndpointId, Family, PortBinding, Protocol};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// How many ports in use are passed over before a publish gives up: each costs one question to
/// the relay, and dockerd waits.
const TRIES_MAX: usize = 4096;

/// The container addresses whose flows have to be forgotten with these ports.
pub(super) fn flows(ports: &[PublishedPort]) -> BTreeSet<IpAddr> {
    ports.iter().map(|port| port.container_ip).collect()
}

/// The steps that forget flows to host ports that began before these were published: a client of
/// UDP that asked too early would talk to nobody for as long as it asks.
fn early_flows(ports: &[PublishedPort]) -> Vec<KernelStep> {
    ports
        .iter()
        // A connection of TCP or SCTP that was refused leaves no flow.
        .filter(|port| port.protocol == Protocol::Udp)
        .map(|port| KernelStep::FlushConntrack {
            family: Family::of(port.host_ip),
            filter: ConntrackFilter {
                protocol: Some(port.protocol),
                original_port: Some(port.host_port),
                ..ConntrackFilter::default()
            },
        })
        .collect()
}

fn hairpin_step(endpoint: &EndpointId, hairpin: Switch) -> KernelStep {
    KernelStep::SetPortFlags {
        link: names::host_end(endpoint),
        flags: PortFlags {
            hairpin: Some(hairpin),
            ..PortFlags::default()
        },
    }
}

/// Only a container that calls itself by its published port needs it.
fn reflecting(kernel: &dyn Kernel, step: &KernelStep) {
    if let Err(error) = kernel.apply(step) {
        tracing::warn!(%error, "a container may not reach itself by its published port");
    }
}

/// Forgets flows. One that stays is a nuisance until it times out, no reason to keep a container.
pub(super) fn forget(kernel: &dyn Kernel, addresses: BTreeSet<IpAddr>) {
    flush(kernel, &forget_flows(addresses));
}

fn flush(kernel: &dyn Kernel, steps: &[KernelStep]) {
    for step in steps {
        if let Err(error) = kernel.apply(step) {
            tracing::warn!(%error, "flows of a port stay until they time out");
        }
    }
}

fn keeper_error(error: KeeperError) -> DriverError {
    match error {
        KeeperError::Refused {
            port,
            refusal,
            reason,
            ..
        } => refused(&port, refusal, &reason),
        error @ KeeperError::Unavailable { .. } => DriverError::Unavailable {
            what: "published ports cannot be reserved; start netloom-relay, or set relay = \"off\""
                .into(),
            source: Some(Box::new(error)),
        },
    }
}

fn refused(port: &Reservation, refusal: Refusal, reason: &str) -> DriverError {
    match refusal {
        Refusal::InUse => DriverError::Conflict(format!(
            "port {port} is taken ({reason}); `ss -lnp 'sport = :{}'` shows by which program",
            port.host.port()
        )),
        Refusal::NoSuchAddress => DriverError::Invalid(format!(
            "port {port} cannot be published: this host does not have the address {}",
            port.host.ip()
        )),
        Refusal::Other => {
            DriverError::Conflict(format!("port {port} cannot be published: {reason}"))
        }
    }
}

impl BridgeDriver {
    /// Reserves host ports for all wishes, or for none: one question to the keeper, and one more
    /// for each port that turns out to be taken.
    async fn reserve(
        &self,
        owner: &EndpointId,
        wishes: &mut [Wish],
    ) -> Result<Vec<PublishedPort>, DriverError> {
        let mut chosen = Vec::with_capacity(wishes.len());
        for wish in wishes.iter_mut() {
            let nothing = DriverError::Exhausted("the range is empty".into());
            let port = wish
                .candidates
                .next()
                .ok_or_else(|| exhausted(wish, &nothing))?;
            chosen.push(port);
        }
        for _ in 0..TRIES_MAX {
            let (ports, of_wish) = spread(wishes, &chosen);
            let wanted = reservations(owner, &ports);
            let reserved = match first_repeat(&wanted) {
                Some(index) => Err(chosen_already(index, &wanted)),
                None => self.shared.keeper.reserve(&wanted).await,
            };
            let error = match reserved {
                Ok(()) => return Ok(ports),
                Err(error) => error,
            };
            let KeeperError::Refused {
                index,
                refusal: Refusal::InUse,
                ..
            } = error
            else {
                return Err(keeper_error(error));
            };
            let error = keeper_error(error);
            let at = of_wish.get(index).copied().unwrap_or(0);
            let (Some(wish), Some(port)) = (wishes.get_mut(at), chosen.get_mut(at)) else {
                return Err(error);
            };
            *port = wish
                .candidates
                .next()
                .ok_or_else(|| exhausted(wish, &error))?;
        }
        Err(DriverError::Exhausted(format!(
            "no free port was found in {TRIES_MAX} tries; name the port, or free some"
        )))
    }

    /// Lets ports go. The keeper's list is brought right by the next repair in any case, so a
    /// keeper that does not answer must not keep a container from leaving.
    pub(super) async fn release(&self, owner: &EndpointId, ports: &[PublishedPort]) {
        let ports = reservations(owner, ports);
        if ports.is_empty() {
            return;
        }
        if let Err(error) = self.shared.keeper.release(&ports).await {
            tracing::warn!(endpoint = %owner, %error, "ports stay reserved until the next repair");
        }
    }

    /// Brings the keeper's list to what is desired.
    pub(super) async fn reserve_all(&self, desired: &Desired) -> Vec<Finding> {
        let all = all_reservations(desired);
        match self.shared.keeper.missing(&all).await {
            // Ports that nobody wants any more are released by the same word.
            Ok(missing) => match self.shared.keeper.sync(&all).await {
                Ok(failed) => missing
                    .iter()
                    .map(|port| unreserved(port, &failed))
                    .collect(),
                Err(error) => keeper_silent(&all, &error),
            },
            Err(error) => keeper_silent(&all, &error),
        }
    }

    /// The desired ports that nobody keeps.
    pub(super) async fn unreserved(&self, desired: &Desired) -> Vec<Finding> {
        let all = all_reservations(desired);
        if all.is_empty() {
            return Vec::new();
        }
        match self.shared.keeper.missing(&all).await {
            Ok(missing) => missing
                .iter()
                .map(|port| Finding {
                    repair: Repair::ByRepair,
                    ..unreserved(port, &missing)
                })
                .collect(),
            Err(error) => keeper_silent(&all, &error),
        }
    }
}

fn unreserved(port: &Reservation, failed: &[Reservation]) -> Finding {
    Finding {
        kind: FindingKind::UnreservedPort,
        subject: port.to_string(),
        detail: format!(
            "no socket keeps the published port of endpoint {}",
            port.owner
        ),
        repair: if failed.contains(port) {
            Repair::ByHand
        } else {
            Repair::Done
        },
        next_step: format!(
            "ss -lnp 'sport = :{}' shows what holds it; stop that, then netloom audit --repair",
            port.host.port()
        ),
    }
}

fn keeper_silent(all: &[Reservation], error: &KeeperError) -> Vec<Finding> {
    if all.is_empty() {
        return Vec::new();
    }
    vec![Finding {
        kind: FindingKind::UnreservedPort,
        subject: format!("{} published ports", all.len()),
        detail: error.to_string(),
        repair: Repair::ByHand,
        next_step: "start netloom-relay".into(),
    }]
}

#[async_trait]
impl Publisher for BridgeDriver {
    async fn publish(
        &self,
        network: &NetworkSpec,
        endpoint: &DesiredEndpoint,
        wanted: &[PortBinding],
    ) -> Result<Vec<PublishedPort>, DriverError> {
        let plan = NetworkPlan::of(network)?;
        let elsewhere = plan.options.ports == PortPublishing::Caller;
        if wanted.is_empty() || elsewhere || network.reach == Reach::Internal {
            return Ok(Vec::new());
        }
        let _gate = self.shared.gate.read().await;
        let routed = |family| plan.options.mode(family) == GatewayMode::Routed;
        let mut wishes: Vec<Wish> = without_repeats(wanted)
            .iter()
            .map(|binding| {
                let mut wish = wish(&plan.options, endpoint, binding, &self.shared.next_port);
                wish.pairs.retain(|(_, own)| !routed(Family::of(*own)));
                wish
            })
            .filter(|wish| !wish.pairs.is_empty())
            .collect();
        let owner = endpoint.spec.id.clone();
        let mut ports = if wishes.is_empty() {
            Vec::new()
        } else {
            self.reserve(&owner, &mut wishes).await?
        };
        crash_point!("driver.publish.reserved");
        for family in [Family::V4, Family::V6].into_iter().filter(|f| routed(*f)) {
            ports.extend(
                without_repeats(wanted)
                    .iter()
                    .filter_map(|b| opened(endpoint, b, family)),
            );
        }
        let elements = port_elements(&plan, &ports);
        let reflect = hairpin_step(&owner, hairpin(&elements));
        let early = early_flows(&ports);
        let what = format!("the ports of endpoint {owner} could not be published");
        let done = self
            .on_kernel(move |kernel| {
                Transaction::run(kernel, |tx| apply::add_elements(tx, &elements))
                    .map_err(|error| apply::apply_error(what, error))?;
                reflecting(kernel, &reflect);
                flush(kernel, &early);
                Ok(())
            })
            .await;
        if let Err(error) = done {
            self.release(&owner, &ports).await;
            return Err(error);
        }
        crash_point!("driver.publish.programmed");
        Ok(ports)
    }

    async fn revoke(
        &self,
        network: &NetworkSpec,
        endpoint: &DesiredEndpoint,
        ports: &[PublishedPort],
    ) -> Result<(), DriverError> {
        if ports.is_empty() {
            return Ok(());
        }
        let _gate = self.shared.gate.read().await;
        let plan = NetworkPlan::of(network)?;
        let elements = port_elements(&plan, ports);
        let steps: Vec<_> = elements
            .into_iter()
            .map(KernelStep::DeleteElement)
            .collect();
        let flows = flows(ports);
        let last = endpoint.ports.iter().all(|port| ports.contains(port));
        let reflect = last.then(|| hairpin_step(&endpoint.spec.id, Switch::Off));
        let what = format!(
            "ports of endpoint {} could not be revoked",
            endpoint.spec.id
        );
        self.on_kernel(move |kernel| {
            apply::delete_all(kernel, &steps).map_err(|e| apply::apply_error(what, e))?;
            if let Some(step) = reflect {
                reflecting(kernel, &step);
            }
            crash_point!("driver.revoke.programmed");
            forget(kernel, flows);
            Ok(())
        })
        .await?;
        self.release(&endpoint.spec.id, ports).await;
        crash_point!("driver.revoke.released");
        Ok(())
    }
}
