//! Walls of the kernel between hosts and their stores: a namespace of the run's own, and in it rules
//! that drop packets. Unlike a proxy, which ends or holds connections, they leave both ends to find out
//! by themselves.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

/// That the process has a network namespace of its own, with rules that are ready for use.
#[derive(Debug, Clone)]
pub struct Walls(());

/// Which packets between a host and its store are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Those of both sides.
    All,
    /// What the host says arrives, what it is answered does not.
    Answers,
}

impl Walls {
    /// Gives this process, and all that it starts from now on, a network namespace of its own. Before
    /// there is a second thread.
    ///
    /// None for who is not root: then nothing is dropped.
    ///
    /// # Errors
    /// When `ip` or `nft` cannot do their part.
    pub fn enter() -> Result<Option<Self>> {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: dropped packets: only root can make a network namespace");
            return Ok(None);
        }
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace for the run")?;
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        ensure!(up.context("running `ip`")?.success(), "lo does not come up");
        nft(RULES)?;
        Ok(Some(Self(())))
    }

    /// Drops packets of connections to these ports of this machine.
    pub(super) fn raise(&self, dropped: Dropped, ports: &[u16]) -> Result<()> {
        let mut words = element("add", "from", ports);
        if dropped == Dropped::All {
            words.push_str(&element("add", "to", ports));
        }
        nft(&words)
    }

    /// Lets packets of connections to these ports through again.
    pub(super) fn raze(&self, ports: &[u16]) -> Result<()> {
        // Added first: of what is not there, nothing can be deleted.
        nft(&["add", "delete"]
            .iter()
            .flat_map(|verb| ["from", "to"].map(|set| element(verb, set, ports)))
            .collect::<String>())
    }
}

fn element(verb: &str, set: &str, ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    format!("{verb} element inet walls {set} {{ {ports} }}\n")
}

fn nft(words: &str) -> Result<()> {
    let mut command = Command::new("nft");
    let child = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn();
    let mut child = child.context("running `nft`")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(words.as_bytes())?;
    }
    ensure!(child.wait()?.success(), "nft refused {words:?}");
    Ok(())
}

const RULES: &str = "
table inet walls {
    set to { type inet_service; }
    set from { type inet_service; }
    chain output {
        type filter hook output priority 0;
        tcp dport @to drop
        tcp sport @from drop
    }
}
";
