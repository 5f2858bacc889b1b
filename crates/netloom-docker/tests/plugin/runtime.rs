//! The client against answers of real Docker daemons, and against hostile ones.

use super::fake_docker::{Answers, FakeDocker, client, on_file};
use netloom_core::{Provider, Runtime, RuntimeEndpoint, RuntimeNetwork};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::UnixListener;

const VERSIONS: [&str; 2] = ["20.10", "28.5"];

fn by_name<'a>(networks: &'a [RuntimeNetwork], name: &str) -> &'a RuntimeNetwork {
    networks.iter().find(|n| n.name == name).unwrap()
}

fn endpoint<'a>(network: &'a RuntimeNetwork, name: &str) -> &'a RuntimeEndpoint {
    network.endpoints.iter().find(|e| e.name == name).unwrap()
}

/// Replaces one answer.
fn with(mut answers: Answers, call: &str, body: impl Into<String>) -> Answers {
    answers.insert(call.to_owned(), (200, body.into()));
    answers
}

/// The daemons on file had: `web` and `idle` running, `pinned` created and `fixed` stopped.
#[tokio::test]
async fn networks_of_real_daemons_are_read() {
    for version in VERSIONS {
        let docker = FakeDocker::start(on_file(version));
        let networks = docker.client().networks().await.unwrap();
        assert_eq!(networks.len(), 5, "{version}");
        let blue = by_name(&networks, "blue");
        assert_eq!((blue.driver, blue.ipam), (Provider::Ours, Provider::Ours));
        assert_eq!(blue.subnets, [("10.9.0.0/16".parse().unwrap(), None)]);
        assert_eq!(
            blue.auxiliary,
            ["10.9.0.9".parse::<std::net::IpAddr>().unwrap()]
        );
        assert_eq!(blue.endpoints.len(), 4, "{version}");
        for (name, ip, runs) in [
            ("web", "10.9.0.2/16", true),
            ("idle", "10.9.4.7/16", true),
            ("pinned", "10.9.4.4/16", false),
            ("fixed", "10.9.3.3/16", false),
        ] {
            let endpoint = endpoint(blue, name);
            assert_eq!(endpoint.addresses.ipv4, Some(ip.parse().unwrap()), "{name}");
            assert_eq!(endpoint.id.is_some(), runs, "{version} {name}");
            assert_eq!(endpoint.mac.is_some(), runs, "{version} {name}");
        }
        let dual = by_name(&networks, "dual");
        let web = endpoint(dual, "web");
        assert_eq!(web.addresses.ipv6, Some("fd00:8::2/64".parse().unwrap()));
        assert_eq!(by_name(&networks, "none").driver, Provider::Other);
    }
}

#[tokio::test]
async fn the_daemons_own_version_is_spoken() {
    let docker = FakeDocker::start(on_file("28.5"));
    docker.client().networks().await.unwrap();
    let asked = docker.asked();
    assert_eq!(asked[0], "GET /version");
    assert!(
        asked[1..]
            .iter()
            .all(|call| call.starts_with("GET /v1.51/")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_daemon_that_is_too_old_is_named() {
    let old = json!({"ApiVersion": "1.40", "MinAPIVersion": "1.12"}).to_string();
    let docker = FakeDocker::start(with(on_file("20.10"), "GET /version", old));
    let error = docker.client().networks().await.unwrap_err();
    let source = error.source.unwrap().to_string();
    assert!(source.contains("update Docker"), "{source}");
}

/// `docker network rm` between the list and the inspection.
#[tokio::test]
async fn a_network_that_vanishes_meanwhile_is_left_out() {
    let mut answers = on_file("20.10");
    let list: Vec<Value> = serde_json::from_str(&answers["GET /networks"].1).unwrap();
    let blue = list.iter().find(|n| n["Name"] == "blue").unwrap();
    answers.remove(&format!("GET /networks/{}", blue["Id"].as_str().unwrap()));
    let docker = FakeDocker::start(answers);
    let networks = docker.client().networks().await.unwrap();
    assert!(networks.iter().all(|n| n.name != "blue"));
    assert_eq!(networks.len(), 4);
}

/// A list without a network of ours would say that its addresses are free.
#[tokio::test]
async fn a_network_of_ours_that_cannot_be_read_fails_the_list() {
    let odd = |driver: &str| {
        let network = json!({
            "Id": "n1", "Name": "odd", "Driver": driver,
            "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.9.0.0/64"}]},
        });
        let answers = with(
            on_file("20.10"),
            "GET /networks",
            json!([network]).to_string(),
        );
        FakeDocker::start(with(answers, "GET /networks/n1", network.to_string()))
    };
    assert!(odd("netloom").client().networks().await.is_err());
    assert!(odd("netloom:latest").client().networks().await.is_err());
    assert!(odd("bridge").client().networks().await.unwrap().is_empty());
}

#[tokio::test]
async fn answers_that_are_nonsense_are_errors() {
    for call in ["GET /version", "GET /networks", "GET /containers/json"] {
        for body in ["", "null", "7", "{", "[[]]", "[7]", "{\"ApiVersion\":7}"] {
            let docker = FakeDocker::start(with(on_file("28.5"), call, body));
            let result = docker.client().networks().await;
            assert!(result.is_err(), "{call} with {body:?}");
        }
    }
}

#[tokio::test]
async fn a_daemon_that_hangs_or_is_away_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let soon = Duration::from_millis(50);
    assert!(client(&socket, soon).networks().await.is_err());
    let _silent = UnixListener::bind(&socket).unwrap();
    assert!(client(&socket, soon).networks().await.is_err());
    assert!(client(&socket, soon).changed().await.is_err());
}

#[tokio::test]
async fn events_are_hints_and_a_broken_stream_is_opened_again() {
    let docker = FakeDocker::start(on_file("28.5"));
    let client = docker.client();
    client.changed().await.unwrap();
    docker.emit("{\"Type\":\"network\"}\n{\"Type\":");
    client.changed().await.unwrap();
    // The rest of the second event is another hint; half a line is none.
    let waiting = tokio::time::timeout(Duration::from_millis(20), client.changed()).await;
    assert!(waiting.is_err());
    docker.emit("\"container\"}\n");
    client.changed().await.unwrap();
    docker.end_events();
    assert!(client.changed().await.is_err());
    client.changed().await.unwrap();
    let events = |call: &String| call.starts_with("GET /v1.51/events?filters=%7B");
    assert_eq!(docker.asked().iter().filter(|call| events(call)).count(), 2);
}

const CONNECT: &str = "POST /networks/blue/connect";
const DISCONNECT: &str = "POST /networks/blue/disconnect";

fn container(status: &str) -> Answers {
    let details = json!({
        "State": {"Status": status},
        "NetworkSettings": {"Networks": {"blue": {
            "NetworkID": "n1", "Aliases": ["sleepy"], "IPAMConfig": null, "IPAddress": "",
        }}},
    });
    let answers = with(
        on_file("20.10"),
        "GET /containers/idle/json",
        details.to_string(),
    );
    with(with(answers, CONNECT, ""), DISCONNECT, "")
}

#[tokio::test]
async fn an_address_is_pinned_by_connecting_again() {
    let docker = FakeDocker::start(container("created"));
    let ip = "10.9.4.7".parse().unwrap();
    docker.client().pin("idle", "blue", ip).await.unwrap();
    let changes = docker.changes();
    assert_eq!(
        changes[0],
        "POST /v1.41/networks/blue/disconnect {\"Container\":\"idle\",\"Force\":false}"
    );
    let (path, body) = changes[1].rsplit_once("connect ").unwrap();
    assert_eq!(path, "POST /v1.41/networks/blue/");
    let wish = json!({"Container": "idle", "EndpointConfig": {
        "Aliases": ["sleepy"], "IPAMConfig": {"IPv4Address": "10.9.4.7"},
    }});
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), wish);
}

/// Docker's own answer about a container whose address is pinned already.
#[tokio::test]
async fn a_running_container_and_a_strange_network_are_refused() {
    let ip = "10.9.4.7".parse().unwrap();
    for version in VERSIONS {
        let docker = FakeDocker::start(on_file(version));
        assert!(docker.client().pin("idle", "blue", ip).await.is_err());
        assert_eq!(docker.changes(), Vec::<String>::new());
    }
    let docker = FakeDocker::start(container("exited"));
    assert!(docker.client().pin("idle", "red", ip).await.is_err());
    assert!(docker.client().pin("../x", "blue", ip).await.is_err());
    assert_eq!(docker.changes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_pin_that_fails_leaves_the_container_connected() {
    let mut answers = container("exited");
    let refusal = (403, "{\"message\":\"address in use\"}".to_owned());
    answers.insert(CONNECT.to_owned(), refusal);
    let docker = FakeDocker::start(answers);
    let ip = "10.9.4.7".parse().unwrap();
    assert!(docker.client().pin("idle", "blue", ip).await.is_err());
    let changes = docker.changes();
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert!(!changes[2].contains("10.9.4.7"), "{changes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a byte more or less makes of an answer, it is read or refused.
    #[test]
    fn damaged_answers_break_nothing(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0x20u8..0x7f), 1..20),
        which in any::<prop::sample::Index>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut answers = on_file("28.5");
            let call = which.get(&answers.keys().cloned().collect::<Vec<_>>()).clone();
            let (_, body) = answers.get_mut(&call).unwrap();
            let mut bytes = std::mem::take(body).into_bytes();
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            *body = String::from_utf8_lossy(&bytes).into_owned();
            let docker = FakeDocker::start(answers);
            let _ = docker.client().networks().await;
        });
    }
}
