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
    Scenario {
        name: "a store that went back to an older state is noticed, and gives nobody's address away",
        run: rolled_back,
    },
];

/// A container must come to run again within so many seconds after the store came back.
const COMES_BACK: u64 = 60;

/// Two containers on each host.
fn settle(world: &World) -> Result<[Ipv4Addr; 4]> {
    world.network("blue", "10.9.0.0/16")?;
    let run = |machine: &Machine, name| machine.run(name, "blue", "");
    Ok([
        run(&world.one, "box-a")?,
        run(&world.one, "box-b")?,
        run(&world.two, "box-a")?,
        run(&world.two, "box-b")?,
    ])
}

fn kept(world: &World, addresses: [Ipv4Addr; 4]) -> Result<()> {
    let [one_a, one_b, two_a, two_b] = addresses;
    world.one.has_address("box-a", one_a)?;
    world.one.has_address("box-b", one_b)?;
    world.two.has_address("box-a", two_a)?;
    world.two.has_address("box-b", two_b)
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
    let ping = world.one.ping("box-a", one_b)?;
    world.store.stop_all()?;
    world.one.host.kill_netloom_daemon()?;
    world.one.host.wait_for_netloom()?;
    kept(world, addresses)?;
    // The other host was not restarted and goes on as before.
    let more = world.two.run("box-c", "blue", "")?;
    // The restarted one says why it hands out nothing new before it has read its own record.
    let refused = world.one.try_run("box-c", "blue", "")?.refused()?;
    ensure!(
        refused.contains("store"),
        "the store is not named: {refused}"
    );
    world.one.stands("starting")?;
    world.store.start_all()?;
    let new = runs_again(&world.one, "box-d")?;
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
    world.one.run("box-a", "blue", "")?;
    let other = world.two.run("box-a", "blue", "")?;
    world.store.stop_all()?;
    world.reboot_one()?;
    world.one.host.start_netloom()?;
    world.one.host.start_dockerd()?;
    // Docker asks for an address anew, and the host has not read its own record yet.
    let refused = world.one.host.try_docker("start box-a")?.refused()?;
    ensure!(
        refused.contains("store"),
        "the store is not named: {refused}"
    );
    world.store.start_all()?;
    let starts = || world.one.docker("start box-a");
    netloom_lab::wait_for("the container of before", COMES_BACK, starts)?;
    let again = world.one.address("box-a", "blue")?;
    world.one.has_address("box-a", again)?;
    let new = world.one.run("box-b", "blue", "")?;
    distinct(&[again, other, new])?;
    world.joined()?;
    world.audits_are_clean()
}

fn frozen(world: &mut World) -> Result<()> {
    let addresses = settle(world)?;
    world.store.pause(0)?;
    let outcome = (|| {
        let mut seen = addresses.to_vec();
        for machine in world.machines() {
            for name in ["box-c", "box-d"] {
                seen.push(machine.run(name, "blue", "")?);
            }
            machine.remove("box-d")?;
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
    runs_again(&world.one, "box-e")?;
    world
        .two
        .network("red", "10.10.0.0/24")
        .context("after the silence")?;
    world.joined()
}

/// A person's word to an empty store, again where the first was lost on its way.
fn initialise(machine: &Machine) -> Result<()> {
    netloom_lab::wait_for("the store to take the word", COMES_BACK, || {
        let said = machine.host.netloom("cluster init")?;
        // An answer may be lost, too: then the second word finds what the first did.
        let taken = ["joined", "healing"].contains(&machine.standing()?.as_str());
        ensure!(said.code == 0 || taken, "{said}");
        Ok(())
    })
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
        seen.push(machine.run("box-c", "blue", "")?);
    }
    initialise(&world.one)?;
    world.joined()?;
    for machine in world.machines() {
        seen.push(machine.run("box-d", "blue", "")?);
    }
    distinct(&seen)?;
    kept(world, addresses)?;
    world.audits_are_clean()
}

/// Two addresses of 10.9.0.0/16 in chunks (1,024 addresses) from which nobody was given anything.
fn nobodys(given: &[Ipv4Addr]) -> Result<[Ipv4Addr; 2]> {
    let is_free = |third: &u8| given.iter().all(|ip| ip.octets()[2] / 4 != third / 4);
    let mut free = (100..=248).step_by(4).filter(is_free);
    match (free.next(), free.next()) {
        (Some(one), Some(two)) => Ok([one, two].map(|third| Ipv4Addr::new(10, 9, third, 1))),
        _ => anyhow::bail!("no chunk is nobody's: {given:?}"),
    }
}

fn rolled_back(world: &mut World) -> Result<()> {
    let addresses = settle(world)?;
    world.store.stop_all()?;
    world.store.snapshot_data()?;
    world.store.start_all()?;
    world.joined()?;
    let before = world.one.epoch()?;
    // Of these the copy knows nothing: chunks that nobody had anything of.
    let [late, other] = nobodys(&addresses)?;
    let late = world.one.run("late", "blue", &format!("--ip {late}"))?;
    let other = world.two.run("late", "blue", &format!("--ip {other}"))?;
    world.store.stop_all()?;
    world.store.restore_data()?;
    world.store.start_all()?;
    for machine in world.machines() {
        netloom_lab::wait_for("a new epoch", COMES_BACK, || {
            let now = machine.epoch()?;
            ensure!(now > before, "epoch {now} on host {}", machine.name);
            Ok(())
        })?;
    }
    world.joined()?;
    for (machine, taken) in [(&world.one, other), (&world.two, late)] {
        let wish = format!("--ip {taken}");
        let refused = machine.try_run("thief", "blue", &wish)?.refused()?;
        ensure!(
            refused.contains(&taken.to_string()),
            "the address is not named: {refused}"
        );
    }
    kept(world, addresses)?;
    let mut seen = [addresses.as_slice(), &[late, other]].concat();
    for machine in world.machines() {
        seen.push(machine.run("new", "blue", "")?);
    }
    distinct(&seen)?;
    world.audits_are_clean()
}
