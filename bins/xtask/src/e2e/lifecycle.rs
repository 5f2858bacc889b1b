//! Deaths and returns: of our daemon, of dockerd, of the machine.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use netloom_lab::Peer;

use super::{Lab, Scenario};
use crate::record;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::short(
        "lifecycle: kill -9 of the daemon during a ping loses nothing",
        killed_daemon,
    ),
    Scenario::whole(
        "lifecycle: a run that arrives while the daemon is dead succeeds",
        run_while_dead,
    ),
    Scenario::whole(
        "lifecycle: restart policies across a restart of dockerd",
        dockerd_restart,
    ),
    Scenario::whole(
        "lifecycle: live-restore keeps containers and their traffic",
        live_restore,
    ),
    Scenario::whole(
        "lifecycle: what died with a killed dockerd is cleaned up",
        dockerd_killed,
    ),
    Scenario::whole(
        "lifecycle: networks and containers come back after a reboot",
        reboot,
    ),
    Scenario::whole("lifecycle: daemon and relay start no program", no_execve),
    Scenario::short(
        "lifecycle: Docker asks what it asked when it was recorded",
        as_recorded,
    ),
];

/// Pings ten times a second for four seconds while `meanwhile` happens; demands every answer.
fn unbroken(lab: &Lab, from: &str, to: &str, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut ping = lab.host.enter();
    ping.args(["docker", "exec", from, "sh", "-c"]);
    ping.arg(format!("ping -q -c 40 -i 0.1 -w 20 {to}"));
    let child = ping
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    meanwhile()?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        said.contains(" 0% packet loss"),
        "packets were lost: {said}"
    );
    Ok(())
}

fn killed_daemon(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.serve("one", "--network blue -p 8080:80")?;
    lab.run("two", "--network blue")?;
    let one = lab.address("one", "blue")?;
    let url = format!("http://{}:8080/", Peer::HOST.0);
    for _ in 0..2 {
        unbroken(lab, "two", &one, || {
            let old = lab.host.netloomd_pid()?;
            lab.host.kill_netloom_daemon()?;
            ensure!(lab.fetch_from_peer(&url)? == "one", "the port closed");
            ensure!(
                lab.fetch_from_host("http://127.0.0.1:8080/")? == "one",
                "the relay died"
            );
            lab.host.wait_for_netloom()?;
            ensure!(lab.host.netloomd_pid()? != old, "the daemon was not killed");
            Ok(())
        })?;
    }
    lab.run("three", "--network blue")?;
    lab.reaches("three", &one)
}

fn run_while_dead(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    for n in 0..3 {
        lab.host.kill_netloom_daemon()?;
        lab.run(&format!("c{n}"), "--network blue")?;
    }
    lab.reaches("c0", "c2")
}

fn dockerd_restart(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.run(
        "always",
        "--network blue --ip 10.20.0.50 --restart always -p 8080:80",
    )?;
    lab.run("floating", "--network blue --restart unless-stopped")?;
    lab.run("never", "--network blue")?;
    lab.host.restart_dockerd()?;
    is_running(lab, "always")?;
    is_running(lab, "floating")?;
    ensure!(
        lab.address("always", "blue")? == "10.20.0.50",
        "another address was given"
    );
    lab.reaches("floating", "always")?;
    lab.docker("start never")?;
    lab.reaches("never", "always")
}

fn is_running(lab: &Lab, name: &str) -> Result<()> {
    netloom_lab::wait_for(&format!("the container {name}"), 20, || {
        let state = lab.docker(&format!("inspect -f '{{{{.State.Running}}}}' {name}"))?;
        ensure!(state == "true", "{name} does not run");
        Ok(())
    })
}

fn live_restore(lab: &mut Lab) -> Result<()> {
    let other = Lab::with(
        lab.host.version(),
        lab.length,
        &[("live-restore", true.into())],
    )?;
    let outcome = live_restored(&other).and_then(|()| other.tidy_up());
    if outcome.is_err() {
        other.last_words();
    }
    outcome
}

fn live_restored(lab: &Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.serve("one", "--network blue -p 8080:80")?;
    lab.run("two", "--network blue")?;
    let one = lab.address("one", "blue")?;
    let pid = lab.docker("inspect -f '{{.State.Pid}}' one")?;
    let ping = "for n in $(seq 30); do ping -c 1 -W 1 \"$0\" >>/tmp/ping || echo lost >>/tmp/ping; sleep 0.1; done";
    lab.host
        .exec_words(&["docker", "exec", "-d", "two", "sh", "-c", ping, &one])?
        .ok()?;
    lab.host.stop_dockerd()?;
    lab.host.kill_netloom_daemon()?;
    lab.host.wait_for_netloom()?;
    let url = format!("http://{}:8080/", Peer::HOST.0);
    ensure!(
        lab.fetch_from_peer(&url)? == "one",
        "the port closed with dockerd"
    );
    lab.host.start_dockerd()?;
    ensure!(
        lab.docker("inspect -f '{{.State.Pid}}' one")? == pid,
        "the container was restarted"
    );
    ensure!(lab.address("one", "blue")? == one, "the address changed");
    let said = lab.exec("two", "cat /tmp/ping")?;
    ensure!(
        said.contains("bytes from") && !said.contains("lost"),
        "packets were lost: {said}"
    );
    lab.run("three", "--network blue")?;
    lab.reaches("three", "one")?;
    lab.docker("rm -f one")?;
    ensure!(
        lab.fetch_from_peer(&url).is_err(),
        "the port outlived its container"
    );
    Ok(())
}

fn dockerd_killed(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.run("one", "--network blue -p 8080:80")?;
    lab.run("two", "--network blue --restart always")?;
    lab.host.kill_dockerd()?;
    lab.host.start_dockerd()?;
    is_running(lab, "two")?;
    lab.docker("rm -f one")?;
    lab.run("one", "--network blue -p 8080:80")?;
    lab.reaches("one", "two")?;
    lab.audit_is_clean()
}

fn reboot(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.network("both", "--ipv6 --subnet 10.22.0.0/24 --subnet fd00:22::/64")?;
    lab.run(
        "one",
        "--network blue --ip 10.20.0.50 --restart always -p 8080:80",
    )?;
    lab.run("two", "--network blue --restart always")?;
    lab.run("dual", "--network both --restart always")?;
    lab.run("gone", "--network blue")?;
    lab.reboot()?;
    for name in ["one", "two", "dual"] {
        is_running(lab, name)?;
    }
    ensure!(
        lab.address("one", "blue")? == "10.20.0.50",
        "another address was given"
    );
    lab.reaches("two", "one")?;
    lab.reaches("dual", Peer::SELF.1)?;
    lab.docker("start gone")?;
    lab.reaches("gone", "two")?;
    lab.audit_is_clean()
}

fn no_execve(lab: &mut Lab) -> Result<()> {
    let relay = lab.host.pids_of("netloom-relay")?;
    let relay = relay.first().context("no netloom-relay runs")?;
    let pids = [lab.host.netloomd_pid()?, relay.clone()];
    let traced = format!("-p {} -p {}", pids[0], pids[1]);
    lab.host.spawn(
        "strace",
        &format!("strace -f -qq -e trace=execve,execveat -o /lab/execs {traced}"),
    )?;
    for pid in &pids {
        let status = lab.host.path(&format!("/proc/{pid}/status"));
        netloom_lab::wait_for("strace", 10, || {
            let traced = std::fs::read_to_string(&status)?;
            ensure!(!traced.contains("TracerPid:\t0"), "not yet attached");
            Ok(())
        })?;
    }
    let outcome = everyday(lab);
    lab.host.stop("strace", "INT")?;
    outcome?;
    let execs = std::fs::read_to_string(lab.host.path("/lab/execs")).context("no trace")?;
    let execs: Vec<&str> = execs.lines().filter(|l| l.contains("exec")).collect();
    ensure!(
        execs.is_empty(),
        "daemon or relay started a program: {execs:?}"
    );
    Ok(())
}

fn everyday(lab: &Lab) -> Result<()> {
    lab.network("blue", "--ipv6 --subnet 10.20.0.0/24 --subnet fd00:20::/64")?;
    lab.serve("one", "--network blue -p 8080:80")?;
    lab.fetch_from_host("http://127.0.0.1:8080/")?;
    lab.docker("network disconnect blue one")?;
    lab.docker("network connect blue one")?;
    lab.docker("rm -f one")?;
    lab.docker("network rm blue").map(drop)
}

fn as_recorded(lab: &mut Lab) -> Result<()> {
    let fresh = record::life(&lab.host)?;
    let differences = record::compare(&fresh, &record::file_of(&fresh))?;
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}
