//! A host with a store of its own moves to the one that the others share.

use anyhow::{Context, Result, ensure};

use super::Scenario;
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
