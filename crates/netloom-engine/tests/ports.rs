//! Published ports: those that a death or a lost call of dockerd's would have cost.

#![allow(
    clippy::unwrap_used,
    reason = "the allowance for tests does not reach their helpers"
)]

mod support;

use netloom_core::{
    Controller, EndpointSpec, EndpointState, Finding, FindingKind, Reach, Repair, SandboxRef,
};
use netloom_engine::Engine;
use netloom_types::{HostPorts, PortBinding};
use support::{Fault, Host, eid, endpoint, network, nid, sandbox};

/// Endpoint 1 of network 1, in sandbox 1.
async fn joined(engine: &Engine) {
    engine.create_network(network(1)).await.unwrap();
    engine.create_endpoint(endpoint(1, 1)).await.unwrap();
    engine.join(&nid(1), &eid(1), sandbox(1)).await.unwrap();
}

/// The ports of a hand-over, which differ from those that the endpoint was created with.
fn handed_over() -> Vec<PortBinding> {
    let [mut binding] = <[PortBinding; 1]>::try_from(endpoint(1, 1).ports).unwrap();
    binding.container_port = 443;
    vec![binding]
}

#[tokio::test]
async fn a_port_whose_publication_a_death_cut_short_is_published_without_being_asked_for_again() {
    for fault in [Fault::DiesBefore, Fault::DiesAfter] {
        for nth in 1.. {
            let context = format!("{fault:?} step {nth}");
            let host = Host::new();
            let engine = host.start().await;
            joined(&engine).await;
            host.spoiler.arm(nth, fault);
            let (network, endpoint) = (nid(1), eid(1));
            tokio::select! {
                result = engine.publish(&network, &endpoint, handed_over()) => drop(result.unwrap()),
                () = host.spoiler.death() => {}
            }
            let reached = host.spoiler.disarm();
            // A second death in the recovery, too, forgets nothing.
            for second in [Some(1), Some(2), Some(3), None] {
                let engine = host.start().await;
                if let Some(second) = second {
                    host.spoiler.arm(second, fault);
                }
                tokio::select! {
                    result = engine.reconcile() => drop(result.unwrap()),
                    () = host.spoiler.death() => {}
                }
                host.spoiler.disarm();
            }
            let engine = host.start().await;
            engine.reconcile().await.unwrap();
            // Before the wish is on record there was nothing to keep.
            let kept = !(fault == Fault::DiesBefore && nth == 1);
            let published = host.driver.kernel().ports;
            let ports = published.get(&eid(1)).map(|p| p[0].host_port);
            assert_eq!(ports, kept.then_some(443), "{context}");
            assert_eq!(engine.endpoints().await[0].ports_due, [], "{context}");
            engine.revoke(&nid(1), &eid(1)).await.unwrap();
            host.start().await.reconcile().await.unwrap();
            assert_eq!(host.driver.kernel().ports.len(), 0, "{context}");
            if !reached {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_port_that_is_due_and_cannot_be_had_is_told_of_and_tried_again() {
    let host = Host::new();
    let engine = host.start().await;
    joined(&engine).await;
    host.spoiler.arm(2, Fault::DiesBefore);
    let (network, endpoint) = (nid(1), eid(1));
    tokio::select! {
        _ = engine.publish(&network, &endpoint, vec![]) => panic!("it should have died"),
        () = host.spoiler.death() => {}
    }
    let engine = host.start().await;
    let told = |found: Vec<Finding>| -> Vec<_> {
        let due = found.iter().filter(|f| f.subject == eid(1).to_string());
        due.map(|f| (f.kind, f.repair)).collect()
    };
    let due = [(FindingKind::UnreservedPort, Repair::ByRepair)];
    assert_eq!(told(engine.audit().await.unwrap()), due);
    host.spoiler.arm(2, Fault::Fails);
    assert_eq!(told(engine.reconcile().await.unwrap()), due);
    assert!(host.spoiler.disarm());
    let mended = [(FindingKind::UnreservedPort, Repair::Done)];
    assert_eq!(told(engine.reconcile().await.unwrap()), mended);
    assert_eq!(told(engine.audit().await.unwrap()), []);
    assert_eq!(host.driver.kernel().ports.len(), 1);
}

#[tokio::test]
async fn a_port_that_is_due_goes_with_the_leave_and_with_the_boot() {
    for call in 0..3 {
        let host = Host::new();
        let engine = host.start().await;
        joined(&engine).await;
        host.spoiler.arm(2, Fault::DiesBefore);
        let (network, endpoint) = (nid(1), eid(1));
        tokio::select! {
            _ = engine.publish(&network, &endpoint, vec![]) => panic!("it should have died"),
            () = host.spoiler.death() => {}
        }
        host.spoiler.disarm();
        let booted = host.start_in_boot("boot-2").await.unwrap();
        assert_eq!(booted.endpoints().await[0].ports_due, []);
        let engine = host.start().await;
        assert_ne!(engine.endpoints().await[0].ports_due, []);
        match call {
            0 => engine.revoke(&nid(1), &eid(1)).await.unwrap(),
            1 => engine.leave(&nid(1), &eid(1)).await.unwrap(),
            _ => engine.delete_endpoint(&nid(1), &eid(1)).await.unwrap(),
        }
        engine.reconcile().await.unwrap();
        host.start().await.reconcile().await.unwrap();
        assert_eq!(host.driver.kernel().ports.len(), 0, "{call:?}");
    }
}

/// Port 80 and no other.
fn fixed() -> Vec<PortBinding> {
    let mut ports = endpoint(1, 1).ports;
    for binding in &mut ports {
        binding.host_ports = HostPorts::range(80, 80).unwrap();
    }
    ports
}

/// Endpoint 2 of network 2, in sandbox 1 as well, made as dockerd makes those of further networks:
/// without ports. It publishes what endpoint 1 did.
async fn handed_to_the_second(engine: &Engine) {
    engine.create_network(network(2)).await.unwrap();
    let second = EndpointSpec {
        ports: vec![],
        ..endpoint(2, 2)
    };
    engine.create_endpoint(second).await.unwrap();
    engine.join(&nid(2), &eid(2), sandbox(1)).await.unwrap();
    engine.publish(&nid(2), &eid(2), fixed()).await.unwrap();
}

fn ports_of(host: &Host, n: u8) -> usize {
    host.driver.kernel().ports.get(&eid(n)).map_or(0, Vec::len)
}

#[tokio::test]
async fn a_hand_over_whose_last_call_was_lost_before_it_was_on_record_is_finished() {
    for revoked in [true, false] {
        let host = Host::new();
        let engine = host.start().await;
        joined(&engine).await;
        handed_to_the_second(&engine).await;
        if revoked {
            engine.revoke(&nid(2), &eid(2)).await.unwrap();
        }
        engine.leave(&nid(2), &eid(2)).await.unwrap();
        // Here dockerd asks endpoint 1 to publish, and the daemon dies before it has read that. A
        // recovery that dies as well changes nothing.
        for nth in 1..6 {
            let engine = host.start().await;
            host.spoiler.arm(nth, Fault::DiesBefore);
            tokio::select! {
                result = engine.reconcile() => drop(result.unwrap()),
                () = host.spoiler.death() => {}
            }
            host.spoiler.disarm();
        }
        let engine = host.start().await;
        engine.reconcile().await.unwrap();
        assert_eq!((ports_of(&host, 1), ports_of(&host, 2)), (1, 0));
        // If the call comes after all, it finds its work done; so does the end of the other one.
        engine.publish(&nid(1), &eid(1), fixed()).await.unwrap();
        engine.delete_endpoint(&nid(2), &eid(2)).await.unwrap();
        host.start().await.reconcile().await.unwrap();
        assert_eq!((ports_of(&host, 1), ports_of(&host, 2)), (1, 0));
    }
}

#[tokio::test]
async fn ports_are_not_handed_on_where_nobody_left_or_nobody_can_take_them() {
    enum Why {
        NobodyLeft,
        Internal,
        OtherSandbox,
        SandboxGone,
    }
    for why in [
        Why::NobodyLeft,
        Why::Internal,
        Why::OtherSandbox,
        Why::SandboxGone,
    ] {
        let host = Host::new();
        let engine = host.start().await;
        let mut one = network(1);
        let mut place = sandbox(1);
        match why {
            Why::NobodyLeft => {}
            Why::Internal => one.reach = Reach::Internal,
            Why::OtherSandbox => place = sandbox(3),
            Why::SandboxGone => place.netns = "/run/netns/gone".into(),
        }
        engine.create_network(one).await.unwrap();
        engine.create_endpoint(endpoint(1, 1)).await.unwrap();
        engine.join(&nid(1), &eid(1), place.clone()).await.unwrap();
        engine.create_network(network(2)).await.unwrap();
        engine.create_endpoint(endpoint(2, 2)).await.unwrap();
        let second: SandboxRef = match why {
            Why::OtherSandbox => sandbox(1),
            _ => place,
        };
        engine.join(&nid(2), &eid(2), second).await.unwrap();
        engine.publish(&nid(2), &eid(2), fixed()).await.unwrap();
        engine.revoke(&nid(2), &eid(2)).await.unwrap();
        if !matches!(why, Why::NobodyLeft) {
            engine.leave(&nid(2), &eid(2)).await.unwrap();
        }
        host.start().await.reconcile().await.unwrap();
        assert_eq!((ports_of(&host, 1), ports_of(&host, 2)), (0, 0));
    }
}

#[tokio::test]
async fn a_port_moves_within_a_sandbox_although_its_revocation_was_lost() {
    let host = Host::new();
    let engine = host.start().await;
    joined(&engine).await;
    handed_to_the_second(&engine).await;
    engine.publish(&nid(1), &eid(1), fixed()).await.unwrap();
    assert_eq!((ports_of(&host, 1), ports_of(&host, 2)), (1, 0));
    host.start().await.reconcile().await.unwrap();
    assert_eq!((ports_of(&host, 1), ports_of(&host, 2)), (1, 0));
}

#[tokio::test]
async fn a_port_of_a_container_whose_leave_was_lost_is_free_at_once() {
    for (path, linked, gives_way) in [
        ("/run/netns/gone", false, true),
        ("/run/netns/gone", true, false),
        ("/run/netns/there", false, false),
    ] {
        let host = Host::new();
        let engine = host.start().await;
        engine.create_network(network(1)).await.unwrap();
        for (n, netns) in [(1, path), (2, "/run/netns/new")] {
            engine.create_endpoint(endpoint(1, n)).await.unwrap();
            let place = SandboxRef {
                netns: netns.into(),
                ..sandbox(n)
            };
            engine.join(&nid(1), &eid(n), place).await.unwrap();
        }
        engine.publish(&nid(1), &eid(1), fixed()).await.unwrap();
        if !linked {
            host.driver.kernel.lock().unwrap().links.remove(&eid(1));
        }
        let asked = engine.publish(&nid(1), &eid(2), fixed()).await;
        assert_eq!(asked.is_ok(), gives_way, "{path}, linked: {linked}");
        let holder = if gives_way { (0, 1) } else { (1, 0) };
        assert_eq!((ports_of(&host, 1), ports_of(&host, 2)), holder);
        // What was refused is not due: dockerd was told.
        assert_eq!(engine.endpoints().await[1].ports_due, []);
    }
}

#[tokio::test]
async fn an_endpoint_with_the_address_and_mac_of_a_joined_one_is_refused() {
    let mac = |last| Some(netloom_types::MacAddr::new([2, 0, 0, 0, 0, last]));
    let with = |id, last| EndpointSpec {
        id: eid(id),
        mac: mac(last),
        ..endpoint(1, 1)
    };
    for (path, refused) in [("/run/netns/there", true), ("/run/netns/gone", false)] {
        let host = Host::new();
        let engine = host.start().await;
        engine.create_network(network(1)).await.unwrap();
        engine.create_endpoint(with(1, 7)).await.unwrap();
        let place = SandboxRef {
            netns: path.into(),
            ..sandbox(1)
        };
        engine.join(&nid(1), &eid(1), place).await.unwrap();
        if !refused {
            host.driver.kernel.lock().unwrap().links.clear();
        }
        assert_eq!(engine.create_endpoint(with(2, 7)).await.is_err(), refused);
        // Another MAC address is another container to everybody, and dockerd's to judge.
        engine.create_endpoint(with(3, 8)).await.unwrap();
        // The repeat of the first one's own request is none of this.
        engine.create_endpoint(with(1, 7)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twins_that_start_at_the_same_moment_one_joins() {
    for _ in 0..50 {
        let host = Host::new();
        let engine = host.start().await;
        engine.create_network(network(1)).await.unwrap();
        let mac = Some(netloom_types::MacAddr::new([2, 0, 0, 0, 0, 7]));
        let mut tasks = Vec::new();
        for n in 1..5 {
            let engine = engine.clone();
            tasks.push(tokio::spawn(async move {
                let spec = EndpointSpec {
                    id: eid(n),
                    mac,
                    ..endpoint(1, 1)
                };
                engine.create_endpoint(spec).await?;
                engine.join(&nid(1), &eid(n), sandbox(n)).await.map(drop)
            }));
        }
        let mut joined = 0;
        for task in tasks {
            joined += u32::from(task.await.unwrap().is_ok());
        }
        assert_eq!(joined, 1);
        let views = engine.endpoints().await;
        assert!(views.iter().all(|v| v.state == EndpointState::Joined));
    }
}
