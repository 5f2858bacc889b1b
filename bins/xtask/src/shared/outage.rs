//! The store away, and what comes back without a hand.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};

use super::Scenario;
use super::machine::Machine;
use super::world::World;
use crate::term;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the daemon is killed while the store is away: nothing is lost, all comes back",
        run: killed_without_store,
    },
    Scenario {
        name: "the machine loses its power while the store is away: its containers come back",
        run: rebooted_without_store,
    },
    Scenario {
        name: "a store that does not answer holds nobody up",
        run: frozen,
    },
    Scenario {
        name: "an emptied store is initialised by a person only, and filled again by the hosts",
        run: wiped,
    },
];

/// A container must come to run again within so many seconds after the store came back.
const COMES_BACK: u64 = 60;

/// Two containers on each host.
fn settle(world: &World) -> Result<[Ipv4Addr; 4]> {
    world.network("blue", "10.9.0.0/16")?;
    let run = |machine: &Machine, name| machine.run(name, "blue", "");
    Ok([
        run(&world.one, "a")?,
        run(&world.one, "b")?,
        run(&world.two, "a")?,
        run(&world.two, "b")?,
    ])
}

fn kept(world: &World, addresses: [Ipv4Addr; 4]) -> Result<()> {
    let [one_a, one_b, two_a, two_b] = addresses;
    world.one.has_address("a", one_a)?;
    world.one.has_address("b", one_b)?;
    world.two.has_address("a", two_a)?;
    world.two.has_address("b", two_b)
}

/// A run that works as soon as it can, without a hand.
fn runs_again(machine: &Machine, name: &str) -> Result<Ipv4Addr> {
    netloom_lab::wait_for("a new container", COMES_BACK, || {
        machine.run(name, "blue", "")
    })
}

fn distinct(addresses: &[Ipv4Addr]) -> Result<()> {
    let mut sorted = addresses.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    ensure!(
        sorted.len() == addresses.len(),
        "an address was given twice: {addresses:?}"
    );
    Ok(())
}

fn killed_without_store(world: &mut World) -> Result<()> {
    let addresses = settle(world)?;
    let [_, one_b, ..] = addresses;
    let ping = world.one.ping("a", one_b)?;
    world.store.stop_all()?;
    world.one.host.kill_netloom_daemon()?;
    world.one.host.wait_for_netloom()?;
    kept(world, addresses)?;
    // The other host was not restarted and goes on as before.
    let more = world.two.run("c", "blue", "")?;
    // The restarted one says why it hands out nothing new before it has read its own record.
    let refused = world.one.try_run("c", "blue", "")?.refused()?;
    ensure!(
        refused.contains("store"),
        "the store is not named: {refused}"
    );
    world.one.stands("starting")?;
    world.store.start_all()?;
    let new = runs_again(&world.one, "d")?;
    let lost_none = ping.end();
    distinct(&[addresses.as_slice(), &[more, new]].concat())?;
    let sent = lost_none?;
    world.joined()?;
    world.audits_are_clean()?;
    term::say(&format!(
        "{sent} packets over the daemon's death and back: 0 lost; new addresses when the store came"
    ));
    Ok(())
}

fn rebooted_without_store(world: &mut World) -> Result<()> {
    world.network("blue", "10.9.0.0/16")?;
    let always = "--restart always";
    let before = world.one.run("a", "blue", always)?;
    let other = world.two.run("a", "blue", "")?;
    world.store.stop_all()?;
    world.reboot_one()?;
    world.one.host.start_netloom()?;
    world.one.host.start_dockerd()?;
    world.store.start_all()?;
    let comes_back = || world.one.has_address("a", before);
    netloom_lab::wait_for("the container after the reboot", COMES_BACK, comes_back).or_else(
        |_| {
            // Docker tries once after a boot; a person starts what it gave up.
            world.one.docker("start a")?;
            let after = world.one.address("a", "blue")?;
            term::say(&format!(
                "Docker gave the container up; started by hand it has {after}"
            ));
            Ok::<_, anyhow::Error>(())
        },
    )?;
    let new = runs_again(&world.one, "b")?;
    distinct(&[world.one.address("a", "blue")?, other, new])?;
    world.joined()?;
    world.audits_are_clean()
}

fn frozen(world: &mut World) -> Result<()> {
    let addresses = settle(world)?;
    world.store.pause(0)?;
    let outcome = (|| {
        let mut seen = addresses.to_vec();
        for machine in world.machines() {
            for name in ["c", "d"] {
                seen.push(machine.run(name, "blue", "")?);
            }
            machine.remove("d")?;
        }
        distinct(&seen)?;
        // What needs the store is refused, with its name.
        let refused = world.two.try_network("red", "10.10.0.0/24")?.refused()?;
        ensure!(
            refused.contains("store"),
            "the store is not named: {refused}"
        );
        world.one.host.kill_netloom_daemon()?;
        world.one.host.wait_for_netloom()?;
        kept(world, addresses)
    })();
    world.store.resume(0)?;
    outcome?;
    runs_again(&world.one, "e")?;
    world
        .two
        .network("red", "10.10.0.0/24")
        .context("after the silence")?;
    world.joined()
}

fn wiped(world: &mut World) -> Result<()> {
    let addresses = settle(world)?;
    world.store.wipe()?;
    world.store.start_all()?;
    // Neither host makes it its own; both go on with what they have.
    for machine in world.machines() {
        netloom_lab::wait_for("the host to notice", COMES_BACK, || {
            let standing = machine.standing()?;
            ensure!(standing != "joined", "it says that it is {standing}");
            Ok(())
        })?;
    }
    let mut seen = addresses.to_vec();
    for machine in world.machines() {
        seen.push(machine.run("c", "blue", "")?);
    }
    world.one.host.netloom("cluster init")?.ok()?;
    world.joined()?;
    for machine in world.machines() {
        seen.push(machine.run("d", "blue", "")?);
    }
    distinct(&seen)?;
    kept(world, addresses)?;
    world.audits_are_clean()
}
