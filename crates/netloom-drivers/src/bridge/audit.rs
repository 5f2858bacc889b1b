//! The difference between what should stand in the kernel and what does: pure.

use super::audit_links::{bridge, endpoint_link, routes, stray_links};
use super::plan::{EndpointPlan, NetworkPlan};
use netloom_core::{Desired, Finding, FindingKind, Repair};
use netloom_linux::{
    AcceptNeed, Direction, Element, ForwardAccept, KernelStep, Link, LinkAddress, Route, SysctlKey,
    TableSnapshot, TableState,
};
use netloom_types::{EndpointId, Family, LinkName, NetworkId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What findings call our tables.
const TABLES: &str = "inet netloom";

/// An endpoint that should stand in the kernel.
#[derive(Debug, Clone)]
pub(super) struct WantedEndpoint {
    pub(super) plan: EndpointPlan,
    pub(super) netns: PathBuf,
}

/// Everything that should stand in the kernel.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) networks: BTreeMap<NetworkId, NetworkPlan>,
    pub(super) endpoints: BTreeMap<EndpointId, WantedEndpoint>,
}

impl Wanted {
    /// Plans everything that is desired; what cannot be planned is found, and left alone.
    pub(super) fn of(desired: &Desired) -> (Self, Vec<Finding>) {
        let mut wanted = Self::default();
        let mut findings = Vec::new();
        for network in &desired.networks {
            match NetworkPlan::of(network) {
                Ok(plan) => {
                    wanted.networks.insert(network.id.clone(), plan);
                }
                Err(error) => findings.push(unplannable(network.id.as_str(), &error)),
            }
        }
        for endpoint in &desired.endpoints {
            let Some(sandbox) = &endpoint.sandbox else {
                continue;
            };
            let Some(network) = wanted.networks.get(&endpoint.spec.network) else {
                continue;
            };
            match EndpointPlan::of(network, endpoint) {
                Ok(plan) => {
                    let netns = sandbox.netns.clone();
                    let id = endpoint.spec.id.clone();
                    wanted.endpoints.insert(id, WantedEndpoint { plan, netns });
                }
                Err(error) => findings.push(unplannable(endpoint.spec.id.as_str(), &error)),
            }
        }
        (wanted, findings)
    }

    /// Every element that should be there; those of Docker's bridges are not in it.
    fn elements(&self) -> BTreeSet<&Element> {
        let of_networks = self.networks.values().flat_map(|n| &n.elements);
        let of_endpoints = self
            .endpoints
            .values()
            .flat_map(|e| e.plan.guard.iter().chain(&e.plan.ports));
        of_networks.chain(of_endpoints).collect()
    }
}

fn unplannable(id: &str, error: &netloom_core::DriverError) -> Finding {
    Finding {
        kind: FindingKind::HostProblem,
        subject: id.to_owned(),
        detail: format!("its record cannot be understood: {error}"),
        repair: Repair::ByHand,
        next_step: "remove it and make it again".into(),
    }
}

/// What the kernel has.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) links: Vec<Link>,
    pub(super) addresses: BTreeSet<LinkAddress>,
    pub(super) routes: Vec<Route>,
    pub(super) table: TableSnapshot,
    pub(super) accepts: BTreeSet<ForwardAccept>,
    pub(super) accept_need: AcceptNeed,
    /// Settings that somebody here wants; none where the kernel does not have it.
    pub(super) sysctls: BTreeMap<SysctlKey, Option<i32>>,
    /// The sandboxes that are there.
    pub(super) sandboxes: BTreeSet<EndpointId>,
}

impl Snapshot {
    pub(super) fn link(&self, name: &LinkName) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name.as_str())
    }
}

/// One disorder, with the steps that mend it; no steps means that a person has to act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mend {
    pub(super) kind: FindingKind,
    pub(super) subject: String,
    pub(super) detail: String,
    pub(super) next_step: String,
    pub(super) cure: Cure,
}

/// How a disorder is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cure {
    /// By these steps.
    Steps(Vec<KernelStep>),
    /// By attaching this endpoint again.
    Attach(EndpointId),
    /// By a person.
    Person,
}

impl Mend {
    pub(super) fn new(
        kind: FindingKind,
        subject: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            subject: subject.into(),
            detail: detail.into(),
            next_step: "netloom audit --repair".into(),
            cure: Cure::Person,
        }
    }

    pub(super) fn by(mut self, steps: Vec<KernelStep>) -> Self {
        self.cure = Cure::Steps(steps);
        self
    }

    pub(super) fn by_hand(mut self, next_step: impl Into<String>) -> Self {
        self.next_step = next_step.into();
        self.cure = Cure::Person;
        self
    }

    /// Whether our tables themselves were damaged.
    pub(super) fn is_of_tables(&self) -> bool {
        self.kind == FindingKind::MissingRule && self.subject == TABLES
    }

    /// The finding, with what became of it.
    pub(super) fn finding(&self, repair: Repair) -> Finding {
        Finding {
            kind: self.kind,
            subject: self.subject.clone(),
            detail: self.detail.clone(),
            repair,
            next_step: self.next_step.clone(),
        }
    }
}

/// Everything that is not as it should be, in the order in which it must be mended: walls first,
/// then bridges, what hangs on them, and last what does not belong.
pub(super) fn diff(wanted: &Wanted, have: &Snapshot) -> Vec<Mend> {
    let mut mends = Vec::new();
    table(wanted, have, &mut mends);
    for network in wanted.networks.values() {
        bridge(wanted, network, have, &mut mends);
        routes(network, have, &mut mends);
    }
    for (id, endpoint) in &wanted.endpoints {
        endpoint_link(wanted, id, endpoint, have, &mut mends);
    }
    accepts(wanted, have, &mut mends);
    forwarding(wanted, have, &mut mends);
    stray_links(wanted, have, &mut mends);
    mends
}

fn table(wanted: &Wanted, have: &Snapshot, mends: &mut Vec<Mend>) {
    let elements = wanted.elements();
    match &have.table.state {
        TableState::Absent => {
            if wanted.networks.is_empty() {
                return;
            }
            let mut steps = vec![KernelStep::EnsureTable];
            steps.extend(elements.into_iter().cloned().map(KernelStep::AddElement));
            let text = "the tables of netloom are gone: nothing isolates, translates or publishes";
            mends.push(Mend::new(FindingKind::MissingRule, TABLES, text).by(steps));
            return;
        }
        TableState::Damaged { faults, strays } => {
            let kinds = [
                (FindingKind::MissingRule, faults),
                (FindingKind::StrayRule, strays),
            ];
            for (kind, told) in kinds.into_iter().filter(|(_, told)| !told.is_empty()) {
                let steps = vec![KernelStep::EnsureTable];
                mends.push(Mend::new(kind, TABLES, told.join("; ")).by(steps));
            }
        }
        TableState::Complete => {}
    }
    let stray = |element: &&Element| {
        !matches!(element, Element::Foreign(_)) && !elements.contains(*element)
    };
    // Strays first: a port that goes to the wrong container is in the way of the right one.
    for element in have.table.elements.iter().filter(stray) {
        mends.push(
            Mend::new(
                FindingKind::StrayElement,
                element.to_string(),
                "no record asks for it",
            )
            .by(vec![KernelStep::DeleteElement(element.clone())]),
        );
    }
    for element in elements {
        if !have.table.elements.contains(element) {
            mends.push(
                Mend::new(
                    FindingKind::MissingElement,
                    element.to_string(),
                    "it is not in the tables",
                )
                .by(vec![KernelStep::AddElement(element.clone())]),
            );
        }
    }
    for stranger in &have.table.strangers {
        let text = "netloom does not write such elements";
        mends.push(
            Mend::new(FindingKind::StrayElement, stranger.clone(), text)
                .by_hand("nft list table inet netloom, then nft delete element"),
        );
    }
}

fn accepts(wanted: &Wanted, have: &Snapshot, mends: &mut Vec<Mend>) {
    let bridges: BTreeSet<&LinkName> = wanted.networks.values().map(NetworkPlan::name).collect();
    let stray: BTreeSet<&LinkName> = have
        .accepts
        .iter()
        .map(|accept| &accept.bridge)
        .filter(|bridge| !bridges.contains(bridge))
        .collect();
    for bridge in stray {
        let step = KernelStep::DeleteForwardAccept {
            bridge: bridge.clone(),
        };
        let text = "the chain DOCKER-USER accepts a bridge that no network has";
        mends.push(Mend::new(FindingKind::StrayRule, bridge.as_str(), text).by(vec![step]));
    }
    for bridge in bridges {
        match &have.accept_need {
            AcceptNeed::Chains(families) => missing_accept(bridge, families, have, mends),
            AcceptNeed::LegacyIptables => mends.push(
                Mend::new(
                    FindingKind::LegacyIptables,
                    bridge.as_str(),
                    "rules of legacy iptables are in force, which may drop the network's traffic",
                )
                .by_hand(format!(
                    "iptables -I DOCKER-USER -i {bridge} -j ACCEPT; \
                     iptables -I DOCKER-USER -o {bridge} -j ACCEPT; or switch to iptables-nft"
                )),
            ),
        }
    }
}

fn missing_accept(bridge: &LinkName, families: &[Family], have: &Snapshot, mends: &mut Vec<Mend>) {
    let complete = families.iter().all(|family| {
        [Direction::In, Direction::Out]
            .into_iter()
            .all(|direction| {
                have.accepts.contains(&ForwardAccept {
                    family: *family,
                    bridge: bridge.clone(),
                    direction,
                })
            })
    });
    if !complete {
        let step = KernelStep::AddForwardAccept {
            bridge: bridge.clone(),
        };
        let text = "its accept pair in DOCKER-USER is gone: Docker's FORWARD chain may drop it";
        mends.push(Mend::new(FindingKind::MissingRule, bridge.as_str(), text).by(vec![step]));
    }
}

fn forwarding(wanted: &Wanted, have: &Snapshot, mends: &mut Vec<Mend>) {
    let keys: BTreeSet<&SysctlKey> = wanted
        .networks
        .values()
        .flat_map(|network| &network.forwarding)
        // What new links start with says nothing about whether packets are forwarded.
        .filter(|key| **key != SysctlKey::Ipv6ForwardDefault)
        .collect();
    for key in keys {
        if have.sysctls.get(key).copied().flatten() != Some(1) {
            let step = KernelStep::SetSysctl {
                key: key.clone(),
                value: 1,
            };
            let text = "the host does not forward packets of this family";
            mends.push(Mend::new(FindingKind::ForwardingOff, key.to_string(), text).by(vec![step]));
        }
    }
}
