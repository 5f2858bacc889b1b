//! A Docker host whose daemon can be told where to die.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netloom_lab::{DockerHost, Done, HostOptions, Snapshot, Version};

use crate::{repo, term};

/// Strays are taken back after so many seconds: above the 3 s of dockerd's first retries, far below
/// the 40 s that a production host waits, or the matrix would take hours.
const SETTLE_AFTER: u64 = 4;
/// What is in doubt is told of after three times that; some rounds and a busy machine on top.
const CLEAN_WITHIN: u64 = 45;

/// A look at the daemon's lists is taken again for so many seconds: it may be starting.
const LOOK_WITHIN: u64 = 10;

/// The holder's pauses are 0, 0.1, 0.2 and 0.4 s so far, and 0.8 s and more from here on.
const DEATHS_IN_A_ROW: usize = 4;

/// The folder, in the machine, of the plan and the trace.
const FOLDER: &str = "/lab/crash";

/// A machine with dockerd and programs that carry crash points.
pub(super) struct Machine {
    pub(super) host: DockerHost,
    baseline: Snapshot,
    /// Deaths since the holder was started.
    deaths: Cell<usize>,
}

/// Builds the programs with crash points into a folder beside this program.
///
/// # Errors
/// When they do not build.
pub(crate) fn build() -> Result<PathBuf> {
    let plain = std::env::current_exe()?;
    let plain = plain.parent().context("a program lies in a folder")?;
    let folder = plain.join("crash-points");
    repo::build_with(&["--features", "netloomd/crash-points"])?;
    fs::create_dir_all(&folder)?;
    // This program too: it asks for pages inside the machine.
    for program in repo::PROGRAMS.into_iter().chain(["xtask"]) {
        // Under a new name first: the old file may be running in a machine of an earlier run.
        let new = folder.join(format!("{program}.new"));
        fs::copy(plain.join(program), &new)?;
        fs::rename(&new, folder.join(program))?;
    }
    // Nothing is compiled again: cargo keeps both kinds, and puts the plain one back in its place.
    repo::build_programs()?;
    Ok(folder)
}

/// Where [`build`] has put the programs.
pub(super) fn programs() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().context("a program lies in a folder")?;
    Ok(folder.join("crash-points"))
}

impl Machine {
    /// Boots a machine with the oldest Docker, whose retries are the clumsiest.
    ///
    /// # Errors
    /// When the machine does not come up.
    pub(super) fn boot(programs: &Path) -> Result<Self> {
        let options = HostOptions::new(Version::Bookworm, &repo::trees(), programs);
        let host = DockerHost::start(options)?;
        fs::create_dir_all(host.path(FOLDER))?;
        let mut machine = Self {
            baseline: host.snapshot()?,
            deaths: Cell::new(0),
            host,
        };
        machine.start()?;
        // The first container makes Docker set up what then stays.
        machine.docker("network create -d netloom --ipam-driver netloom warm-up")?;
        machine.docker("run -d --name warm-up --network warm-up lab")?;
        machine.docker("rm -f warm-up")?;
        machine.docker("network rm warm-up")?;
        let audit = || machine.host.netloom("audit")?.ok();
        netloom_lab::wait_for("a clean audit after the warm-up", CLEAN_WITHIN, audit)?;
        machine.baseline = machine.host.snapshot()?;
        Ok(machine)
    }

    /// Starts holder, daemon and relay.
    ///
    /// # Errors
    /// When the plugin does not answer.
    pub(super) fn start(&self) -> Result<()> {
        self.launch()?;
        self.host.wait_for_netloom()
    }

    /// Notes deaths that were planned.
    pub(super) fn died(&self, times: usize) {
        self.deaths.set(self.deaths.get() + times);
    }

    /// Starts the holder anew when it has seen many deaths in a row: it pauses for up to 2 s between
    /// them, which is most of the time that a life would take.
    ///
    /// # Errors
    /// When the plugin does not answer again.
    pub(super) fn rest(&self) -> Result<()> {
        if self.deaths.get() < DEATHS_IN_A_ROW {
            return Ok(());
        }
        self.deaths.set(0);
        self.host.stop_netloom()?;
        self.start()
    }

    fn launch(&self) -> Result<()> {
        let settings = format!(
            "NETLOOM_CRASH_DIR={FOLDER} NETLOOM_AUDIT_INTERVAL_S=1 \
             NETLOOM_SETTLE_AFTER_S={SETTLE_AFTER}"
        );
        let holder = "netloom-holder --relay /opt/netloom/netloom-relay -- /opt/netloom/netloomd";
        self.host
            .spawn("netloom", &format!("env {settings} {holder}"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.host.path(&format!("{FOLDER}/{name}"))
    }

    /// Has the daemon die at `points`, one instance at each.
    pub(super) fn arm(&self, points: &[&str]) -> Result<()> {
        // By a rename: the daemon may read at any moment.
        fs::write(self.file("armed"), points.join("\n"))?;
        fs::rename(self.file("armed"), self.file("plan"))?;
        Ok(())
    }

    /// Takes the plan back; says how many of its points have not killed anybody.
    pub(super) fn disarm(&self) -> Result<usize> {
        match fs::read_to_string(self.file("plan")) {
            Ok(left) => {
                fs::remove_file(self.file("plan"))?;
                Ok(left.lines().count())
            }
            Err(_) => Ok(0),
        }
    }

    /// The points passed since the last call, in order, each with how often.
    pub(super) fn passed(&self) -> Vec<(String, usize)> {
        let text = fs::read_to_string(self.file("trace")).unwrap_or_default();
        let _ = fs::remove_file(self.file("trace"));
        let mut order: Vec<(String, usize)> = Vec::new();
        for line in text.lines() {
            match order.iter_mut().find(|(name, _)| name == line) {
                Some((_, count)) => *count += 1,
                None => order.push((line.to_owned(), 1)),
            }
        }
        order
    }

    pub(super) fn docker(&self, line: &str) -> Result<String> {
        self.host.docker(line)
    }

    /// Whether Docker says yes, as to `network inspect blue`.
    pub(super) fn knows(&self, line: &str) -> Result<bool> {
        Ok(self.host.try_docker(line)?.code == 0)
    }

    /// Addresses of all running containers, as Docker tells them.
    fn containers(&self) -> Result<Vec<String>> {
        let ids = self.docker("ps -q")?.replace('\n', " ");
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let each =
            "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{end}}";
        let text = self.docker(&format!("inspect -f '{each}' {ids}"))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// Addresses that are not free, as Netloom tells them.
    fn held(&self) -> Result<Vec<String>> {
        // A daemon that was to die may do so while it answers this.
        let list = netloom_lab::wait_for("the list of addresses", LOOK_WITHIN, || {
            self.host.netloom_json("address ls")
        })?;
        let list = list.as_array().context("`address ls` gave no list")?;
        let ip = |entry: &serde_json::Value| Some(entry.get("ip")?.as_str()?.to_owned());
        Ok(list.iter().filter_map(ip).collect())
    }

    /// The addresses that several have, as far as Docker and Netloom tell.
    pub(super) fn doubled(&self) -> Result<Vec<String>> {
        let mut doubled = Vec::new();
        for list in [self.containers()?, self.held()?] {
            let mut seen = BTreeSet::new();
            doubled.extend(list.into_iter().filter(|ip| !seen.insert(ip.clone())));
        }
        Ok(doubled)
    }

    /// Demands that no address is out twice, and that each one in use is known to be.
    pub(super) fn no_address_is_out_twice(&self) -> Result<()> {
        let doubled = self.doubled()?;
        ensure!(doubled.is_empty(), "several have {doubled:?}");
        let (containers, held) = (self.containers()?, self.held()?);
        let unknown: Vec<_> = containers.iter().filter(|ip| !held.contains(ip)).collect();
        ensure!(
            unknown.is_empty(),
            "containers use {unknown:?}, which the journal holds to be free: {held:?}"
        );
        Ok(())
    }

    /// Demands that nothing is left of anything: no finding of an audit that repairs nothing, no
    /// record, no address, no link, no rule.
    pub(super) fn is_clean(&self) -> Result<()> {
        netloom_lab::wait_for("a clean end", CLEAN_WITHIN, || {
            self.host.netloom("audit")?.ok()?;
            for list in ["network ls", "endpoint ls", "pool ls", "address ls", "port"] {
                let left = self.host.netloom_json(list)?;
                let empty = left.as_array().is_some_and(Vec::is_empty);
                ensure!(empty, "`netloom {list}` still shows {left}");
            }
            let mut left = self.host.snapshot()?.since(&self.baseline);
            // Docker makes these on first need, and keeps them.
            let dockers = ["docker_gwbridge", "docker0", "netns/default", "172.1"];
            left.retain(|line| !dockers.iter().any(|part| line.contains(part)));
            ensure!(left.is_empty(), "left over: {}", left.join("; "));
            Ok(())
        })
    }

    /// Waits for the daemon and says how long that took.
    pub(super) fn recovered(&self) -> Result<Duration> {
        let start = Instant::now();
        self.host.wait_for_netloom()?;
        Ok(start.elapsed())
    }

    /// One call of the plugin, as dockerd would make it, and its answer's field.
    pub(super) fn plugin(
        &self,
        method: &str,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value> {
        let answer = self.host.plugin(method, &body.to_string())?;
        serde_json::from_str(&answer).with_context(|| format!("{method}: not JSON: {answer}"))
    }

    /// What a person would want to see after a failure.
    pub(super) fn last_words(&self) {
        for daemon in ["dockerd", "netloom"] {
            term::say(&format!("the last of {daemon}:"));
            term::aside(&self.host.log(daemon, 15));
        }
        if let Ok(audit) = self.host.netloom("audit") {
            term::aside(&audit.to_string());
        }
    }
}

/// A command that ended well, for steps that are more than one command.
pub(super) fn well() -> Done {
    Done {
        command: String::new(),
        code: 0,
        stdout: String::new(),
        stderr: String::new(),
    }
}
