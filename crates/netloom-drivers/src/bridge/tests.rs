//! The driver on the recorded kernel: failures at every step, and what is undone.

use super::testing::{endpoint, network};
use super::{BridgeConfig, BridgeDriver, Inside, InsideRule};
use crate::ports::{FakeKeeper, NoRelay};
use netloom_core::{
    Desired, DesiredEndpoint, Driver, DriverError, FindingKind, GatewayService, InterfacePlacement,
    NetworkSpec, PublishedPort, Publisher, Reach, SandboxRef,
};
use netloom_linux::{Element, Kernel, KernelStep, Place, RecordingKernel};
use netloom_types::{HostPorts, LinkName, PortBinding, Protocol};
use std::sync::Arc;

/// More than any operation has steps, undo included.
const STEPS_MAX: usize = 80;

struct Bench {
    kernel: Arc<RecordingKernel>,
    keeper: Arc<FakeKeeper>,
    driver: BridgeDriver,
}

fn bench() -> Bench {
    bench_under(&Inside::default())
}

fn bench_under(inside: &Inside) -> Bench {
    let kernel = Arc::new(RecordingKernel::new());
    let keeper = Arc::new(FakeKeeper::new());
    let config = BridgeConfig::default().with_inside(inside.clone());
    let driver = BridgeDriver::new(kernel.clone(), keeper.clone(), config);
    Bench {
        kernel,
        keeper,
        driver,
    }
}

/// The endpoint's, at a namespace that is there.
fn existing_sandbox(end: &DesiredEndpoint) -> SandboxRef {
    let mut sandbox = end.sandbox.clone().unwrap();
    sandbox.netns = "/proc/self/ns/net".into();
    sandbox
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

fn dual() -> NetworkSpec {
    network("a", &["10.9.0.0/24", "fd00:9::/64"])
}

fn network_on(id: &str, subnet: &str, bridge: &str) -> NetworkSpec {
    let mut spec = network(id, &[subnet]);
    spec.options
        .insert("netloom.bridge.name".into(), bridge.into());
    spec
}

fn tcp(host: u16, container: u16) -> PortBinding {
    PortBinding {
        protocol: Protocol::Tcp,
        container_port: container,
        host_ip: None,
        host_ports: HostPorts::range(host, host).unwrap(),
    }
}

fn joined(network: &NetworkSpec) -> DesiredEndpoint {
    endpoint(network, "e", &["10.9.0.2/24", "fd00:9::2/64"])
}

impl Bench {
    async fn join(&self, network: &NetworkSpec, end: &DesiredEndpoint) -> Result<(), DriverError> {
        let sandbox = end.sandbox.clone().unwrap();
        self.driver.join(network, end, &sandbox).await.map(drop)
    }

    /// Everything that the model holds, without numbers that differ from try to try.
    fn state(&self) -> (Vec<String>, Vec<Element>, usize) {
        let links = self.kernel.links().unwrap();
        let accepts = self.kernel.forward_accepts().unwrap().len();
        let elements = self.kernel.netloom_table().unwrap().elements;
        (
            links.into_iter().map(|link| link.name).collect(),
            elements.into_iter().collect(),
            accepts,
        )
    }

    async fn is_clean(&self, desired: &Desired) -> bool {
        self.driver.audit(desired).await.unwrap().is_empty()
    }
}

#[test]
fn a_network_that_fails_at_any_step_leaves_nothing() {
    wait(async {
        let mut failures = 0;
        for step in 0..STEPS_MAX {
            let bench = bench();
            bench.kernel.fail_at(step);
            if bench.driver.create_network(&dual()).await.is_err() {
                failures += 1;
                assert_eq!(bench.state(), (vec![], vec![], 0), "step {step}");
                bench.driver.create_network(&dual()).await.unwrap();
            }
            let desired = Desired {
                networks: vec![dual()],
                endpoints: vec![],
            };
            assert!(bench.is_clean(&desired).await, "step {step}");
        }
        assert!(failures > 10, "only {failures} steps could fail");
    });
}

#[test]
fn a_link_is_there_from_the_join_to_the_leave() {
    wait(async {
        let (bench, network) = (bench(), dual());
        let end = joined(&network);
        bench.driver.create_network(&network).await.unwrap();
        let linked = || bench.driver.is_linked(&end.spec.id);
        assert!(!linked().await.unwrap());
        bench.join(&network, &end).await.unwrap();
        assert!(linked().await.unwrap());
        bench.driver.leave(&network, &end).await.unwrap();
        assert!(!linked().await.unwrap());
    });
}

#[test]
fn a_join_that_fails_at_any_step_leaves_nothing_of_it() {
    wait(async {
        let network = dual();
        let end = joined(&network);
        let mut failures = 0;
        for step in 0..STEPS_MAX {
            let bench = bench();
            bench.driver.create_network(&network).await.unwrap();
            let before = bench.state();
            bench.kernel.fail_at(step);
            if bench.join(&network, &end).await.is_err() {
                failures += 1;
                assert_eq!(bench.state(), before, "step {step}");
            }
        }
        assert!(failures > 4, "only {failures} steps could fail");
    });
}

#[test]
fn a_process_that_dies_at_any_step_is_repaired_to_what_the_records_say() {
    // A kernel that refuses everything from a step on, undo included, is what a death looks like.
    wait(async {
        let network = dual();
        let end = joined(&network);
        for died_at in 0..STEPS_MAX {
            for recorded in [true, false] {
                let bench = bench();
                for step in died_at..died_at + STEPS_MAX {
                    bench.kernel.fail_at(step);
                }
                let built = bench.driver.create_network(&network).await.is_ok();
                let attached = built && bench.join(&network, &end).await.is_ok();
                let left = attached && bench.driver.leave(&network, &end).await.is_ok();
                bench.kernel.forgive();
                let desired = match recorded && !left {
                    true => Desired {
                        networks: vec![network.clone()],
                        endpoints: vec![],
                    },
                    false => Desired::default(),
                };
                bench.driver.reconcile(&desired).await.unwrap();
                let found = bench.driver.audit(&desired).await.unwrap();
                assert!(found.is_empty(), "died at {died_at}: {found:#?}");
            }
        }
    });
}

#[test]
fn ports_that_cannot_be_programmed_are_not_kept() {
    wait(async {
        let network = dual();
        let end = joined(&network);
        let bench = bench();
        bench.driver.create_network(&network).await.unwrap();
        bench.join(&network, &end).await.unwrap();
        let before = bench.state();
        // The second of two elements.
        bench.kernel.fail_at(1);
        let wanted = [tcp(80, 8080)];
        let publish = Publisher::publish(&bench.driver, &network, &end, &wanted);
        assert!(publish.await.is_err());
        assert_eq!(bench.state(), before);
        assert!(bench.keeper.held().is_empty());
    });
}

#[test]
fn all_ports_are_published_or_none() {
    wait(async {
        let network = dual();
        let end = joined(&network);
        let other = endpoint(&network, "f", &["10.9.0.3/24", "fd00:9::3/64"]);
        let bench = bench();
        bench.driver.create_network(&network).await.unwrap();
        let publish = |end, wanted: Vec<PortBinding>| {
            let (driver, network) = (&bench.driver, &network);
            async move { Publisher::publish(driver, network, end, &wanted).await }
        };
        let first: Vec<PublishedPort> = publish(&end, vec![tcp(80, 80)]).await.unwrap();
        assert_eq!(first.len(), 2);
        let held = bench.keeper.held();
        let error = publish(&other, vec![tcp(81, 81), tcp(80, 80)])
            .await
            .unwrap_err();
        assert!(matches!(error, DriverError::Conflict(_)), "{error:?}");
        assert!(error.to_string().contains("80/tcp"), "{error}");
        assert_eq!(bench.keeper.held(), held);
        // A range passes the taken one over; a range of taken ones is exhausted.
        let range = |first, last| PortBinding {
            host_ports: HostPorts::range(first, last).unwrap(),
            ..tcp(1, 80)
        };
        let second = publish(&other, vec![range(80, 81)]).await.unwrap();
        assert!(second.iter().all(|port| port.host_port == 81));
        let error = publish(&other, vec![range(80, 80), range(90, 91)])
            .await
            .unwrap_err();
        assert!(matches!(error, DriverError::Conflict(_)), "{error:?}");
        let elsewhere = PortBinding {
            container_port: 9,
            ..range(80, 81)
        };
        let error = publish(&end, vec![elsewhere]).await;
        assert!(matches!(error, Err(DriverError::Exhausted(_))), "{error:?}");
        // The same wish twice is one; overlapping ranges give different ports.
        let same = publish(&end, vec![tcp(90, 90), tcp(90, 90)]).await.unwrap();
        assert_eq!(same.len(), 2);
        let both = publish(&end, vec![range(92, 93), range(92, 94)])
            .await
            .unwrap();
        assert_eq!((both[0].host_port, both[2].host_port), (92, 93));
    });
}

#[test]
fn ephemeral_ports_differ() {
    wait(async {
        let network = dual();
        let end = joined(&network);
        let bench = bench();
        bench.driver.create_network(&network).await.unwrap();
        let any = PortBinding {
            host_ports: HostPorts::Ephemeral,
            ..tcp(1, 80)
        };
        let ports = Publisher::publish(&bench.driver, &network, &end, &[any, any])
            .await
            .unwrap();
        let numbers: std::collections::BTreeSet<u16> = ports.iter().map(|p| p.host_port).collect();
        assert_eq!((ports.len(), numbers.len()), (4, 2));
    });
}

#[test]
fn ports_of_the_caller_need_its_own_way_out() {
    wait(async {
        let mut network = dual();
        network
            .options
            .insert("netloom.ports".into(), "docker".into());
        let end = joined(&network);
        let bench = bench();
        bench.driver.create_network(&network).await.unwrap();
        let sandbox = end.sandbox.clone().unwrap();
        let attached = bench.driver.join(&network, &end, &sandbox).await.unwrap();
        assert_eq!((attached.gateway_v4, attached.gateway_v6), (None, None));
        assert_eq!(attached.gateway_service, GatewayService::Allowed);
        let ports = Publisher::publish(&bench.driver, &network, &end, &[tcp(80, 80)])
            .await
            .unwrap();
        assert!(ports.is_empty());
    });
}

#[test]
fn an_auxiliary_address_is_the_default_gateway() {
    wait(async {
        let mut network = dual();
        network.subnets[0]
            .auxiliary
            .insert("DefaultGatewayIPv4".into(), "10.9.0.254".parse().unwrap());
        let end = joined(&network);
        let bench = bench();
        bench.driver.create_network(&network).await.unwrap();
        let sandbox = end.sandbox.clone().unwrap();
        let attached = bench.driver.join(&network, &end, &sandbox).await.unwrap();
        assert_eq!(attached.gateway_v4, Some("10.9.0.254".parse().unwrap()));
        assert_eq!(attached.gateway_v6, Some("fd00:9::1".parse().unwrap()));
    });
}

#[test]
fn a_sandbox_that_exists_gets_the_first_free_name_unless_settings_are_wished() {
    wait(async {
        let mut network = dual();
        network
            .options
            .insert("netloom.ifname_prefix".into(), "lan".into());
        let mut end = joined(&network);
        let sandbox = existing_sandbox(&end);
        let bench = bench();
        bench.driver.create_network(&network).await.unwrap();
        let attached = bench.driver.join(&network, &end, &sandbox).await.unwrap();
        let lan0 = LinkName::new("lan0").unwrap();
        assert_eq!(
            attached.interface,
            InterfacePlacement::Placed { link: lan0 }
        );
        let host_end = LinkName::new("nlveeeeeeeeee").unwrap();
        let (place, _) = bench.kernel.peer_of(&host_end).unwrap();
        assert_eq!(place, Place::Namespace(sandbox.netns.clone()));

        end.spec
            .options
            .insert("netloom.sysctls".into(), "x=1".into());
        let attached = bench.driver.join(&network, &end, &sandbox).await.unwrap();
        assert!(matches!(
            attached.interface,
            InterfacePlacement::CallerMoves { prefix, .. } if prefix == "lan"
        ));
    });
}

#[test]
fn interfaces_go_in_beside_number_zero_only_where_the_caller_counts() {
    wait(async {
        let network = dual();
        let inside = Inside::new(InsideRule::BesideNumberZero);
        let bench = bench_under(&inside);
        bench.driver.create_network(&network).await.unwrap();
        let mut placed = Vec::new();
        for (n, rule) in [
            InsideRule::BesideNumberZero,
            InsideRule::Always,
            InsideRule::BesideNumberZero,
            InsideRule::Never,
        ]
        .into_iter()
        .enumerate()
        {
            inside.set(rule);
            let address = format!("10.9.0.{}/24", n + 2);
            let end = endpoint(&network, &format!("{n}"), &[&address]);
            let sandbox = existing_sandbox(&end);
            let attached = bench.driver.join(&network, &end, &sandbox).await.unwrap();
            placed.push(matches!(
                attached.interface,
                InterfacePlacement::Placed { .. }
            ));
        }
        assert_eq!(placed, [false, true, true, false]);
    });
}

#[test]
fn a_first_interface_goes_in_where_that_is_wished_and_the_caller_can_live_with_it() {
    wait(async {
        let mut network = dual();
        network
            .options
            .insert("netloom.placement".into(), "inside".into());
        for (rule, ports, goes_in) in [
            (InsideRule::BesideNumberZero, "own", true),
            // Docker then adds a network of its own.
            (InsideRule::BesideNumberZero, "docker", false),
            (InsideRule::Never, "own", false),
        ] {
            let ports = ("netloom.ports".to_owned(), ports.to_owned());
            network.options.extend([ports]);
            let bench = bench_under(&Inside::new(rule));
            bench.driver.create_network(&network).await.unwrap();
            let end = joined(&network);
            let sandbox = existing_sandbox(&end);
            let attached = bench.driver.join(&network, &end, &sandbox).await.unwrap();
            let eth0 = LinkName::new("eth0").unwrap();
            let placed = attached.interface == InterfacePlacement::Placed { link: eth0 };
            assert_eq!(placed, goes_in, "{rule:?}: {:?}", attached.interface);
        }
    });
}

#[test]
fn links_that_leave_at_once_go_in_groups() {
    wait(async {
        let network = dual();
        let bench = bench();
        bench.driver.create_network(&network).await.unwrap();
        let ends: Vec<DesiredEndpoint> = (0..8)
            .map(|n| {
                endpoint(
                    &network,
                    &format!("{n}"),
                    &[&format!("10.9.0.{}/24", n + 2)],
                )
            })
            .collect();
        for end in &ends {
            bench.join(&network, end).await.unwrap();
        }
        bench.kernel.clear_steps();
        let first_group = bench.driver.shared.reaper.hold().await;
        let mut leaving = tokio::task::JoinSet::new();
        for end in ends {
            let (driver, network) = (bench.driver.clone(), network.clone());
            leaving.spawn(async move { driver.leave(&network, &end).await });
        }
        while bench.driver.shared.reaper.waiting() < 8 {
            assert!(leaving.try_join_next().is_none(), "a leave ended early");
            tokio::task::yield_now().await;
        }
        drop(first_group);
        while let Some(left) = leaving.join_next().await {
            left.unwrap().unwrap();
        }
        let groups: Vec<usize> = bench
            .kernel
            .steps()
            .iter()
            .filter_map(|step| match step {
                KernelStep::DeleteLink { .. } => Some(1),
                KernelStep::DeleteLinks { links } => Some(links.len()),
                _ => None,
            })
            .collect();
        assert_eq!(groups, [8]);
        assert_eq!(bench.state().0, ["nl-aaaaaaaaaaaa"]);
    });
}

#[test]
fn a_link_that_two_networks_trust_stays_trusted_until_both_are_gone() {
    wait(async {
        let trusting = |id: &str, subnet: &str| {
            let mut spec = network(id, &[subnet]);
            spec.options
                .insert("netloom.trusted_interfaces".into(), "eth7".into());
            spec
        };
        let (one, two) = (trusting("a", "10.9.0.0/24"), trusting("b", "10.8.0.0/24"));
        let bench = bench();
        bench.driver.create_network(&one).await.unwrap();
        bench.driver.create_network(&two).await.unwrap();
        let eth7 = Element::Trusted(LinkName::new("eth7").unwrap());
        bench.driver.delete_network(&one).await.unwrap();
        assert!(bench.state().1.contains(&eth7));
        bench.driver.delete_network(&two).await.unwrap();
        assert_eq!(bench.state(), (vec![], vec![], 0));
    });
}

#[test]
fn bridges_of_docker_are_walled_off_and_never_found() {
    wait(async {
        let bench = bench();
        let network = dual();
        bench.driver.create_network(&network).await.unwrap();
        let docker0 = LinkName::new("docker0").unwrap();
        bench.kernel.plant_link(&docker0, Some("bridge"));
        let desired = Desired {
            networks: vec![network],
            endpoints: vec![],
        };
        assert!(bench.is_clean(&desired).await);
        bench.driver.reconcile(&desired).await.unwrap();
        assert!(bench.state().1.contains(&Element::Foreign(docker0.clone())));
        assert!(bench.is_clean(&desired).await);
        // A network of ours may share it, if its creator says so by name.
        let mut sharing = network_on("b", "10.8.0.0/24", docker0.as_str());
        sharing.options.insert("netloom.mtu".into(), "1500".into());
        bench.driver.create_network(&sharing).await.unwrap();
        let elements = bench.state().1;
        assert!(elements.contains(&Element::Bridge(docker0.clone())));
        assert!(!elements.contains(&Element::Foreign(docker0)));
    });
}

#[test]
fn a_bridge_of_many_ports_is_warned_of() {
    wait(async {
        let bench = bench();
        let network = dual();
        bench.driver.create_network(&network).await.unwrap();
        let bridge = LinkName::new("nl-aaaaaaaaaaaa").unwrap();
        for n in 0..920 {
            let port = LinkName::new(format!("port{n}")).unwrap();
            bench.kernel.plant_link(&port, Some("veth"));
            let master = bridge.clone();
            bench
                .kernel
                .apply(&KernelStep::SetMaster { link: port, master })
                .unwrap();
        }
        let desired = Desired {
            networks: vec![network],
            endpoints: vec![],
        };
        let found = bench.driver.audit(&desired).await.unwrap();
        let kinds: Vec<FindingKind> = found.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, [FindingKind::BridgeNearlyFull]);
    });
}

#[test]
fn an_internal_network_forwards_nothing_and_offers_no_gateway() {
    wait(async {
        let mut network = dual();
        network.reach = Reach::Internal;
        let bench = bench();
        bench.driver.create_network(&network).await.unwrap();
        let forwarding = bench.kernel.steps().iter().any(|step| {
            matches!(step, KernelStep::SetSysctl { key, .. } if key.to_string().ends_with("forward"))
        });
        assert!(!forwarding);
        let end = joined(&network);
        let sandbox = end.sandbox.clone().unwrap();
        let attached = bench.driver.join(&network, &end, &sandbox).await.unwrap();
        assert_eq!(attached.gateway_service, GatewayService::Disabled);
        assert_eq!(attached.gateway_v4, None);
    });
}

#[test]
fn endpoints_that_do_not_fit_their_network_are_refused() {
    let network = dual();
    let driver = BridgeDriver::new(
        Arc::new(RecordingKernel::new()),
        Arc::new(NoRelay),
        BridgeConfig::default(),
    );
    let refused = |addresses: &[&str]| {
        let end = endpoint(&network, "e", addresses);
        driver.validate_endpoint(&network, &end.spec).is_err()
    };
    assert!(refused(&["10.8.0.2/24"]), "outside of the subnet");
    assert!(refused(&["10.9.0.1/24"]), "the gateway");
    assert!(!refused(&["10.9.0.2/24"]));
    let mut group = joined(&network).spec;
    group.mac = Some("01:00:5e:00:00:01".parse().unwrap());
    assert!(driver.validate_endpoint(&network, &group).is_err());
}
