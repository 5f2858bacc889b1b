//! What one store's servers have in common, and the seam to each kind of server.

use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::certs::Certs;
use super::http::dial;
use super::options::StoreOptions;
use super::place::{RunDir, bracketed, give_back};

/// The ports of one server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    /// What clients of the store are told.
    pub(super) client: u16,
    /// Plain, also where clients speak TLS: what the lab itself asks.
    pub(super) control: u16,
    /// The other servers.
    pub(super) peer: u16,
    /// The other servers, for their elections.
    pub(super) vote: u16,
}

/// Where the servers of one store are, and how they are set up.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) options: StoreOptions,
    pub(super) dir: RunDir,
    pub(super) members: Vec<Ports>,
    pub(super) certs: Option<Certs>,
}

/// Who gets in where a login is wanted.
pub(super) const USER: &str = "netloom";
/// Their password.
pub(super) const PASSWORD: &str = "an open secret of tests";
/// The token that Consul's clients show.
pub(super) const TOKEN: &str = "5c9bb1b4-62a8-4c8c-9a53-0d9a5c3ea36d";

impl Site {
    pub(super) fn ports(&self, member: usize) -> Result<Ports> {
        let ports = self.members.get(member).copied();
        ports.with_context(|| format!("there is no server {member}"))
    }

    /// The folder that everything which servers keep lies in.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// One server's part of it.
    pub(super) fn member_data(&self, member: usize) -> PathBuf {
        self.data().join(format!("m{member}"))
    }

    pub(super) fn log(&self, member: usize) -> PathBuf {
        self.dir.path().join(format!("m{member}.log"))
    }

    /// The password or token, for clients.
    pub(super) fn secret(&self) -> PathBuf {
        self.dir.path().join("secret")
    }

    /// The address that servers listen on, as it stands before `:PORT`.
    pub(super) fn host(&self) -> String {
        bracketed(self.options.listen)
    }

    /// A plain connection to a server.
    pub(super) fn dial(&self, member: usize) -> Result<TcpStream> {
        self.dial_port(self.ports(member)?.control)
    }

    /// The same for a change, which is asked for once: a second time it would be refused as done.
    pub(super) fn dial_patiently(&self, member: usize) -> Result<TcpStream> {
        let stream = self.dial(member)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(stream)
    }

    /// Succeeds once a server lets clients in. Where they speak TLS it may do so behind its first
    /// answer to the lab: ZooKeeper opens its plain port first.
    pub(super) fn lets_in(&self, member: usize) -> Result<()> {
        self.dial_port(self.ports(member)?.client).map(drop)
    }

    fn dial_port(&self, port: u16) -> Result<TcpStream> {
        let to = SocketAddr::new(self.options.listen, port);
        dial(to, self.options.netns.as_deref())
    }

    /// A command that runs `program` where it belongs, and that ends with this process.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut words: Vec<std::ffi::OsString> = Vec::new();
        if let Some(netns) = &self.options.netns {
            words.push("nsenter".into());
            words.push(format!("--net={}", netns.display()).into());
        }
        words.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(Into::into));
        words.push(program.into());
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let ports = |p: &Ports| [p.client, p.control, p.peer, p.vote];
        give_back(self.members.iter().flat_map(ports));
    }
}

/// What is different from one kind of server to another.
pub(super) trait Program: Send + Sync + std::fmt::Debug {
    /// How a server is started.
    fn command(&self, site: &Site, member: usize) -> Result<Command>;
    /// Succeeds once a server serves reads of what a majority has.
    fn answers(&self, site: &Site, member: usize) -> Result<()>;
    /// Whether a server leads the others; one alone leads itself.
    fn leads(&self, site: &Site, member: usize) -> Result<bool>;
    /// Makes the login of [`Site::secret`], once, on servers that answer.
    fn require_login(&self, site: &Site) -> Result<()>;
}
