//! Addresses: ranges, other drivers, exhaustion, overlap, reuse.

use std::fs;

use anyhow::{Result, ensure};

use super::{Lab, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::whole(
        "ipam: addresses for Docker's own bridge driver",
        dockers_bridge,
    ),
    Scenario::whole(
        "ipam: addresses for Docker's macvlan driver",
        dockers_macvlan,
    ),
    Scenario::whole(
        "ipam: a range limits what is handed out, not what may be asked for",
        ip_range,
    ),
    Scenario::whole(
        "ipam: a full pool is a clear error, and a release mends it",
        full,
    ),
    Scenario::whole("ipam: a subnet in use is refused, and named", overlap),
    Scenario::whole("ipam: our driver with Docker's own addresses", dockers_ipam),
    Scenario::whole(
        "ipam: a second subnet answers when the first is full, or is refused",
        second_subnet,
    ),
    Scenario::whole(
        "ipam: exhausted default pools are a clear error, and a removal mends it",
        exhausted_defaults,
    ),
    Scenario::whole("ipam: auxiliary addresses are never handed out", aux),
];

fn dockers_bridge(lab: &mut Lab) -> Result<()> {
    lab.docker("network create -d bridge --ipam-driver netloom --subnet 10.31.0.0/24 theirs")?;
    lab.run("one", "--network theirs")?;
    lab.run("two", "--network theirs --ip 10.31.0.99")?;
    ensure!(
        lab.address("two", "theirs")? == "10.31.0.99",
        "another address was given"
    );
    lab.reaches("one", "two")?;
    let pools = lab.host.netloom("pool ls")?.ok()?;
    ensure!(
        pools.contains("10.31.0.0/24"),
        "the pool is not listed: {pools}"
    );
    Ok(())
}

fn dockers_macvlan(lab: &mut Lab) -> Result<()> {
    // The wire's own prefix, so that the other machine is a neighbour.
    let range = "--subnet 192.0.2.0/24 --ip-range 192.0.2.128/26 --gateway 192.0.2.200";
    lab.docker(&format!(
        "network create -d macvlan -o parent=eth0 --ipam-driver netloom {range} flat"
    ))?;
    lab.run("one", "--network flat")?;
    lab.run("two", "--network flat")?;
    lab.reaches("one", "two")?;
    lab.reaches("one", netloom_lab::Peer::SELF.0)
}

fn ip_range(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/16 --ip-range 10.20.5.0/29")?;
    for n in 0..3 {
        let name = format!("c{n}");
        lab.run(&name, "--network blue")?;
        let address = lab.address(&name, "blue")?;
        ensure!(
            address.starts_with("10.20.5."),
            "{address} is outside the range"
        );
        let mask = lab.exec(&name, "ip -4 addr show eth0")?;
        ensure!(mask.contains("/16"), "not the pool's prefix length: {mask}");
    }
    lab.run("far", "--network blue --ip 10.20.200.1")?;
    ensure!(
        lab.address("far", "blue")? == "10.20.200.1",
        "another address was given"
    );
    lab.reaches("c0", "far")
}

fn full(lab: &mut Lab) -> Result<()> {
    // A /29 has six usable addresses, one of them the gateway's.
    lab.network("small", "--subnet 10.20.0.0/29")?;
    for n in 0..5 {
        lab.run(&format!("c{n}"), "--network small")?;
    }
    let refused = lab
        .host
        .try_docker("run -d --name late --network small lab")?
        .refused()?;
    ensure!(
        refused.contains("10.20.0.0/29"),
        "the message does not name the pool: {refused}"
    );
    let freed = lab.address("c2", "small")?;
    lab.docker("rm -f c2 late")?;
    lab.run("next", "--network small")?;
    ensure!(
        lab.address("next", "small")? == freed,
        "the only free address was not found"
    );
    Ok(())
}

fn overlap(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/16")?;
    for subnet in ["10.20.7.0/24", "10.0.0.0/8", "10.20.0.0/16"] {
        let line =
            format!("network create -d netloom --ipam-driver netloom --subnet {subnet} again");
        let refused = lab.host.try_docker(&line)?.refused()?;
        ensure!(
            refused.contains("10.20.0.0/16"),
            "{subnet}: no pool named in: {refused}"
        );
    }
    Ok(())
}

fn dockers_ipam(lab: &mut Lab) -> Result<()> {
    lab.docker("network create -d netloom --subnet 10.32.0.0/24 mixed")?;
    lab.serve("one", "--network mixed -p 8088:80")?;
    lab.run("two", "--network mixed")?;
    lab.reaches("two", "one")?;
    lab.reaches("two", netloom_lab::Peer::SELF.0)?;
    let url = format!("http://{}:8088/", netloom_lab::Peer::HOST.0);
    ensure!(
        lab.fetch_from_peer(&url)? == "one",
        "the published port does not answer"
    );
    Ok(())
}

fn aux(lab: &mut Lab) -> Result<()> {
    let aux = "--aux-address router=10.20.0.2 --aux-address printer=10.20.0.3";
    lab.network("small", &format!("--subnet 10.20.0.0/29 {aux}"))?;
    for n in 0..3 {
        let name = format!("c{n}");
        lab.run(&name, "--network small")?;
        let address = lab.address(&name, "small")?;
        ensure!(
            address != "10.20.0.2" && address != "10.20.0.3",
            "{address} was handed out"
        );
    }
    lab.host
        .try_docker("run -d --name late --network small lab")?
        .refused()
        .map(drop)
}

fn second_subnet(lab: &mut Lab) -> Result<()> {
    let subnets = "--subnet 10.20.0.0/29 --subnet 10.21.0.0/29";
    let line = format!("network create -d netloom --ipam-driver netloom {subnets} wide");
    let made = lab.host.try_docker(&line)?;
    if made.code != 0 {
        let refused = made.refused()?;
        ensure!(refused.contains("subnet"), "not clear: {refused}");
        return Ok(());
    }
    // Of six usable addresses each, one is the gateway's. Docker chooses which subnet is the first.
    let mut seen = Vec::new();
    for n in 0..10 {
        let name = format!("c{n}");
        lab.run(&name, "--network wide")?;
        seen.push(lab.address(&name, "wide")?);
    }
    for subnet in ["10.20.0.", "10.21.0."] {
        let there = seen.iter().filter(|a| a.starts_with(subnet)).count();
        ensure!(there == 5, "{there} of five in {subnet}0/29: {seen:?}");
    }
    lab.host
        .try_docker("run -d --name late --network wide lab")?
        .refused()?;
    // Neighbours of both subnets reach each other on the link, and all reach the world.
    for (from, to) in [
        ("c0", "c9"),
        ("c9", "c0"),
        ("c0", netloom_lab::Peer::SELF.0),
    ] {
        lab.reaches(from, to)?;
    }
    lab.reaches("c9", netloom_lab::Peer::SELF.0)?;
    // An address of either subnet comes back and can be wished.
    let wished = lab.address("c9", "wide")?;
    lab.docker("rm -f c9 late")?;
    lab.run("wished", &format!("--network wide --ip {wished}"))?;
    let again = lab.address("wished", "wide")?;
    ensure!(again == wished, "{again} instead of {wished}");
    lab.docker("restart wished")?;
    lab.audit_is_clean()
}

/// The daemon with a line in its configuration file, and afterwards without.
fn with_setting(lab: &Lab, line: &str, then: impl FnOnce() -> Result<()>) -> Result<()> {
    let dir = lab.host.path("/etc/netloom");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("netloom.toml"), line)?;
    lab.host.kill_netloom_daemon()?;
    lab.host.wait_for_netloom()?;
    then()?;
    fs::remove_file(dir.join("netloom.toml"))?;
    lab.host.kill_netloom_daemon()?;
    lab.host.wait_for_netloom()
}

fn exhausted_defaults(lab: &mut Lab) -> Result<()> {
    with_setting(lab, "default_pools = [\"10.200.0.0/22:24\"]", || {
        for n in 0..4 {
            lab.network(&format!("n{n}"), "")?;
        }
        let line = "network create -d netloom --ipam-driver netloom n4";
        let refused = lab.host.try_docker(line)?.refused()?;
        ensure!(
            refused.contains("in use") && refused.contains("--subnet"),
            "neither cause nor next step: {refused}"
        );
        lab.docker("network rm n1")?;
        lab.network("n4", "")?;
        let subnet =
            lab.docker("network inspect -f '{{range .IPAM.Config}}{{.Subnet}}{{end}}' n4")?;
        ensure!(subnet == "10.200.1.0/24", "{subnet} was given");
        lab.docker("network rm n0 n2 n3 n4").map(drop)
    })
}
