//! Networks, addresses, names, connect and disconnect.

use anyhow::{Result, ensure};

use super::{Lab, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::short(
        "basics: two containers reach each other by address and by name",
        two_containers,
    ),
    Scenario::short(
        "basics: a wished address is given, and a taken one is refused",
        wished_address,
    ),
    Scenario::short(
        "basics: stop and start, restart, and remove",
        stop_and_start,
    ),
    Scenario::whole("basics: an internal network has no way out", internal),
    Scenario::whole("basics: dual stack", dual_stack),
    Scenario::new_docker("basics: IPv6 only", ipv6_only),
    Scenario::whole(
        "basics: disconnect and connect a running container",
        disconnect_connect,
    ),
    Scenario::whole(
        "basics: two networks per container, and the way out changes over",
        two_networks,
    ),
    Scenario::whole(
        "basics: networks without a subnet get different ones",
        default_pools,
    ),
];

fn two_containers(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.run("one", "--network blue")?;
    lab.run("two", "--network blue")?;
    let two = lab.address("two", "blue")?;
    ensure!(two.starts_with("10.20.0."), "{two} is not in 10.20.0.0/24");
    lab.reaches("one", &two)?;
    lab.reaches("one", "two")?;
    lab.reaches("two", "one")?;
    lab.reaches("one", "10.20.0.1")?;
    lab.reaches("one", netloom_lab::Peer::SELF.0)
}

fn wished_address(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24 --gateway 10.20.0.254")?;
    lab.run(
        "one",
        "--network blue --ip 10.20.0.77 --mac-address 02:42:0a:14:00:4d",
    )?;
    ensure!(
        lab.address("one", "blue")? == "10.20.0.77",
        "another address was given"
    );
    let link = lab.exec("one", "ip link show eth0")?;
    ensure!(
        link.contains("02:42:0a:14:00:4d"),
        "the wished MAC address is not set: {link}"
    );
    let route = lab.exec("one", "ip route")?;
    ensure!(
        route.contains("default via 10.20.0.254"),
        "the gateway is not set: {route}"
    );
    let refused = lab
        .host
        .try_docker("run -d --name two --network blue --ip 10.20.0.77 lab")?
        .refused()?;
    ensure!(
        refused.contains("10.20.0.77"),
        "the message does not name the address: {refused}"
    );
    lab.docker("restart one")?;
    ensure!(
        lab.address("one", "blue")? == "10.20.0.77",
        "the address changed in a restart"
    );
    Ok(())
}

fn stop_and_start(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.run("one", "--network blue")?;
    lab.run("two", "--network blue")?;
    lab.docker("stop one")?;
    lab.docker("start one")?;
    lab.reaches("two", "one")?;
    lab.docker("restart two")?;
    lab.reaches("two", "one")?;
    lab.docker("kill one")?;
    lab.docker("rm one")?;
    lab.run("one", "--network blue")?;
    lab.reaches("one", "two")
}

fn internal(lab: &mut Lab) -> Result<()> {
    lab.network("closed", "--internal --subnet 10.21.0.0/24")?;
    lab.run("one", "--network closed")?;
    lab.run("two", "--network closed")?;
    lab.reaches("one", "two")?;
    lab.is_cut_off("one", netloom_lab::Peer::SELF.0)?;
    lab.is_cut_off("one", netloom_lab::Peer::HOST.0)?;
    let routes = lab.exec("one", "ip route")?;
    ensure!(!routes.contains("default"), "a way out: {routes}");
    Ok(())
}

fn dual_stack(lab: &mut Lab) -> Result<()> {
    lab.network("both", "--ipv6 --subnet 10.22.0.0/24 --subnet fd00:22::/64")?;
    lab.run("one", "--network both")?;
    lab.run("two", "--network both --ip6 fd00:22::77")?;
    ensure!(
        lab.address6("two", "both")? == "fd00:22::77",
        "another IPv6 address was given"
    );
    lab.reaches("one", "fd00:22::77")?;
    lab.reaches("one", &lab.address("two", "both")?)?;
    lab.exec("one", "ping -6 -c 1 -W 2 two")?;
    lab.reaches("one", netloom_lab::Peer::SELF.1)
}

fn ipv6_only(lab: &mut Lab) -> Result<()> {
    lab.network("six", "--ipv4=false --ipv6 --subnet fd00:23::/64")?;
    lab.run("one", "--network six")?;
    lab.run("two", "--network six")?;
    lab.reaches("one", &lab.address6("two", "six")?)?;
    lab.reaches("one", "two")
}

fn disconnect_connect(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.run("one", "--network blue")?;
    lab.run("two", "--network blue")?;
    lab.docker("network disconnect blue two")?;
    ensure!(
        !lab.exec("two", "ip link")?.contains("eth0"),
        "the interface stayed"
    );
    ensure!(!lab.pings("one", "two")?, "the name still answers");
    lab.docker("network connect --ip 10.20.0.99 --alias second blue two")?;
    ensure!(
        lab.address("two", "blue")? == "10.20.0.99",
        "another address was given"
    );
    lab.reaches("one", "two")?;
    lab.reaches("one", "second")?;
    lab.reaches("two", netloom_lab::Peer::SELF.0)
}

fn two_networks(lab: &mut Lab) -> Result<()> {
    lab.network("alpha", "--subnet 10.24.0.0/24")?;
    lab.network("beta", "--subnet 10.25.0.0/24")?;
    lab.run("both", "--network alpha -p 8090:80")?;
    lab.docker("network connect beta both")?;
    lab.run("aa", "--network alpha")?;
    lab.run("bb", "--network beta")?;
    lab.reaches("both", "aa")?;
    lab.reaches("both", "bb")?;
    lab.reaches("aa", &lab.address("both", "alpha")?)?;
    lab.reaches("bb", &lab.address("both", "beta")?)?;
    lab.is_cut_off("aa", &lab.address("bb", "beta")?)?;
    lab.docker("network disconnect alpha both")?;
    let routes = lab.exec("both", "ip route")?;
    ensure!(
        routes.contains("default via 10.25.0.1"),
        "no way out by the other one: {routes}"
    );
    lab.reaches("both", netloom_lab::Peer::SELF.0)
}

fn default_pools(lab: &mut Lab) -> Result<()> {
    let mut seen = Vec::new();
    for name in ["p1", "p2", "p3"] {
        lab.network(name, "")?;
        let subnet = lab.docker(&format!(
            "network inspect -f '{{{{range .IPAM.Config}}}}{{{{.Subnet}}}}{{{{end}}}}' {name}"
        ))?;
        ensure!(!seen.contains(&subnet), "{subnet} was given twice");
        seen.push(subnet);
        lab.run(&format!("in-{name}"), &format!("--network {name}"))?;
    }
    lab.is_cut_off("in-p1", &lab.address("in-p2", "p2")?)
}
