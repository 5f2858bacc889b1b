//! Another machine on the same wire as a Docker host.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::command::{Done, run, words};
use crate::host::{DockerHost, first_child};
use crate::workdir::{self, WorkDir};

/// A network namespace with a name of its own and a few tools: "another machine".
///
/// On the wire the Docker host is 192.0.2.1 and 2001:db8:2::1, the peer 192.0.2.254 and
/// 2001:db8:2::254 (prefixes reserved for documentation, RFC 5737 and RFC 3849).
#[derive(Debug)]
pub struct Peer {
    work: WorkDir,
    pid: u32,
    busybox: PathBuf,
}

impl Peer {
    /// The Docker host's addresses on the wire.
    pub const HOST: (&str, &str) = ("192.0.2.1", "2001:db8:2::1");
    /// The peer's own addresses on the wire.
    pub const SELF: (&str, &str) = ("192.0.2.254", "2001:db8:2::254");

    /// Starts a peer and joins it to `host` by a wire, which is also the host's default route.
    ///
    /// # Errors
    /// When a namespace or link cannot be made.
    pub fn of(host: &DockerHost) -> Result<Self> {
        let work = WorkDir::new()?;
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--fork", "--kill-child", "--pid", "cat"]);
        unshare.stdin(Stdio::piped()).stdout(Stdio::null());
        let child = unshare.spawn().context("could not start `unshare`")?;
        let parent = child.id();
        workdir::remember(work.name(), child);
        let pid = first_child(parent)?;
        let peer = Self {
            work,
            pid,
            busybox: host.tree().join("bin/busybox"),
        };
        peer.wire(host)?;
        Ok(peer)
    }

    /// Lays the wire anew, as after the host's reboot.
    ///
    /// # Errors
    /// When a link cannot be made.
    pub fn wire(&self, host: &DockerHost) -> Result<()> {
        let pid = self.pid;
        host.enter_net(&format!(
            "ip link add eth0 up type veth peer name eth0 netns {pid}"
        ))?
        .ok()?;
        for line in [
            format!("ip address add {}/24 dev eth0", Self::HOST.0),
            format!("ip address add {}/64 dev eth0 nodad", Self::HOST.1),
            format!("ip route add default via {}", Self::SELF.0),
        ] {
            host.enter_net(&line)?.ok()?;
        }
        for line in [
            "ip link set lo up".to_owned(),
            "ip link set eth0 up".to_owned(),
            format!("ip address add {}/24 dev eth0", Self::SELF.0),
            format!("ip address add {}/64 dev eth0 nodad", Self::SELF.1),
        ] {
            self.exec(&line)?.ok()?;
        }
        host.enter_net(&format!("ip -6 route add default via {}", Self::SELF.1))?
            .ok()?;
        Ok(())
    }

    /// Runs a command line in the peer; `busybox` words are found as in the host's tree.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn exec(&self, line: &str) -> Result<Done> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.pid)).arg("--net");
        command.args(["timeout", "60"]);
        for (n, word) in words(line)?.into_iter().enumerate() {
            match (n, word.as_str()) {
                (0, "busybox") => command.arg(&self.busybox),
                _ => command.arg(word),
            };
        }
        run(command, &format!("peer: {line}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        workdir::end(self.work.name());
    }
}
