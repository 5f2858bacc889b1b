//! A host and its containers, each a network namespace on a thread of its own: nothing here
//! touches the namespace of the machine.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of test programs")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    reason = "helpers of tests fail their test"
)]

use netloom_core::{
    Addresses, Attachment, Desired, DesiredEndpoint, Driver, EndpointSpec, Finding, FindingKind,
    InterfacePlacement, NetworkSpec, Publisher, Reach, SandboxRef, SubnetSpec,
};
use netloom_drivers::{BridgeConfig, BridgeDriver, FakeKeeper};
use netloom_linux::{
    InterfaceSpec, Kernel, KernelStep, LinkAlias, LinuxKernel, NextHop, Place, PortFlags,
    RouteSpec, VethEnd, VethSpec,
};
use netloom_types::{Family, HostPorts, InterfaceAddr, LinkName, PortBinding, Protocol, Subnet};
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long one try waits; only tests of what must not arrive wait for all of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// What must arrive is tried so often: a loaded machine may be late, and a datagram may be lost.
pub const TRIES: usize = 20;

pub fn name(text: &str) -> LinkName {
    LinkName::new(text).unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, held by a thread that runs jobs inside it.
pub struct Namespace {
    pub path: PathBuf,
    jobs: mpsc::Sender<Job>,
}

impl Namespace {
    pub fn new() -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let tid = nix::unistd::gettid();
            let path = format!("/proc/{}/task/{tid}/ns/net", std::process::id());
            ready.send(PathBuf::from(path)).unwrap();
            for job in inbox {
                job();
            }
        });
        Self {
            path: started.recv().unwrap(),
            jobs,
        }
    }

    /// Runs `job` inside and gives its result.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = move || {
            let _ = done.send(job());
        };
        self.jobs.send(Box::new(job)).unwrap();
        result
            .recv()
            .expect("the job inside the namespace panicked")
    }

    pub fn apply(&self, step: KernelStep) {
        self.run(move || LinuxKernel::open().unwrap().apply(&step).unwrap());
    }

    pub fn default_route(&self, link: &str, gateway: IpAddr) {
        self.apply(KernelStep::AddRoute(RouteSpec {
            destination: Subnet::truncating(gateway, 0),
            gateway: Some(NextHop::Via(gateway)),
            link: name(link),
            source: None,
            metric: 0,
        }));
    }

    /// Answers every datagram to `port` with the sender's address, for ever.
    pub fn udp_server(&self, port: u16) {
        self.run(move || {
            // One socket serves both families.
            let socket = UdpSocket::bind(("::", port)).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let seen = from.ip().to_canonical().to_string();
                    let _ = socket.send_to(seen.as_bytes(), from);
                }
            });
        });
    }

    /// Tells every connection to `port` the peer's address, for ever.
    pub fn tcp_server(&self, port: u16) {
        self.run(move || {
            let listener = TcpListener::bind(("::", port))
                .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
                .unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let mut stream = stream;
                    let peer = stream.peer_addr().map(|a| a.ip().to_canonical());
                    if let Ok(peer) = peer {
                        let _ = stream.write_all(peer.to_string().as_bytes());
                    }
                }
            });
        });
    }

    /// The source address that a UDP server at `to` sees, if it is reached.
    pub fn udp(&self, to: &str, port: u16) -> Option<String> {
        let to = SocketAddr::new(ip(to), port);
        self.run(move || udp(to))
    }

    /// The same with one try, for what must not arrive.
    pub fn udp_once(&self, to: &str, port: u16) -> Option<String> {
        let to = SocketAddr::new(ip(to), port);
        self.run(move || udp_once(to))
    }

    /// The source address that a TCP server at `to` sees, if it is reached.
    pub fn tcp(&self, to: &str, port: u16) -> Option<String> {
        let to = SocketAddr::new(ip(to), port);
        self.run(move || tcp(to))
    }

    /// The same with one try, for what must not arrive.
    pub fn tcp_once(&self, to: &str, port: u16) -> Option<String> {
        let to = SocketAddr::new(ip(to), port);
        self.run(move || tcp_once(to))
    }
}

pub fn udp(to: SocketAddr) -> Option<String> {
    (0..TRIES).find_map(|_| udp_once(to))
}

pub fn tcp(to: SocketAddr) -> Option<String> {
    (0..TRIES).find_map(|_| tcp_once(to))
}

fn udp_once(to: SocketAddr) -> Option<String> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket.send_to(b"?", to).ok()?;
    let mut buffer = [0; 64];
    let (len, _) = socket.recv_from(&mut buffer).ok()?;
    String::from_utf8(buffer[..len].to_vec()).ok()
}

fn tcp_once(to: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// A host with the driver, and the records that an engine would keep.
pub struct Host {
    pub kernel: Arc<LinuxKernel>,
    pub driver: BridgeDriver,
    pub keeper: Arc<FakeKeeper>,
    pub desired: Desired,
    runtime: tokio::runtime::Runtime,
}

/// Runs `test` on a host in a namespace of its own, or says loudly that it cannot.
pub fn on_a_host(test: impl FnOnce(&mut Host) + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: this test makes network namespaces and needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let kernel = Arc::new(LinuxKernel::open().unwrap());
        kernel
            .apply(&KernelStep::SetUp { link: name("lo") })
            .unwrap();
        let keeper = Arc::new(FakeKeeper::new());
        let driver = BridgeDriver::new(kernel.clone(), keeper.clone(), BridgeConfig::default());
        // Threads of this runtime are started from here, so they live in this namespace, too.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        test(&mut Host {
            kernel,
            driver,
            keeper,
            desired: Desired::default(),
            runtime,
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A container: a namespace and the endpoint that attaches it.
pub struct Container {
    pub ns: Namespace,
    pub endpoint: DesiredEndpoint,
    pub attachment: Attachment,
}

pub fn network_spec(id: &str, subnets: &[&str], options: &[(&str, &str)]) -> NetworkSpec {
    NetworkSpec {
        id: id.repeat(32).parse().unwrap(),
        driver: "bridge".into(),
        subnets: subnets
            .iter()
            .map(|text| {
                let subnet: Subnet = text.parse().unwrap();
                SubnetSpec {
                    subnet,
                    gateway: subnet.nth(1),
                    auxiliary: BTreeMap::new(),
                }
            })
            .collect(),
        reach: Reach::External,
        options: options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

pub fn endpoint_spec(network: &NetworkSpec, id: &str, addresses: &[&str]) -> EndpointSpec {
    let mut own = Addresses::default();
    for text in addresses {
        let address: InterfaceAddr = text.parse().unwrap();
        match address.family() {
            Family::V4 => own.ipv4 = Some(address),
            Family::V6 => own.ipv6 = Some(address),
        }
    }
    EndpointSpec {
        id: id.repeat(32).parse().unwrap(),
        network: network.id.clone(),
        addresses: own,
        mac: None,
        ports: Vec::new(),
        exposed: Vec::new(),
        options: BTreeMap::new(),
    }
}

/// A wish for one host port.
pub fn binding(protocol: Protocol, host: u16, container: u16) -> PortBinding {
    PortBinding {
        protocol,
        container_port: container,
        host_ip: None,
        host_ports: HostPorts::range(host, host).unwrap(),
    }
}

impl Host {
    pub fn network(&mut self, id: &str, subnets: &[&str], options: &[(&str, &str)]) -> NetworkSpec {
        self.add_network(network_spec(id, subnets, options))
    }

    pub fn internal(&mut self, id: &str, subnets: &[&str]) -> NetworkSpec {
        let mut spec = network_spec(id, subnets, &[]);
        spec.reach = Reach::Internal;
        self.add_network(spec)
    }

    pub fn add_network(&mut self, spec: NetworkSpec) -> NetworkSpec {
        self.driver
            .validate_network(&spec, &self.desired.networks)
            .unwrap();
        self.wait(self.driver.create_network(&spec)).unwrap();
        self.desired.networks.push(spec.clone());
        spec
    }

    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Attaches a new container, and does what Docker does afterwards.
    pub fn container(&mut self, network: &NetworkSpec, id: &str, addresses: &[&str]) -> Container {
        let ns = Namespace::new();
        self.attach(network, endpoint_spec(network, id, addresses), ns)
    }

    pub fn attach(
        &mut self,
        network: &NetworkSpec,
        spec: EndpointSpec,
        ns: Namespace,
    ) -> Container {
        let mac = self.driver.validate_endpoint(network, &spec).unwrap().mac;
        let sandbox = SandboxRef {
            id: "sandbox".parse().unwrap(),
            netns: ns.path.clone(),
        };
        let mut endpoint = DesiredEndpoint {
            spec,
            mac,
            sandbox: Some(sandbox.clone()),
            ports: Vec::new(),
        };
        let attachment = self
            .wait(self.driver.join(network, &endpoint, &sandbox))
            .unwrap();
        let InterfacePlacement::Placed { link } = &attachment.interface else {
            panic!("the sandbox is there, so the driver places the interface");
        };
        let gateways = [
            attachment.gateway_v4.map(IpAddr::V4),
            attachment.gateway_v6.map(IpAddr::V6),
        ];
        for gateway in gateways.into_iter().flatten() {
            ns.default_route(link.as_str(), gateway);
        }
        endpoint.ports = Vec::new();
        self.desired.endpoints.push(endpoint.clone());
        Container {
            ns,
            endpoint,
            attachment,
        }
    }

    pub fn publish(&mut self, container: &mut Container, wanted: &[PortBinding]) {
        let network = self.network_of(container);
        let ports = self
            .wait(Publisher::publish(
                &self.driver,
                &network,
                &container.endpoint,
                wanted,
            ))
            .unwrap();
        container.endpoint.ports.extend(ports);
        self.record(&container.endpoint);
    }

    pub fn revoke(&mut self, container: &mut Container) {
        let network = self.network_of(container);
        let ports = std::mem::take(&mut container.endpoint.ports);
        self.wait(Publisher::revoke(
            &self.driver,
            &network,
            &container.endpoint,
            &ports,
        ))
        .unwrap();
        self.record(&container.endpoint);
    }

    fn record(&mut self, endpoint: &DesiredEndpoint) {
        let id = &endpoint.spec.id;
        let old = self.desired.endpoints.iter_mut().find(|e| e.spec.id == *id);
        *old.unwrap() = endpoint.clone();
    }

    fn network_of(&self, container: &Container) -> NetworkSpec {
        let id = &container.endpoint.spec.network;
        self.desired
            .networks
            .iter()
            .find(|n| n.id == *id)
            .unwrap()
            .clone()
    }

    pub fn leave(&mut self, container: &Container) {
        let network = self.network_of(container);
        self.wait(self.driver.leave(&network, &container.endpoint))
            .unwrap();
        let id = &container.endpoint.spec.id;
        self.desired.endpoints.retain(|e| e.spec.id != *id);
    }

    pub fn delete(&mut self, network: &NetworkSpec) {
        self.wait(self.driver.delete_network(network)).unwrap();
        self.desired.networks.retain(|n| n.id != network.id);
    }

    pub fn audit(&self) -> Vec<Finding> {
        self.wait(self.driver.audit(&self.desired)).unwrap()
    }

    pub fn reconcile(&self) -> Vec<Finding> {
        self.wait(self.driver.reconcile(&self.desired)).unwrap()
    }

    #[track_caller]
    pub fn assert_clean(&self) {
        let findings = self.audit();
        assert!(findings.is_empty(), "{findings:#?}");
    }

    /// The kinds that an audit finds, in its order.
    pub fn kinds(&self) -> Vec<FindingKind> {
        self.audit()
            .into_iter()
            .map(|finding| finding.kind)
            .collect()
    }

    pub fn apply(&self, step: KernelStep) {
        self.kernel.apply(&step).unwrap();
    }

    /// A machine on the wire: it has 198.51.100.2/24 and 2001:db8::2/64, the host has 198.51.100.1
    /// and 2001:db8::1, and it sends everything else to the host.
    pub fn outside(&self) -> Namespace {
        let ns = Namespace::new();
        let end = |text: &str| VethEnd {
            name: name(text),
            mac: None,
        };
        self.apply(KernelStep::CreateVeth(VethSpec {
            host: end("wire0"),
            peer: end("eth0"),
            place: Place::Namespace(ns.path.clone()),
            master: None,
            flags: PortFlags::default(),
            mtu: None,
            alias: LinkAlias::new("the wire").unwrap(),
        }));
        for address in ["198.51.100.1/24", "2001:db8::1/64"] {
            self.apply(KernelStep::AddAddress {
                link: name("wire0"),
                address: address.parse().unwrap(),
            });
        }
        let route = |gateway: &str| RouteSpec {
            destination: Subnet::truncating(ip(gateway), 0),
            gateway: Some(NextHop::Via(ip(gateway))),
            link: name("eth0"),
            source: None,
            metric: 0,
        };
        self.apply(KernelStep::ConfigureInterface(InterfaceSpec {
            namespace: ns.path.clone(),
            name: name("eth0"),
            rename: None,
            addresses: vec![
                "198.51.100.2/24".parse().unwrap(),
                "2001:db8::2/64".parse().unwrap(),
            ],
            routes: vec![route("198.51.100.1"), route("2001:db8::1")],
            sysctls: Vec::new(),
        }));
        ns
    }
}
