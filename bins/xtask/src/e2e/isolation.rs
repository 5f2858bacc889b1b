//! Walls between networks, and between containers that shall not speak.

use anyhow::{Result, ensure};
use netloom_lab::Peer;

use super::{Lab, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::whole(
        "isolation: two networks are closed to each other, both ways",
        both_ways,
    ),
    Scenario::whole(
        "isolation: the wall holds while the daemon is dead",
        wall_without_daemon,
    ),
    Scenario::whole(
        "isolation: without inter-container traffic neighbours are silent",
        icc_off,
    ),
    Scenario::whole(
        "isolation: a container cannot use another's address or MAC",
        spoofing,
    ),
    Scenario::whole(
        "isolation: a container cannot use another's IPv6 address",
        spoofing_six,
    ),
    Scenario::whole(
        "isolation: our networks and Docker's own bridge are closed to each other",
        docker_bridge,
    ),
];

fn both_ways(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.network("red", "--subnet 10.21.0.0/24")?;
    lab.serve("bb", "--network blue")?;
    lab.serve("rr", "--network red")?;
    let (b, r) = (lab.address("bb", "blue")?, lab.address("rr", "red")?);
    lab.is_cut_off("bb", &r)?;
    lab.is_cut_off("rr", &b)?;
    // The host's addresses in the other network are a way around, too.
    lab.is_cut_off("bb", "10.21.0.1")?;
    lab.is_cut_off("rr", "10.20.0.1")?;
    ensure!(
        lab.fetch_from("bb", &format!("http://{r}/")).is_err(),
        "blue reads from red"
    );
    ensure!(
        lab.fetch_from("rr", &format!("http://{b}/")).is_err(),
        "red reads from blue"
    );
    Ok(())
}

fn wall_without_daemon(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.network("red", "--subnet 10.21.0.0/24")?;
    lab.run("bb", "--network blue")?;
    lab.run("rr", "--network red")?;
    let r = lab.address("rr", "red")?;
    lab.host.kill_netloom_daemon()?;
    lab.is_cut_off("bb", &r)?;
    lab.reaches("bb", Peer::SELF.0)?;
    lab.host.wait_for_netloom()?;
    lab.is_cut_off("bb", &r)
}

fn icc_off(lab: &mut Lab) -> Result<()> {
    let off = "-o com.docker.network.bridge.enable_icc=false";
    lab.network("quiet", &format!("--subnet 10.20.0.0/24 {off}"))?;
    lab.run("one", "--network quiet")?;
    lab.serve("two", "--network quiet -p 8087:80")?;
    lab.is_cut_off("one", &lab.address("two", "quiet")?)?;
    lab.reaches("one", "10.20.0.1")?;
    lab.reaches("one", Peer::SELF.0)?;
    let answer = lab.fetch_from_peer(&format!("http://{}:8087/", Peer::HOST.0))?;
    ensure!(answer == "two", "the published port answers `{answer}`");
    Ok(())
}

fn spoofing(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.run("one", "--network blue")?;
    lab.run("rogue", "--network blue --cap-add NET_ADMIN")?;
    let one = lab.address("one", "blue")?;
    lab.reaches("rogue", &one)?;
    lab.exec("rogue", "ip addr add 10.20.0.250/24 dev eth0")?;
    let forged = format!("exec rogue ping -c 1 -W 1 -I 10.20.0.250 {one}");
    ensure!(
        lab.host.try_docker(&forged)?.code != 0,
        "a forged address is let through"
    );
    lab.exec("rogue", "ip link set eth0 down")?;
    lab.exec("rogue", "ip link set eth0 address 02:42:de:ad:be:ef")?;
    lab.exec("rogue", "ip link set eth0 up")?;
    lab.is_cut_off("rogue", &one)
}

fn spoofing_six(lab: &mut Lab) -> Result<()> {
    lab.network("both", "--ipv6 --subnet 10.22.0.0/24 --subnet fd00:22::/64")?;
    lab.run("one", "--network both")?;
    lab.run("rogue", "--network both --cap-add NET_ADMIN")?;
    let one = lab.address6("one", "both")?;
    lab.reaches("rogue", &one)?;
    lab.exec("rogue", "ip -6 addr add fd00:22::250/64 dev eth0")?;
    let forged = format!("exec rogue ping -6 -c 2 -W 1 -I fd00:22::250 {one}");
    ensure!(
        lab.host.try_docker(&forged)?.code != 0,
        "a forged address is let through"
    );
    // Nor does anybody reach the forged address: its advertisements are not let through.
    lab.is_cut_off("one", "fd00:22::250")
}

fn docker_bridge(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.docker("network create --subnet 10.30.0.0/24 dockers")?;
    lab.run("ours", "--network blue")?;
    lab.run("theirs", "--network dockers")?;
    lab.is_cut_off("ours", &lab.address("theirs", "dockers")?)?;
    lab.is_cut_off("theirs", &lab.address("ours", "blue")?)?;
    lab.reaches("theirs", Peer::SELF.0)
}
