//! Many containers at once on both hosts.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Scenario;
use super::machine::Machine;
use super::world::World;
use crate::e2e::Length;
use crate::term;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "parallel runs on both hosts: none fails, no address twice, one gateway",
        run: both_at_once,
    },
    Scenario {
        name: "parallel runs on both hosts until no address is left: each is handed out once",
        run: nearly_full,
    },
    Scenario {
        name: "parallel runs on both hosts, the store stopped in the middle: none fails",
        run: store_stopped,
    },
];

/// Runs on each host.
const fn runs(length: Length) -> usize {
    match length {
        Length::Full => 64,
        Length::Smoke => 16,
    }
}

const fn outage(length: Length) -> Duration {
    Duration::from_secs(match length {
        Length::Full => 60,
        Length::Smoke => 10,
    })
}

/// How a container is run.
type Run = fn(&Machine, &str) -> Result<Ipv4Addr>;

/// Once, and it must come off.
fn once(machine: &Machine, name: &str) -> Result<Ipv4Addr> {
    machine.run(name, "blue", "")
}

/// Again where the other host was too busy to answer in time.
fn patiently(machine: &Machine, name: &str) -> Result<Ipv4Addr> {
    machine.run_patiently(name, "blue", "")
}

/// Runs `count` containers on one host, all at the same time; `done` counts those that run.
fn crowd(machine: &Machine, count: usize, run: Run, done: &AtomicUsize) -> Result<Vec<Ipv4Addr>> {
    thread::scope(|scope| {
        let all: Vec<_> = (0..count)
            .map(|n| {
                scope.spawn(move || {
                    let address = run(machine, &format!("c{n}"));
                    done.fetch_add(1, Ordering::SeqCst);
                    address
                })
            })
            .collect();
        all.into_iter()
            .map(|one| one.join().expect("a run does not panic"))
            .collect()
    })
}

/// Runs `count` containers on each host, all at the same time.
fn crowds(world: &World, count: usize, run: Run) -> Result<()> {
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        let other = scope.spawn(|| crowd(&world.two, count, run, &done));
        let here = crowd(&world.one, count, run, &done);
        let there = other.join().expect("a crowd does not panic");
        here.and(there).map(drop)
    })
}

/// Demands that no address is there twice, neither by the answers nor by what Docker says now.
fn no_duplicate(world: &World, wanted: usize) -> Result<()> {
    let mut seen = BTreeSet::new();
    for machine in world.machines() {
        let addresses = machine.addresses("blue")?;
        ensure!(
            addresses.len() == wanted,
            "{} of {wanted} have an address on host {}",
            addresses.len(),
            machine.name
        );
        for address in addresses {
            ensure!(seen.insert(address), "{address} was given twice");
        }
    }
    Ok(())
}

fn one_gateway(world: &World) -> Result<String> {
    let gateway = |machine: &Machine| machine.field("c0", "blue", "Gateway");
    let (one, two) = (gateway(&world.one)?, gateway(&world.two)?);
    ensure!(
        one == two && !one.is_empty(),
        "gateways {one:?} and {two:?}"
    );
    Ok(one)
}

fn both_at_once(world: &mut World) -> Result<()> {
    world.network("blue", "10.9.0.0/16")?;
    let count = runs(world.length);
    crowds(world, count, once)?;
    no_duplicate(world, count)?;
    let gateway = one_gateway(world)?;
    for machine in world.machines() {
        let to = machine.address(&format!("c{}", count - 1), "blue")?;
        machine.docker(&format!("exec c0 ping -c 3 -W 1 {to}"))?;
        let members = machine.members()?;
        ensure!(members.len() == 2, "the hosts on record: {members:?}");
    }
    world.audits_are_clean()?;
    term::say(&format!(
        "{count} runs at once on each of 2 hosts: 0 failed, 0 addresses twice, gateway {gateway}"
    ));
    Ok(())
}

/// Every range has to change hands, some by single addresses.
fn nearly_full(world: &mut World) -> Result<()> {
    // Of 2^n addresses three are not for containers; one more is left over.
    let (subnet, count) = match world.length {
        Length::Full => ("10.8.0.0/25", 62),
        Length::Smoke => ("10.8.0.0/27", 14),
    };
    world.network("blue", subnet)?;
    crowds(world, count, patiently)?;
    no_duplicate(world, count)?;
    patiently(&world.two, "last")?;
    world.audits_are_clean()?;
    term::say(&format!(
        "{} runs in {subnet}, which has {} addresses: all handed out, 0 addresses twice",
        2 * count + 1,
        2 * count + 1
    ));
    Ok(())
}

/// Runs and removes a container again and again until told to stop; gives how often.
fn go_on(machine: &Machine, worker: usize, stop: &AtomicBool) -> Result<usize> {
    let mut times = 0;
    while !stop.load(Ordering::SeqCst) {
        let name = format!("w{worker}");
        machine.run(&name, "blue", "")?;
        machine.remove(&name)?;
        times += 1;
    }
    Ok(times)
}

fn store_stopped(world: &mut World) -> Result<()> {
    world.network("blue", "10.9.0.0/16")?;
    let (count, length) = (runs(world.length), outage(world.length));
    let (done, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let World {
        store, one, two, ..
    } = world;
    let (one, two) = (&*one, &*two);
    let (more, away) = thread::scope(|scope| {
        let (done, stop) = (&done, &stop);
        let crowds = [one, two].map(|machine| {
            scope.spawn(move || -> Result<usize> {
                crowd(machine, count, once, done)?;
                go_on(machine, 0, stop)
            })
        });
        let outage = (|| {
            let reached = || done.load(Ordering::SeqCst) >= count / 2;
            netloom_lab::until("a quarter of the runs", 300, reached)?;
            store.stop_all()?;
            let from = Instant::now();
            // The length of the outage is what is asked for here, whatever else happens.
            thread::sleep(length);
            let all = || {
                crowds.iter().any(|c| c.is_finished()) || done.load(Ordering::SeqCst) >= 2 * count
            };
            netloom_lab::until("all runs", 300, all)?;
            let away = from.elapsed();
            store.start_all()?;
            Ok::<_, anyhow::Error>(away)
        })();
        stop.store(true, Ordering::SeqCst);
        let more = crowds
            .into_iter()
            .map(|crowd| crowd.join().expect("a crowd does not panic"))
            .sum::<Result<usize>>();
        more.and_then(|more| outage.map(|away| (more, away)))
    })?;
    no_duplicate(world, count)?;
    world.joined()?;
    for machine in world.machines() {
        machine.run("after", "blue", "")?;
    }
    no_duplicate(world, count + 1)?;
    world.audits_are_clean().context("after the outage")?;
    term::say(&format!(
        "{count} runs at once on each of 2 hosts and {more} more one by one, the store away for \
         {} s of it: 0 failed, 0 addresses twice",
        away.as_secs()
    ));
    Ok(())
}
