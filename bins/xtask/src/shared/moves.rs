//! A host with a store of its own moves to the one that the others share.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Scenario;
use super::machine::Machine;
use super::world::World;
use crate::term;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a host moves from its own store to the shared one with its containers running",
        run: moves,
    },
    Scenario {
        name: "a host that brings a pool of others is refused, with the list of conflicts",
        run: conflicts,
    },
    Scenario {
        name: "a network of two subnets moves, is shared, and goes host by host",
        run: two_subnets,
    },
];

/// Host one leaves the others and begins anew, with a store of its own.
fn alone(world: &mut World) -> Result<()> {
    let id = world.one.id()?;
    world.one.host.stop_netloom()?;
    world.one.host.forget_netloom_state()?;
    world.one.host.configure_netloom("")?;
    world.one.host.start_netloom()?;
    world
        .two
        .host
        .netloom(&format!("host forget {id} --yes"))?
        .ok()?;
    world.one.stands("alone")
}

/// The same daemon with the shared store named in its configuration.
fn join(world: &World) -> Result<()> {
    let host = &world.one.host;
    host.configure_netloom(&world.settings())?;
    host.kill_netloom_daemon()?;
    host.wait_for_netloom()
}

fn moves(world: &mut World) -> Result<()> {
    alone(world)?;
    world.one.network("solo", "10.77.0.0/24")?;
    let mut seen = vec![
        world.one.run("box-a", "solo", "")?,
        world.one.run("box-b", "solo", "--ip 10.77.0.77")?,
    ];
    let (a, b) = (
        world.one.address("box-a", "solo")?,
        world.one.address("box-b", "solo")?,
    );
    let ping = world.one.ping("box-a", b)?;
    join(world)?;
    world.joined()?;
    let sent = ping.end()?;
    world.one.has_address("box-a", a)?;
    world.one.has_address("box-b", b)?;
    // The pool is everybody's now.
    world.two.network("solo", "10.77.0.0/24")?;
    let refused = world
        .two
        .try_run("thief", "solo", "--ip 10.77.0.77")?
        .refused()?;
    ensure!(
        refused.contains("10.77.0.77"),
        "the address is not named: {refused}"
    );
    for machine in world.machines() {
        for n in 0..4 {
            seen.push(machine.run_patiently(&format!("c{n}"), "solo", "")?);
        }
    }
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    ensure!(seen.len() == count, "an address was given twice: {seen:?}");
    world.audits_are_clean()?;
    term::say(&format!("{sent} packets while it moved: 0 lost"));
    Ok(())
}

/// Both subnets of a network that was made on one host alone are everybody's after its move, and what a
/// host has of either comes back with its containers, whichever subnet Docker asks.
fn two_subnets(world: &mut World) -> Result<()> {
    // Of six usable addresses each, one is the gateway's.
    let both = "10.20.0.0/29 --subnet 10.21.0.0/29";
    alone(world)?;
    world.one.network("wide", both)?;
    let mut seen = BTreeSet::new();
    for n in 0..6 {
        seen.insert(world.one.run(&format!("c{n}"), "wide", "")?);
    }
    join(world)?;
    world.joined()?;
    world.two.network("wide", both)?;
    for n in 0..4 {
        seen.insert(world.two.run_patiently(&format!("c{n}"), "wide", "")?);
    }
    ensure!(seen.len() == 10, "not ten addresses, each once: {seen:?}");
    for machine in world.machines() {
        let refused = machine.try_run("late", "wide", "")?.refused()?;
        for subnet in ["10.20.0.0/29", "10.21.0.0/29"] {
            ensure!(refused.contains(subnet), "{subnet} is not named: {refused}");
        }
    }
    world.one.remove_everything()?;
    // What a host gave was through its own network, and comes back when the other's is forgotten.
    netloom_lab::wait_for("the other network's end", 60, || {
        let users = users_of_pools(&world.two)?;
        ensure!(users == [1, 1], "used by {users:?} networks");
        Ok(())
    })?;
    for n in 0..4 {
        world.two.remove(&format!("c{n}"))?;
    }
    for n in 0..10 {
        world.two.run_patiently(&format!("c{n}"), "wide", "")?;
    }
    let there: BTreeSet<_> = world.two.addresses("wide")?.into_iter().collect();
    ensure!(there == seen, "{there:?} instead of {seen:?}");
    world.audits_are_clean()
}

/// By how many networks each pool is used, as far as this host knows.
fn users_of_pools(machine: &Machine) -> Result<Vec<usize>> {
    let pools = machine.host.netloom_json("pool ls")?;
    let pools = pools.as_array().context("no list of pools")?;
    let users = |pool: &Value| Some(pool.get("references")?.as_array()?.len());
    pools
        .iter()
        .map(|pool| users(pool).context("no list of references"))
        .collect()
}

fn conflicts(world: &mut World) -> Result<()> {
    alone(world)?;
    world.one.network("mine", "10.77.0.0/24")?;
    world.one.network("more", "10.78.0.0/24")?;
    world.one.run("box-a", "mine", "")?;
    world.two.network("theirs", "10.77.0.0/25")?;
    world.two.network("wide", "10.78.0.0/16")?;
    join(world)?;
    world.one.stands("stopped")?;
    let why = world.one.host.netloom("cluster status")?;
    let why = format!("{}\n{}", why.stdout, why.stderr);
    for pool in [
        "10.77.0.0/24",
        "10.77.0.0/25",
        "10.78.0.0/24",
        "10.78.0.0/16",
    ] {
        ensure!(why.contains(pool), "{pool} is not named: {why}");
    }
    world
        .one
        .docker("exec box-a ip addr")
        .context("its container")?;
    // Once a person has removed them here, the host joins.
    for machine in world.machines() {
        machine.remove_everything()?;
    }
    world.one.host.kill_netloom_daemon()?;
    world.one.host.wait_for_netloom()?;
    world.joined()
}
