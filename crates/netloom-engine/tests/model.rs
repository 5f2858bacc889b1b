//! Random operations with random faults, against a naive model.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the allowances for tests do not reach their helpers; the seed is shown on purpose"
)]

mod support;

use netloom_core::{
    Controller, EndpointState, NetworkState, Provider, RuntimeEndpoint, RuntimeNetwork,
};
use netloom_engine::{Engine, Remedy};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::{Fault, Host, eid, endpoint, network, nid, sandbox};

/// What should exist, as simply as it can be said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    networks: BTreeSet<u8>,
    /// Endpoint -> its network, and the sandbox it is in, and whether its ports are published.
    endpoints: BTreeMap<u8, (u8, Option<u8>, bool)>,
}

#[derive(Debug, Clone, Copy)]
enum Call {
    CreateNetwork(u8),
    DeleteNetwork(u8),
    CreateEndpoint(u8, u8),
    DeleteEndpoint(u8, u8),
    Join(u8, u8, u8),
    Leave(u8, u8),
    Publish(u8, u8),
    Revoke(u8, u8),
}

impl Model {
    /// The model after `call`, or none if the call has to be refused.
    fn after(&self, call: Call) -> Option<Self> {
        let mut next = self.clone();
        match call {
            Call::CreateNetwork(n) => {
                next.networks.insert(n);
            }
            Call::DeleteNetwork(n) => {
                let joined = |(m, s, _): &(u8, Option<u8>, bool)| *m == n && s.is_some();
                if self.endpoints.values().any(joined) {
                    return None;
                }
                next.networks.remove(&n);
                next.endpoints.retain(|_, (m, ..)| *m != n);
            }
            Call::CreateEndpoint(n, e) => match self.endpoints.get(&e) {
                Some((m, ..)) if *m != n => return None,
                Some(_) => {}
                None if !self.networks.contains(&n) => return None,
                None => {
                    next.endpoints.insert(e, (n, None, false));
                }
            },
            Call::DeleteEndpoint(n, e) => match self.endpoints.get(&e) {
                Some((m, ..)) if *m != n => return None,
                _ => {
                    next.endpoints.remove(&e);
                }
            },
            Call::Join(n, e, s) => match next.endpoints.get_mut(&e) {
                Some((m, place @ None, _)) if *m == n => *place = Some(s),
                Some((m, Some(place), _)) if *m == n && *place == s => {}
                _ => return None,
            },
            Call::Leave(n, e) => match next.endpoints.get_mut(&e) {
                Some((m, place, published)) if *m == n => (*place, *published) = (None, false),
                Some(_) => return None,
                None => {}
            },
            Call::Publish(n, e) => match next.endpoints.get_mut(&e) {
                Some((m, Some(_), published)) if *m == n => *published = true,
                _ => return None,
            },
            Call::Revoke(n, e) => match next.endpoints.get_mut(&e) {
                Some((m, _, published)) if *m == n => *published = false,
                Some(_) => return None,
                None => {}
            },
        }
        Some(next)
    }

    async fn read(engine: &Engine) -> Self {
        let number = |text: &str| text.trim_matches(char::is_alphabetic).parse().unwrap();
        let mut model = Self::default();
        for view in engine.networks().await {
            assert_eq!(view.state, NetworkState::Ready);
            model.networks.insert(number(view.spec.id.as_str()));
        }
        for view in engine.endpoints().await {
            let desired = view.endpoint;
            let joined = view.state == EndpointState::Joined;
            assert!(joined || view.state == EndpointState::Created);
            assert_eq!(joined, desired.sandbox.is_some());
            let place = desired.sandbox.map(|s| number(s.id.as_str()));
            model.endpoints.insert(
                number(desired.spec.id.as_str()),
                (
                    number(desired.spec.network.as_str()),
                    place,
                    !desired.ports.is_empty(),
                ),
            );
        }
        model
    }
}

async fn perform(engine: &Engine, call: Call) -> bool {
    match call {
        Call::CreateNetwork(n) => engine.create_network(network(n)).await.is_ok(),
        Call::DeleteNetwork(n) => engine.delete_network(&nid(n)).await.is_ok(),
        Call::CreateEndpoint(n, e) => engine.create_endpoint(endpoint(n, e)).await.is_ok(),
        Call::DeleteEndpoint(n, e) => engine.delete_endpoint(&nid(n), &eid(e)).await.is_ok(),
        Call::Join(n, e, s) => engine.join(&nid(n), &eid(e), sandbox(s)).await.is_ok(),
        Call::Leave(n, e) => engine.leave(&nid(n), &eid(e)).await.is_ok(),
        Call::Publish(n, e) => engine.publish(&nid(n), &eid(e), vec![]).await.is_ok(),
        Call::Revoke(n, e) => engine.revoke(&nid(n), &eid(e)).await.is_ok(),
    }
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u8) -> u8 {
        u8::try_from(self.next() % u64::from(limit)).unwrap()
    }

    fn call(&mut self) -> Call {
        let (n, e) = (self.below(3), self.below(6));
        // An endpoint mostly belongs to the network that its number says, so that calls find it.
        let n2 = if self.below(10) == 0 { n } else { e % 3 };
        match self.below(12) {
            0 | 1 => Call::CreateNetwork(n),
            2 => Call::DeleteNetwork(n),
            3 | 4 => Call::CreateEndpoint(n2, e),
            5 => Call::DeleteEndpoint(n2, e),
            // No two share a sandbox: ports that pass between such have tests of their own.
            6..=8 => Call::Join(n2, e, 2 * e + self.below(2)),
            9 => Call::Leave(n2, e),
            10 => Call::Publish(n2, e),
            _ => Call::Revoke(n2, e),
        }
    }
}

fn seed() -> u64 {
    let seed = std::env::var("NETLOOM_SEED").ok();
    let seed = seed.and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        use std::hash::{BuildHasher, Hasher};
        std::hash::RandomState::new().build_hasher().finish()
    });
    println!("NETLOOM_SEED={seed}");
    seed
}

#[tokio::test]
async fn random_calls_with_random_faults_end_as_the_model_says() {
    let mut random = Random(seed());
    let host = Host::new();
    let mut engine = host.start().await;
    let mut model = Model::default();
    let (mut spoiled, mut refused) = (0, 0);
    for step in 0..20_000 {
        let call = random.call();
        let expected = model.after(call);
        let context = format!("step {step}: {call:?} on {model:?}");
        let fault = match random.below(8) {
            0 => Some(Fault::Fails),
            1 => Some(Fault::LostBefore),
            2 => Some(Fault::LostAfter),
            3 => Some(Fault::DiesBefore),
            4 => Some(Fault::DiesAfter),
            _ => None,
        };
        if let Some(fault) = fault {
            host.spoiler.arm(u64::from(random.below(4)) + 1, fault);
        }
        let mut died = false;
        let ok = tokio::select! {
            ok = perform(&engine, call) => ok,
            () = host.spoiler.death() => { died = true; false }
        };
        let reached = host.spoiler.disarm();
        if died {
            engine = host.start().await;
        }
        if reached {
            spoiled += 1;
            engine.reconcile().await.unwrap();
            let found = Model::read(&engine).await;
            let either = found == model || Some(&found) == expected.as_ref();
            let halfway = matches!(call, Call::DeleteNetwork(_) | Call::DeleteEndpoint(..));
            assert!(either || halfway, "{context}\nfound {found:?}");
            assert!(!ok || Some(&found) == expected.as_ref(), "{context}");
            model = found;
        } else {
            assert_eq!(ok, expected.is_some(), "{context}");
            refused += u32::from(!ok);
            model = expected.unwrap_or(model);
        }
        assert_eq!(Model::read(&engine).await, model, "{context}");
        let kernel = host.driver.kernel();
        assert_eq!(kernel.networks.len(), model.networks.len(), "{context}");
        let joined = model.endpoints.values().filter(|(_, s, _)| s.is_some());
        assert_eq!(kernel.links.len(), joined.count(), "{context}");
        let published = model.endpoints.values().filter(|(.., p)| *p);
        assert_eq!(kernel.ports.len(), published.count(), "{context}");
    }
    // A run that spoils or refuses nothing proves nothing.
    assert!(spoiled > 1000 && refused > 1000, "{spoiled} {refused}");
}

fn runtime(endpoints: &[u8]) -> Vec<RuntimeNetwork> {
    vec![RuntimeNetwork {
        id: nid(1),
        name: "one".into(),
        driver: Provider::Ours,
        ipam: Provider::Ours,
        subnets: vec![],
        auxiliary: vec![],
        endpoints: endpoints
            .iter()
            .map(|e| RuntimeEndpoint {
                id: Some(eid(*e)),
                container: "c".into(),
                name: "c".into(),
                addresses: netloom_core::Addresses::default(),
                mac: None,
            })
            .collect(),
    }]
}

#[tokio::test]
async fn what_docker_does_not_know_goes_after_two_sightings_and_the_grace_time() {
    let host = Host::new();
    let engine = host.start().await;
    for n in [1, 2] {
        engine.create_network(network(n)).await.unwrap();
        for e in [n, n + 10] {
            engine.create_endpoint(endpoint(n, e)).await.unwrap();
            engine.join(&nid(n), &eid(e), sandbox(e)).await.unwrap();
        }
    }
    // Young ones are not even told of.
    let found = engine.settle(runtime(&[1]), Remedy::Remove).await.unwrap();
    assert_eq!(found, []);
    host.clock.advance(Duration::from_secs(39));
    let found = engine.settle(runtime(&[1]), Remedy::Remove).await.unwrap();
    assert_eq!(found.len(), 4);
    assert_eq!(engine.endpoints().await.len(), 4);
    host.clock.advance(Duration::from_secs(2));
    // Asking without removing changes nothing.
    engine.settle(runtime(&[1]), Remedy::Report).await.unwrap();
    assert_eq!(engine.endpoints().await.len(), 4);
    let found = engine.settle(runtime(&[1]), Remedy::Remove).await.unwrap();
    assert!(found.iter().all(|f| f.repair == netloom_core::Repair::Done));
    let left = Model::read(&engine).await;
    assert_eq!(left.networks, [1].into());
    assert_eq!(left.endpoints.keys().copied().collect::<Vec<_>>(), [1]);
    assert_eq!(host.driver.kernel().links.len(), 1);
}

#[tokio::test]
async fn an_endpoint_that_joins_between_two_sightings_stays() {
    let host = Host::new();
    let engine = host.start().await;
    engine.create_network(network(1)).await.unwrap();
    engine.create_endpoint(endpoint(1, 1)).await.unwrap();
    engine.settle(runtime(&[]), Remedy::Remove).await.unwrap();
    host.clock.advance(Duration::from_secs(39));
    engine.join(&nid(1), &eid(1), sandbox(1)).await.unwrap();
    host.clock.advance(Duration::from_secs(2));
    engine.settle(runtime(&[]), Remedy::Remove).await.unwrap();
    assert_eq!(engine.endpoints().await.len(), 1);
}

#[tokio::test]
async fn concurrent_networks_cannot_take_the_same_bridge() {
    let host = Host::new();
    let engine = host.start().await;
    let mut tasks = Vec::new();
    for n in 0..20 {
        let engine = engine.clone();
        let mut spec = network(n);
        spec.options.insert("bridge".into(), "br0".into());
        tasks.push(tokio::spawn(async move {
            engine.create_network(spec).await.is_ok()
        }));
    }
    let mut made = 0;
    for task in tasks {
        made += u32::from(task.await.unwrap());
    }
    assert_eq!(made, 1);
}

#[tokio::test]
async fn a_record_that_somebody_else_changed_is_read_again() {
    let host = Host::new();
    let engine = host.start().await;
    engine.create_network(network(1)).await.unwrap();
    engine.create_endpoint(endpoint(1, 1)).await.unwrap();
    let key = netloom_engine::record::endpoint_key(&eid(1)).unwrap();
    let view = engine.endpoints().await.remove(0);
    let bytes = netloom_engine::record::encode_endpoint(
        &view,
        &"ffff".parse().unwrap(),
        &"boot-1".parse().unwrap(),
    );
    host.store.vandalise(&key, &bytes.unwrap());
    let first = engine.join(&nid(1), &eid(1), sandbox(1)).await;
    assert!(first.is_err(), "it acted on a record that it did not write");
    engine.join(&nid(1), &eid(1), sandbox(1)).await.unwrap();
}

#[tokio::test]
async fn a_record_of_a_newer_release_keeps_the_engine_from_starting() {
    let host = Host::new();
    let key = netloom_engine::record::network_key(&nid(1)).unwrap();
    host.store
        .vandalise(&key, br#"{"schema":9,"operation":"a"}"#);
    let error = host.start_in_boot("b").await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("schema 9"), "{source}");
}
