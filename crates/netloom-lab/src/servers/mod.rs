//! Real servers of the stores that hosts share, for tests: started on free ports, troubled at will,
//! gone with the value that holds them.
//!
//! Everything here blocks, up to some seconds; a test that runs other tasks beside it uses a runtime
//! of several threads.

mod certs;
mod consul;
mod etcd;
mod http;
mod options;
mod place;
mod process;
mod site;
mod tools;
mod zookeeper;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail, ensure};
use netloom_core::store::Key;
use netloom_core::{
    ClientIdentity, Login, RemoteStoreConfig, RemoteUrl, StoreEndpoint, StoreKind, StoreTransport,
    TlsFiles,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use options::{EtcdVersion, Shape, StoreOptions};
pub use tools::{Tool, Tools};

use crate::wait::wait_for;
use certs::Certs;
use site::{PASSWORD, Ports, Program, Site, TOKEN, USER};

/// Longer than any start or election takes on a busy machine: a hang made visible.
const PATIENCE: u64 = 90;

/// Says, beside the data, that the login is made: a roll-back takes it along.
const LOGIN_MADE: &str = "login-made";

/// The servers of one store. Dropping it ends them and removes what they kept.
#[derive(Debug)]
pub struct StoreServer {
    // Before the site: servers end before their folder goes.
    running: Running,
    site: Site,
    program: &'static dyn Program,
}

/// The servers that run. Their processes are killed when this is dropped.
#[derive(Debug)]
struct Running(Vec<Option<Child>>);

impl Running {
    fn end(&mut self, member: usize) -> Result<()> {
        let slot = self.0.get_mut(member).context("there is no such server")?;
        if let Some(mut child) = slot.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in self.0.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl StoreServer {
    /// Starts plain servers and waits until they answer.
    ///
    /// # Errors
    /// When a program is missing, or the servers do not answer.
    pub fn start(kind: StoreKind, shape: Shape) -> Result<Self> {
        Self::with(&StoreOptions::new(kind, shape))
    }

    /// Starts servers as wanted and waits until they answer.
    ///
    /// # Errors
    /// When a program is missing, or the servers do not answer.
    pub fn with(options: &StoreOptions) -> Result<Self> {
        // Another process may take a port between the look at it and the server's start.
        let mut tries = 3;
        loop {
            tries -= 1;
            let mut server = Self::stopped(options.clone())?;
            match server.start_all() {
                Err(_) if tries > 0 && server.lost_a_port() => {}
                Err(e) => return Err(e),
                Ok(()) => return Ok(server),
            }
        }
    }

    fn stopped(options: StoreOptions) -> Result<Self> {
        let dir = place::RunDir::new()?;
        let members = (0..options.shape.members())
            .map(|_| ports_of_one(options.transport))
            .collect::<Result<Vec<_>>>()?;
        let certs = match options.transport {
            StoreTransport::Plain => None,
            StoreTransport::Tls => Some(Certs::write(&dir.path().join("tls"), options.listen)?),
        };
        let secret = match options.kind {
            StoreKind::Consul => TOKEN,
            StoreKind::Etcd | StoreKind::ZooKeeper => PASSWORD,
        };
        let program: &'static dyn Program = match options.kind {
            StoreKind::Etcd => &etcd::Etcd,
            StoreKind::Consul => &consul::Consul,
            StoreKind::ZooKeeper => &zookeeper::ZooKeeper,
        };
        let site = Site {
            options,
            dir,
            members,
            certs,
        };
        fs::write(site.secret(), format!("{secret}\n"))?;
        fs::create_dir(site.data())?;
        Ok(Self {
            running: Running(site.members.iter().map(|_| None).collect()),
            site,
            program,
        })
    }

    fn lost_a_port(&self) -> bool {
        let log = |member| fs::read_to_string(self.site.log(member)).unwrap_or_default();
        (0..self.members()).any(|m| log(m).to_lowercase().contains("address already in use"))
    }

    /// How many servers there are; they are numbered from 0.
    #[must_use]
    pub fn members(&self) -> usize {
        self.site.members.len()
    }

    /// Where clients find the servers.
    #[must_use]
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        let address = |ports: &Ports| SocketAddr::new(self.site.options.listen, ports.client);
        self.site.members.iter().map(address).collect()
    }

    /// How a client gets in, with the prefix `netloom`.
    #[must_use]
    pub fn url(&self) -> RemoteStoreConfig {
        self.url_by(&self.endpoints())
    }

    /// The same by other addresses, as of proxies that stand before the servers.
    #[must_use]
    pub fn url_by(&self, addresses: &[SocketAddr]) -> RemoteStoreConfig {
        let options = &self.site.options;
        let endpoint = |address: &SocketAddr| StoreEndpoint {
            host: address.ip().to_string(),
            port: address.port(),
        };
        let mut config = RemoteStoreConfig::new(RemoteUrl {
            kind: options.kind,
            endpoints: addresses.iter().map(endpoint).collect(),
            prefix: Key::new("netloom").expect("the word is a key"),
            transport: options.transport,
        });
        if let Some(certs) = &self.site.certs {
            config.tls = TlsFiles {
                ca: Some(certs.ca.clone()),
                identity: Some(ClientIdentity {
                    cert: certs.client.cert.clone(),
                    key: certs.client.key.clone(),
                }),
            };
        }
        if options.login {
            config.login = match options.kind {
                StoreKind::Consul => Login::Token {
                    token_file: self.site.secret(),
                },
                StoreKind::Etcd | StoreKind::ZooKeeper => Login::Password {
                    user: USER.to_owned(),
                    password_file: self.site.secret(),
                },
            };
        }
        config
    }

    /// The address that servers listen on.
    #[must_use]
    pub fn listen(&self) -> IpAddr {
        self.site.options.listen
    }

    /// The process id of a server that runs.
    #[must_use]
    pub fn pid(&self, member: usize) -> Option<u32> {
        Some(self.running.0.get(member)?.as_ref()?.id())
    }

    /// What a server has said.
    #[must_use]
    pub fn log(&self, member: usize) -> String {
        fs::read_to_string(self.site.log(member)).unwrap_or_default()
    }

    /// Ends a server at once, as by SIGKILL. What it kept stays.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn kill(&mut self, member: usize) -> Result<()> {
        self.running.end(member)
    }

    /// Freezes a server: its connections stay, and nothing comes out of them.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, member: usize) -> Result<()> {
        self.signal(member, Signal::SIGSTOP)?;
        let pid = self.pid(member).context("the server does not run")?;
        // Its other threads go on, and answer, until the one that got the signal has a turn.
        wait_for("the server to freeze", PATIENCE, || all_stopped(pid))
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, member: usize) -> Result<()> {
        self.signal(member, Signal::SIGCONT)
    }

    fn signal(&self, member: usize, signal: Signal) -> Result<()> {
        let pid = self.pid(member).context("the server does not run")?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        Ok(())
    }

    /// Ends a server, if it runs, starts it on what it kept and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn restart(&mut self, member: usize) -> Result<()> {
        self.kill(member)?;
        self.spawn(member)?;
        self.await_answer(member)
    }

    /// Ends all servers at once: an outage.
    ///
    /// # Errors
    /// When one cannot be ended.
    pub fn stop_all(&mut self) -> Result<()> {
        (0..self.members()).try_for_each(|member| self.kill(member))
    }

    /// Starts the servers that do not run, and waits until all answer.
    ///
    /// # Errors
    /// When one does not answer.
    pub fn start_all(&mut self) -> Result<()> {
        for member in 0..self.members() {
            if self.pid(member).is_none() {
                self.spawn(member)?;
            }
        }
        for member in 0..self.members() {
            self.await_answer(member)?;
        }
        self.make_login()
    }

    fn make_login(&self) -> Result<()> {
        let made = self.site.data().join(LOGIN_MADE);
        if self.site.options.login && !made.exists() {
            self.program.require_login(&self.site)?;
            fs::write(made, "")?;
        }
        Ok(())
    }

    /// Ends all servers and removes everything they kept. [`StoreServer::start_all`] starts empty
    /// ones at the same addresses.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn wipe(&mut self) -> Result<()> {
        self.stop_all()?;
        fs::remove_dir_all(self.site.data())?;
        fs::create_dir(self.site.data())?;
        Ok(())
    }

    /// Copies what stopped servers keep, for [`StoreServer::restore_data`].
    ///
    /// # Errors
    /// When a server runs, or the file system refuses.
    pub fn snapshot_data(&self) -> Result<()> {
        self.ensure_stopped()?;
        let copy = self.site.dir.path().join("snapshot");
        if copy.exists() {
            fs::remove_dir_all(&copy)?;
        }
        place::copy(&self.site.data(), &copy)
    }

    /// Puts back what [`StoreServer::snapshot_data`] copied: the store forgets what came after.
    ///
    /// # Errors
    /// When a server runs, nothing was copied, or the file system refuses.
    pub fn restore_data(&self) -> Result<()> {
        self.ensure_stopped()?;
        let copy = self.site.dir.path().join("snapshot");
        ensure!(copy.exists(), "nothing was copied");
        fs::remove_dir_all(self.site.data())?;
        place::copy(&copy, &self.site.data())
    }

    fn ensure_stopped(&self) -> Result<()> {
        let runs = (0..self.members()).any(|member| self.pid(member).is_some());
        ensure!(
            !runs,
            "a server runs; stop all before their data is touched"
        );
        Ok(())
    }

    /// The server that leads, once one does.
    ///
    /// # Errors
    /// When none does for long.
    pub fn leader(&self) -> Result<usize> {
        wait_for("a leader", PATIENCE, || {
            for member in 0..self.members() {
                let runs = self.pid(member).is_some();
                if runs && self.program.leads(&self.site, member).unwrap_or(false) {
                    return Ok(member);
                }
            }
            bail!("no server says that it leads")
        })
    }

    /// Waits until a server serves what the majority has.
    ///
    /// # Errors
    /// When it does not for long, or has ended.
    pub fn await_answer(&mut self, member: usize) -> Result<()> {
        let (site, program) = (&self.site, self.program);
        let child = self.running.0.get_mut(member);
        let child = child.and_then(Option::as_mut);
        let child = child.context("the server does not run")?;
        // An end is final, so it is the value of a wait that is over.
        let ended = wait_for("a server's answer", PATIENCE, || {
            match child.try_wait()? {
                Some(status) => Ok(Some(status)),
                None => {
                    program.answers(site, member)?;
                    site.lets_in(member).map(|()| None)
                }
            }
        });
        let said = || {
            let log = self.log(member);
            let last: Vec<&str> = log.lines().rev().take(10).collect();
            last.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        match ended.with_context(said)? {
            None => Ok(()),
            Some(status) => bail!("the server ended with {status}: {}", said()),
        }
    }

    fn spawn(&mut self, member: usize) -> Result<()> {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.site.log(member))?;
        let mut command = self.program.command(&self.site, member)?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir(self.site.dir.path());
        let slot = self.running.0.get_mut(member);
        *slot.context("there is no such server")? = Some(process::spawn(command)?);
        Ok(())
    }
}

/// Four ports that nobody has; without TLS, clients use the one that the lab asks.
fn ports_of_one(transport: StoreTransport) -> Result<Ports> {
    let found = place::free_ports(4)?;
    let [client, control, peer, vote] = found.as_slice() else {
        bail!("there are not enough ports");
    };
    let control = match transport {
        StoreTransport::Plain => client,
        StoreTransport::Tls => control,
    };
    Ok(Ports {
        client: *client,
        control: *control,
        peer: *peer,
        vote: *vote,
    })
}

/// Whether all threads of a process are stopped: `T` in `/proc/PID/task/TID/stat`, see proc(5).
fn all_stopped(pid: u32) -> Result<()> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        // The name before it may hold anything, brackets too.
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        ensure!(
            state.is_some_and(|state| state.starts_with('T')),
            "it runs on"
        );
    }
    Ok(())
}
