//! What a run is made of: servers of a store, a proxy between every host and every server, and hosts
//! that are processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;
use netloom_core::{StoreKind, StoreUrl, SystemClock};
use netloom_ipam::cluster_init;
use netloom_lab::proxy::Proxy;
use netloom_lab::servers::{Shape, StoreServer};
use netloom_stores::SharedStore;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;

use super::host::{progress_path, ready_path};
use super::run::{RunArgs, STEP};

/// One run's machinery. Dropping it ends all that it started.
pub(super) struct Site {
    // Before the servers: hosts end before their store goes.
    pub(super) hosts: Vec<HostProcess>,
    pub(super) proxies: Vec<Vec<Proxy>>,
    pub(super) servers: Option<StoreServer>,
    pub(super) runtime: Runtime,
    pub(super) args: RunArgs,
    dir: tempfile::TempDir,
}

/// What a host is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Serve its callers.
    Full,
    /// Come to rest, and end.
    None,
}

/// A host, while its process runs.
pub(super) struct HostProcess(Option<Child>);

impl HostProcess {
    fn end(&mut self) -> Result<()> {
        if let Some(mut child) = self.0.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl Site {
    /// Starts servers and proxies; no host runs yet.
    pub(super) fn new(args: RunArgs) -> Result<Self> {
        let runtime = Runtime::new()?;
        let dir = match &args.dir {
            Some(dir) => {
                fs::create_dir_all(dir)?;
                tempfile::tempdir_in(dir)?
            }
            None => tempfile::tempdir()?,
        };
        let shape = if args.single {
            Shape::Single
        } else {
            Shape::Three
        };
        let servers = match args.store.kind() {
            Some(kind) => Some(StoreServer::start(kind, shape)?),
            None => None,
        };
        let mut proxies = Vec::new();
        for host in 0..args.hosts {
            let mut of_host = Vec::new();
            let addresses = servers.as_ref().map(StoreServer::endpoints);
            for address in addresses.unwrap_or_default() {
                let seed = args.seed ^ u64::from(host);
                of_host.push(runtime.block_on(Proxy::start(address, seed))?);
            }
            proxies.push(of_host);
            fs::create_dir(dir.path().join(format!("host-{host}")))?;
        }
        let site = Self {
            hosts: (0..args.hosts).map(|_| HostProcess(None)).collect(),
            proxies,
            servers,
            runtime,
            args,
            dir,
        };
        if let Some(store) = site.store() {
            let ids = SystemClock::new();
            let init = cluster_init(&store, &ids, 0, []);
            site.runtime.block_on(init)?;
        }
        Ok(site)
    }

    /// The store, without proxies between.
    pub(super) fn store(&self) -> Option<SharedStore> {
        self.servers.as_ref().map(|s| SharedStore::new(s.url()))
    }

    pub(super) fn host_dir(&self, host: usize) -> PathBuf {
        self.dir.path().join(format!("host-{host}"))
    }

    fn url_of(&self, host: usize) -> Option<StoreUrl> {
        let servers = self.servers.as_ref()?;
        let proxies = self.proxies.get(host)?.iter();
        let addresses: Vec<_> = proxies.map(Proxy::address).collect();
        Some(StoreUrl::Remote(servers.url_by(&addresses).url))
    }

    /// Where a host speaks to its servers.
    pub(super) fn ports_of(&self, host: usize) -> Vec<u16> {
        let proxies = self.proxies.get(host).into_iter().flatten();
        proxies.map(|proxy| proxy.address().port()).collect()
    }

    /// Starts a host's process; without load it comes to rest and ends.
    pub(super) fn start(&mut self, host: usize, load: Load) -> Result<()> {
        let args = &self.args;
        let dir = self.host_dir(host);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join("log"))?;
        let callers = match load {
            Load::Full => args.callers,
            Load::None => 0,
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("host").arg(dir);
        for (name, value) in [
            ("--number", host.to_string()),
            ("--hosts", args.hosts.to_string()),
            ("--seed", args.seed.to_string()),
            ("--callers", callers.to_string()),
            ("--pools", args.pools.to_string()),
            ("--prefix", args.prefix.to_string()),
        ] {
            command.arg(name).arg(value);
        }
        if let Some(url) = self.url_of(host) {
            command.arg("--store").arg(url.to_string());
        }
        if let Some(flaw) = args.flaw.as_ref().and_then(ValueEnum::to_possible_value) {
            command.arg("--bug").arg(flaw.get_name());
        }
        command
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        let slot = self.hosts.get_mut(host).context("a host of the run")?;
        slot.end()?;
        let ready = ready_path(&self.dir.path().join(format!("host-{host}")));
        if ready.exists() {
            fs::remove_file(ready)?;
        }
        slot.0 = Some(command.spawn()?);
        Ok(())
    }

    /// Whether a host has callers by now.
    pub(super) fn is_ready(&self, host: usize) -> bool {
        ready_path(&self.host_dir(host)).exists()
    }

    /// Ends a host at once, as by SIGKILL.
    pub(super) fn kill_host(&mut self, host: usize) -> Result<()> {
        self.hosts.get_mut(host).context("a host of the run")?.end()
    }

    pub(super) fn signal_host(&self, host: usize, signal: Signal) -> Result<()> {
        let child = self.hosts.get(host).and_then(|host| host.0.as_ref());
        if let Some(child) = child {
            kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        }
        Ok(())
    }

    /// Starts hosts again whose processes ended by themselves; how many did, and what they said.
    pub(super) fn revive(&mut self) -> Result<Vec<String>> {
        let mut ended = Vec::new();
        for host in 0..self.hosts.len() {
            let Some(slot) = self.hosts.get_mut(host) else {
                continue;
            };
            let status = match &mut slot.0 {
                Some(child) => child.try_wait()?,
                None => None,
            };
            if let Some(status) = status {
                ended.push(format!(
                    "host {host} ended with {status}: {}",
                    self.said(host)
                ));
                self.start(host, Load::Full)?;
            }
        }
        Ok(ended)
    }

    /// Waits until a host that was to come to rest has ended; at `until` it is ended.
    pub(super) fn await_end(&mut self, host: usize, until: Instant) -> Result<bool> {
        let slot = self.hosts.get_mut(host).context("a host of the run")?;
        let Some(child) = &mut slot.0 else {
            return Ok(false);
        };
        loop {
            if let Some(status) = child.try_wait()? {
                slot.0 = None;
                return Ok(status.success());
            }
            if Instant::now() > until {
                slot.end()?;
                return Ok(false);
            }
            sleep(STEP);
        }
    }

    /// The last lines of what a host said.
    pub(super) fn said(&self, host: usize) -> String {
        let log = fs::read_to_string(self.host_dir(host).join("log")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        last.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// How many calls were answered so far, as hosts said last.
    pub(super) fn operations(&self) -> u64 {
        self.progress().map(|(operations, _)| operations).sum()
    }

    /// How many transactions the store took so far, as hosts said last.
    pub(super) fn commits(&self) -> u64 {
        self.progress().map(|(_, commits)| commits).sum()
    }

    fn progress(&self) -> impl Iterator<Item = (u64, u64)> {
        (0..self.hosts.len()).filter_map(|host| {
            let text = fs::read_to_string(progress_path(&self.host_dir(host))).ok()?;
            let (operations, commits) = text.split_once(' ')?;
            Some((operations.parse().ok()?, commits.parse().ok()?))
        })
    }

    /// Keeps what the run wrote, for a look at it.
    pub(super) fn keep(&mut self) -> &Path {
        self.dir.disable_cleanup(true);
        self.dir.path()
    }
}

/// Which store a run is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreChoice {
    /// etcd, three servers.
    Etcd,
    /// Consul, three servers.
    Consul,
    /// `ZooKeeper`, three servers.
    Zookeeper,
    /// A store of the host's own.
    File,
}

impl StoreChoice {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Etcd, Self::Consul, Self::Zookeeper, Self::File];

    pub(super) const fn kind(self) -> Option<StoreKind> {
        match self {
            Self::Etcd => Some(StoreKind::Etcd),
            Self::Consul => Some(StoreKind::Consul),
            Self::Zookeeper => Some(StoreKind::ZooKeeper),
            Self::File => None,
        }
    }
}
