//! Bridges, the links on them and the host's routes: what is missing, wrong or stray.

use super::apply::{Owner, owner};
use super::audit::{Cure, Mend, Snapshot, Wanted, WantedEndpoint};
use super::names;
use super::plan::{EndpointPlan, NetworkPlan};
use netloom_core::FindingKind;
use netloom_linux::{AdminState, KernelStep, Link, LinkAddress, LinkIndex, Route};
use netloom_types::{EndpointId, LinkName};
use std::collections::BTreeSet;

/// A Linux bridge carries at most 1,023 ports (`BR_MAX_PORTS`); from 90 % on people are warned.
const PORTS_WARNING: usize = 1023 * 9 / 10;

pub(super) fn bridge(
    wanted: &Wanted,
    network: &NetworkPlan,
    have: &Snapshot,
    mends: &mut Vec<Mend>,
) {
    let name = network.name();
    let link = have.link(name);
    let owner = match owner(network, link) {
        Ok(owner) => owner,
        Err(reason) => {
            mends.push(
                Mend::new(FindingKind::WrongSetting, name.as_str(), reason)
                    .by_hand(format!("ip link show {name}")),
            );
            return;
        }
    };
    let Some(link) = link else {
        let mut steps = network.own_bridge_steps();
        steps.extend(replug_steps(wanted, network, have));
        let text = format!("the bridge of network {} is gone", network.id);
        mends.push(Mend::new(FindingKind::MissingBridge, name.as_str(), text).by(steps));
        return;
    };
    if owner == Owner::Network {
        own_bridge(network, link, have, mends);
    }
    for address in &network.addresses {
        let here = LinkAddress {
            link: link.index,
            address: *address,
        };
        if !have.addresses.contains(&here) {
            let text = format!("its gateway address {address} is gone");
            let step = KernelStep::AddAddress {
                link: name.clone(),
                address: *address,
            };
            mends.push(wrong_setting(name, text, vec![step]));
        }
    }
    nearly_full(name, link.index, have, mends);
}

fn own_bridge(network: &NetworkPlan, link: &Link, have: &Snapshot, mends: &mut Vec<Mend>) {
    let name = network.name();
    check_mtu(name, link, network.options.mtu, mends);
    check_state(name, link, mends);
    if link.alias.as_deref() != Some(network.bridge.alias.as_str()) {
        let step = KernelStep::SetAlias {
            link: name.clone(),
            alias: network.bridge.alias.clone(),
        };
        mends.push(wrong_setting(name, "its tag is gone", vec![step]));
    }
    for (key, value) in &network.settings {
        let seen = have.sysctls.get(key).copied().flatten();
        if let Some(seen) = seen
            && seen != *value
        {
            let step = KernelStep::SetSysctl {
                key: key.clone(),
                value: *value,
            };
            let text = format!("{key} is {seen} instead of {value}");
            mends.push(wrong_setting(name, text, vec![step]));
        }
    }
}

fn nearly_full(name: &LinkName, index: LinkIndex, have: &Snapshot, mends: &mut Vec<Mend>) {
    let ports = have
        .links
        .iter()
        .filter(|l| l.master == Some(index))
        .count();
    if ports >= PORTS_WARNING {
        let text = format!("{ports} of at most 1023 ports are in use");
        mends.push(
            Mend::new(FindingKind::BridgeNearlyFull, name.as_str(), text)
                .by_hand("attach further containers to another network"),
        );
    }
}

/// Puts the links of a network's endpoints back into its bridge.
fn replug_steps(wanted: &Wanted, network: &NetworkPlan, have: &Snapshot) -> Vec<KernelStep> {
    wanted
        .endpoints
        .values()
        .map(|endpoint| &endpoint.plan)
        .filter(|plan| plan.bridge == *network.name() && have.link(&plan.host_end).is_some())
        .flat_map(plug_steps)
        .collect()
}

fn plug_steps(plan: &EndpointPlan) -> [KernelStep; 3] {
    let link = plan.host_end.clone();
    [
        KernelStep::SetMaster {
            link: link.clone(),
            master: plan.bridge.clone(),
        },
        KernelStep::SetPortFlags {
            link: link.clone(),
            flags: plan.flags,
        },
        KernelStep::SetUp { link },
    ]
}

pub(super) fn endpoint_link(
    wanted: &Wanted,
    id: &EndpointId,
    endpoint: &WantedEndpoint,
    have: &Snapshot,
    mends: &mut Vec<Mend>,
) {
    let plan = &endpoint.plan;
    let name = &plan.host_end;
    let Some(link) = have.link(name) else {
        let text = format!("the link of endpoint {id} is gone");
        let missing = Mend::new(FindingKind::MissingLink, name.as_str(), text);
        mends.push(if have.sandboxes.contains(id) {
            Mend {
                cure: Cure::Attach(id.clone()),
                ..missing
            }
        } else {
            missing.by_hand("restart its container")
        });
        return;
    };
    check_mtu(name, link, plan.mtu, mends);
    if link.alias.as_deref() != Some(plan.alias.as_str()) {
        let step = KernelStep::SetAlias {
            link: name.clone(),
            alias: plan.alias.clone(),
        };
        mends.push(wrong_setting(name, "its tag is gone", vec![step]));
    }
    // A missing bridge was found above, and its mending plugs the links in again.
    let Some(bridge) = have.link(&plan.bridge) else {
        return;
    };
    debug_assert!(wanted.networks.values().any(|n| *n.name() == plan.bridge));
    if link.master != Some(bridge.index) {
        let text = format!("it is no port of {}", plan.bridge);
        mends.push(wrong_setting(name, text, plug_steps(plan).into()));
    } else {
        check_state(name, link, mends);
    }
}

fn check_mtu(name: &LinkName, link: &Link, mtu: u32, mends: &mut Vec<Mend>) {
    if link.mtu == mtu {
        return;
    }
    let step = KernelStep::SetMtu {
        link: name.clone(),
        mtu,
    };
    let text = format!("its MTU is {} instead of {mtu}", link.mtu);
    mends.push(Mend::new(FindingKind::WrongMtu, name.as_str(), text).by(vec![step]));
}

fn check_state(name: &LinkName, link: &Link, mends: &mut Vec<Mend>) {
    if link.state == AdminState::Down {
        let step = KernelStep::SetUp { link: name.clone() };
        mends.push(wrong_setting(name, "it is set down", vec![step]));
    }
}

fn wrong_setting(name: &LinkName, text: impl Into<String>, steps: Vec<KernelStep>) -> Mend {
    Mend::new(FindingKind::WrongSetting, name.as_str(), text).by(steps)
}

pub(super) fn routes(network: &NetworkPlan, have: &Snapshot, mends: &mut Vec<Mend>) {
    let own = have.link(network.name()).map(|link| link.index);
    for (route, subnet) in overlaps(network, &have.routes, own) {
        let via = route
            .link
            .and_then(|index| have.links.iter().find(|link| link.index == index))
            .map_or_else(String::new, |link| format!(" by {}", link.name));
        let text = format!(
            "the host's route to {}{via} overlaps subnet {subnet} of network {}",
            route.destination, network.id
        );
        let subject = route.destination.to_string();
        mends.push(
            Mend::new(FindingKind::OverlappingRoute, subject, text).by_hand(format!(
                "remove the route (ip route del {}) or move the network to another subnet",
                route.destination
            )),
        );
    }
}

/// The host's routes, other than default ones and those of the network's own bridge, that overlap
/// one of its subnets.
pub(super) fn overlaps<'a>(
    network: &'a NetworkPlan,
    routes: &'a [Route],
    own: Option<LinkIndex>,
) -> impl Iterator<Item = (&'a Route, netloom_types::Subnet)> {
    routes
        .iter()
        .filter(move |route| route.destination.prefix_len() > 0)
        .filter(move |route| route.link.is_none() || route.link != own)
        .flat_map(move |route| {
            network
                .subnets()
                .filter(|subnet| subnet.overlaps(route.destination))
                .map(move |subnet| (route, subnet))
        })
}

pub(super) fn stray_links(wanted: &Wanted, have: &Snapshot, mends: &mut Vec<Mend>) {
    let mut expected: BTreeSet<&str> = wanted
        .networks
        .values()
        .map(|n| n.name().as_str())
        .collect();
    expected.extend(wanted.endpoints.values().map(|e| e.plan.host_end.as_str()));
    for link in &have.links {
        if expected.contains(link.name.as_str()) || !names::is_ours(link) {
            continue;
        }
        let Ok(name) = LinkName::new(link.name.as_str()) else {
            continue;
        };
        let tag = link.alias.as_deref().unwrap_or("made by half");
        let text = format!("no record asks for this {}", kind_of(link));
        mends.push(
            Mend::new(
                FindingKind::StrayLink,
                name.as_str(),
                format!("{text} ({tag})"),
            )
            .by(vec![KernelStep::DeleteLink { link: name.clone() }]),
        );
    }
}

fn kind_of(link: &Link) -> &str {
    link.kind.as_deref().unwrap_or("link")
}
