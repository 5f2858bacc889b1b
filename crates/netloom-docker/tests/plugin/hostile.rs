//! Bodies that no dockerd would send: an error each, no panic, no effect.

use super::golden::dialogues;
use super::{Plugin, is_success};
use axum::http::{Request, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tower::ServiceExt;

/// One request of every call that must have a body.
fn requests() -> BTreeMap<String, Vec<u8>> {
    let steps = dialogues().into_iter().flat_map(|(_, d)| d.steps);
    let requests: BTreeMap<_, _> = steps
        .filter(|step| step.request.is_some())
        .map(|step| (step.call.clone(), step.body().into_bytes()))
        .collect();
    assert_eq!(requests.len(), 18, "a call has no golden request");
    requests
}

fn both_keys(answer: &Value) -> bool {
    let text = |key| answer.get(key).and_then(Value::as_str).unwrap_or("");
    !text("Err").is_empty() && text("Err") == text("Error")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// dockerd repeats a call whose connection broke without its body.
#[tokio::test]
async fn a_repeat_that_lost_its_body_is_an_error_and_has_no_effect() {
    let plugin = Plugin::new();
    for (call, _) in requests() {
        for body in ["", "\n", " \r\n\t"] {
            let (status, answer) = plugin.send(&call, body).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{call} with {body:?}");
            assert!(both_keys(&answer), "{call}: {answer}");
        }
    }
    assert_eq!(plugin.journal.take(), Vec::<String>::new());
}

#[tokio::test]
async fn a_truncated_request_is_an_error_and_has_no_effect() {
    let plugin = Plugin::new();
    for (call, body) in requests() {
        // The last two bytes are the closing brace and the line feed.
        for end in 0..body.len() - 1 {
            let (status, answer) = plugin.send(&call, body[..end].to_vec()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{call} cut at {end}");
            assert!(both_keys(&answer), "{call}: {answer}");
        }
    }
    assert_eq!(plugin.journal.take(), Vec::<String>::new());
}

#[tokio::test]
async fn values_of_another_type_are_errors_and_have_no_effect() {
    let plugin = Plugin::new();
    for (call, _) in requests() {
        for body in ["null", "[]", "0", "\"x\"", "[{}]", "{} {}", "{]"] {
            let (status, answer) = plugin.send(&call, body).await;
            assert!(!is_success(status, &answer), "{call} with {body}: {answer}");
        }
    }
    assert_eq!(plugin.journal.take(), Vec::<String>::new());
}

/// An object without what the call is about is no request for defaults.
#[tokio::test]
async fn an_empty_object_is_an_error_where_the_call_is_about_something() {
    let plugin = Plugin::new();
    let about_nothing = [
        "NetworkDriver.DiscoverNew",
        "NetworkDriver.DiscoverDelete",
        "NetworkDriver.GwAllocCheck",
    ];
    for (call, _) in requests() {
        let (status, answer) = plugin.send(&call, "{}").await;
        let expected = about_nothing.contains(&call.as_str());
        assert_eq!(is_success(status, &answer), expected, "{call}: {answer}");
    }
    assert_eq!(plugin.journal.take(), Vec::<String>::new());
}

#[tokio::test]
async fn too_long_and_too_deep_bodies_are_errors() {
    let plugin = Plugin::new();
    let long = format!("{{\"NetworkID\":\"n\",\"x\":\"{}\"}}", "a".repeat(1 << 20));
    let (status, answer) = plugin.send("NetworkDriver.DeleteNetwork", long).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(both_keys(&answer));
    let deep = format!("{{\"NetworkID\":{}", "{\"a\":".repeat(150_000));
    let (status, answer) = plugin.send("NetworkDriver.DeleteNetwork", deep).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(both_keys(&answer));
    assert_eq!(plugin.journal.take(), Vec::<String>::new());
}

#[tokio::test]
async fn unknown_calls_and_other_verbs_are_answered_in_json() {
    let plugin = Plugin::new();
    let (status, answer) = plugin.send("NetworkDriver.Explode", "{}").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(both_keys(&answer));
    let get = Request::get("/Plugin.Activate")
        .body(axum::body::Body::empty())
        .unwrap();
    let response = plugin.router().oneshot(get).await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn names_that_could_leave_their_place_have_no_effect() {
    let plugin = Plugin::new();
    let long = "x".repeat(200);
    for id in [
        "../../etc/passwd",
        "a/b",
        "a\u{0}b",
        "a b",
        "\u{202e}x",
        "",
        &long,
    ] {
        for call in ["NetworkDriver.DeleteNetwork", "IpamDriver.ReleasePool"] {
            let body = json!({ "NetworkID": id, "PoolID": id }).to_string();
            let (status, answer) = plugin.send(call, body).await;
            assert!(!is_success(status, &answer), "{call} took {id:?}");
        }
    }
    assert_eq!(plugin.journal.take(), Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        block_on(async {
            let plugin = Plugin::new();
            for (call, _) in requests() {
                let (status, answer) = plugin.send(&call, bytes.clone()).await;
                assert!(!is_success(status, &answer), "{call}: {answer}");
                assert!(status.as_u16() < 500, "{call}: {answer}");
            }
            assert_eq!(plugin.journal.take(), Vec::<String>::new());
        });
    }

    /// A request with some bytes changed may still be a right one, so only panics are looked for.
    #[test]
    fn damaged_requests_break_nothing(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        block_on(async {
            let plugin = Plugin::new();
            for (call, mut body) in requests() {
                for (at, byte) in &changes {
                    let at = at.index(body.len());
                    body[at] = *byte;
                }
                let (status, answer) = plugin.send(&call, body).await;
                assert!(status.as_u16() < 500, "{call}: {answer}");
                assert!(is_success(status, &answer) || both_keys(&answer), "{call}: {answer}");
            }
        });
    }
}
