//! The machine that is measured on: one dockerd, one network for each peer.

use std::path::Path;

use anyhow::{Context, Result};
use netloom_lab::{DockerHost, HostOptions, IMAGE, Version, until};
use serde_json::{Value, json};

use crate::repo;

/// Who attaches a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// Our bridge driver and our addresses.
    Netloom,
    /// The same, with `netloom.placement=inside`: Docker moves no interface at all.
    Inside,
    /// Docker's own user-defined bridge.
    Bridge,
    /// A plugin that does nothing: what dockerd itself costs.
    Floor,
    /// `--network none`: a container without a network.
    None,
}

impl Peer {
    /// The name in tables and JSON lines.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Netloom => "netloom",
            Self::Inside => "netloom-inside",
            Self::Bridge => "docker-bridge",
            Self::Floor => "floor-plugin",
            Self::None => "none",
        }
    }

    /// The Docker network of this peer.
    pub(super) const fn network(self) -> &'static str {
        match self {
            Self::Netloom => "bench-netloom",
            Self::Inside => "bench-inside",
            Self::Bridge => "bench-bridge",
            Self::Floor => "bench-floor",
            Self::None => "none",
        }
    }
}

/// Containers start on this network, so that they have an `eth0`. It is internal: the measured network
/// becomes the container's way out and publishes its ports. It is ours for every peer alike, because
/// a base of Docker's own bridge adds its flush of connections, 9 ms, to every row.
const BASE: &str = "bench-base";

/// The machine, and how many idle containers stand on every peer's network.
pub(super) struct Fixture {
    host: DockerHost,
    present: usize,
}

impl Fixture {
    pub(super) fn start(version: Version, programs: &Path) -> Result<Self> {
        let options = HostOptions::new(version, &repo::trees(), programs);
        let host = DockerHost::start(options)?;
        host.spawn(
            "floor",
            "xtask floor-plugin --socket /run/docker/plugins/floor.sock",
        )?;
        let socket = host.path("/run/docker/plugins/floor.sock");
        until("the floor plugin's socket", 10, || socket.exists())?;
        host.start_netloom()?;
        let create = "network create --subnet";
        host.docker(&format!(
            "{create} 10.200.0.0/16 --internal -d netloom --ipam-driver netloom {BASE}"
        ))?;
        host.docker(&format!(
            "{create} 10.201.0.0/16 -d bridge {}",
            Peer::Bridge.network()
        ))?;
        let ours = "-d netloom --ipam-driver netloom";
        host.docker(&format!(
            "{create} 10.202.0.0/16 {ours} {}",
            Peer::Netloom.network()
        ))?;
        host.docker(&format!(
            "{create} 10.204.0.0/16 {ours} -o netloom.placement=inside {}",
            Peer::Inside.network()
        ))?;
        let floor = "-d floor --ipam-driver floor";
        host.docker(&format!(
            "{create} 10.203.0.0/16 {floor} {}",
            Peer::Floor.network()
        ))?;
        Ok(Self { host, present: 0 })
    }

    pub(super) fn docker_version(&self) -> Result<String> {
        let answer: Value = serde_json::from_str(&self.host.docker_api("GET", "/version", "")?)?;
        let version = answer.get("Version").and_then(Value::as_str);
        Ok(version
            .context("Docker does not tell its version")?
            .to_owned())
    }

    /// Makes sure that at least `count` idle containers stand on every peer's network.
    pub(super) fn fill(&mut self, count: usize) -> Result<()> {
        while self.present < count {
            let id = self.create(BASE, &format!("present-{}", self.present), &[])?;
            self.start_container(&id)?;
            for peer in [Peer::Netloom, Peer::Bridge, Peer::Floor] {
                self.connect(peer, &id)?;
            }
            self.present += 1;
        }
        Ok(())
    }

    /// A running container on the base network, which wants `ports` published once it has a way out.
    pub(super) fn waiting_container(&self, name: &str, ports: &[u16]) -> Result<String> {
        let id = self.create(BASE, name, ports)?;
        self.start_container(&id)?;
        Ok(id)
    }

    pub(super) fn connect(&self, peer: Peer, container: &str) -> Result<()> {
        let body = json!({ "Container": container }).to_string();
        let path = format!("/networks/{}/connect", peer.network());
        self.host.docker_api("POST", &path, &body).map(drop)
    }

    pub(super) fn disconnect(&self, peer: Peer, container: &str) -> Result<()> {
        let body = json!({ "Container": container, "Force": true }).to_string();
        let path = format!("/networks/{}/disconnect", peer.network());
        self.host.docker_api("POST", &path, &body).map(drop)
    }

    /// Creates and starts a container on the peer's network, as `docker run -d` does.
    pub(super) fn run_container(&self, peer: Peer, name: &str, ports: &[u16]) -> Result<String> {
        let id = self.create(peer.network(), name, ports)?;
        self.start_container(&id)?;
        Ok(id)
    }

    pub(super) fn remove(&self, container: &str) -> Result<()> {
        self.host
            .docker_api("DELETE", &format!("/containers/{container}?force=1"), "")
            .map(drop)
    }

    fn create(&self, network: &str, name: &str, ports: &[u16]) -> Result<String> {
        let exposed: serde_json::Map<_, _> = ports
            .iter()
            .map(|port| (format!("{port}/tcp"), json!({})))
            .collect();
        let bindings: serde_json::Map<_, _> = ports
            .iter()
            .map(|port| {
                (
                    format!("{port}/tcp"),
                    json!([{ "HostPort": port.to_string() }]),
                )
            })
            .collect();
        let body = json!({
            "Image": IMAGE,
            "Cmd": ["sleep", "100000"],
            "ExposedPorts": exposed,
            "HostConfig": { "NetworkMode": network, "PortBindings": bindings },
        });
        let path = format!("/containers/create?name={name}");
        let answer: Value =
            serde_json::from_str(&self.host.docker_api("POST", &path, &body.to_string())?)?;
        let id = answer.get("Id").and_then(Value::as_str);
        Ok(id.context("Docker gave no container id")?.to_owned())
    }

    fn start_container(&self, id: &str) -> Result<()> {
        self.host
            .docker_api("POST", &format!("/containers/{id}/start"), "")
            .map(drop)
    }
}
