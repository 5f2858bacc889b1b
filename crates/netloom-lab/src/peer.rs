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
/// 2001:db8:2::254 (prefixes reserved for documentation, RFC 5737 and RFC 3849). A second Docker host
/// has a wire of its own to the same peer, with addresses of other such prefixes.
#[derive(Debug)]
pub struct Peer {
    work: WorkDir,
    pid: u32,
    busybox: PathBuf,
}

/// One wire: the interface at the peer's end, and both ends' addresses.
struct Wire {
    device: &'static str,
    host: (&'static str, &'static str),
    peer: (&'static str, &'static str),
}

const FIRST: Wire = Wire {
    device: "eth0",
    host: Peer::HOST,
    peer: Peer::SELF,
};

const SECOND: Wire = Wire {
    device: "eth1",
    host: Peer::SECOND_HOST,
    peer: Peer::SECOND_SELF,
};

impl Peer {
    /// The Docker host's addresses on the wire.
    pub const HOST: (&str, &str) = ("192.0.2.1", "2001:db8:2::1");
    /// The peer's own addresses on the wire.
    pub const SELF: (&str, &str) = ("192.0.2.254", "2001:db8:2::254");
    /// A second Docker host's addresses on its wire.
    pub const SECOND_HOST: (&str, &str) = ("198.51.100.1", "2001:db8:51::1");
    /// The peer's own addresses on the second wire.
    pub const SECOND_SELF: (&str, &str) = ("198.51.100.254", "2001:db8:51::254");

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
        self.lay(host, &FIRST)
    }

    /// Lays a second wire, to another Docker host, which is that host's default route. Each of the
    /// two hosts reaches every address of the peer, and no host the other.
    ///
    /// # Errors
    /// When a link cannot be made.
    pub fn wire_second(&self, host: &DockerHost) -> Result<()> {
        self.lay(host, &SECOND)
    }

    fn lay(&self, host: &DockerHost, wire: &Wire) -> Result<()> {
        let (pid, device) = (self.pid, wire.device);
        host.enter_net(&format!(
            "ip link add eth0 up type veth peer name {device} netns {pid}"
        ))?
        .ok()?;
        for line in [
            format!("ip address add {}/24 dev eth0", wire.host.0),
            format!("ip address add {}/64 dev eth0 nodad", wire.host.1),
            format!("ip route add default via {}", wire.peer.0),
        ] {
            host.enter_net(&line)?.ok()?;
        }
        for line in [
            "ip link set lo up".to_owned(),
            format!("ip link set {device} up"),
            format!("ip address add {}/24 dev {device}", wire.peer.0),
            format!("ip address add {}/64 dev {device} nodad", wire.peer.1),
        ] {
            self.exec(&line)?.ok()?;
        }
        host.enter_net(&format!("ip -6 route add default via {}", wire.peer.1))?
            .ok()?;
        Ok(())
    }

    /// The peer's network, for programs that are to run in it.
    #[must_use]
    pub fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid))
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
