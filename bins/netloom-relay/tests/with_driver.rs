//! The bridge driver and the relay together: a container behind the host's loopback.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests fail their test"
)]

use netloom_core::{
    Addresses, Desired, DesiredEndpoint, Driver, DriverError, EndpointSpec, FindingKind,
    NetworkSpec, Publisher, Reach, SandboxRef, SubnetSpec,
};
use netloom_drivers::{BridgeConfig, BridgeDriver, RelayClient};
use netloom_linux::{Kernel, KernelStep, LinuxKernel, Namespace};
use netloom_relay::Relay;
use netloom_types::{HostPorts, InterfaceAddr, LinkName, PortBinding, Protocol, Subnet};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long one try waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// A greeting that must come is tried so often: a loaded machine may be late.
const TRIES: usize = 20;

/// A namespace that a thread keeps until the test process ends.
fn container() -> PathBuf {
    let (ready, started) = mpsc::channel();
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let tid = nix::unistd::gettid();
        let path = format!("/proc/{}/task/{tid}/ns/net", std::process::id());
        ready.send(PathBuf::from(path)).unwrap();
        loop {
            std::thread::park();
        }
    });
    started.recv().unwrap()
}

/// Greets every connection inside the namespace.
fn greet(netns: &Path, kernel: &LinuxKernel) {
    Namespace::open(netns, kernel.namespace())
        .unwrap()
        .run(|| {
            let listener = std::net::TcpListener::bind("[::]:80").unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let mut stream = stream;
                    let _ = stream.write_all(b"hello");
                }
            });
            Ok(())
        })
        .unwrap();
}

async fn greeting(from: &'static str) -> Option<String> {
    for _ in 0..TRIES {
        let said = greeting_once(from).await;
        if said.is_some() {
            return said;
        }
    }
    None
}

async fn greeting_once(from: &'static str) -> Option<String> {
    tokio::task::spawn_blocking(move || {
        let to = from.parse().unwrap();
        let mut stream = std::net::TcpStream::connect_timeout(&to, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })
    .await
    .unwrap()
}

async fn start(run_dir: &Path) -> JoinHandle<()> {
    let relay = Relay::open(run_dir).await.unwrap();
    tokio::spawn(async move { relay.serve().await.unwrap() })
}

fn dual() -> NetworkSpec {
    let subnet = |text: &str| {
        let subnet: Subnet = text.parse().unwrap();
        SubnetSpec {
            subnet,
            gateway: subnet.nth(1),
            auxiliary: BTreeMap::new(),
        }
    };
    NetworkSpec {
        id: "a1a1a1a1a1a1".parse().unwrap(),
        driver: "bridge".into(),
        subnets: vec![subnet("10.9.0.0/24"), subnet("fd00:9::/64")],
        reach: Reach::External,
        options: BTreeMap::new(),
    }
}

fn endpoint(network: &NetworkSpec, netns: PathBuf) -> DesiredEndpoint {
    let address = |text: &str| Some(text.parse::<InterfaceAddr>().unwrap());
    DesiredEndpoint {
        spec: EndpointSpec {
            id: "e1e1e1e1e1".parse().unwrap(),
            network: network.id.clone(),
            addresses: Addresses {
                ipv4: address("10.9.0.2/24"),
                ipv6: address("fd00:9::2/64"),
            },
            mac: None,
            ports: Vec::new(),
            exposed: Vec::new(),
            options: BTreeMap::new(),
        },
        mac: "02:42:0a:09:00:02".parse().unwrap(),
        sandbox: Some(SandboxRef {
            id: "sandbox".parse().unwrap(),
            netns,
        }),
        ports: Vec::new(),
    }
}

async fn loopback_leads_to_the_container() {
    let kernel = Arc::new(LinuxKernel::open().unwrap());
    let lo = LinkName::new("lo").unwrap();
    kernel.apply(&KernelStep::SetUp { link: lo }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let client = RelayClient::new(dir.path().join("relay.sock"));
    let keeper = Arc::new(client);
    let driver = BridgeDriver::new(kernel.clone(), keeper, BridgeConfig::default());
    let network = dual();
    let mut end = endpoint(&network, container());
    driver.create_network(&network).await.unwrap();
    let sandbox = end.sandbox.clone().unwrap();
    driver.join(&network, &end, &sandbox).await.unwrap();
    greet(&sandbox.netns, &kernel);
    let wanted = [PortBinding {
        protocol: Protocol::Tcp,
        container_port: 80,
        host_ip: None,
        host_ports: HostPorts::range(8080, 8080).unwrap(),
    }];

    let no_relay = driver.publish(&network, &end, &wanted).await.unwrap_err();
    assert!(
        matches!(no_relay, DriverError::Unavailable { .. }),
        "{no_relay}"
    );

    let relay = start(dir.path()).await;
    end.ports = driver.publish(&network, &end, &wanted).await.unwrap();
    for from in ["127.0.0.1:8080", "[::1]:8080"] {
        assert_eq!(greeting(from).await.as_deref(), Some("hello"), "{from}");
    }
    let desired = Desired {
        networks: vec![network.clone()],
        endpoints: vec![end.clone()],
    };
    assert_eq!(driver.audit(&desired).await.unwrap(), []);

    // The relay dies, and its list with it: named, and mended once it is back.
    relay.abort();
    assert!(relay.await.unwrap_err().is_cancelled());
    std::fs::remove_file(dir.path().join("relay.json")).unwrap();
    let found = driver.audit(&desired).await.unwrap();
    let kinds: Vec<_> = found.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::UnreservedPort]);
    let _relay = start(dir.path()).await;
    assert_eq!(
        driver.audit(&desired).await.unwrap().len(),
        2,
        "one per family"
    );
    driver.reconcile(&desired).await.unwrap();
    assert_eq!(driver.audit(&desired).await.unwrap(), []);
    assert_eq!(greeting("127.0.0.1:8080").await.as_deref(), Some("hello"));

    driver.leave(&network, &end).await.unwrap();
    assert_eq!(greeting_once("127.0.0.1:8080").await, None);
    std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
}

#[test]
fn loopback_leads_to_the_container_through_driver_and_relay() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: this test makes network namespaces and needs root");
        return;
    }
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(loopback_leads_to_the_container());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
