//! One Docker host with Netloom and another machine on its wire: what scenarios work with.

use anyhow::{Context, Result, bail, ensure};
use netloom_lab::{DockerHost, IMAGE, Peer, Snapshot, Version};

use crate::{repo, term};

/// How long the endurance scenarios last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// Enough to see that they work.
    Smoke,
    /// The numbers that a release promises.
    Full,
}

/// A machine with dockerd and Netloom, a peer on the wire, and the state before any scenario.
pub(crate) struct Lab {
    pub(crate) host: DockerHost,
    pub(crate) peer: Peer,
    pub(crate) length: Length,
    before_netloom: Snapshot,
    baseline: Snapshot,
}

impl Lab {
    /// Boots a machine of `version` with everything on it.
    pub(crate) fn start(version: Version, length: Length) -> Result<Self> {
        Self::with(version, length, &[])
    }

    /// As [`Lab::start`], with settings of dockerd's `daemon.json`.
    pub(crate) fn with(
        version: Version,
        length: Length,
        dockerd: &[(&str, serde_json::Value)],
    ) -> Result<Self> {
        let mut options = repo::host_options(version)?;
        for (key, value) in dockerd {
            options = options.dockerd(key, value.clone());
        }
        let host = DockerHost::start(options)?;
        let peer = Peer::of(&host)?;
        let before_netloom = host.snapshot()?;
        host.start_netloom()?;
        // The first plugin network makes Docker and Netloom set up what then stays.
        let mut lab = Self {
            host,
            peer,
            length,
            baseline: before_netloom.clone(),
            before_netloom,
        };
        lab.network("warm-up", "")?;
        lab.run("warm-up", "--network warm-up -p 7999:80")?;
        lab.remove_everything()?;
        lab.baseline = lab.host.snapshot()?;
        Ok(lab)
    }

    pub(crate) fn docker(&self, line: &str) -> Result<String> {
        self.host.docker(line)
    }

    /// `docker network create` with both of our drivers.
    pub(crate) fn network(&self, name: &str, more: &str) -> Result<()> {
        let ours = "-d netloom --ipam-driver netloom";
        self.docker(&format!("network create {ours} {more} {name}"))
            .map(drop)
    }

    /// `docker run -d` of an idle container.
    pub(crate) fn run(&self, name: &str, more: &str) -> Result<()> {
        self.docker(&format!("{} {more} {IMAGE}", start(name)))
            .map(drop)
    }

    /// `docker run -d` of a container that answers HTTP on TCP port 80 with its own name.
    pub(crate) fn serve(&self, name: &str, more: &str) -> Result<()> {
        let script = "hostname >/www/index.html; exec httpd -f -p 80 -h /www";
        let line = format!("{} {more} {IMAGE} sh -c '{script}'", start(name));
        self.docker(&line)?;
        // The server is up when it answers itself.
        netloom_lab::wait_for("the server in a container", 10, || {
            self.docker(&format!("exec {name} wget -q -O - http://127.0.0.1/"))
        })?;
        Ok(())
    }

    /// Answers each datagram to UDP port 80 of `container` with itself.
    pub(crate) fn echo_udp(&self, container: &str) -> Result<()> {
        let namespace = self.namespace(container)?;
        self.host
            .spawn("echo", &format!("nsenter {namespace} xtask udp-echo 80"))?;
        netloom_lab::wait_for("the echo in a container", 10, || {
            let open = self
                .host
                .exec(&format!("nsenter {namespace} ss -lnu"))?
                .ok()?;
            ensure!(open.contains(":80 "), "not yet");
            Ok(())
        })
    }

    /// Runs a command line in a container.
    pub(crate) fn exec(&self, container: &str, line: &str) -> Result<String> {
        self.docker(&format!("exec {container} {line}"))
    }

    /// Whether `from` gets an answer from `to` (a name or an address) within a second.
    pub(crate) fn pings(&self, from: &str, to: &str) -> Result<bool> {
        let done = self
            .host
            .try_docker(&format!("exec {from} ping -c 1 -W 1 {to}"))?;
        Ok(done.code == 0)
    }

    /// Demands an answer; tries twice, since the first packet of a fresh link may wait for ARP.
    pub(crate) fn reaches(&self, from: &str, to: &str) -> Result<()> {
        if self.pings(from, to)? || self.pings(from, to)? {
            return Ok(());
        }
        let view = self.exec(from, "ip addr").unwrap_or_default();
        bail!("{from} does not reach {to}; its interfaces: {view}")
    }

    /// Demands silence.
    pub(crate) fn is_cut_off(&self, from: &str, to: &str) -> Result<()> {
        ensure!(
            !self.pings(from, to)?,
            "{from} reaches {to}, which should be closed"
        );
        Ok(())
    }

    /// A container's IPv4 address in a network.
    pub(crate) fn address(&self, container: &str, network: &str) -> Result<String> {
        self.endpoint(container, network, "IPAddress")
    }

    /// A container's IPv6 address in a network.
    pub(crate) fn address6(&self, container: &str, network: &str) -> Result<String> {
        self.endpoint(container, network, "GlobalIPv6Address")
    }

    /// A field of what Docker tells of a container's place in a network; empty is an error.
    pub(crate) fn endpoint(&self, container: &str, network: &str, field: &str) -> Result<String> {
        let path = format!("(index .NetworkSettings.Networks \"{network}\").{field}");
        let value = self.docker(&format!("inspect -f '{{{{{path}}}}}' {container}"))?;
        ensure!(!value.is_empty(), "{container} has no {field} in {network}");
        Ok(value)
    }

    /// What an HTTP server answers to the Docker host itself.
    pub(crate) fn fetch_from_host(&self, url: &str) -> Result<String> {
        self.host.exec(&format!("xtask fetch {url}"))?.ok()
    }

    /// What an HTTP server answers to the other machine.
    pub(crate) fn fetch_from_peer(&self, url: &str) -> Result<String> {
        {
            let this = std::env::current_exe()?;
            self.peer.exec(&format!("{} fetch {url}", this.display()))?
        }
        .ok()
    }

    /// What an HTTP server answers to a container.
    pub(crate) fn fetch_from(&self, container: &str, url: &str) -> Result<String> {
        let namespace = self.namespace(container)?;
        self.host
            .exec(&format!("nsenter {namespace} xtask fetch {url}"))?
            .ok()
    }

    /// The word by which `nsenter` finds a container's network.
    fn namespace(&self, container: &str) -> Result<String> {
        let pid = self.docker(&format!("inspect -f '{{{{.State.Pid}}}}' {container}"))?;
        Ok(format!("--net=/proc/{pid}/ns/net"))
    }

    /// Demands that the audit finds nothing.
    pub(crate) fn audit_is_clean(&self) -> Result<()> {
        // A release that Docker sent a moment ago may still be on its way through the journal.
        netloom_lab::wait_for("a clean audit", 10, || self.host.netloom("audit")?.ok())?;
        Ok(())
    }

    /// Removes containers and networks and demands that nothing of them is left.
    pub(crate) fn tidy_up(&self) -> Result<()> {
        self.remove_everything()?;
        self.audit_is_clean()?;
        netloom_lab::wait_for("the removal of links, rules and files", 10, || {
            let left = strangers(&self.host.snapshot()?, &self.baseline);
            ensure!(left.is_empty(), "left over: {}", left.join("; "));
            Ok(())
        })
    }

    fn remove_everything(&self) -> Result<()> {
        let ids = self.docker("ps -aq")?;
        if !ids.is_empty() {
            self.docker(&format!("rm -f {}", ids.replace('\n', " ")))?;
        }
        let networks = self.docker("network ls -q --filter type=custom")?;
        let gateway = self.docker("network ls -q --filter name=docker_gwbridge")?;
        for id in networks.lines().filter(|id| *id != gateway) {
            term::network_removed(self.host.remove_network(id)?);
        }
        Ok(())
    }

    /// Removes Netloom from the machine and compares with the time before it came.
    pub(crate) fn leaves_no_trace(&self) -> Result<()> {
        self.tidy_up()?;
        self.host.netloom("uninstall")?.ok()?;
        self.host.stop_netloom()?;
        let left = strangers(&self.host.snapshot()?, &self.before_netloom);
        ensure!(left.is_empty(), "left over: {}", left.join("; "));
        Ok(())
    }

    /// The daemons' last lines, for a failed scenario.
    pub(crate) fn last_words(&self) {
        for daemon in ["dockerd", "netloom"] {
            term::say(&format!("the last of {daemon}:"));
            let log = self.host.whole_log(daemon);
            // dockerd tells of every container's end at length; that is not what failed.
            let telling = |line: &&str| !line.contains("shim") && !line.contains("ignoring event");
            let mut lines: Vec<&str> = log.lines().filter(telling).collect();
            lines.dedup();
            term::aside(&lines.split_off(lines.len().saturating_sub(12)).join("\n"));
        }
        if let Ok(audit) = self.host.netloom("audit") {
            term::say("audit:");
            term::aside(&format!("{audit}"));
        }
    }

    /// Powers the machine off and on, starts Netloom and dockerd, and lays the wire again.
    pub(crate) fn reboot(&mut self) -> Result<()> {
        self.host.reboot()?;
        self.peer.exec("ip link delete eth0")?;
        self.peer
            .wire(&self.host)
            .context("the wire after the reboot")?;
        self.host.start_netloom()?;
        self.host.start_dockerd()
    }
}

/// The first process of a container ignores what it does not handle: KILL stops it at once.
fn start(name: &str) -> String {
    format!("run -d --name {name} --hostname {name} --stop-signal KILL")
}

/// What is new since `before` and not Docker's own doing.
fn strangers(now: &Snapshot, before: &Snapshot) -> Vec<String> {
    // Docker makes its gateway bridge on first need and keeps it, with routes and rules.
    let is_dockers = |line: &String| {
        [
            "docker_gwbridge",
            "docker0",
            "netns/default",
            "172.17.",
            "172.18.",
        ]
        .iter()
        .any(|part| line.contains(part))
    };
    let mut new = now.since(before);
    new.retain(|line| !is_dockers(line));
    new
}
