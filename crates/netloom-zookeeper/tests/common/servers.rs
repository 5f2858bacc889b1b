//! ZooKeeper servers of a test's own, on free ports of 127.0.0.1. They end with the test.
#![allow(clippy::disallowed_methods, reason = "tests start the real servers")]

use netloom_core::{RemoteStoreConfig, StoreUrl};
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What differs from a plain server.
#[derive(Debug, Default, Clone)]
pub(crate) struct Options {
    /// More lines of the configuration.
    pub(crate) lines: Vec<String>,
    /// More arguments for java.
    pub(crate) java: Vec<String>,
    /// Whether clients come over TLS.
    pub(crate) tls: bool,
}

/// Several servers that are one store.
pub(crate) struct Ensemble {
    dir: tempfile::TempDir,
    ports: Vec<u16>,
    running: Vec<Option<Child>>,
    options: Options,
}

/// One server.
pub(crate) struct Single(pub(crate) Ensemble);

impl Single {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        Self(Ensemble::start(1, options).await)
    }

    pub(crate) fn config(&self) -> RemoteStoreConfig {
        self.0.config()
    }
}

/// Ports that nobody listens on, below those that the kernel gives to connections of its own.
fn free_ports(count: usize) -> Vec<u16> {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut bound = Vec::new();
    while bound.len() < count {
        let random = RandomState::new().build_hasher().finish() % 20_000;
        let port = 10_000 + u16::try_from(random).unwrap();
        bound.extend(TcpListener::bind(("127.0.0.1", port)).ok());
    }
    let port = |bound: &TcpListener| bound.local_addr().unwrap().port();
    bound.iter().map(port).collect()
}

impl Ensemble {
    pub(crate) async fn three() -> Self {
        Self::start(3, Options::default()).await
    }

    pub(crate) async fn start(members: usize, options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports = free_ports(members * 3);
        for member in 0..members {
            configure(dir.path(), member, &ports, &options);
        }
        let running = (0..members).map(|_| None).collect();
        let mut ensemble = Self {
            dir,
            ports,
            running,
            options,
        };
        for member in 0..members {
            ensemble.restart(member);
        }
        for member in 0..members {
            ensemble.until_answering(member).await;
        }
        ensemble
    }

    pub(crate) fn config(&self) -> RemoteStoreConfig {
        let members = self.running.len();
        let servers: Vec<_> = self.ports[..members]
            .iter()
            .map(|port| match self.options.tls {
                true => format!("localhost:{port}"),
                false => format!("127.0.0.1:{port}"),
            })
            .collect();
        let scheme = if self.options.tls { "zk+tls" } else { "zk" };
        let url: StoreUrl = format!("{scheme}://{}/netloom", servers.join(","))
            .parse()
            .unwrap();
        let StoreUrl::Remote(url) = url else {
            unreachable!()
        };
        RemoteStoreConfig::new(url)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where a member keeps what it was told.
    pub(crate) fn data(&self, member: usize) -> std::path::PathBuf {
        self.dir().join(member.to_string()).join("data")
    }

    /// Starts a member that does not run.
    pub(crate) fn restart(&mut self, member: usize) {
        let dir = self.dir.path().join(member.to_string());
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join("log"))
            .unwrap();
        // It dies with the test, however that ends.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "java", "-Xmx128m"])
            .args(&self.options.java);
        command.arg("-cp").arg(
            "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar:/usr/share/java/netty-all.jar:\
             /usr/share/java/netty-codec.jar:/usr/share/java/netty-resolver.jar",
        );
        command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain");
        command.arg(dir.join("zoo.cfg"));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.running[member] = Some(command.spawn().expect("java and zookeeper are installed"));
    }

    /// Waits until a member serves.
    pub(crate) async fn until_answering(&self, member: usize) {
        super::until("the server answers", || async {
            // A connection from before the server was ready may never be answered.
            let answer = tokio::time::timeout(Duration::from_secs(1), self.ask(member));
            answer.await.is_ok_and(|answer| answer.is_some())
        })
        .await;
    }

    /// What a member says that it is; nothing unless it serves.
    async fn ask(&self, member: usize) -> Option<String> {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.ports[member]))
            .await
            .ok()?;
        if self.options.tls {
            return Some(String::new());
        }
        stream.write_all(b"srvr").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let mode = answer
            .lines()
            .find_map(|line| line.strip_prefix("Mode: "))?;
        Some(mode.to_owned())
    }

    pub(crate) async fn leader(&self) -> usize {
        for member in 0..self.running.len() {
            if self.ask(member).await.as_deref() == Some("leader") {
                return member;
            }
        }
        panic!("nobody leads");
    }

    pub(crate) fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.running[member].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Freezes a member.
    pub(crate) fn pause(&self, member: usize) {
        self.signal(member, "STOP");
    }

    /// Lets a frozen member go on.
    pub(crate) fn resume(&self, member: usize) {
        self.signal(member, "CONT");
    }

    fn signal(&self, member: usize, signal: &str) {
        let pid = self.running[member].as_ref().unwrap().id().to_string();
        let sent = Command::new("kill")
            .args(["-s", signal, &pid])
            .status()
            .unwrap();
        assert!(sent.success());
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        for member in 0..self.running.len() {
            self.kill(member);
        }
    }
}

fn configure(dir: &Path, member: usize, ports: &[u16], options: &Options) {
    let members = ports.len() / 3;
    let own = dir.join(member.to_string());
    let data = own.join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("myid"), (member + 1).to_string()).unwrap();
    let client = if options.tls {
        "secureClientPort"
    } else {
        "clientPort"
    };
    let mut text = format!(
        "tickTime=500\ninitLimit=20\nsyncLimit=10\ndataDir={}\n{client}={}\n{client}Address=127.0.0.1\n\
         admin.enableServer=false\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n",
        data.display(),
        ports[member],
    );
    if members > 1 {
        for other in 0..members {
            let (peer, vote) = (ports[members + other], ports[2 * members + other]);
            writeln!(text, "server.{}=127.0.0.1:{peer}:{vote}", other + 1).unwrap();
        }
    }
    for line in &options.lines {
        writeln!(text, "{line}").unwrap();
    }
    std::fs::write(own.join("zoo.cfg"), text).unwrap();
}
