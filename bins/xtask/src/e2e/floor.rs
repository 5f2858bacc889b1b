//! The lab tried without Netloom: a plugin that does next to nothing on each Docker.

use anyhow::{Result, ensure};
use netloom_lab::{DockerHost, IMAGE, PLUGIN_SOCKET, Peer, Version};

use crate::repo;

pub(super) const NAME: &str =
    "lab: a machine boots, its dockerd runs containers on a plugin network";

/// Boots a machine, uses every facility of the lab once, and gives dockerd's version.
pub(super) fn the_lab_works(version: Version) -> Result<String> {
    let mut host = DockerHost::start(repo::host_options(version)?)?;
    start_floor(&host)?;
    host.docker("network create -d netloom --ipam-driver netloom floor")?;
    host.docker(&format!(
        "run -d --name one --stop-signal KILL --network floor {IMAGE}"
    ))?;
    let address =
        host.docker("inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' one")?;
    ensure!(
        address.starts_with("10.99."),
        "the plugin's address did not arrive: {address}"
    );

    let peer = Peer::of(&host)?;
    peer.exec(&format!("ping -c 1 -W 2 {}", Peer::HOST.0))?
        .ok()?;
    peer.exec(&format!("ping -c 1 -W 2 {}", Peer::HOST.1))?
        .ok()?;

    let before = host.snapshot()?;
    host.exec("ip link add nlvtest type veth peer name nlvtest2")?
        .ok()?;
    host.exec("nft add table inet netloom")?.ok()?;
    let new = host.snapshot()?.since(&before);
    ensure!(
        new.iter().any(|l| l.contains("nlvtest")),
        "a planted link was not seen: {new:?}"
    );
    ensure!(
        new.iter().any(|l| l.contains("nft")),
        "a planted table was not seen: {new:?}"
    );

    let boot_id = host.exec("cat /proc/sys/kernel/random/boot_id")?.ok()?;
    host.kill_dockerd()?;
    host.start_dockerd()?;
    host.restart_dockerd()?;
    host.reboot()?;
    ensure!(
        host.exec("ip link show nlvtest")?.code != 0,
        "a link outlived the reboot"
    );
    let new_id = host.exec("cat /proc/sys/kernel/random/boot_id")?.ok()?;
    ensure!(boot_id != new_id, "the boot id is as before the reboot");
    start_floor(&host)?;
    host.start_dockerd()?;
    ensure!(
        host.docker("ps -aq")?.lines().count() == 1,
        "dockerd's disk was lost in the reboot"
    );
    host.docker_version().map(|v| format!("Docker {v}"))
}

/// Puts the plugin that does next to nothing where dockerd looks for Netloom.
fn start_floor(host: &DockerHost) -> Result<()> {
    host.spawn(
        "floor",
        &format!("xtask floor-plugin --socket {PLUGIN_SOCKET}"),
    )?;
    netloom_lab::until("the floor plugin", 10, || host.path(PLUGIN_SOCKET).exists())
}
