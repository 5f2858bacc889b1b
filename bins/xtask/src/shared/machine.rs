//! One of the hosts: its networks, its containers, and what its daemon says.

use std::net::Ipv4Addr;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use netloom_lab::{DockerHost, Done, IMAGE, wait_for};
use serde_json::Value;

use crate::term;

/// A release that Docker sent a moment ago may still be on its way; a status is left every few
/// seconds; a store that came back is looked at every second.
const SETTLES_WITHIN: u64 = 60;

/// So many containers are removed at once, for Docker's sake: see [`Machine::remove_network`].
const AT_ONCE: usize = 4;

/// A Docker host with Netloom on it.
pub(super) struct Machine {
    /// For messages, and the beginning of its containers' names.
    pub(super) name: &'static str,
    pub(super) host: DockerHost,
}

impl Machine {
    pub(super) fn docker(&self, line: &str) -> Result<String> {
        let said = self.host.docker(line);
        said.with_context(|| format!("on host {}", self.name))
    }

    /// `docker network create` with both of our drivers.
    pub(super) fn network(&self, name: &str, subnet: &str) -> Result<()> {
        self.try_network(name, subnet)?.ok().map(drop)
    }

    pub(super) fn try_network(&self, name: &str, subnet: &str) -> Result<Done> {
        let ours = "-d netloom --ipam-driver netloom";
        self.host
            .try_docker(&format!("network create {ours} --subnet {subnet} {name}"))
    }

    /// `docker run -d` of an idle container; gives its address.
    pub(super) fn run(&self, name: &str, network: &str, more: &str) -> Result<Ipv4Addr> {
        let done = self.try_run(name, network, more)?;
        done.ok()
            .with_context(|| format!("on host {}", self.name))?;
        self.address(name, network)
    }

    /// The same, again where the other host was too busy to answer in time, which the message must
    /// say.
    pub(super) fn run_patiently(&self, name: &str, network: &str, more: &str) -> Result<Ipv4Addr> {
        for _ in 0..10 {
            let done = self.try_run(name, network, more)?;
            if done.code == 0 || !done.stderr.contains("do not answer") {
                done.ok()
                    .with_context(|| format!("on host {}", self.name))?;
                return self.address(name, network);
            }
        }
        self.run(name, network, more)
    }

    /// The same, whatever comes of it. A container that Docker made and could not start is removed.
    pub(super) fn try_run(&self, name: &str, network: &str, more: &str) -> Result<Done> {
        // The first process of a container ignores what it does not handle: KILL stops it at once.
        let start = format!("run -d --name {name} --hostname {name} --stop-signal KILL");
        let done = self
            .host
            .try_docker(&format!("{start} --network {network} {more} {IMAGE}"))?;
        if done.code != 0 {
            self.host.try_docker(&format!("rm -f {name}"))?;
        }
        Ok(done)
    }

    pub(super) fn remove(&self, name: &str) -> Result<()> {
        self.docker(&format!("rm -f {name}")).map(drop)
    }

    /// A container's address, as Docker knows it.
    pub(super) fn address(&self, container: &str, network: &str) -> Result<Ipv4Addr> {
        let said = self.field(container, network, "IPAddress")?;
        said.parse()
            .with_context(|| format!("{container} has the address {said:?}"))
    }

    /// A field of what Docker tells of a container's place in a network.
    pub(super) fn field(&self, container: &str, network: &str, field: &str) -> Result<String> {
        let path = format!("(index .NetworkSettings.Networks \"{network}\").{field}");
        self.docker(&format!("inspect -f '{{{{{path}}}}}' {container}"))
    }

    /// The addresses that a container's own interfaces have in a network.
    pub(super) fn has_address(&self, container: &str, address: Ipv4Addr) -> Result<()> {
        let view = self.docker(&format!("exec {container} ip -4 addr"))?;
        ensure!(
            view.contains(&format!("inet {address}/")),
            "{container} lost {address}: {view}"
        );
        Ok(())
    }

    /// Every address that Docker says is in use in a network.
    pub(super) fn addresses(&self, network: &str) -> Result<Vec<Ipv4Addr>> {
        let each = "{{range .Containers}}{{.IPv4Address}} {{end}}";
        let all = self.docker(&format!("network inspect -f '{each}' {network}"))?;
        all.split_whitespace()
            .map(|text| {
                let address = text.split('/').next().unwrap_or_default();
                address.parse().with_context(|| format!("{text:?}"))
            })
            .collect()
    }

    /// Demands that the audit finds nothing.
    pub(super) fn audit_is_clean(&self) -> Result<()> {
        wait_for("a clean audit", SETTLES_WITHIN, || {
            self.host.netloom("audit")?.ok()
        })
        .with_context(|| format!("on host {}", self.name))
        .map(drop)
    }

    /// The id by which the other hosts know this one.
    pub(super) fn id(&self) -> Result<String> {
        text(&self.cluster()?, "host")
    }

    /// How the host says that it stands to its store.
    pub(super) fn standing(&self) -> Result<String> {
        text(&self.cluster()?, "standing")
    }

    /// The epoch that the host has joined.
    pub(super) fn epoch(&self) -> Result<u64> {
        let cluster = self.cluster()?;
        let epoch = cluster.get("epoch").and_then(Value::as_u64);
        epoch.with_context(|| format!("no epoch in {cluster}"))
    }

    /// What the host says of the others; one that does not stand well says it by its exit code too.
    fn cluster(&self) -> Result<Value> {
        let said = self.host.netloom("--json cluster status")?;
        serde_json::from_str(&said.stdout).with_context(|| said.to_string())
    }

    /// Waits until the host says that it stands so.
    pub(super) fn stands(&self, wanted: &str) -> Result<()> {
        wait_for("the host's standing", SETTLES_WITHIN, || {
            let said = self.host.netloom("cluster status")?;
            let standing = self.standing()?;
            ensure!(standing == wanted, "not {wanted}: {said}");
            Ok(())
        })
        .with_context(|| format!("on host {}", self.name))
    }

    /// The hosts on record that may take part, as this one sees them.
    pub(super) fn members(&self) -> Result<Vec<String>> {
        let hosts = self.host.netloom_json("host ls")?;
        let hosts = hosts.as_array().context("no list of hosts")?;
        hosts
            .iter()
            .filter(|host| host.get("membership").is_some_and(|m| m == "member"))
            .map(|host| text(host, "id"))
            .collect()
    }

    /// Pings ten times a second from one container to an address until [`Ping::end`].
    pub(super) fn ping(&self, from: &str, to: Ipv4Addr) -> Result<Ping<'_>> {
        let mut ping = self.host.enter();
        ping.args(["docker", "exec", from, "sh", "-c"]);
        ping.arg(format!("echo $$ >/tmp/ping; exec ping -q -i 0.1 {to}"));
        let child = ping
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // Whoever ends it at once ends a ping, and not the shell before it.
        let begun = format!("exec {from} sh -c 'grep -q ^ping /proc/$(cat /tmp/ping)/cmdline'");
        wait_for("the ping", 30, || self.docker(&begun))?;
        Ok(Ping {
            machine: self,
            from: from.to_owned(),
            child,
        })
    }

    pub(super) fn remove_everything(&self) -> Result<()> {
        let ids = self.docker("ps -aq")?;
        let ids: Vec<&str> = ids.lines().collect();
        for some in ids.chunks(AT_ONCE) {
            self.docker(&format!("rm -f {}", some.join(" ")))?;
        }
        let networks = self.docker("network ls -q --filter type=custom")?;
        let gateway = self.docker("network ls -q --filter name=docker_gwbridge")?;
        for id in networks.lines().filter(|id| *id != gateway) {
            self.remove_network(id)?;
        }
        Ok(())
    }

    fn remove_network(&self, id: &str) -> Result<()> {
        let removal = self.host.remove_network(id);
        term::network_removed(removal.with_context(|| format!("on host {}", self.name))?);
        Ok(())
    }

    /// The daemons' last lines, for a failed scenario.
    pub(super) fn last_words(&self) {
        for daemon in ["dockerd", "netloom"] {
            term::say(&format!("the last of {daemon} on host {}:", self.name));
            let log = self.host.whole_log(daemon);
            // dockerd tells of every container's start and end at length; that is not what failed.
            let chatter = [
                "shim",
                "ignoring event",
                "runc",
                "signal loop",
                "loading plugin",
            ];
            let telling = |line: &&str| !chatter.iter().any(|word| line.contains(word));
            let mut lines: Vec<&str> = log.lines().filter(telling).collect();
            lines.dedup();
            term::aside(&lines.split_off(lines.len().saturating_sub(12)).join("\n"));
        }
        for question in ["audit", "cluster status", "host ls", "pool ls"] {
            if let Ok(said) = self.host.netloom(question) {
                term::aside(&format!("{said}"));
            }
        }
    }
}

/// A ping under way.
pub(super) struct Ping<'a> {
    machine: &'a Machine,
    from: String,
    child: Child,
}

impl Ping<'_> {
    /// Ends it and demands that every packet was answered; gives how many there were.
    pub(super) fn end(self) -> Result<usize> {
        // INT makes ping print its sums.
        let stop = format!("exec {} sh -c 'kill -INT $(cat /tmp/ping)'", self.from);
        self.machine.docker(&stop)?;
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let numbers = said.lines().find(|line| line.contains("transmitted"));
        let numbers = numbers.with_context(|| format!("ping says {said:?}"))?;
        // The last one may have been on its way when the ping was ended.
        let number = |n: usize| -> Option<usize> {
            let part = numbers.split(", ").nth(n)?;
            part.split_whitespace().next()?.parse().ok()
        };
        let (sent, answered) = number(0)
            .zip(number(1))
            .with_context(|| format!("ping says {numbers:?}"))?;
        ensure!(
            sent > 0 && answered + 1 >= sent,
            "packets were lost: {numbers}"
        );
        Ok(sent)
    }
}

fn text(value: &Value, key: &str) -> Result<String> {
    let found = value.get(key).and_then(Value::as_str);
    let found = found.with_context(|| format!("no {key} in {value}"))?;
    Ok(found.to_owned())
}
