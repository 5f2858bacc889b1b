//! Addresses that go from one host to the other, or do not.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};

use super::Scenario;
use super::machine::Machine;
use super::world::World;
use crate::term;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "an address that the other host has, and one that it could give",
        run: wished,
    },
    Scenario {
        name: "a pool that overlaps another host's is refused, and named",
        run: overlapping,
    },
    Scenario {
        name: "a small pool is handed out to the last address, whichever host asks",
        run: to_the_last,
    },
    Scenario {
        name: "a lost host's addresses come back by one word only",
        run: lost_host,
    },
];

/// Runs containers until one is refused; gives their addresses and what was said then.
fn until_refused(machine: &Machine, network: &str) -> Result<(Vec<Ipv4Addr>, String)> {
    let mut addresses = Vec::new();
    // No pool of these scenarios has more.
    for n in 0..16 {
        let name = format!("u{n}");
        let done = machine.try_run(&name, network, "")?;
        if done.code != 0 {
            return Ok((addresses, done.refused()?));
        }
        addresses.push(machine.address(&name, network)?);
    }
    anyhow::bail!("nothing was refused: {addresses:?}")
}

fn set(addresses: &[Ipv4Addr]) -> BTreeSet<Ipv4Addr> {
    addresses.iter().copied().collect()
}

fn wished(world: &mut World) -> Result<()> {
    world.network("blue", "10.9.0.0/16")?;
    let taken = world.one.run("box-a", "blue", "")?;
    let free = Ipv4Addr::from(u32::from(taken) + 7);
    let refused = world
        .two
        .try_run("thief", "blue", &format!("--ip {taken}"))?
        .refused()?;
    ensure!(
        refused.contains(&taken.to_string()),
        "the address is not named: {refused}"
    );
    // Its holder has a second to answer, and on a busy machine may need more; that is said, and
    // the same command is good again.
    let given = world
        .two
        .run_patiently("box-b", "blue", &format!("--ip {free}"))?;
    ensure!(given == free, "{given} instead of {free}");
    // It is the other host's from now on, and is not handed out here any more.
    let refused = world
        .one
        .try_run("late", "blue", &format!("--ip {free}"))?
        .refused()?;
    ensure!(
        refused.contains(&free.to_string()),
        "the address is not named: {refused}"
    );
    world.two.remove("box-b")?;
    let back = world
        .one
        .run_patiently("box-c", "blue", &format!("--ip {free}"))?;
    ensure!(back == free, "{back} instead of {free}");
    world.audits_are_clean()
}

fn overlapping(world: &mut World) -> Result<()> {
    world.one.network("blue", "10.9.0.0/16")?;
    for subnet in ["10.9.128.0/17", "10.0.0.0/8"] {
        let refused = world.two.try_network("red", subnet)?.refused()?;
        ensure!(
            refused.contains("10.9.0.0/16"),
            "{subnet}: no pool named in: {refused}"
        );
    }
    Ok(())
}

fn to_the_last(world: &mut World) -> Result<()> {
    // 14 usable addresses, one of them the gateway's.
    world.network("small", "10.8.0.0/28")?;
    let mut seen = Vec::new();
    for n in 0..3 {
        seen.push(world.one.run(&format!("c{n}"), "small", "")?);
    }
    let (more, full) = until_refused(&world.two, "small")?;
    seen.extend(more);
    ensure!(
        seen.len() == 13 && set(&seen).len() == 13,
        "{} of 13 addresses, then {full}; {seen:?}",
        seen.len()
    );
    ensure!(
        full.contains("10.8.0.0/28"),
        "the pool is not named: {full}"
    );
    // Whichever host lets one go, the other gets it.
    let freed = world.two.address("u0", "small")?;
    world.two.remove("u0")?;
    let again = world.one.run_patiently("again", "small", "")?;
    ensure!(again == freed, "{again} instead of {freed}");
    world.audits_are_clean()
}

fn lost_host(world: &mut World) -> Result<()> {
    world.network("small", "10.8.0.0/28")?;
    let mut lost = Vec::new();
    for n in 0..5 {
        lost.push(world.one.run(&format!("c{n}"), "small", "")?);
    }
    let lost = set(&lost);
    let id = world.one.id()?;
    // Without power: no daemon, and nothing that a daemon could say at its end.
    world.reboot_one()?;
    let (before, said) = until_refused(&world.two, "small")?;
    ensure!(
        said.contains(&id),
        "the silent host {id} is not named: {said}"
    );
    ensure!(
        set(&before).is_disjoint(&lost),
        "addresses of the silent host were given out: {before:?} and {lost:?}"
    );
    let forgotten = world.two.host.netloom(&format!("host forget {id} --yes"))?;
    forgotten.ok()?;
    let mut after = Vec::new();
    for n in 0..13 - before.len() {
        after.push(world.two.run(&format!("f{n}"), "small", "")?);
    }
    ensure!(
        set(&after).is_superset(&lost) && set(&before).is_disjoint(&set(&after)),
        "{lost:?} were lost; before the word {before:?}, after it {after:?}"
    );
    let full = world.two.try_run("late", "small", "")?.refused()?;
    ensure!(!full.contains(&id), "a forgotten host is asked: {full}");
    // What was forgotten stays so, whatever comes up again.
    world.one.host.start_netloom()?;
    world.one.stands("stopped")?;
    let members = world.two.members()?;
    ensure!(!members.contains(&id), "{id} is on record: {members:?}");
    world.one.host.stop_netloom()?;
    world.reinstall_one()?;
    world.joined().context("as a new host")?;
    term::say(&format!(
        "{} addresses of a dead host: 0 given out before the word, {} after it",
        lost.len(),
        after.len()
    ));
    Ok(())
}
