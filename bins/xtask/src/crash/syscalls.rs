//! Deaths that no source names: SIGKILL at the n-th system call of a thread, by strace.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::attempt::attempt;
use super::life::{LIFE, When};
use super::machine::Machine;
use super::matrix::{Extent, Machines};
use super::tally::Seen;
use crate::term;

/// Calls by which the daemon reads or changes what lies outside of it; dying while it waits or
/// asks for memory shows nothing that dying at the next of these does not.
const CALLS: &str = "write,writev,pwrite64,pread64,read,sendto,sendmsg,recvmsg,recvfrom,fsync,\
                     fdatasync,rename,unlink,openat,close,ftruncate,fallocate,setns,connect,\
                     accept4,shutdown";

/// Which calls of each thread are tried in a smoke; strace counts them for each thread.
const SMOKE: [usize; 1] = [5];
/// In the full matrix: the first ones one by one, where most commands end, then some further on.
const FULL: [usize; 20] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 20, 24, 29, 35, 43, 53, 65,
];

/// Lives a life for each number, with a kill in each step.
///
/// # Errors
/// When a machine cannot be made; what fails in a life is noted in `seen`.
pub(super) fn run(extent: Extent, machines: &mut Machines<'_>, seen: &mut Seen) -> Result<()> {
    let numbers: &[usize] = match extent {
        Extent::Smoke => &SMOKE,
        Extent::Full => &FULL,
    };
    for number in numbers {
        let before = seen.system_calls;
        let machine = machines.take()?;
        let outcome = live(&machine, *number, seen);
        let kills = seen.system_calls - before;
        term::say(&format!("system call {number} of a thread: {kills} kills"));
        match outcome {
            Ok(()) => machines.kept = Some(machine),
            Err(e) => {
                seen.failed(format!("at system call {number}: {e:#}"));
                seen.duplicates += machine.doubled().map_or(0, |doubled| doubled.len());
                machine.last_words();
            }
        }
    }
    Ok(())
}

fn live(m: &Machine, number: usize, seen: &mut Seen) -> Result<()> {
    for step in LIFE.iter().filter(|s| s.when == When::Always) {
        m.rest()?;
        let traced = trace(m, number)?;
        let outcome = attempt(m, step, 1);
        let killed = fs::read_link(m.host.path(&format!("/proc/{traced}/exe"))).is_err();
        end_trace(m)?;
        let went = outcome.with_context(|| step.name)?;
        if killed {
            m.died(1);
            seen.system_calls += 1;
            seen.survived(went);
        }
    }
    m.is_clean().inspect_err(|_| seen.leaks += 1)?;
    seen.passed += 1;
    Ok(())
}

/// Ends strace. One whose process died while it was still attaching to its threads may wait for
/// ever, and is killed: the kernel lets go of what it held.
fn end_trace(m: &Machine) -> Result<()> {
    let pid = fs::read_to_string(m.host.path("/lab/strace.pid"))?;
    match m.host.stop("strace", "INT") {
        Ok(()) => Ok(()),
        Err(_) => m.host.signal(pid.trim(), "KILL"),
    }
}

/// Has the daemon that runs now die at the call; gives its process id.
fn trace(m: &Machine, number: usize) -> Result<String> {
    // The last one may have died after its command was done.
    m.recovered()?;
    let pid = m.host.netloomd_pid()?;
    let inject = format!("inject={CALLS}:signal=SIGKILL:when={number}");
    m.host.spawn(
        "strace",
        &format!("strace -f -qq -e trace={CALLS} -e {inject} -o /dev/null -p {pid}"),
    )?;
    let status = m.host.path(&format!("/proc/{pid}/status"));
    netloom_lab::wait_for("strace", 10, || {
        // A daemon that is gone already died at a call of its own: that counts as well.
        let status = fs::read_to_string(&status).unwrap_or_default();
        ensure!(!status.contains("TracerPid:\t0"), "not yet attached");
        Ok(())
    })?;
    Ok(pid)
}
