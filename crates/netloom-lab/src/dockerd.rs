//! The dockerd of a machine: start, stop, crash, and its API without the command.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::host::DockerHost;
use crate::image::{self, IMAGE};
use crate::wait::{until, wait_for};

/// dockerd restores a hundred containers in a few seconds; it waits 15 s for each missing plugin.
const START_SECONDS: u64 = 60;

/// How a network went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// At once, or a moment later.
    Plain,
    /// Docker had counted its endpoints wrong, and had to be restarted.
    AfterMiscount,
}

impl DockerHost {
    /// Starts dockerd and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer, with its last words.
    pub fn start_dockerd(&self) -> Result<()> {
        self.launch_dockerd()?;
        until("dockerd", START_SECONDS, || {
            self.docker_api("GET", "/_ping", "").is_ok()
        })
        .with_context(|| self.log("dockerd", 20))
    }

    /// Starts dockerd without waiting for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_dockerd(&self) -> Result<()> {
        let _ = fs::remove_file(self.path("/run/docker.pid"));
        self.spawn("dockerd", "dockerd")
    }

    /// Stops dockerd in an orderly way.
    ///
    /// # Errors
    /// When it is still there after 30 s.
    pub fn stop_dockerd(&self) -> Result<()> {
        self.stop("dockerd", "TERM")
    }

    /// Kills dockerd; its containerd goes on, as after a crash.
    ///
    /// # Errors
    /// When the process stays.
    pub fn kill_dockerd(&self) -> Result<()> {
        self.stop("dockerd", "KILL")
    }

    /// Stops dockerd in an orderly way and starts it again.
    ///
    /// # Errors
    /// As stop and start.
    pub fn restart_dockerd(&self) -> Result<()> {
        self.stop_dockerd()?;
        self.start_dockerd()
    }

    /// Removes a network that no container uses any more. When many endpoints end at once, Docker
    /// 20.10 may count them wrong for good, and finds that out, and says so, when it starts: then
    /// it is restarted.
    ///
    /// # Errors
    /// When a container is still on it, or the network stays for another reason.
    pub fn remove_network(&self, id: &str) -> Result<Removal> {
        let remove = || self.docker(&format!("network rm {id}"));
        // dockerd may end an endpoint a moment after it answered the container's removal.
        let Err(refused) = wait_for("the end of a network", 15, remove) else {
            return Ok(Removal::Plain);
        };
        let containers = self.docker(&format!(
            "network inspect -f '{{{{len .Containers}}}}' {id}"
        ))?;
        ensure!(containers == "0", "{containers} containers: {refused:#}");
        self.restart_dockerd()?;
        let log = self.whole_log("dockerd");
        ensure!(log.contains("inconsistent endpoint_cnt"), "{refused:#}");
        remove()?;
        Ok(Removal::AfterMiscount)
    }

    /// The version that dockerd tells of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn docker_version(&self) -> Result<String> {
        let answer = self.docker_api("GET", "/version", "")?;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        let version = answer.get("Version").and_then(serde_json::Value::as_str);
        Ok(version.context("dockerd tells no version")?.to_owned())
    }

    /// Imports the lab's image; its containers idle until told otherwise.
    pub(crate) fn import_image(&self) -> Result<()> {
        let tar = image::tarball(self.tree())?;
        fs::copy(tar, self.path("/lab/image.tar"))?;
        let words = [
            "docker",
            "import",
            "-c",
            "CMD [\"/bin/sleep\",\"1000000\"]",
            "/lab/image.tar",
            IMAGE,
        ];
        wait_for("the lab's image", 20, || self.exec_words(&words)?.ok())?;
        Ok(())
    }

    /// One call of Docker's API without the command in between; gives the answer's body.
    ///
    /// # Errors
    /// When dockerd does not answer, or answers with a status of 400 or more.
    pub fn docker_api(&self, method: &str, path: &str, body: &str) -> Result<String> {
        http(&self.path("/run/docker.sock"), method, path, body)
    }
}

/// One HTTP/1.0 exchange over a unix socket.
pub(crate) fn http(
    socket: &std::path::Path,
    method: &str,
    path: &str,
    body: &str,
) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    // HTTP/1.0: the answer ends with the connection and comes in one piece, without chunks.
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: lab\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without a head")?;
    let status: u16 = head
        .split_whitespace()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .context("an answer without a status")?;
    if status >= 400 {
        bail!("{method} {path}: {status} {}", body.trim());
    }
    Ok(body.to_owned())
}
