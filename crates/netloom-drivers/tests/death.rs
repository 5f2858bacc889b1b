//! A daemon that dies between any two steps, many attachments at once, and a full bridge: on the
//! real kernel.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail their test"
)]

mod common;

use common::{Namespace, binding, endpoint_spec, name, network_spec, on_a_host};
use netloom_core::{
    Desired, DesiredEndpoint, Driver, DriverError, NetworkSpec, Publisher, SandboxRef,
};
use netloom_drivers::{BridgeConfig, BridgeDriver, FakeKeeper};
use netloom_linux::{
    AcceptNeed, Applied, ApplyError, ForwardAccept, Kernel, KernelError, KernelStep, Link,
    LinkAddress, LinuxKernel, Neighbour, Place, PortFlags, Route, SysctlKey, TableSnapshot,
    VethEnd, VethSpec,
};
use netloom_types::{LinkName, Protocol};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The real kernel until so many steps were applied, and from then on none at all, as if the
/// process had died: undo does not happen either.
#[derive(Debug)]
struct Mortal {
    kernel: Arc<LinuxKernel>,
    left: AtomicUsize,
}

impl Mortal {
    fn dead(step: &KernelStep) -> KernelError {
        KernelError::TimedOut {
            what: step.to_string(),
        }
    }
}

impl Kernel for Mortal {
    fn apply(&self, step: &KernelStep) -> Result<Applied, KernelError> {
        let living = |left: usize| left.checked_sub(1);
        match self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, living)
        {
            Ok(_) => self.kernel.apply(step),
            Err(_) => Err(Self::dead(step)),
        }
    }

    fn apply_all(&self, steps: &[KernelStep]) -> Result<Vec<Applied>, ApplyError> {
        let mut done = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            match self.apply(step) {
                Ok(applied) => done.push(applied),
                Err(source) => {
                    return Err(ApplyError {
                        index,
                        step: step.to_string(),
                        source,
                        undo_failures: Vec::new(),
                    });
                }
            }
        }
        Ok(done)
    }

    fn links(&self) -> Result<Vec<Link>, KernelError> {
        self.kernel.links()
    }

    fn link(&self, name: &LinkName) -> Result<Option<Link>, KernelError> {
        self.kernel.link(name)
    }

    fn has_link_in(&self, namespace: &Path, name: &LinkName) -> Result<bool, KernelError> {
        self.kernel.has_link_in(namespace, name)
    }

    fn addresses(&self) -> Result<Vec<LinkAddress>, KernelError> {
        self.kernel.addresses()
    }

    fn routes(&self) -> Result<Vec<Route>, KernelError> {
        self.kernel.routes()
    }

    fn neighbours(&self) -> Result<Vec<Neighbour>, KernelError> {
        self.kernel.neighbours()
    }

    fn sysctl(&self, key: &SysctlKey) -> Result<Option<i32>, KernelError> {
        self.kernel.sysctl(key)
    }

    fn netloom_table(&self) -> Result<TableSnapshot, KernelError> {
        self.kernel.netloom_table()
    }

    fn accept_need(&self) -> Result<AcceptNeed, KernelError> {
        self.kernel.accept_need()
    }

    fn forward_accepts(&self) -> Result<Vec<ForwardAccept>, KernelError> {
        self.kernel.forward_accepts()
    }
}

/// A whole life of a network: how far it came.
async fn life(
    driver: &BridgeDriver,
    network: &NetworkSpec,
    endpoint: &DesiredEndpoint,
    sandbox: &SandboxRef,
) -> Result<(), DriverError> {
    driver.create_network(network).await?;
    driver.join(network, endpoint, sandbox).await?;
    let wanted = [binding(Protocol::Tcp, 8080, 80)];
    let mut endpoint = endpoint.clone();
    endpoint.ports = driver.publish(network, &endpoint, &wanted).await?;
    driver.leave(network, &endpoint).await?;
    driver.delete_network(network).await
}

#[test]
fn a_daemon_that_dies_between_any_two_steps_finds_its_way_back() {
    on_a_host(|host| {
        let network = network_spec("a1", &["10.9.0.0/24", "fd00:9::/64"], &[]);
        let ns = Namespace::new();
        let spec = endpoint_spec(&network, "e1", &["10.9.0.2/24", "fd00:9::2/64"]);
        let mac = host.driver.validate_endpoint(&network, &spec).unwrap().mac;
        let sandbox = SandboxRef {
            id: "sandbox".parse().unwrap(),
            netns: ns.path.clone(),
        };
        let endpoint = DesiredEndpoint {
            spec,
            mac,
            sandbox: Some(sandbox.clone()),
            ports: Vec::new(),
        };
        let records = [
            Desired::default(),
            Desired {
                networks: vec![network.clone()],
                endpoints: Vec::new(),
            },
            Desired {
                networks: vec![network.clone()],
                endpoints: vec![endpoint.clone()],
            },
        ];
        let mut deaths = 0;
        for steps in 0.. {
            let mut survived = false;
            for desired in &records {
                let mortal = Arc::new(Mortal {
                    kernel: host.kernel.clone(),
                    left: AtomicUsize::new(steps),
                });
                let keeper = Arc::new(FakeKeeper::new());
                let dying = BridgeDriver::new(mortal, keeper, BridgeConfig::default());
                survived = host
                    .wait(life(&dying, &network, &endpoint, &sandbox))
                    .is_ok();
                deaths += usize::from(!survived);
                // The next daemon knows what is on record, and what it mends stays mended.
                host.wait(host.driver.reconcile(desired)).unwrap();
                let found = host.wait(host.driver.audit(desired)).unwrap();
                assert!(found.is_empty(), "died after {steps} steps: {found:#?}");
                host.wait(host.driver.reconcile(&Desired::default()))
                    .unwrap();
                let links = host.kernel.links().unwrap();
                assert_eq!(links.len(), 1, "died after {steps} steps: {links:#?}");
            }
            if survived {
                break;
            }
        }
        assert!(deaths > 60, "only {deaths} deaths");
    });
}

#[test]
fn many_containers_come_and_go_at_once() {
    on_a_host(|host| {
        let network = host.network("a1", &["10.9.0.0/24"], &[]);
        let sandboxes: Vec<Namespace> = (0..16).map(|_| Namespace::new()).collect();
        let endpoints: Vec<DesiredEndpoint> = (2_u8..)
            .zip(&sandboxes)
            .map(|(n, ns)| {
                let spec =
                    endpoint_spec(&network, &format!("{n:02x}"), &[&format!("10.9.0.{n}/24")]);
                DesiredEndpoint {
                    mac: host.driver.validate_endpoint(&network, &spec).unwrap().mac,
                    spec,
                    sandbox: Some(SandboxRef {
                        id: "sandbox".parse().unwrap(),
                        netns: ns.path.clone(),
                    }),
                    ports: Vec::new(),
                }
            })
            .collect();
        host.wait(async {
            let mut joining = tokio::task::JoinSet::new();
            for endpoint in endpoints.clone() {
                let (driver, network) = (host.driver.clone(), network.clone());
                let sandbox = endpoint.sandbox.clone().unwrap();
                joining.spawn(async move { driver.join(&network, &endpoint, &sandbox).await });
            }
            while let Some(joined) = joining.join_next().await {
                joined.unwrap().unwrap();
            }
        });
        host.desired.endpoints.clone_from(&endpoints);
        host.assert_clean();
        sandboxes[0].udp_server(7);
        assert!(sandboxes[15].udp("10.9.0.2", 7).is_some());
        host.wait(async {
            let mut leaving = tokio::task::JoinSet::new();
            for endpoint in endpoints {
                let (driver, network) = (host.driver.clone(), network.clone());
                leaving.spawn(async move { driver.leave(&network, &endpoint).await });
            }
            while let Some(left) = leaving.join_next().await {
                left.unwrap().unwrap();
            }
        });
        host.desired.endpoints.clear();
        host.assert_clean();
        assert_eq!(
            host.kernel.links().unwrap().len(),
            2,
            "loopback and the bridge"
        );
    });
}

#[test]
fn a_full_bridge_is_a_clear_error_and_leaves_nothing() {
    on_a_host(|host| {
        let network = host.network("a1", &["10.8.0.0/16"], &[]);
        // Someone else's ports count as well.
        for n in 0..1023 {
            let end = |text: String| VethEnd {
                name: name(&text),
                mac: None,
            };
            host.apply(KernelStep::CreateVeth(VethSpec {
                host: end(format!("p{n}")),
                peer: end(format!("q{n}")),
                place: Place::Host,
                master: Some(name("nl-a1a1a1a1a1a1")),
                flags: PortFlags::default(),
                mtu: None,
                alias: netloom_linux::LinkAlias::new("someone").unwrap(),
            }));
        }
        let before = host.kernel.netloom_table().unwrap().elements;
        let ns = Namespace::new();
        let spec = endpoint_spec(&network, "e1", &["10.8.0.2/16"]);
        let mac = host.driver.validate_endpoint(&network, &spec).unwrap().mac;
        let sandbox = SandboxRef {
            id: "sandbox".parse().unwrap(),
            netns: ns.path.clone(),
        };
        let endpoint = DesiredEndpoint {
            spec,
            mac,
            sandbox: Some(sandbox.clone()),
            ports: Vec::new(),
        };
        let error = host
            .wait(host.driver.join(&network, &endpoint, &sandbox))
            .unwrap_err();
        assert!(matches!(error, DriverError::Exhausted(_)), "{error:?}");
        assert!(error.to_string().contains("1023"), "{error}");
        assert_eq!(host.kernel.netloom_table().unwrap().elements, before);
        assert!(host.kernel.link(&name("nlve1e1e1e1e1")).unwrap().is_none());
    });
}
