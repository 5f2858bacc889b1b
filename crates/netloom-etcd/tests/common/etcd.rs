//! The lab's servers, and what tests do behind the store's back.

use netloom_core::{RemoteStoreConfig, StoreKind};
use netloom_lab::proxy::Proxy;
use netloom_lab::servers::{Shape, StoreOptions, StoreServer};
use std::time::Duration;

pub fn single() -> StoreOptions {
    StoreOptions::new(StoreKind::Etcd, Shape::Single)
}

pub fn three() -> StoreOptions {
    StoreOptions::new(StoreKind::Etcd, Shape::Three)
}

/// Three that keep their leader on a busy machine, where members are silent for a second now and
/// then. Once it is dead, the next one takes longer.
pub fn three_calm() -> StoreOptions {
    three()
        .setting("--heartbeat-interval=500")
        .setting("--election-timeout=5000")
}

pub struct Etcd {
    pub server: StoreServer,
}

impl Etcd {
    pub fn start(options: &StoreOptions) -> Self {
        let server = StoreServer::with(options).unwrap();
        Self { server }
    }

    pub fn config(&self) -> RemoteStoreConfig {
        super::patient(self.server.url())
    }

    /// A proxy before the first server, and the way in by it.
    pub async fn proxy(&self) -> (Proxy, RemoteStoreConfig) {
        let proxy = Proxy::start(self.server.endpoints()[0], 7).await.unwrap();
        let config = self.server.url_by(&[proxy.address()]);
        (proxy, super::patient(config))
    }

    pub fn leader(&self) -> usize {
        self.server.leader().unwrap()
    }

    pub fn pause(&self, member: usize) {
        self.server.pause(member).unwrap();
    }

    pub fn resume(&self, member: usize) {
        self.server.resume(member).unwrap();
    }

    pub fn kill(&mut self, member: usize) {
        self.server.kill(member).unwrap();
    }

    pub fn restart(&mut self, member: usize) {
        self.server.restart(member).unwrap();
    }

    /// The library's own client of the first server, as this user.
    pub async fn client(&self, user: Option<(&str, &str)>) -> etcd_client::Client {
        let url = format!("http://{}", self.server.endpoints()[0]);
        let mut options = etcd_client::ConnectOptions::new().with_timeout(Duration::from_secs(20));
        if let Some((user, password)) = user {
            options = options.with_user(user, password);
        }
        etcd_client::Client::connect([url], Some(options))
            .await
            .unwrap()
    }

    /// How often the first server was called by this name, as it counts itself.
    pub async fn calls(&self, method: &str) -> u64 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = self.server.endpoints()[0];
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let get = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
        stream.write_all(get).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let name = format!("grpc_method=\"{method}\"");
        let counts: Vec<u64> = text
            .lines()
            .filter(|line| line.starts_with("grpc_server_started_total") && line.contains(&name))
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(!counts.is_empty(), "etcd does not count {method}");
        counts.iter().sum()
    }
}
