//! Many at once, and many one after the other.

use std::collections::BTreeSet;
use std::fs;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::{Lab, Length, Scenario};
use crate::term;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::whole(
        "soak: parallel runs: none fails, no address twice",
        parallel_runs,
    ),
    Scenario::whole(
        "soak: create, run and remove again and again: nothing grows",
        cycles,
    ),
];

fn parallel_runs(lab: &mut Lab) -> Result<()> {
    let (runs, at_once) = match lab.length {
        Length::Full => (100, 100),
        Length::Smoke => (24, 12),
    };
    lab.network("crowd", "--subnet 10.50.0.0/22")?;
    let lab = &*lab;
    let names: Vec<String> = (0..runs).map(|n| format!("c{n}")).collect();
    for group in names.chunks(at_once) {
        thread::scope(|scope| {
            let handles: Vec<_> = group
                .iter()
                .map(|name| scope.spawn(move || lab.run(name, "--network crowd")))
                .collect();
            handles
                .into_iter()
                .try_for_each(|h| h.join().expect("a run does not panic"))
        })?;
    }
    let all =
        lab.docker("network inspect -f '{{range .Containers}}{{.IPv4Address}} {{end}}' crowd")?;
    let addresses: Vec<&str> = all.split_whitespace().collect();
    let distinct: BTreeSet<&str> = addresses.iter().copied().collect();
    ensure!(
        addresses.len() == runs,
        "{} of {runs} have an address",
        addresses.len()
    );
    ensure!(
        distinct.len() == runs,
        "an address was given twice: {addresses:?}"
    );
    lab.reaches("c0", &format!("c{}", runs - 1))?;
    term::say(&format!(
        "{runs} runs, {at_once} at a time: 0 failed, 0 addresses twice"
    ));
    Ok(())
}

/// What the daemon holds: open files, and resident memory in KiB.
fn footprint(lab: &Lab) -> Result<(usize, u64)> {
    let pid = lab.host.netloomd_pid()?;
    let files = fs::read_dir(lab.host.path(&format!("/proc/{pid}/fd")))?.count();
    let status = fs::read_to_string(lab.host.path(&format!("/proc/{pid}/status")))?;
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .context("no VmRSS")?;
    let memory = line
        .split_whitespace()
        .nth(1)
        .context("no number")?
        .parse()?;
    Ok((files, memory))
}

fn cycles(lab: &mut Lab) -> Result<()> {
    let rounds = match lab.length {
        Length::Full => 1000,
        Length::Smoke => 20,
    };
    let round = |n: u32| -> Result<()> {
        lab.network("again", "--subnet 10.51.0.0/24")?;
        lab.docker(&format!(
            "run --rm --name r{n} --network again -p 8080:80 lab true"
        ))?;
        lab.docker("network rm again").map(drop)
    };
    // The first rounds fill caches and thread pools that then stay.
    (0..5).try_for_each(round)?;
    let (files, memory) = footprint(lab)?;
    (5..5 + rounds / 2).try_for_each(round)?;
    let (_, memory_halfway) = footprint(lab)?;
    (5 + rounds / 2..5 + rounds).try_for_each(round)?;
    lab.audit_is_clean()?;
    let (files_now, memory_now) = footprint(lab)?;
    ensure!(
        files_now <= files + 4,
        "open files grew from {files} to {files_now}"
    );
    // The first half still fills caches and the allocator's arenas; what leaks goes on leaking. Two
    // kilobytes a round are 1 MiB in the second half of the long form.
    ensure!(
        memory_now <= memory_halfway + 1024,
        "memory grew from {memory} to {memory_halfway} and on to {memory_now} KiB"
    );
    term::say(&format!(
        "{rounds} cycles: 0 failed, 0 left over; memory {memory} -> {memory_halfway} -> {memory_now} KiB, \
         open files {files} -> {files_now}"
    ));
    Ok(())
}
