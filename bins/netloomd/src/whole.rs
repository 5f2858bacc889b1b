//! The whole daemon over a kernel and a Docker made of memory: both doors, background rounds, and a
//! second start over the same state.

use async_trait::async_trait;
use netloom_api::{AuditRequest, Client, ClientError, Reservation, UninstallRequest};
use netloom_core::store::Store;
use netloom_core::{
    Addresses, Clock, Ids, Provider, Runtime, RuntimeEndpoint, RuntimeError, RuntimeNetwork,
    SystemClock, Timestamp,
};
use netloom_drivers::FakeKeeper;
use netloom_ipam::journal::DirDisk;
use netloom_linux::{Kernel, RecordingKernel};
use netloom_store::MemoryStore;
use netloom_types::{BootId, HostId, OperationId};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::{self, Admission};
use crate::background::{reconcile, round};
use crate::config::{Config, Layer, Toggle};
use crate::daemon::Daemon;
use crate::parts::{Ground, assemble};
use crate::serve;

const NETWORK: &str = "aaaaaaaaaaaaaaaa";
const ENDPOINT: &str = "bbbbbbbbbbbbbbbb";

/// A Docker that knows what it is told to know.
#[derive(Debug, Default)]
struct FakeDocker(Mutex<Option<Vec<RuntimeNetwork>>>);

impl FakeDocker {
    fn knows(&self, networks: Option<Vec<RuntimeNetwork>>) {
        *self.0.lock().unwrap() = networks;
    }
}

#[async_trait]
impl Runtime for FakeDocker {
    async fn networks(&self) -> Result<Vec<RuntimeNetwork>, RuntimeError> {
        let known = self.0.lock().unwrap().clone();
        known.ok_or_else(|| RuntimeError {
            what: "this Docker is away".into(),
            source: None,
        })
    }

    async fn changed(&self) -> Result<(), RuntimeError> {
        std::future::pending().await
    }

    async fn pin(&self, _: &str, _: &str, _: IpAddr) -> Result<(), RuntimeError> {
        Ok(())
    }
}

/// A clock that goes on when told, and real ids.
#[derive(Debug)]
struct TestClock {
    ids: SystemClock,
    millis: AtomicU64,
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.millis.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

impl Ids for TestClock {
    fn operation(&self) -> OperationId {
        self.ids.operation()
    }
}

/// What outlives a daemon.
#[derive(Debug)]
struct Machine {
    dir: tempfile::TempDir,
    kernel: Arc<RecordingKernel>,
    store: Arc<dyn Store>,
    docker: Arc<FakeDocker>,
    clock: Arc<TestClock>,
}

/// A daemon that serves.
struct Running {
    daemon: Arc<Daemon>,
    api: Client,
    plugin: PathBuf,
    stop: watch::Sender<bool>,
    servers: JoinSet<std::io::Result<()>>,
}

impl Machine {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            kernel: Arc::new(RecordingKernel::new()),
            store: Arc::new(MemoryStore::new()),
            docker: Arc::default(),
            clock: Arc::new(TestClock {
                ids: SystemClock::new(),
                millis: AtomicU64::new(1_000_000),
            }),
        }
    }

    async fn start(&self, name: &str) -> Running {
        let path = |file: &str| self.dir.path().join(format!("{name}-{file}"));
        let layer = Layer {
            docker_socket: Some(path("no-docker.sock")),
            relay: Some(Toggle::Off),
            ..Layer::default()
        };
        let config = Config::load(layer, Some(Path::new("/dev/null"))).unwrap();
        let ground = Ground {
            kernel: Arc::clone(&self.kernel) as Arc<dyn Kernel>,
            monitor: None,
            store: Arc::clone(&self.store),
            shared: None,
            disk: Arc::new(DirDisk::open(&self.dir.path().join("journal")).unwrap()),
            // Never the real ports: those are one set for all tests, and the machine's own.
            keeper: Arc::new(FakeKeeper::new()),
            runtime: Arc::clone(&self.docker) as _,
            clock: Arc::clone(&self.clock) as _,
            ids: Arc::clone(&self.clock) as _,
            host: HostId::new("host").unwrap(),
            boot: BootId::new("boot").unwrap(),
        };
        let (daemon, plugin_state) = assemble(config, ground).await.unwrap();
        reconcile(&daemon).await;
        let (stop, stopping) = watch::channel(false);
        let (plugin, api_path) = (path("plugin.sock"), path("api.sock"));
        let listener = UnixListener::bind(&plugin).unwrap();
        let router = netloom_docker::router(plugin_state);
        let mut servers = JoinSet::new();
        servers.spawn(serve::plugin(listener, router, stopping.clone()));
        let listener = UnixListener::bind(&api_path).unwrap();
        let router = api::router(Arc::clone(&daemon), Admission::new(None));
        servers.spawn(serve::api(listener, router, stopping));
        Running {
            daemon,
            api: Client::new(api_path),
            plugin,
            stop,
            servers,
        }
    }
}

impl Running {
    /// Stops cleanly: the journal is free for the next one.
    async fn stop(mut self) {
        self.stop.send(true).unwrap();
        while self.servers.join_next().await.is_some() {}
    }

    /// A call as dockerd makes it; an error in the answer fails the test.
    async fn call(&self, method: &str, body: Value) -> Value {
        let (status, answer) = raw_call(&self.plugin, method, &body).await;
        assert_eq!(status, 200, "{method}: {answer}");
        let error = answer.get("Err").or_else(|| answer.get("Error"));
        let error = error.and_then(Value::as_str).unwrap_or_default();
        assert_eq!(error, "", "{method}");
        answer
    }

    /// What `docker network create` and `docker run` ask for.
    async fn run_container(&self) -> String {
        let pool = json!({"AddressSpace": "NetloomLocal", "Pool": "10.9.0.0/24"});
        let pool = self.call("IpamDriver.RequestPool", pool).await;
        let id = pool["PoolID"].clone();
        let gateway = json!({"RequestAddressType": "com.docker.network.gateway"});
        let gateway = json!({"PoolID": id, "Address": "", "Options": gateway});
        let gateway = self.call("IpamDriver.RequestAddress", gateway).await;
        let data = json!([{"AddressSpace": "NetloomLocal", "Pool": "10.9.0.0/24",
            "Gateway": gateway["Address"]}]);
        let network = json!({"NetworkID": NETWORK, "Options": {}, "IPv4Data": data,
            "IPv6Data": []});
        self.call("NetworkDriver.CreateNetwork", network).await;
        let wanted = json!({"PoolID": id, "Address": ""});
        let address = self.call("IpamDriver.RequestAddress", wanted).await["Address"].clone();
        let port = json!([{"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080,
            "HostPortEnd": 8080}]);
        let endpoint = json!({"NetworkID": NETWORK, "EndpointID": ENDPOINT,
            "Interface": {"Address": address},
            "Options": {"com.docker.network.portmap": port}});
        self.call("NetworkDriver.CreateEndpoint", endpoint).await;
        let join = json!({"NetworkID": NETWORK, "EndpointID": ENDPOINT,
            "SandboxKey": "/var/run/docker/netns/0123456789ab"});
        self.call("NetworkDriver.Join", join).await;
        let publish = json!({"NetworkID": NETWORK, "EndpointID": ENDPOINT, "Options": {}});
        self.call("NetworkDriver.ProgramExternalConnectivity", publish)
            .await;
        address.as_str().unwrap().to_owned()
    }
}

async fn raw_call(socket: &Path, method: &str, body: &Value) -> (u16, Value) {
    let request = hyper::Request::post(format!("/{method}"));
    let (status, bytes) = exchange(socket, request, body.to_string()).await;
    (status, serde_json::from_slice(&bytes).unwrap())
}

async fn raw_get(socket: &Path, path: &str) -> (u16, bytes::Bytes) {
    exchange(socket, hyper::Request::get(path), String::new()).await
}

async fn exchange(
    socket: &Path,
    request: hyper::http::request::Builder,
    body: String,
) -> (u16, bytes::Bytes) {
    use http_body_util::{BodyExt, Full};
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = request
        .header("Host", "plugin.moby.localhost")
        .body(Full::new(bytes::Bytes::from(body)))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, bytes)
}

fn known() -> Vec<RuntimeNetwork> {
    vec![RuntimeNetwork {
        id: NETWORK.parse().unwrap(),
        name: "blue".into(),
        driver: Provider::Ours,
        ipam: Provider::Ours,
        subnets: vec![(
            "10.9.0.0/24".parse().unwrap(),
            Some("10.9.0.1".parse().unwrap()),
        )],
        auxiliary: vec![],
        endpoints: vec![RuntimeEndpoint {
            id: Some(ENDPOINT.parse().unwrap()),
            container: "c".into(),
            name: "web".into(),
            addresses: Addresses {
                ipv4: Some("10.9.0.2/24".parse().unwrap()),
                ipv6: None,
            },
            mac: None,
        }],
    }]
}

#[tokio::test]
async fn what_dockerd_asks_for_shows_in_the_api() {
    let machine = Machine::new();
    let running = machine.start("a").await;
    let address = running.run_container().await;
    assert_eq!(address, "10.9.0.2/24");
    // Without Docker there are no names, and everything else.
    let network = running.api.network(&NETWORK[..6]).await.unwrap();
    assert_eq!((network.name, network.endpoints), (None, 1));
    machine.docker.knows(Some(known()));
    let network = running.api.network("blue").await.unwrap();
    assert_eq!(network.subnets[0].gateway.as_deref(), Some("10.9.0.1"));
    let endpoint = running.api.endpoint("web").await.unwrap();
    assert_eq!(endpoint.ipv4.as_deref(), Some("10.9.0.2/24"));
    let ports = running.api.ports().await.unwrap();
    assert_eq!((ports.len(), ports[0].host_port), (1, 8080));
    let pools = running.api.pools().await.unwrap();
    assert_eq!((pools.len(), pools[0].used), (1, 2));
    let status = running.api.status().await.unwrap();
    assert_eq!((status.networks, status.endpoints, status.ports), (1, 1, 1));
    assert!(
        status
            .calls
            .iter()
            .any(|c| c.method == "NetworkDriver.Join" && c.ok == 1)
    );
    let error = running.api.network("nope").await.unwrap_err();
    assert!(matches!(error, ClientError::NotFound(_)), "{error}");
}

#[tokio::test]
async fn an_address_can_be_kept_and_given_up() {
    let machine = Machine::new();
    let running = machine.start("a").await;
    running.run_container().await;
    let wish = Reservation {
        ip: "10.9.0.3".into(),
        ..Reservation::default()
    };
    running.api.reserve(&wish).await.unwrap();
    let addresses = running.api.addresses(None).await.unwrap();
    let kept = addresses.iter().find(|a| a.ip == "10.9.0.3").unwrap();
    assert_eq!(kept.kind, netloom_api::AddressKind::Reserved);
    running.api.unreserve("10.9.0.3").await.unwrap();
    assert!(running.api.unreserve("10.9.0.3").await.is_err());
    let odd = Reservation {
        ip: "not an address".into(),
        ..Reservation::default()
    };
    assert!(running.api.reserve(&odd).await.is_err());
}

#[tokio::test]
async fn a_second_start_knows_what_the_first_one_did() {
    let machine = Machine::new();
    let first = machine.start("a").await;
    first.run_container().await;
    machine.docker.knows(Some(known()));
    let (networks, endpoints) = (first.api.networks().await, first.api.endpoints().await);
    let pools = first.api.pools().await.unwrap();
    first.stop().await;
    let second = machine.start("b").await;
    assert_eq!(second.api.networks().await.unwrap(), networks.unwrap());
    assert_eq!(second.api.endpoints().await.unwrap(), endpoints.unwrap());
    assert_eq!(second.api.pools().await.unwrap(), pools);
    // The next container gets the next address, not one that is in use.
    let wanted = json!({"PoolID": pools[0].references[0], "Address": ""});
    let next = second.call("IpamDriver.RequestAddress", wanted).await;
    assert_eq!(next["Address"], "10.9.0.3/24");
}

#[tokio::test]
async fn what_docker_forgot_goes_and_what_it_could_not_be_asked_about_stays() {
    let machine = Machine::new();
    let running = machine.start("a").await;
    running.run_container().await;
    let pass = |seconds: u64| {
        machine
            .clock
            .millis
            .fetch_add(seconds * 1000, Ordering::Relaxed);
    };
    for _ in 0..4 {
        pass(100);
        round(&running.daemon).await;
    }
    assert_eq!(running.api.endpoints().await.unwrap().len(), 1);
    assert!(!running.daemon.seen.docker_is_up());
    machine.docker.knows(Some(vec![]));
    for _ in 0..6 {
        round(&running.daemon).await;
        pass(50);
    }
    assert_eq!(running.api.endpoints().await.unwrap(), []);
    assert_eq!(running.api.networks().await.unwrap(), []);
    assert_eq!(running.api.pools().await.unwrap(), []);
    let left = machine.kernel.links().unwrap();
    assert!(left.iter().all(|l| l.alias.is_none()), "{left:?}");
}

#[tokio::test]
async fn an_uninstall_waits_for_containers_unless_it_is_forced() {
    let machine = Machine::new();
    let running = machine.start("a").await;
    running.run_container().await;
    let gentle = UninstallRequest { force: false };
    let error = running.api.uninstall(gentle).await.unwrap_err();
    assert!(error.to_string().contains("--force"), "{error}");
    let removed = running
        .api
        .uninstall(UninstallRequest { force: true })
        .await;
    assert!(!removed.unwrap().removed.is_empty());
    let ours = |l: &netloom_linux::Link| l.alias.is_some();
    assert!(!machine.kernel.links().unwrap().iter().any(ours));
    // A round in the background builds nothing again; a start does.
    round(&running.daemon).await;
    assert!(!machine.kernel.links().unwrap().iter().any(ours));
    running.stop().await;
    machine.start("b").await;
    assert!(machine.kernel.links().unwrap().iter().any(ours));
}

#[tokio::test]
async fn a_link_that_somebody_removed_is_found_and_mended() {
    let machine = Machine::new();
    let running = machine.start("a").await;
    running.run_container().await;
    machine.docker.knows(Some(known()));
    let clean = running.api.audit(AuditRequest { repair: false }).await;
    let kinds = |report: &netloom_api::AuditReport| -> Vec<String> {
        report.findings.iter().map(|f| f.kind.clone()).collect()
    };
    assert_eq!(kinds(&clean.unwrap()), Vec::<String>::new());
    machine.kernel.flush_ruleset();
    let report = running
        .api
        .audit(AuditRequest { repair: false })
        .await
        .unwrap();
    assert!(
        kinds(&report).contains(&"missing-rule".to_owned()),
        "{report:?}"
    );
    running
        .api
        .audit(AuditRequest { repair: true })
        .await
        .unwrap();
    let report = running
        .api
        .audit(AuditRequest { repair: false })
        .await
        .unwrap();
    assert_eq!(kinds(&report), Vec::<String>::new());
}

#[tokio::test]
async fn every_get_route_answers() {
    let machine = Machine::new();
    let running = machine.start("a").await;
    let socket = machine.dir.path().join("a-api.sock");
    for route in netloom_api::ROUTES {
        if route.method == netloom_api::Method::Get && !route.path.contains('{') {
            let (status, body) = raw_get(&socket, route.path).await;
            assert_eq!(status, 200, "{}: {body:?}", route.path);
        }
    }
    let (_, document) = raw_get(&socket, "/v1/openapi.json").await;
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document, netloom_api::openapi());
    let (status, body) = raw_get(&socket, "/v1/nothing").await;
    assert_eq!(status, 404);
    assert!(body.starts_with(b"{\"error\""), "{body:?}");
    let report = running.api.doctor().await.unwrap();
    let named = |f: &netloom_api::Finding| f.subject.contains("no-docker");
    assert!(report.findings.iter().any(named));
}
