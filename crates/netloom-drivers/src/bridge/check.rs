//! What a network or an endpoint must be before anything is changed.

use super::apply::{owner, read_error};
use super::audit_links::overlaps;
use super::options::BridgeOptions;
use super::plan::{NetworkPlan, bridge_name};
use netloom_core::{DriverError, EndpointSpec, NetworkSpec};
use netloom_linux::Kernel;

/// Checks a network by itself and against the other networks of this host.
pub(super) fn network(
    network: &NetworkSpec,
    others: &[NetworkSpec],
) -> Result<NetworkPlan, DriverError> {
    let plan = NetworkPlan::of(network)?;
    for subnet in &network.subnets {
        if let Some(gateway) = subnet.gateway
            && !subnet.subnet.contains(gateway)
        {
            return Err(DriverError::Invalid(format!(
                "gateway {gateway} does not lie in subnet {}",
                subnet.subnet
            )));
        }
    }
    for (at, one) in network.subnets.iter().enumerate() {
        let twin = network.subnets.iter().skip(at + 1);
        if let Some(other) = twin.into_iter().find(|o| o.subnet.overlaps(one.subnet)) {
            return Err(DriverError::Invalid(format!(
                "the subnets {} and {} of the network overlap",
                one.subnet, other.subnet
            )));
        }
    }
    for other in others.iter().filter(|other| other.id != network.id) {
        beside(network, &plan, other)?;
    }
    Ok(plan)
}

fn beside(
    network: &NetworkSpec,
    plan: &NetworkPlan,
    other: &NetworkSpec,
) -> Result<(), DriverError> {
    for own in &network.subnets {
        if let Some(theirs) = other.subnets.iter().find(|s| s.subnet.overlaps(own.subnet)) {
            return Err(DriverError::Conflict(format!(
                "subnet {} overlaps subnet {} of network {}; choose another --subnet",
                own.subnet,
                theirs.subnet,
                other.id.short(12)
            )));
        }
    }
    // Another driver's options need not be ours; then it has no bridge of this name either.
    let theirs = BridgeOptions::parse(other).map(|options| bridge_name(other, &options));
    if theirs.is_ok_and(|name| name == *plan.name()) {
        return Err(DriverError::Conflict(format!(
            "bridge {} belongs to network {}; choose another name with netloom.bridge.name",
            plan.name(),
            other.id.short(12)
        )));
    }
    Ok(())
}

/// Checks a network against what the host has.
pub(super) fn host(kernel: &dyn Kernel, plan: &NetworkPlan) -> Result<(), DriverError> {
    let what = || format!("network {} could not be checked", plan.id);
    let link = kernel
        .link(plan.name())
        .map_err(|e| read_error(&what(), e))?;
    owner(plan, link.as_ref()).map_err(DriverError::Conflict)?;
    let routes = kernel.routes().map_err(|e| read_error(&what(), e))?;
    let own = link.map(|link| link.index);
    let Some((route, subnet)) = overlaps(plan, &routes, own).next() else {
        return Ok(());
    };
    let links = kernel.links().map_err(|e| read_error(&what(), e))?;
    let via = links
        .iter()
        .find(|link| Some(link.index) == route.link)
        .map_or_else(String::new, |link| format!(" by {}", link.name));
    Err(DriverError::Conflict(format!(
        "subnet {subnet} overlaps the host's route to {}{via}; choose another --subnet",
        route.destination
    )))
}

/// Checks an endpoint against its network.
pub(super) fn endpoint(network: &NetworkSpec, endpoint: &EndpointSpec) -> Result<(), DriverError> {
    for address in endpoint.addresses.iter() {
        let mut subnets = network.subnets_of(address.family()).peekable();
        // Without a subnet, addresses come from elsewhere.
        if subnets.peek().is_some() && !subnets.any(|s| s.subnet.contains(address.ip())) {
            return Err(DriverError::Invalid(format!(
                "address {address} lies in none of the network's subnets"
            )));
        }
        let gateway = network
            .subnets
            .iter()
            .find_map(|s| s.gateway.filter(|g| *g == address.ip()));
        if gateway.is_some() {
            return Err(DriverError::Conflict(format!(
                "address {} is the network's gateway; choose another",
                address.ip()
            )));
        }
    }
    match endpoint.mac {
        Some(mac) if !mac.is_unicast() => Err(DriverError::Invalid(format!(
            "MAC address {mac} is a group's or all zero; a container needs a unicast address"
        ))),
        _ => Ok(()),
    }
}
