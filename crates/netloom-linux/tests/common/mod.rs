//! Hosts and containers made of network namespaces on threads of their own: nothing here touches
//! the namespace of the machine.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of test programs")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests fail loudly"
)]

pub mod host;

use netloom_linux::{
    BridgeSpec, Element, InboundMode, InterfaceSpec, Kernel, KernelStep, LinkAlias, LinuxKernel,
    NextHop, Place, PortFlags, RouteSpec, SysctlKey, VethEnd, VethSpec,
};
use netloom_types::{Family, InterfaceAddr, LinkName, MacAddr};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

pub fn name(text: &str) -> LinkName {
    LinkName::new(text).unwrap()
}

pub fn alias(text: &str) -> LinkAlias {
    LinkAlias::new(text).unwrap()
}

pub fn addr(text: &str) -> InterfaceAddr {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs `test` on a thread in a network namespace of its own, or says loudly that it cannot.
pub fn in_own_namespace(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: this test makes network namespaces and needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace held by a thread that runs jobs inside it.
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
            let path = format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid());
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
        self.jobs
            .send(Box::new(move || done.send(job()).unwrap()))
            .unwrap();
        result.recv().expect("the job panicked")
    }

    /// A UDP socket inside, which lives on when the job has ended.
    pub fn udp(&self, at: &str) -> UdpSocket {
        let at = at.to_owned();
        let socket = self.run(move || UdpSocket::bind(at).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub fn listen(&self, at: &str) -> TcpListener {
        let at = at.to_owned();
        self.run(move || TcpListener::bind(at).unwrap())
    }

    pub fn connect(&self, to: &str) -> std::io::Result<TcpStream> {
        let to = to.parse().unwrap();
        self.run(move || TcpStream::connect_timeout(&to, PATIENCE))
    }
}

/// How long a packet that must not arrive is waited for; one that may arrive takes microseconds.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// How often a packet that must arrive is sent: neighbour discovery repeats after a second, and
/// the kernel may take as long to notice that a link has a carrier.
const TRIES: usize = 20;

/// Every datagram is told from late ones by its number.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The sender that `to` sees of a datagram from `from`, which is sent until it arrives.
pub fn datagram(from: &UdpSocket, to: &UdpSocket, at: &str) -> Option<IpAddr> {
    (0..TRIES).find_map(|_| once(from, to, at))
}

/// Whether a datagram from `from` does not reach `to`.
pub fn silence(from: &UdpSocket, to: &UdpSocket, at: &str) -> bool {
    once(from, to, at).is_none()
}

fn once(from: &UdpSocket, to: &UdpSocket, at: &str) -> Option<IpAddr> {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed).to_ne_bytes();
    let _ = from.send_to(&number, at);
    let mut buffer = [0; 4];
    loop {
        let (_, who) = to.recv_from(&mut buffer).ok()?;
        if buffer == number {
            return Some(who.ip());
        }
    }
}

/// A bridge of a network with its gateway, ready for containers.
pub struct Net {
    pub bridge: LinkName,
    pub gateway: InterfaceAddr,
}

/// Makes a network as the bridge driver does.
pub fn make_net(kernel: &LinuxKernel, bridge: &str, gateway: &str) -> Net {
    let net = Net {
        bridge: name(bridge),
        gateway: addr(gateway),
    };
    kernel
        .apply_all(&[
            KernelStep::EnsureTable,
            KernelStep::CreateBridge(BridgeSpec {
                name: net.bridge.clone(),
                mac: None,
                mtu: None,
                alias: alias(&format!("netloom:{bridge}")),
            }),
            // The bridge solicits neighbours from its link-local address, which must not wait for
            // duplicate detection.
            KernelStep::SetSysctl {
                key: SysctlKey::AcceptDad(net.bridge.clone()),
                value: 0,
            },
            KernelStep::AddAddress {
                link: net.bridge.clone(),
                address: net.gateway,
            },
            KernelStep::AddElement(Element::Bridge(net.bridge.clone())),
            KernelStep::AddElement(Element::Gateway {
                bridge: net.bridge.clone(),
                address: net.gateway.ip(),
            }),
            KernelStep::AddElement(Element::Inbound {
                bridge: net.bridge.clone(),
                family: net.gateway.family(),
                mode: InboundMode::Nat,
            }),
        ])
        .unwrap();
    net
}

/// A container with one interface.
pub struct Container {
    pub namespace: Namespace,
    pub host_end: LinkName,
    pub mac: MacAddr,
}

/// Makes a container on a network as the bridge driver does.
pub fn attach(kernel: &LinuxKernel, net: &Net, host_end: &str, address: &str) -> Container {
    let namespace = Namespace::new();
    let address = addr(address);
    let mac = MacAddr::from_ip(address.ip());
    let host_end = name(host_end);
    let everything = match address.family() {
        Family::V4 => "0.0.0.0/0",
        Family::V6 => "::/0",
    };
    kernel
        .apply_all(&[
            KernelStep::CreateVeth(VethSpec {
                host: VethEnd {
                    name: host_end.clone(),
                    mac: None,
                },
                peer: VethEnd {
                    name: name("eth0"),
                    mac: Some(mac),
                },
                place: Place::Namespace(namespace.path.clone()),
                master: Some(net.bridge.clone()),
                flags: PortFlags::default(),
                mtu: None,
                alias: alias(&format!("netloom:{host_end}")),
            }),
            KernelStep::ConfigureInterface(InterfaceSpec {
                namespace: namespace.path.clone(),
                name: name("eth0"),
                rename: None,
                addresses: vec![address],
                routes: vec![RouteSpec {
                    destination: everything.parse().unwrap(),
                    gateway: Some(NextHop::Via(net.gateway.ip())),
                    link: name("eth0"),
                    source: None,
                    metric: 0,
                }],
                sysctls: vec![],
            }),
        ])
        .unwrap();
    Container {
        namespace,
        host_end,
        mac,
    }
}

/// What another tool prints of this thread's namespace.
pub fn output(program: &str, arguments: &[&str]) -> String {
    #[allow(
        clippy::disallowed_methods,
        reason = "tests cross-check with other tools"
    )]
    let output = std::process::Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed here: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {errors}");
    format!("{text}{errors}")
}
