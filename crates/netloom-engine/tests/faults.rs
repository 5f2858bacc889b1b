//! Every step of every operation fails once, and the process dies before and after each.

#![allow(
    clippy::unwrap_used,
    reason = "the allowance for tests does not reach their helpers"
)]

mod support;

use netloom_core::{
    ControlError, Controller, EndpointSpec, EndpointState, NetworkSpec, NetworkState,
};
use netloom_engine::Engine;
use support::{Fault, Host, eid, endpoint, network, nid, sandbox};

/// The life of one container, as Docker asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    CreateNetwork,
    CreateEndpoint,
    Join,
    Publish,
    Revoke,
    Leave,
    DeleteEndpoint,
    DeleteNetwork,
}

const LIFE: [Call; 8] = [
    Call::CreateNetwork,
    Call::CreateEndpoint,
    Call::Join,
    Call::Publish,
    Call::Revoke,
    Call::Leave,
    Call::DeleteEndpoint,
    Call::DeleteNetwork,
];

async fn perform(engine: &Engine, call: Call) -> Result<(), ControlError> {
    match call {
        Call::CreateNetwork => engine.create_network(network(1)).await,
        Call::CreateEndpoint => engine.create_endpoint(endpoint(1, 1)).await.map(drop),
        Call::Join => engine.join(&nid(1), &eid(1), sandbox(1)).await.map(drop),
        Call::Publish => engine.publish(&nid(1), &eid(1), vec![]).await.map(drop),
        Call::Revoke => engine.revoke(&nid(1), &eid(1)).await,
        Call::Leave => engine.leave(&nid(1), &eid(1)).await,
        Call::DeleteEndpoint => engine.delete_endpoint(&nid(1), &eid(1)).await,
        Call::DeleteNetwork => engine.delete_network(&nid(1)).await,
    }
}

/// The kernel holds what the records say, and every record can be read again to the same effect.
///
/// Gives the engine that read them: from now on it is the one that owns the store.
async fn reopened(host: &Host, engine: &Engine, context: &str) -> Engine {
    let again = host.start().await;
    let kernel = host.driver.kernel();
    again.reconcile().await.unwrap();
    assert_eq!(again.networks().await, engine.networks().await, "{context}");
    assert_eq!(host.driver.kernel(), kernel, "{context}");
    again
}

fn assert_nothing_left(host: &Host, context: &str) {
    assert_eq!(
        host.driver.kernel(),
        support::Kernel::default(),
        "{context}"
    );
    assert_eq!(host.store.keys(), Vec::<String>::new(), "{context}");
}

#[tokio::test]
async fn a_life_without_faults_leaves_nothing() {
    let host = Host::new();
    let mut engine = host.start().await;
    for call in LIFE {
        perform(&engine, call).await.unwrap();
        // Docker may repeat whatever it did not hear the answer of.
        perform(&engine, call).await.unwrap();
        engine = reopened(&host, &engine, &format!("after {call:?}")).await;
    }
    assert_nothing_left(&host, "at the end");
}

#[tokio::test]
async fn any_failing_step_leaves_a_state_from_which_the_repeat_succeeds() {
    for fault in [Fault::Fails, Fault::LostBefore, Fault::LostAfter] {
        for spoiled in LIFE {
            for nth in 1.. {
                let context = format!("{fault:?} at step {nth} of {spoiled:?}");
                let host = Host::new();
                let mut engine = host.start().await;
                let mut reached = true;
                for call in LIFE {
                    if call != spoiled {
                        perform(&engine, call)
                            .await
                            .unwrap_or_else(|e| panic!("{context}: {e}"));
                        continue;
                    }
                    host.spoiler.arm(nth, fault);
                    let first = perform(&engine, call).await;
                    reached = host.spoiler.disarm();
                    let record_fault = fault == Fault::Fails && reached;
                    assert!(
                        first.is_err() || !record_fault || first.is_ok(),
                        "{context}"
                    );
                    engine.reconcile().await.unwrap();
                    engine = reopened(&host, &engine, &context).await;
                    let repeat = perform(&engine, call).await;
                    repeat.unwrap_or_else(|e| panic!("{context}, repeated: {e}"));
                }
                assert_nothing_left(&host, &context);
                if !reached {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_failed_creation_is_undone_at_once() {
    for (call, before) in [
        (Call::CreateNetwork, 0),
        (Call::Join, 2),
        (Call::Publish, 3),
    ] {
        let steps = if call == Call::Publish { 3 } else { 2 };
        for nth in 1..=steps {
            let host = Host::new();
            let engine = host.start().await;
            for call in LIFE.into_iter().take(before) {
                perform(&engine, call).await.unwrap();
            }
            let (networks, endpoints) = (engine.networks().await, engine.endpoints().await);
            let kernel = host.driver.kernel();
            host.spoiler.arm(nth, Fault::Fails);
            let result = perform(&engine, call).await;
            assert!(host.spoiler.disarm(), "{call:?} has fewer than {nth} steps");
            assert!(result.is_err(), "{call:?} hid the failure of step {nth}");
            assert_eq!(engine.networks().await, networks, "{call:?} step {nth}");
            assert_eq!(engine.endpoints().await, endpoints, "{call:?} step {nth}");
            assert_eq!(host.driver.kernel(), kernel, "{call:?} step {nth}");
        }
    }
}

#[tokio::test]
async fn a_death_at_any_step_is_recovered_from() {
    for fault in [Fault::DiesBefore, Fault::DiesAfter] {
        for spoiled in LIFE {
            for nth in 1.. {
                let context = format!("{fault:?} step {nth} of {spoiled:?}");
                let host = Host::new();
                let mut engine = host.start().await;
                let mut reached = true;
                for call in LIFE {
                    if call != spoiled {
                        perform(&engine, call)
                            .await
                            .unwrap_or_else(|e| panic!("{context}: {e}"));
                        continue;
                    }
                    host.spoiler.arm(nth, fault);
                    tokio::select! {
                        result = perform(&engine, call) => result.unwrap(),
                        () = host.spoiler.death() => {}
                    }
                    reached = host.spoiler.disarm();
                    engine = host.start().await;
                    engine.reconcile().await.unwrap();
                    engine = reopened(&host, &engine, &context).await;
                    let repeat = perform(&engine, call).await;
                    // An endpoint whose leave was recovered from is not joined any more, so its
                    // ports can be neither there nor revoked; everything else can be repeated.
                    repeat.unwrap_or_else(|e| panic!("{context}, repeated: {e}"));
                }
                assert_nothing_left(&host, &context);
                if !reached {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_second_death_during_recovery_changes_nothing() {
    for spoiled in LIFE {
        for second in 1..4 {
            let host = Host::new();
            let engine = host.start().await;
            for call in LIFE.into_iter().take_while(|call| *call != spoiled) {
                perform(&engine, call).await.unwrap();
            }
            host.spoiler.arm(2, Fault::DiesBefore);
            tokio::select! {
                _ = perform(&engine, spoiled) => {}
                () = host.spoiler.death() => {}
            }
            host.spoiler.arm(second, Fault::DiesAfter);
            let engine = host.start().await;
            tokio::select! {
                _ = engine.reconcile() => {}
                () = host.spoiler.death() => {}
            }
            host.spoiler.disarm();
            let engine = host.start().await;
            engine.reconcile().await.unwrap();
            let rest = LIFE.into_iter().skip_while(|call| *call != spoiled);
            for call in rest {
                let result = perform(&engine, call).await;
                result.unwrap_or_else(|e| panic!("{spoiled:?}, {second}, {call:?}: {e}"));
            }
            assert_nothing_left(&host, &format!("{spoiled:?}, {second}"));
        }
    }
}

/// Makes network 1, dies before the answer, and starts again.
async fn created_without_an_answer(host: &Host) -> Engine {
    let engine = host.start().await;
    host.spoiler.arm(2, Fault::DiesAfter);
    tokio::select! {
        _ = engine.create_network(network(1)) => panic!("it should have died"),
        () = host.spoiler.death() => {}
    }
    host.spoiler.disarm();
    let engine = host.start().await;
    engine.reconcile().await.unwrap();
    engine
}

#[tokio::test]
async fn a_network_whose_answer_was_lost_is_built_because_docker_may_have_it() {
    let host = Host::new();
    let engine = created_without_an_answer(&host).await;
    let states: Vec<_> = engine.networks().await.iter().map(|n| n.state).collect();
    assert_eq!(states, [NetworkState::Ready]);
    assert_eq!(host.driver.kernel().networks.len(), 1);
}

/// Another id with the same subnet: what `docker network create` sends when it is repeated.
fn repeated() -> NetworkSpec {
    NetworkSpec {
        id: nid(2),
        ..network(1)
    }
}

#[tokio::test]
async fn the_repeat_of_a_command_takes_the_place_of_what_docker_got_no_answer_to() {
    let host = Host::new();
    let engine = created_without_an_answer(&host).await;
    engine.create_network(repeated()).await.unwrap();
    let ids: Vec<_> = engine
        .networks()
        .await
        .into_iter()
        .map(|n| n.spec.id)
        .collect();
    assert_eq!(ids, [nid(2)]);
    assert_eq!(host.driver.kernel().networks, [nid(2)].into());
}

#[tokio::test]
async fn a_network_that_docker_has_or_uses_gives_way_to_none() {
    let host = Host::new();
    let engine = created_without_an_answer(&host).await;
    engine.create_endpoint(endpoint(1, 1)).await.unwrap();
    assert!(engine.create_network(repeated()).await.is_err());

    let host = Host::new();
    let engine = created_without_an_answer(&host).await;
    let known = netloom_core::RuntimeNetwork {
        id: nid(1),
        name: "one".into(),
        driver: netloom_core::Provider::Ours,
        ipam: netloom_core::Provider::Ours,
        subnets: vec![],
        auxiliary: vec![],
        endpoints: vec![],
    };
    let settled = engine.settle(vec![known], netloom_engine::Remedy::Remove);
    settled.await.unwrap();
    assert!(engine.create_network(repeated()).await.is_err());
    // Docker was seen to know it: so the next start knows, too.
    let engine = host.start().await;
    engine.reconcile().await.unwrap();
    assert!(engine.create_network(repeated()).await.is_err());
}

#[tokio::test]
async fn an_endpoint_that_never_joined_gives_its_address_to_the_next_one() {
    let host = Host::new();
    let engine = host.start().await;
    engine.create_network(network(1)).await.unwrap();
    engine.create_endpoint(endpoint(1, 1)).await.unwrap();
    let same_address = |id| EndpointSpec {
        id: eid(id),
        ..endpoint(1, 1)
    };
    engine.create_endpoint(same_address(2)).await.unwrap();
    engine.create_endpoint(endpoint(1, 3)).await.unwrap();
    let ids = |views: Vec<netloom_core::EndpointView>| -> Vec<_> {
        views.into_iter().map(|e| e.endpoint.spec.id).collect()
    };
    assert_eq!(ids(engine.endpoints().await), [eid(2), eid(3)]);
    // One that joined is Docker's to remove.
    engine.join(&nid(1), &eid(2), sandbox(1)).await.unwrap();
    engine.create_endpoint(same_address(4)).await.unwrap();
    assert_eq!(ids(engine.endpoints().await), [eid(2), eid(3), eid(4)]);
}

#[tokio::test]
async fn a_network_that_was_just_made_is_given_time_to_be_known() {
    let host = Host::new();
    let engine = host.start().await;
    engine.create_network(network(1)).await.unwrap();
    host.clock.advance(std::time::Duration::from_secs(14));
    assert!(engine.create_network(repeated()).await.is_err());
    host.clock.advance(std::time::Duration::from_secs(1));
    engine.create_network(repeated()).await.unwrap();
}

#[tokio::test]
async fn a_boot_ends_every_sandbox() {
    let host = Host::new();
    let engine = host.start().await;
    for call in LIFE.into_iter().take(4) {
        perform(&engine, call).await.unwrap();
    }
    let engine = host.start_in_boot("boot-2").await.unwrap();
    engine.reconcile().await.unwrap();
    let endpoints = engine.endpoints().await;
    assert_eq!(endpoints[0].state, EndpointState::Created);
    assert!(host.driver.kernel().links.is_empty());
    assert!(host.driver.kernel().ports.is_empty());
    assert_eq!(host.driver.kernel().networks.len(), 1);
}

#[tokio::test]
async fn what_was_dismantled_is_built_by_the_next_start_and_not_before() {
    let host = Host::new();
    let engine = host.start().await;
    for call in LIFE.into_iter().take(4) {
        perform(&engine, call).await.unwrap();
    }
    let kernel = host.driver.kernel();
    engine.dismantle().await.unwrap();
    assert_eq!(host.driver.kernel(), support::Kernel::default());
    engine.reconcile().await.unwrap();
    assert!(perform(&engine, Call::Join).await.is_err());
    assert!(engine.create_network(network(2)).await.is_err());
    assert_eq!(host.driver.kernel(), support::Kernel::default());
    host.start().await.reconcile().await.unwrap();
    assert_eq!(host.driver.kernel(), kernel);
}
