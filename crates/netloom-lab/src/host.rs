//! One machine with Docker, in namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{Done, run, words};
use crate::tree::{Trees, Version};
use crate::wait::until;
use crate::workdir::{self, WorkDir};

/// Turns fresh namespaces into a machine; see the comments in it.
const INIT: &str = include_str!("host.sh");

/// What a command inside may take before it counts as hung; a `docker run` under load takes a few
/// seconds, dockerd's client of a dead plugin gives up after 15.
const DEADLINE_SECONDS: &str = "90";

/// What distinguishes one machine of the lab from another.
#[derive(Debug, Clone)]
pub struct HostOptions {
    pub(crate) version: Version,
    pub(crate) trees: Trees,
    pub(crate) binaries: PathBuf,
    pub(crate) daemon: serde_json::Map<String, serde_json::Value>,
}

impl HostOptions {
    /// A machine of Debian release `version`; `binaries` is the folder with the built programs,
    /// which the machine sees as `/opt/netloom`.
    pub fn new(version: Version, trees: &Trees, binaries: impl Into<PathBuf>) -> Self {
        let mut daemon = serde_json::Map::new();
        // A name that nobody knows is asked of the peer, which answers with a closed port.
        daemon.insert("dns-opts".into(), vec!["timeout:1", "attempts:1"].into());
        daemon.insert(
            "exec-opts".into(),
            vec!["native.cgroupdriver=cgroupfs"].into(),
        );
        Self {
            version,
            trees: trees.clone(),
            binaries: binaries.into(),
            daemon,
        }
    }

    /// One more setting of dockerd's `daemon.json`, such as `("live-restore", true)`.
    #[must_use]
    pub fn dockerd(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.daemon.insert(key.to_owned(), value.into());
        self
    }
}

/// A machine with its own network, processes, `/run`, disk and dockerd.
///
/// Dropping it ends every process inside and removes its disk.
#[derive(Debug)]
pub struct DockerHost {
    pub(crate) options: HostOptions,
    pub(crate) work: WorkDir,
    pub(crate) tree: PathBuf,
    pid: u32,
}

impl DockerHost {
    /// Boots a machine, starts its dockerd and imports the lab's image.
    ///
    /// # Errors
    /// When the tree cannot be made, a namespace is refused or dockerd does not answer.
    pub fn start(options: HostOptions) -> Result<Self> {
        let host = Self::boot(options)?;
        host.start_dockerd()?;
        host.import_image()?;
        Ok(host)
    }

    /// Boots a machine without starting anything in it.
    ///
    /// # Errors
    /// When the tree cannot be made or a namespace is refused.
    pub fn boot(options: HostOptions) -> Result<Self> {
        let tree = options.trees.ensure(options.version, |_| ())?;
        let work = WorkDir::new()?;
        for dir in ["root", "upper", "ovl", "docker", "lab", "upper/etc/docker"] {
            fs::create_dir_all(work.path().join(dir))?;
        }
        let mut daemon = options.daemon.clone();
        daemon.insert("cgroup-parent".into(), format!("/{}", work.name()).into());
        fs::write(
            work.path().join("upper/etc/docker/daemon.json"),
            serde_json::to_vec_pretty(&daemon)?,
        )?;
        let mut host = Self {
            options,
            work,
            tree,
            pid: 0,
        };
        host.power_on()?;
        Ok(host)
    }

    fn power_on(&mut self) -> Result<()> {
        let dir = self.work.path();
        let boot_id =
            fs::read("/proc/sys/kernel/random/uuid").context("the kernel gives no uuid")?;
        fs::write(dir.join("boot_id"), boot_id)?;
        let ready = dir.join("lab/ready");
        let _ = fs::remove_file(&ready);
        let compose = match self.options.version {
            Version::Bookworm => self.options.trees.lent_compose(),
            Version::Trixie | Version::Sid => None,
        };
        let log = fs::File::create(dir.join("lab/boot.log"))?;
        let mut unshare = Command::new("unshare");
        unshare
            .args([
                "--net",
                "--mount",
                "--uts",
                "--ipc",
                "--pid",
                "--fork",
                "--kill-child",
            ])
            .args(["sh", "-c", INIT])
            .env("NL_TREE", &self.tree)
            .env("NL_WORK", dir)
            .env("NL_BIN", &self.options.binaries)
            .env("NL_NAME", format!("lab-{}", self.options.version.suite()))
            .env("NL_COMPOSE", compose.unwrap_or_default())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        // A group of its own, so that Ctrl-C at a terminal reaches the lab first, not the machine.
        std::os::unix::process::CommandExt::process_group(&mut unshare, 0);
        let child = unshare.spawn().context("could not start `unshare`")?;
        let parent = child.id();
        workdir::remember(self.work.name(), child);
        self.pid = first_child(parent)?;
        until("the machine's namespaces", 10, || ready.exists())
            .with_context(|| self.log("boot", 20))
    }

    /// Pulls the plug and boots again: every process, link, rule and file in `/run` is gone, the
    /// boot id is new, the disk is as it was. Nothing is started.
    ///
    /// # Errors
    /// When the machine does not come up again.
    pub fn reboot(&mut self) -> Result<()> {
        workdir::end(self.work.name());
        self.power_on()
    }

    /// The release that this machine runs.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.options.version
    }

    /// Where `inside`, an absolute path in the machine, is found from outside.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid))
    }

    /// The release's root folder, from which static programs can be run outside.
    pub(crate) fn tree(&self) -> &Path {
        &self.tree
    }

    /// Runs a command line in the machine, as root, with `/opt/netloom` first in the path.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn exec(&self, line: &str) -> Result<Done> {
        let words = words(line)?;
        self.exec_words(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// As [`DockerHost::exec`], for words that are split already.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn exec_words(&self, argv: &[&str]) -> Result<Done> {
        let mut command = self.enter();
        command
            .args(["timeout", "-k", "5", DEADLINE_SECONDS])
            .args(argv);
        run(command, &argv.join(" "))
    }

    /// Runs `script` by the machine's shell.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn shell(&self, script: &str) -> Result<Done> {
        let done = self.exec_words(&["sh", "-c", script])?;
        Ok(Done {
            command: script.to_owned(),
            ..done
        })
    }

    /// Runs `docker` with a command line, and expects success.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn docker(&self, line: &str) -> Result<String> {
        self.try_docker(line)?.ok()
    }

    /// Runs `docker` with a command line, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_docker(&self, line: &str) -> Result<Done> {
        let words = words(line)?;
        let mut argv = vec!["docker"];
        argv.extend(words.iter().map(String::as_str));
        self.exec_words(&argv)
    }

    /// A command of the outer machine, such as `ip`, in this machine's network only; process ids
    /// in it are those of outside.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn enter_net(&self, line: &str) -> Result<Done> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.pid))
            .arg("--net")
            .args(words(line)?);
        run(command, line)
    }

    /// A command that runs `nsenter` into this machine; the caller adds the words.
    #[must_use]
    pub fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.pid))
            .args(["--net", "--mount", "--uts", "--ipc", "--pid"])
            .env_clear()
            .env(
                "PATH",
                "/opt/netloom:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8");
        command
    }

    /// Starts a long-running program; its words go to `/lab/NAME.log`, its process id inside the
    /// machine to `/lab/NAME.pid`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, name: &str, line: &str) -> Result<()> {
        let script = format!("echo $$ >/lab/{name}.pid; exec {line} >>/lab/{name}.log 2>&1");
        self.exec_words(&["setsid", "-f", "sh", "-c", &script])?
            .ok()?;
        Ok(())
    }

    /// Sends `signal` (such as `KILL`) to a program started by [`DockerHost::spawn`] and waits
    /// until it is gone.
    ///
    /// # Errors
    /// When it is still there after 30 s.
    pub fn stop(&self, name: &str, signal: &str) -> Result<()> {
        let file = self.path(&format!("/lab/{name}.pid"));
        let Ok(pid) = fs::read_to_string(&file) else {
            return Ok(());
        };
        let _ = fs::remove_file(&file);
        self.signal(pid.trim(), signal)?;
        let proc = self.path(&format!("/proc/{}/exe", pid.trim()));
        // A zombie has no executable any more, so this does not wait for the reaper.
        until(&format!("the end of {name}"), 30, || {
            fs::read_link(&proc).is_err()
        })
    }

    /// Sends `signal` to a process id of the machine.
    ///
    /// # Errors
    /// When `kill` cannot be started.
    pub fn signal(&self, pid: &str, signal: &str) -> Result<()> {
        self.exec(&format!("busybox kill -{signal} {pid}"))?;
        Ok(())
    }

    /// The process ids, inside the machine, of programs whose executable is named `program`.
    ///
    /// # Errors
    /// When the machine's process list cannot be read.
    pub fn pids_of(&self, program: &str) -> Result<Vec<String>> {
        let mut pids = Vec::new();
        for entry in fs::read_dir(self.path("/proc"))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let exe = fs::read_link(entry.path().join("exe"));
            let is_it = exe.is_ok_and(|exe| exe.file_name().is_some_and(|f| f == program));
            if is_it && name.bytes().all(|b| b.is_ascii_digit()) {
                pids.push(name);
            }
        }
        Ok(pids)
    }

    /// The last `lines` lines of the log of a program started by [`DockerHost::spawn`].
    #[must_use]
    pub fn log(&self, name: &str, lines: usize) -> String {
        let file = self.work.path().join("lab").join(format!("{name}.log"));
        let text = fs::read_to_string(file).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all.iter()
            .skip(all.len().saturating_sub(lines))
            .copied()
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Everything that a program started by [`DockerHost::spawn`] has logged.
    #[must_use]
    pub fn whole_log(&self, name: &str) -> String {
        self.log(name, usize::MAX)
    }
}

impl Drop for DockerHost {
    fn drop(&mut self) {
        workdir::end(self.work.name());
    }
}

/// The first child of process `parent`: the first process inside the namespaces that `unshare`
/// made.
pub(crate) fn first_child(parent: u32) -> Result<u32> {
    let list = format!("/proc/{parent}/task/{parent}/children");
    let mut found = None;
    until("the first process of a namespace", 10, || {
        let text = fs::read_to_string(&list).unwrap_or_default();
        found = text
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok());
        found.is_some() || !Path::new(&list).exists()
    })?;
    match found {
        Some(pid) => Ok(pid),
        None => bail!("`unshare` ended at once: making namespaces needs root; run it with sudo"),
    }
}
