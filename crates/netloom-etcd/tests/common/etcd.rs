//! Real etcd servers on ports of their own, gone with the value that holds them.

use netloom_core::store::Key;
use netloom_core::{
    ClientIdentity, Login, RemoteStoreConfig, RemoteUrl, StoreEndpoint, StoreKind, StoreTransport,
    TlsFiles,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any start or election takes on a busy machine: a hang made visible.
const PATIENCE: Duration = Duration::from_secs(60);

/// How servers are started.
#[derive(Debug, Clone)]
pub struct Setup {
    pub members: usize,
    pub binary: PathBuf,
    /// The certificates of server and client.
    pub tls: Option<super::certs::Certs>,
    pub more: Vec<String>,
}

impl Setup {
    pub fn members(members: usize) -> Self {
        Self {
            members,
            binary: "etcd".into(),
            tls: None,
            more: Vec::new(),
        }
    }

    pub fn with(mut self, option: &str) -> Self {
        self.more.push(option.into());
        self
    }
}

pub struct Etcd {
    setup: Setup,
    dir: tempfile::TempDir,
    /// Client and peer port of each member.
    ports: Vec<(u16, u16)>,
    running: Vec<Option<Child>>,
}

/// Ports that nobody has now. Another process may take one before etcd does; then it does not
/// start, and the test says so.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count)
        .map(|_| std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap())
        .collect();
    held.iter()
        .map(|l| l.local_addr().unwrap().port())
        .collect()
}

impl Etcd {
    /// Starts servers and waits until they answer.
    pub async fn start(setup: Setup) -> Self {
        let ports = free_ports(2 * setup.members);
        let ports = ports.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let mut etcd = Self {
            running: (0..setup.members).map(|_| None).collect(),
            dir: tempfile::tempdir().unwrap(),
            setup,
            ports,
        };
        etcd.start_all().await;
        etcd
    }

    pub async fn start_all(&mut self) {
        for member in 0..self.ports.len() {
            self.spawn(member);
        }
        for member in 0..self.ports.len() {
            self.answers(member).await;
        }
    }

    pub fn setup(&mut self) -> &mut Setup {
        &mut self.setup
    }

    pub fn data(&self, member: usize) -> PathBuf {
        self.dir.path().join(format!("m{member}"))
    }

    fn scheme(&self) -> &'static str {
        if self.setup.tls.is_some() {
            "https"
        } else {
            "http"
        }
    }

    fn spawn(&mut self, member: usize) {
        if self.running[member].is_some() {
            return;
        }
        let (client, peer) = self.ports[member];
        let cluster = self.ports.iter().enumerate();
        let cluster: Vec<_> = cluster
            .map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}"))
            .collect();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("m{member}.log")))
            .unwrap();
        let url = format!("{}://127.0.0.1:{client}", self.scheme());
        let peer = format!("http://127.0.0.1:{peer}");
        // The servers end with the test, however it ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(&self.setup.binary);
        command.args(["--name", &format!("m{member}"), "--data-dir"]);
        command.arg(self.data(member));
        command.args([
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
        ]);
        command.args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        command.args(["--initial-cluster", &cluster.join(",")]);
        command.args(["--initial-cluster-state", "new", "--log-level", "warn"]);
        command.args(["--logger", "zap"]);
        if let Some(certs) = &self.setup.tls {
            command.arg("--client-cert-auth");
            command.arg("--cert-file").arg(&certs.server.cert);
            command.arg("--key-file").arg(&certs.server.key);
            command.arg("--trusted-ca-file").arg(&certs.trusted);
        }
        command.args(&self.setup.more);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.running[member] = Some(command.spawn().expect("etcd and setpriv are installed"));
    }

    /// Waits until a member takes part in a cluster with a leader.
    pub async fn answers(&self, member: usize) {
        let until = Instant::now() + PATIENCE;
        while self
            .status(member)
            .await
            .is_none_or(|(_, leader)| leader == 0)
        {
            assert!(
                Instant::now() < until,
                "etcd {member} does not answer: {}",
                self.log(member)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self, member: usize) -> String {
        let path = self.dir.path().join(format!("m{member}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// A client of the library's own, for what tests do behind the store's back.
    pub async fn client(&self, member: usize) -> Option<etcd_client::Client> {
        let url = format!("{}://127.0.0.1:{}", self.scheme(), self.ports[member].0);
        let mut options = etcd_client::ConnectOptions::new().with_timeout(Duration::from_secs(2));
        if let Some(certs) = &self.setup.tls {
            let read = |path: &Path| std::fs::read(path).unwrap();
            let client =
                etcd_client::Identity::from_pem(read(&certs.client.cert), read(&certs.client.key));
            let ca = etcd_client::Certificate::from_pem(read(&certs.ca));
            options = options.with_tls(
                etcd_client::TlsOptions::new()
                    .ca_certificate(ca)
                    .identity(client),
            );
        }
        etcd_client::Client::connect([url], Some(options))
            .await
            .ok()
    }

    /// The member's own id and its leader's.
    async fn status(&self, member: usize) -> Option<(u64, u64)> {
        let status = self.client(member).await?.status().await.ok()?;
        Some((status.header()?.member_id(), status.leader()))
    }

    /// Which member leads.
    pub async fn leader(&self) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            for member in 0..self.ports.len() {
                if self.running[member].is_some()
                    && let Some((own, leader)) = self.status(member).await
                    && own == leader
                {
                    return member;
                }
            }
            assert!(Instant::now() < until, "nobody leads");
        }
    }

    fn signal(&self, member: usize, signal: Signal) {
        let child = self.running[member].as_ref().expect("it runs");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    }

    pub fn pause(&self, member: usize) {
        self.signal(member, Signal::SIGSTOP);
    }

    pub fn resume(&self, member: usize) {
        self.signal(member, Signal::SIGCONT);
    }

    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.running[member].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub async fn restart(&mut self, member: usize) {
        self.kill(member);
        self.spawn(member);
        self.answers(member).await;
    }

    /// How a store is configured for these servers.
    pub fn config(&self) -> RemoteStoreConfig {
        let ports: Vec<u16> = self.ports.iter().map(|(client, _)| *client).collect();
        let mut config = config(&ports);
        if let Some(certs) = &self.setup.tls {
            config.url.transport = StoreTransport::Tls;
            config.tls = TlsFiles {
                ca: Some(certs.ca.clone()),
                identity: Some(ClientIdentity {
                    cert: certs.client.cert.clone(),
                    key: certs.client.key.clone(),
                }),
            };
        }
        config
    }

    /// Nobody gets in any more without being this user, who may do all.
    pub async fn require_login(&self, user: &str, password: &str) {
        let mut client = self.client(0).await.unwrap();
        client.user_add(user, password, None).await.unwrap();
        client.user_grant_role(user, "root").await.unwrap();
        client.auth_enable().await.unwrap();
    }

    pub fn port(&self, member: usize) -> u16 {
        self.ports[member].0
    }

    /// How often a member was called by this name, as it counts itself.
    pub async fn calls(&self, member: usize, method: &str) -> u64 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.ports[member].0))
            .await
            .unwrap();
        let get = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
        stream.write_all(get).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let name = format!("grpc_method=\"{method}\"");
        text.lines()
            .filter(|line| line.starts_with("grpc_server_started_total") && line.contains(&name))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }
}

/// An etcd of the 3.5 line, whose bugs of the 3.4 line are mended.
pub fn newer_binary() -> Option<PathBuf> {
    let named = std::env::var_os("NETLOOM_ETCD_3_5").map(PathBuf::from);
    let cached =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/tools/etcd-3.5/usr/bin/etcd");
    named.into_iter().chain([cached]).find(|path| path.exists())
}

/// How a store is configured for servers on these ports of 127.0.0.1.
pub fn config(ports: &[u16]) -> RemoteStoreConfig {
    let endpoint = |port: &u16| StoreEndpoint {
        host: "127.0.0.1".into(),
        port: *port,
    };
    let mut config = RemoteStoreConfig::new(RemoteUrl {
        kind: StoreKind::Etcd,
        endpoints: ports.iter().map(endpoint).collect(),
        prefix: Key::new("netloom").unwrap(),
        transport: StoreTransport::Plain,
    });
    config.login = Login::Nobody;
    config
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in 0..self.running.len() {
            self.kill(member);
        }
    }
}
