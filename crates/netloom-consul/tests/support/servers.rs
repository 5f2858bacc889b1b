//! Real servers, and words to them that the store would not say.

use netloom_consul::ConsulStore;
use netloom_core::store::{Key, Store};
use netloom_core::{RemoteStoreConfig, StoreKind};
use netloom_lab::proxy::Proxy;
use netloom_lab::servers::{Shape, StoreOptions, StoreServer};
use netloom_store::PrefixStore;
use netloom_store::conformance::{Limits, Suite};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Options for servers of this kind.
pub(crate) fn consul(shape: Shape) -> StoreOptions {
    StoreOptions::new(StoreKind::Consul, shape)
}

/// Three that keep their leader on a busy machine, where servers are silent for a second now and
/// then. Once it is dead, the next one takes longer.
pub(crate) fn three_calm() -> StoreOptions {
    consul(Shape::Three)
        .setting("-hcl")
        .setting("performance { raft_multiplier = 3 }")
}

/// Starts them; it blocks, as all that the lab does.
pub(crate) fn start(options: &StoreOptions) -> StoreServer {
    tokio::task::block_in_place(|| StoreServer::with(options)).unwrap()
}

/// A proxy before the first of them.
pub(crate) async fn proxied(servers: &StoreServer) -> Proxy {
    Proxy::start(servers.endpoints()[0], 1).await.unwrap()
}

/// A store on all of these servers, with the patience of a test for what must succeed.
pub(crate) async fn store(servers: &StoreServer) -> Arc<ConsulStore> {
    let mut config = servers.url();
    config.timeout = Duration::from_secs(60);
    shared(&config).await
}

pub(crate) async fn shared(config: &RemoteStoreConfig) -> Arc<ConsulStore> {
    Arc::new(super::open(config).await)
}

/// One request by hand that must be granted.
pub(crate) async fn must(servers: &StoreServer, line: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(servers.endpoints()[0]).await.unwrap();
    let length = body.len();
    let request = format!("{line} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{line} gave {answer}");
    body.to_owned()
}

/// Runs the whole contract, every case in an unused directory of the store.
pub(crate) async fn keeps_the_contract(store: Arc<ConsulStore>) {
    static DIRECTORY: AtomicU64 = AtomicU64::new(0);
    let suite = Suite::new(move || {
        let number = DIRECTORY.fetch_add(1, Ordering::Relaxed);
        let directory = Key::new(format!("suite/{number}")).unwrap();
        let store: Arc<dyn Store> = Arc::clone(&store) as _;
        async move { Arc::new(PrefixStore::new(store, directory)) as _ }
    })
    .with_limits(Limits {
        // Room for the directory.
        key_bytes: 180,
        ..Limits::default()
    });
    let violations = suite.run().await;
    assert!(violations.is_empty(), "{violations:#?}");
}
