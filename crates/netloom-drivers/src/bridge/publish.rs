//! Published ports: which host port each gets, and what the kernel needs for it.

use super::BridgeDriver;
use super::apply::{self, Transaction, forget_flows};
use super::names;
use super::options::{BridgeOptions, GatewayMode, PortPublishing};
use super::plan::{NetworkPlan, hairpin, port_elements};
use crate::ports::KeeperError;
use crate::relay::{Refusal, Reservation};
use async_trait::async_trait;
use netloom_core::{
    Desired, DesiredEndpoint, DriverError, Finding, FindingKind, NetworkSpec, PublishedPort,
    Publisher, Reach, Repair, crash_point,
};
use netloom_linux::{ConntrackFilter, Kernel, KernelStep, PortFlags, Switch};
use netloom_types::{EndpointId, Family, HostPorts, PortBinding, Protocol};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

/// The dynamic ports of RFC 6335, which Docker takes where the kernel's range cannot be read.
const DYNAMIC_PORTS: (u16, u16) = (49_153, 65_535);
/// Where the kernel says which ports it gives to clients.
const EPHEMERAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// How many ports in use are passed over before a publish gives up: each costs one question to
/// the relay, and dockerd waits.
const TRIES_MAX: usize = 4096;

/// Where the search for an ephemeral port begins: behind the last one given, so that a port is
/// reused as late as possible.
#[derive(Debug, Default)]
pub(super) struct Cursor(AtomicU32);

/// Bytes that differ from call to call; not for secrets.
pub(super) fn random_bytes() -> [u8; 6] {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    let [a, b, c, d, e, g, ..] = hasher.finish().to_be_bytes();
    [a, b, c, d, e, g]
}

/// One binding with the host addresses that it means, and the ports that it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    binding: PortBinding,
    /// Host address and container address, of one family each.
    pairs: Vec<(IpAddr, IpAddr)>,
    candidates: Candidates,
}

/// Ports to choose from, in the order of choice.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidates {
    first: u16,
    last: u16,
    next: u16,
    left: u32,
}

impl Candidates {
    /// The range from `start` on, around its end.
    fn new(first: u16, last: u16, start: u16) -> Self {
        Self {
            first,
            last,
            next: start.clamp(first, last),
            left: u32::from(last.saturating_sub(first)) + 1,
        }
    }
}

impl Iterator for Candidates {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.left = self.left.checked_sub(1)?;
        let port = self.next;
        self.next = if port == self.last {
            self.first
        } else {
            port.saturating_add(1)
        };
        Some(port)
    }
}

/// The host and container addresses that a binding means.
fn pairs(
    options: &BridgeOptions,
    endpoint: &DesiredEndpoint,
    binding: &PortBinding,
) -> Vec<(IpAddr, IpAddr)> {
    let own = endpoint.spec.addresses;
    let (v4, v6) = match binding.host_ip {
        Some(IpAddr::V4(ip)) => (Some(ip), None),
        Some(IpAddr::V6(ip)) => (None, Some(ip)),
        None => match (options.host_binding, options.host_binding_v6) {
            (None, None) => (Some(Ipv4Addr::UNSPECIFIED), Some(Ipv6Addr::UNSPECIFIED)),
            // A chosen address is a wish to be found there and nowhere else.
            (Some(v4), None) if v4.is_unspecified() => (Some(v4), Some(Ipv6Addr::UNSPECIFIED)),
            chosen => chosen,
        },
    };
    let v4 = v4
        .zip(own.ipv4)
        .map(|(host, own)| (IpAddr::V4(host), own.ip()));
    let v6 = v6
        .zip(own.ipv6)
        .map(|(host, own)| (IpAddr::V6(host), own.ip()));
    v4.into_iter().chain(v6).collect()
}

/// The range of ephemeral ports: `FIRST LAST`, as the kernel writes it.
fn ephemeral_range(text: Option<&str>) -> (u16, u16) {
    let mut numbers = text.unwrap_or_default().split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if 0 < first && first <= last => (first, last),
        _ => DYNAMIC_PORTS,
    }
}

fn wish(
    options: &BridgeOptions,
    endpoint: &DesiredEndpoint,
    binding: &PortBinding,
    cursor: &Cursor,
) -> Wish {
    let candidates = match binding.host_ports {
        HostPorts::Range { first, last } => Candidates::new(first, last, first),
        HostPorts::Ephemeral => {
            let text = std::fs::read_to_string(EPHEMERAL_RANGE).ok();
            let (first, last) = ephemeral_range(text.as_deref());
            let count = u32::from(last - first) + 1;
            let step = cursor.0.fetch_add(1, Ordering::Relaxed) % count;
            let start = first.saturating_add(u16::try_from(step).unwrap_or(0));
            Candidates::new(first, last, start)
        }
    };
    Wish {
        binding: *binding,
        pairs: pairs(options, endpoint, binding),
        candidates,
    }
}

/// The ports that a binding becomes when its host port is `port`.
fn published<'a>(wish: &'a Wish, port: u16) -> impl Iterator<Item = PublishedPort> + 'a {
    wish.pairs.iter().map(move |(host, own)| PublishedPort {
        protocol: wish.binding.protocol,
        host_ip: *host,
        host_port: port,
        container_ip: *own,
        container_port: wish.binding.container_port,
    })
}

/// What the keeper has to keep for a port; ports of routed networks need nothing from the host.
fn reservation(owner: &EndpointId, port: &PublishedPort) -> Option<Reservation> {
    (port.host_ip != port.container_ip).then(|| Reservation {
        protocol: port.protocol,
        host: SocketAddr::new(port.host_ip, port.host_port),
        target: SocketAddr::new(port.container_ip, port.container_port),
        owner: owner.to_string(),
    })
}

fn reservations(owner: &EndpointId, ports: &[PublishedPort]) -> Vec<Reservation> {
    ports
        .iter()
        .filter_map(|port| reservation(owner, port))
        .collect()
}

fn all_reservations(desired: &Desired) -> Vec<Reservation> {
    desired
        .endpoints
        .iter()
        .flat_map(|endpoint| reservations(&endpoint.spec.id, &endpoint.ports))
        .collect()
}

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

fn exhausted(wish: &Wish, last: &DriverError) -> DriverError {
    match wish.binding.host_ports {
        HostPorts::Range { first, last: end } if first == end => {
            DriverError::Conflict(last.to_string())
        }
        HostPorts::Range { first, last: end } => DriverError::Exhausted(format!(
            "no port of {first}-{end}/{} is free; the last one tried: {last}",
            wish.binding.protocol
        )),
        HostPorts::Ephemeral => DriverError::Exhausted(format!(
            "no ephemeral port is free for {}; the last one tried: {last}",
            wish.binding.protocol
        )),
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

/// The wishes without those that say the same again; each wish for any port stands for one more.
fn without_repeats(wanted: &[PortBinding]) -> Vec<PortBinding> {
    let mut seen = BTreeSet::new();
    wanted
        .iter()
        .filter(|binding| binding.host_ports == HostPorts::Ephemeral || seen.insert(**binding))
        .copied()
        .collect()
}

/// The first reservation that is there before already: two wishes have come to the same port.
fn first_repeat(wanted: &[Reservation]) -> Option<usize> {
    let mut seen = BTreeSet::new();
    wanted.iter().position(|port| !seen.insert(port.key()))
}

fn chosen_already(index: usize, wanted: &[Reservation]) -> KeeperError {
    match wanted.get(index) {
        Some(port) => KeeperError::Refused {
            index,
            port: Box::new(port.clone()),
            refusal: Refusal::InUse,
            reason: "this container has asked for it twice".into(),
        },
        None => KeeperError::Unavailable {
            socket: "the list of ports".into(),
            reason: format!("it has no entry {index}"),
        },
    }
}

/// All ports that the chosen ones mean, and for each that needs a reservation its wish.
fn spread(wishes: &[Wish], chosen: &[u16]) -> (Vec<PublishedPort>, Vec<usize>) {
    let mut ports = Vec::new();
    let mut of_wish = Vec::new();
    for (at, (wish, port)) in wishes.iter().zip(chosen).enumerate() {
        for one in published(wish, *port) {
            ports.push(one);
            of_wish.push(at);
        }
    }
    (ports, of_wish)
}

/// A port of a routed network: opened at the container's own address.
fn opened(
    endpoint: &DesiredEndpoint,
    binding: &PortBinding,
    family: Family,
) -> Option<PublishedPort> {
    let own = match family {
        Family::V4 => endpoint.spec.addresses.ipv4,
        Family::V6 => endpoint.spec.addresses.ipv6,
    }?;
    let wanted = binding
        .host_ip
        .is_none_or(|host| Family::of(host) == family);
    wanted.then(|| PublishedPort {
        protocol: binding.protocol,
        host_ip: own.ip(),
        host_port: binding.container_port,
        container_ip: own.ip(),
        container_port: binding.container_port,
    })
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
