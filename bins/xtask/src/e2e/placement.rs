//! Who puts the interface into the container: Netloom itself, or Docker as for other plugins.
//! Both ways must come to the same.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use netloom_lab::Peer;

use super::{Lab, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::short(
        "placement: interface names never meet those that Docker gives",
        names,
    ),
    Scenario::whole(
        "placement: both ways give the same interface, routes and gateway",
        same_interface,
    ),
    Scenario::short(
        "placement: a container without Docker's own networks may have all its interfaces made inside",
        all_inside,
    ),
    Scenario::whole(
        "placement: both ways outlive a restart of dockerd with live-restore",
        live_restore,
    ),
    Scenario::whole(
        "placement: both ways bear a death of the daemon in the middle of connect",
        killed_in_connect,
    ),
];

/// The endpoint option that leaves moving to Docker, as words of `docker network connect`.
const MOVED: &str = "--driver-opt netloom.placement=caller";

/// The two ways: a container's name, and words for `docker network connect`.
const WAYS: [(&str, &str); 2] = [("placed", ""), ("moved", MOVED)];

fn names(lab: &mut Lab) -> Result<()> {
    for (network, octet) in [("first", 20), ("second", 21), ("third", 22)] {
        lab.network(network, &format!("--subnet 10.{octet}.0.0/24"))?;
    }
    for (network, octet) in [("dockers", 30), ("dockers-other", 31)] {
        lab.docker(&format!(
            "network create --subnet 10.{octet}.0.0/24 {network}"
        ))?;
    }
    // Started on one of ours, and started on one of Docker's.
    for (name, start, then) in [
        ("ours", "first", ["second", "dockers", "third"]),
        ("theirs", "dockers", ["first", "dockers-other", "second"]),
    ] {
        lab.run(name, &format!("--network {start}"))?;
        for network in then {
            connect(lab, name, network)?;
        }
        for network in [then[0], then[1], start] {
            lab.docker(&format!("network disconnect {network} {name}"))?;
            connect(lab, name, network)?;
        }
        let links = lab.exec(name, "ip -o link")?;
        ensure!(
            links.lines().count() == 5,
            "{name} has not loopback and four interfaces: {links}"
        );
        lab.docker(&format!("restart {name}"))?;
        lab.reaches(name, Peer::SELF.0)?;
    }
    Ok(())
}

fn connect(lab: &Lab, name: &str, network: &str) -> Result<()> {
    lab.docker(&format!("network connect {network} {name}"))
        .with_context(|| {
            let links = lab.exec(name, "ip -o link").unwrap_or_default();
            format!("{name} has: {links}")
        })
        .map(drop)
}

fn all_inside(lab: &mut Lab) -> Result<()> {
    for (network, octet) in [("first", 20), ("second", 21)] {
        let subnet = format!("--subnet 10.{octet}.0.0/24");
        lab.network(network, &format!("{subnet} -o netloom.placement=inside"))?;
    }
    lab.run("far", "--network first")?;
    lab.run("near", "--network first -p 18080:80")?;
    lab.docker("network connect second near")?;
    let is_there = |lab: &Lab| {
        let links = lab.exec("near", "ls /sys/class/net")?;
        let links: Vec<&str> = links.split_whitespace().collect();
        // A sandbox that is not there yet when Docker 20.10 joins it gets what Docker moves.
        let others = [["eth0", "eth100", "lo"], ["eth0", "eth1", "lo"]];
        ensure!(
            others.iter().any(|names| links == *names),
            "near has other interfaces: {links:?}"
        );
        let routes = lab.exec("near", "ip route")?;
        let out = routes.lines().filter(|route| route.starts_with("default"));
        ensure!(out.count() == 1, "not one way out: {routes}");
        lab.reaches("near", "far")?;
        lab.reaches("near", Peer::SELF.0)
    };
    is_there(lab)?;
    lab.docker("restart near")?;
    is_there(lab)?;
    lab.docker("network disconnect first near")?;
    lab.docker("network connect first near")?;
    is_there(lab)
}

fn same_interface(lab: &mut Lab) -> Result<()> {
    let mtu = "-o com.docker.network.driver.mtu=1400";
    lab.network("base", "--subnet 10.19.0.0/24")?;
    lab.network("four", &format!("--subnet 10.20.0.0/24 {mtu}"))?;
    let both = "--ipv6 --subnet 10.22.0.0/24 --subnet fd00:22::/64";
    lab.network("both", &format!("{both} {mtu}"))?;
    let inner = "--internal --subnet 10.23.0.0/24";
    lab.network("inner", inner)?;
    for network in ["four", "both", "inner"] {
        for (name, how) in WAYS {
            lab.run(name, "--network base")?;
            lab.docker(&format!("network connect {how} {network} {name}"))?;
            // The last network that is left gives the default gateway.
            lab.docker(&format!("network disconnect base {name}"))?;
        }
        lab.reaches("placed", "moved")?;
        lab.reaches("moved", "placed")?;
        let [placed, moved] = WAYS.map(|(name, _)| view(lab, name, network));
        let (placed, moved) = (placed?, moved?);
        ensure!(
            placed == moved,
            "in {network}, placed by Netloom:\n{placed}\nmoved by Docker:\n{moved}"
        );
        ensure!(
            !placed.contains("tentative") && !placed.contains("dadfailed"),
            "an address is not usable at once: {placed}"
        );
        lab.docker("rm -f placed moved")?;
    }
    Ok(())
}

/// What a container sees of its only interface, its own name and addresses taken out.
fn view(lab: &Lab, container: &str, network: &str) -> Result<String> {
    let link = lab
        .exec(container, "ls /sys/class/net")?
        .split_whitespace()
        .find(|name| *name != "lo")
        .context("no interface")?
        .to_owned();
    let mut text = String::new();
    let settings = [
        "disable_ipv6",
        "accept_ra",
        "accept_dad",
        "dad_transmits",
        "forwarding",
    ];
    for setting in settings {
        let file = format!("/proc/sys/net/ipv6/conf/{link}/{setting}");
        let value = lab.exec(container, &format!("cat {file}"))?;
        text.push_str(&format!("{setting} = {value}\n"));
    }
    let flags = lab.exec(container, &format!("cat /sys/class/net/{link}/flags"))?;
    let mtu = lab.exec(container, &format!("cat /sys/class/net/{link}/mtu"))?;
    text.push_str(&format!("flags {flags} mtu {mtu}\n"));
    for what in [
        "-o addr show dev LINK",
        "route",
        "-6 route",
        "neigh show nud permanent",
    ] {
        let seen = lab.exec(container, &format!("ip {}", what.replace("LINK", &link)))?;
        text.push_str(&seen);
        text.push('\n');
    }
    let own = |field: &str| lab.endpoint(container, network, field).unwrap_or_default();
    let own = [own("IPAddress"), own("GlobalIPv6Address")];
    Ok(text
        .lines()
        .map(|line| without_own(line, &link, &own))
        .collect::<Vec<_>>()
        .join("\n"))
}

/// A line without what differs from container to container: the number before a link's name, the
/// container's own addresses, the link-local one made of its MAC, and the link's name.
fn without_own(line: &str, link: &str, own: &[String]) -> String {
    let line = line.split_once(": ").map_or(line, |(_, rest)| rest);
    let words = line.split_whitespace().map(|word| {
        let address = word.split('/').next().unwrap_or(word);
        let is_local = address.starts_with("fe80::") && address.len() > "fe80::".len();
        if is_local || own.iter().any(|own| own == address) {
            word.replace(address, "OWN")
        } else {
            word.replace(link, "LINK")
        }
    });
    let line = words.collect::<Vec<_>>().join(" ");
    // The kernel gives the link-local address itself and looks for twins for a second.
    if line.contains("scope link") {
        return line.replace(" tentative", "");
    }
    line
}

fn live_restore(lab: &mut Lab) -> Result<()> {
    let settings = [("live-restore", true.into())];
    let other = Lab::with(lab.host.version(), lab.length, &settings)?;
    let outcome = live_restored(&other).and_then(|()| other.tidy_up());
    if outcome.is_err() {
        other.last_words();
    }
    outcome
}

fn live_restored(lab: &Lab) -> Result<()> {
    lab.network("base", "--subnet 10.19.0.0/24")?;
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    for (name, how) in WAYS {
        lab.run(name, "--network base")?;
        lab.docker(&format!("network connect {how} blue {name}"))?;
    }
    let addresses = |lab: &Lab| WAYS.map(|(name, _)| lab.address(name, "blue").ok());
    let before = addresses(lab);
    let pids = || lab.docker("inspect -f '{{.State.Pid}}' placed moved");
    let pids_before = pids()?;
    lab.host.kill_dockerd()?;
    lab.host.start_dockerd()?;
    ensure!(pids()? == pids_before, "the containers were restarted");
    ensure!(addresses(lab) == before, "an address changed: {before:?}");
    lab.reaches("placed", "moved")?;
    lab.reaches("moved", "placed")?;
    for (name, _) in WAYS {
        lab.docker(&format!("network disconnect blue {name}"))?;
        let links = lab.exec(name, "ip -o link")?;
        ensure!(
            links.lines().count() == 2,
            "{name} kept an interface: {links}"
        );
        lab.docker(&format!("network connect blue {name}"))?;
    }
    lab.reaches("placed", "moved")
}

fn killed_in_connect(lab: &mut Lab) -> Result<()> {
    lab.network("base", "--subnet 10.19.0.0/24")?;
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    for (name, how) in WAYS {
        lab.run(name, "--network base")?;
        for round in 0..3 {
            let words = format!("docker network connect {how} blue {name}");
            let mut connect = lab.host.enter();
            connect
                .args(words.split_whitespace())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut connect = connect.spawn()?;
            lab.host.kill_netloom_daemon()?;
            let status = connect.wait()?;
            lab.host.wait_for_netloom()?;
            if !status.success() {
                // A clear failure; the same command again must succeed.
                lab.docker(words.trim_start_matches("docker "))
                    .with_context(|| format!("the repeat in round {round}"))?;
            }
            lab.reaches(name, "10.20.0.1")?;
            let links = lab.exec(name, "ip -o link")?;
            ensure!(links.lines().count() == 3, "{name} has: {links}");
            lab.docker(&format!("network disconnect blue {name}"))?;
        }
    }
    lab.audit_is_clean()
}
