//! Netloom's own programs in a machine: start, stop, crash, question.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::Done;
use crate::dockerd::http;
use crate::host::DockerHost;
use crate::wait::until;

/// Where dockerd looks for the plugin.
pub const PLUGIN_SOCKET: &str = "/run/docker/plugins/netloom.sock";

/// A start opens the store, reads the kernel and binds sockets: well below a second unless the
/// machine is busy.
const START_SECONDS: u64 = 30;

impl DockerHost {
    /// Starts the holder, which starts daemon and relay, at their usual places, and waits until
    /// the plugin answers.
    ///
    /// # Errors
    /// When the plugin does not answer, with its last words.
    pub fn start_netloom(&self) -> Result<()> {
        let relay = "--relay /opt/netloom/netloom-relay";
        self.spawn(
            "netloom",
            &format!("netloom-holder {relay} -- /opt/netloom/netloomd"),
        )?;
        self.wait_for_netloom()
    }

    /// Writes the daemon's configuration file, which its next start reads.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure_netloom(&self, toml: &str) -> Result<()> {
        let dir = self.path("/etc/netloom");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("netloom.toml"), toml)?;
        Ok(())
    }

    /// Removes everything that Netloom keeps on the machine's disk, as a new installation would.
    ///
    /// # Errors
    /// When the daemon runs, or a file cannot be removed.
    pub fn forget_netloom_state(&self) -> Result<()> {
        ensure!(
            self.pids_of("netloomd")?.is_empty(),
            "netloomd runs; stop it before its state is removed"
        );
        let state = self.path("/var/lib/netloom");
        if state.exists() {
            fs::remove_dir_all(state)?;
        }
        Ok(())
    }

    /// Waits until the plugin answers.
    ///
    /// # Errors
    /// When it does not within half a minute, with its last words.
    pub fn wait_for_netloom(&self) -> Result<()> {
        until("netloomd's plugin socket", START_SECONDS, || {
            self.plugin("Plugin.Activate", "")
                .is_ok_and(|answer| answer.contains("NetworkDriver"))
        })
        .with_context(|| self.log("netloom", 20))
    }

    /// One call of the plugin, as dockerd would make it.
    ///
    /// # Errors
    /// When the plugin does not answer, or not with success.
    pub fn plugin(&self, method: &str, body: &str) -> Result<String> {
        http(
            &self.path(PLUGIN_SOCKET),
            "POST",
            &format!("/{method}"),
            body,
        )
    }

    /// Kills the daemon alone, as a crash would; the holder starts it again.
    ///
    /// # Errors
    /// When there is none, or it stays.
    pub fn kill_netloom_daemon(&self) -> Result<()> {
        let old = self.netloomd_pid()?;
        self.signal(&old, "KILL")?;
        let exe = self.path(&format!("/proc/{old}/exe"));
        until("the end of netloomd", 10, || fs::read_link(&exe).is_err())
    }

    /// The process id of the daemon inside the machine.
    ///
    /// # Errors
    /// When none runs.
    pub fn netloomd_pid(&self) -> Result<String> {
        self.pids_of("netloomd")?
            .into_iter()
            .next()
            .context("no netloomd runs in the machine")
    }

    /// Stops holder, daemon and relay in an orderly way.
    ///
    /// # Errors
    /// When they stay.
    pub fn stop_netloom(&self) -> Result<()> {
        self.stop("netloom", "TERM")?;
        for program in ["netloomd", "netloom-relay"] {
            until(&format!("the end of {program}"), 15, || {
                self.pids_of(program).is_ok_and(|pids| pids.is_empty())
            })?;
        }
        Ok(())
    }

    /// Runs the `netloom` command.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn netloom(&self, line: &str) -> Result<Done> {
        self.exec(&format!("netloom {line}"))
    }

    /// Runs the `netloom` command with `--json` and reads its answer.
    ///
    /// # Errors
    /// When it fails or its answer is not JSON.
    pub fn netloom_json(&self, line: &str) -> Result<Value> {
        let answer = self.netloom(&format!("--json {line}"))?.ok()?;
        serde_json::from_str(&answer).with_context(|| format!("not JSON: {answer}"))
    }
}
