//! What a network can be told: options, gateway modes, Docker's own modes beside ours.

use anyhow::{Result, ensure};
use netloom_lab::Peer;

use super::{Lab, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::whole(
        "modes: none, host and another container's network work beside ours",
        dockers_own,
    ),
    Scenario::whole(
        "modes: MTU, bridge name, gateway and interface prefix are honoured",
        options,
    ),
    Scenario::whole(
        "modes: an auxiliary DefaultGatewayIPv4 is the containers' way out",
        aux_gateway,
    ),
    Scenario::whole(
        "modes: without masquerade the other machine sees the container",
        no_masquerade,
    ),
    Scenario::whole(
        "modes: a routed network is reached by its own addresses",
        routed,
    ),
    Scenario::whole(
        "modes: nat hides containers' own addresses, except from trusted links or unprotected",
        direct_ways,
    ),
    Scenario::whole(
        "modes: IPv6 may be routed while IPv4 is translated",
        routed_six,
    ),
    Scenario::whole(
        "modes: a wished source address is what other machines see",
        source_address,
    ),
    Scenario::whole(
        "modes: an inhibited gateway leaves the address to another router",
        inhibited_gateway,
    ),
    Scenario::whole("modes: an isolated network has no host in it", isolated),
    Scenario::whole("modes: a wrong option is refused, and named", wrong_option),
];

fn dockers_own(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.run("one", "--network blue")?;
    lab.docker("run -d --name guest --network container:one lab")?;
    let address = lab.address("one", "blue")?;
    let seen = lab.exec("guest", "ip -4 addr show eth0")?;
    ensure!(
        seen.contains(&address),
        "the guest does not share {address}: {seen}"
    );
    lab.run("alone", "--network none")?;
    let links = lab.exec("alone", "ip -o link")?;
    ensure!(links.lines().count() == 1, "more than loopback: {links}");
    lab.docker("run -d --name hosted --network host lab")?;
    ensure!(
        lab.exec("hosted", "ip -4 addr")?.contains(Peer::HOST.0),
        "not the host's network"
    );
    lab.reaches("hosted", &address)?;
    lab.reaches("guest", Peer::SELF.0)
}

fn options(lab: &mut Lab) -> Result<()> {
    let more = "-o com.docker.network.driver.mtu=1400 \
                -o com.docker.network.bridge.name=mybridge \
                -o com.docker.network.container_iface_prefix=lan";
    lab.network(
        "blue",
        &format!("--subnet 10.20.0.0/24 --gateway 10.20.0.9 {more}"),
    )?;
    lab.run("one", "--network blue")?;
    let link = lab.exec("one", "ip link show lan0")?;
    ensure!(link.contains("mtu 1400"), "{link}");
    let bridge = lab.host.exec("ip addr show mybridge")?.ok()?;
    ensure!(bridge.contains("10.20.0.9/24"), "{bridge}");
    lab.reaches("one", "10.20.0.9")?;
    lab.docker("network connect blue one")
        .map_or(Ok(()), |_| anyhow::bail!("connected twice"))
}

fn aux_gateway(lab: &mut Lab) -> Result<()> {
    let aux = "--aux-address DefaultGatewayIPv4=10.20.0.200";
    lab.network("blue", &format!("--subnet 10.20.0.0/24 {aux}"))?;
    lab.run("one", "--network blue")?;
    let routes = lab.exec("one", "ip route")?;
    ensure!(routes.contains("default via 10.20.0.200"), "{routes}");
    let refused = lab
        .host
        .try_docker("run -d --name two --network blue --ip 10.20.0.200 lab")?;
    refused.refused().map(drop)
}

fn no_masquerade(lab: &mut Lab) -> Result<()> {
    let off = "-o com.docker.network.bridge.enable_ip_masquerade=false";
    lab.network("blue", &format!("--subnet 10.20.0.0/24 {off}"))?;
    lab.run("one", "--network blue")?;
    // Without masquerade an answer comes only where the other machine knows the way back.
    lab.is_cut_off("one", Peer::SELF.0)?;
    lab.peer
        .exec(&format!("ip route add 10.20.0.0/24 via {}", Peer::HOST.0))?
        .ok()?;
    let reached = lab.reaches("one", Peer::SELF.0);
    lab.peer.exec("ip route delete 10.20.0.0/24")?.ok()?;
    reached
}

fn routed(lab: &mut Lab) -> Result<()> {
    let mode = "-o com.docker.network.bridge.gateway_mode_ipv4=routed";
    lab.network("blue", &format!("--subnet 10.20.0.0/24 {mode}"))?;
    lab.serve("web", "--network blue -p 80")?;
    let address = lab.address("web", "blue")?;
    lab.peer
        .exec(&format!("ip route add 10.20.0.0/24 via {}", Peer::HOST.0))?
        .ok()?;
    let answer = lab.fetch_from_peer(&format!("http://{address}/"));
    let reached = lab.reaches("web", Peer::SELF.0);
    lab.peer.exec("ip route delete 10.20.0.0/24")?.ok()?;
    ensure!(answer? == "web", "the published port is closed to the wire");
    reached
}

/// Whether the other machine, which is told the way, reads a page at the container's own address.
fn is_open_to_peer(lab: &Lab, container: &str, network: &str) -> Result<bool> {
    let url = format!("http://{}/", lab.address(container, network)?);
    let way = format!("10.20.0.0/16 via {}", Peer::HOST.0);
    lab.peer.exec(&format!("ip route add {way}"))?.ok()?;
    let answer = lab.fetch_from_peer(&url);
    lab.peer.exec(&format!("ip route delete {way}"))?.ok()?;
    Ok(answer.is_ok_and(|page| page == container))
}

fn direct_ways(lab: &mut Lab) -> Result<()> {
    // A port that is published is still no way in by the container's own address, unless the
    // link is trusted; one that is not published is only open where nothing is protected.
    let trusts = [
        "trusted_host_interfaces=eth9",
        "trusted_host_interfaces=eth0",
    ];
    for (name, octet, option, publish, open) in [
        ("plain", 1, "gateway_mode_ipv4=nat", "-p 8411:80", false),
        ("naked", 2, "gateway_mode_ipv4=nat-unprotected", "", true),
        ("careful", 3, trusts[0], "-p 8413:80", false),
        ("trusting", 4, trusts[1], "-p 8414:80", true),
        ("unpublished", 5, trusts[1], "", false),
    ] {
        let option = format!("-o com.docker.network.bridge.{option}");
        lab.network(name, &format!("--subnet 10.20.{octet}.0/24 {option}"))?;
        let web = format!("{name}-web");
        lab.serve(&web, &format!("--network {name} {publish}"))?;
        ensure!(
            is_open_to_peer(lab, &web, name)? == open,
            "{option}: the container should be {} to other machines",
            if open { "open" } else { "closed" }
        );
    }
    Ok(())
}

fn routed_six(lab: &mut Lab) -> Result<()> {
    let mode = "-o com.docker.network.bridge.gateway_mode_ipv6=routed";
    let both = "--ipv6 --subnet 10.22.0.0/24 --subnet fd00:22::/64";
    lab.network("both", &format!("{both} {mode}"))?;
    lab.serve("open", "--network both -p 8096:80")?;
    lab.serve("shut", "--network both")?;
    let way = format!("fd00:22::/64 via {}", Peer::HOST.1);
    let open = lab.address6("open", "both")?;
    let shut = lab.address6("shut", "both")?;
    lab.peer.exec(&format!("ip -6 route add {way}"))?.ok()?;
    let direct = lab.fetch_from_peer(&format!("http://[{open}]:80/"));
    let hidden = lab.fetch_from_peer(&format!("http://[{shut}]:80/"));
    let outward = lab.reaches("open", Peer::SELF.1);
    lab.peer.exec(&format!("ip -6 route delete {way}"))?.ok()?;
    ensure!(direct? == "open", "the published port is closed");
    ensure!(hidden.is_err(), "a port that is not published is open");
    outward?;
    let translated = lab.fetch_from_peer(&format!("http://{}:8096/", Peer::HOST.0))?;
    ensure!(translated == "open", "not by the host's IPv4 address");
    ensure!(
        lab.fetch_from_peer(&format!("http://[{}]:8096/", Peer::HOST.1))
            .is_err(),
        "a routed port is on the host's IPv6 address, too"
    );
    Ok(())
}

fn source_address(lab: &mut Lab) -> Result<()> {
    let second = "192.0.2.7";
    lab.host
        .exec(&format!("ip addr add {second}/24 dev eth0"))?
        .ok()?;
    let option = format!("-o com.docker.network.host_ipv4={second}");
    // A subnet of its own: the kernel keeps an earlier flow's translation for half a minute.
    lab.network("blue", &format!("--subnet 10.27.0.0/24 {option}"))?;
    lab.run("one", "--network blue")?;
    let known = lab.peer.exec(&format!("ip neigh show to {second}"))?.ok()?;
    ensure!(known.is_empty(), "known before: {known}");
    lab.reaches("one", Peer::SELF.0)?;
    // To answer, the other machine had to ask for the link address of the source.
    let known = lab.peer.exec(&format!("ip neigh show to {second}"))?.ok()?;
    lab.host
        .exec(&format!("ip addr delete {second}/24 dev eth0"))?
        .ok()?;
    lab.peer.exec("ip neigh flush all")?.ok()?;
    ensure!(
        known.contains(second),
        "the other machine saw another source"
    );
    Ok(())
}

fn inhibited_gateway(lab: &mut Lab) -> Result<()> {
    let option = "-o com.docker.network.bridge.inhibit_ipv4=true";
    lab.network(
        "blue",
        &format!("--subnet 10.20.0.0/24 --gateway 10.20.0.1 {option}"),
    )?;
    lab.run("one", "--network blue")?;
    lab.run("two", "--network blue")?;
    let host = lab.host.exec("ip -4 addr")?.ok()?;
    ensure!(!host.contains("10.20.0.1/"), "the bridge has it: {host}");
    let routes = lab.exec("one", "ip route")?;
    ensure!(routes.contains("default via 10.20.0.1"), "{routes}");
    lab.reaches("one", "two")
}

fn isolated(lab: &mut Lab) -> Result<()> {
    let mode = "--internal -o com.docker.network.bridge.gateway_mode_ipv4=isolated";
    lab.network("blue", &format!("--subnet 10.20.0.0/24 {mode}"))?;
    lab.run("one", "--network blue")?;
    lab.run("two", "--network blue")?;
    lab.reaches("one", "two")?;
    let host = lab.host.exec("ip -4 addr")?.ok()?;
    ensure!(
        !host.contains("10.20.0."),
        "the host has an address in it: {host}"
    );
    lab.is_cut_off("one", Peer::HOST.0)
}

fn wrong_option(lab: &mut Lab) -> Result<()> {
    for option in [
        "com.docker.network.driver.mtu=many",
        "netloom.no_such_option=1",
    ] {
        let line = format!("network create -d netloom --ipam-driver netloom -o {option} wrong");
        let refused = lab.host.try_docker(&line)?.refused()?;
        let key = option.split('=').next().unwrap_or(option);
        let last = key.rsplit('.').next().unwrap_or(key);
        ensure!(
            refused.contains(last),
            "the message does not name {last}: {refused}"
        );
    }
    Ok(())
}
