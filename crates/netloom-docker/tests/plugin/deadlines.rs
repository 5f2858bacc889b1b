//! dockerd waits for ever, so nobody lets it wait.

use super::Plugin;
use super::socket::serve;
use axum::body::Body;
use axum::http::StatusCode;
use hyper::body::{Body as HttpBody, Bytes, Frame};
use netloom_docker::{CallObserver, CallOutcome};
use serde_json::json;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

/// Long enough for an error to be built, short enough for a test.
const SOON: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<(&'static str, CallOutcome)>>);

impl CallObserver for Seen {
    fn finished(&self, method: &'static str, outcome: CallOutcome, _elapsed: Duration) {
        self.0.lock().unwrap().push((method, outcome));
    }
}

/// A body of which nothing ever comes.
struct Stuck;

impl HttpBody for Stuck {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

fn plugin() -> (Plugin, Arc<Seen>) {
    let mut plugin = Plugin::new();
    let seen = Arc::new(Seen::default());
    plugin.state.settings.deadline = SOON;
    plugin.state.observer = seen.clone();
    (plugin, seen)
}

/// The next effects behind the edge; a test that waits for what never comes fails.
async fn effects(plugin: &Plugin, count: usize) -> Vec<String> {
    let mut effects = Vec::new();
    let waiting = async {
        while effects.len() < count {
            effects.extend(plugin.journal.take());
            tokio::task::yield_now().await;
        }
    };
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, waiting)
        .await
        .expect("the work was not done");
    effects
}

const POOL: &str = r#"{"AddressSpace":"NetloomLocal","Pool":"10.9.0.0/16"}"#;

#[tokio::test]
async fn a_call_that_hangs_is_answered_with_an_error() {
    let (plugin, seen) = plugin();
    plugin.ipam.gate.forget_permits(usize::MAX);
    let (status, answer) = plugin.send("IpamDriver.RequestPool", POOL).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        answer["Error"]
            .as_str()
            .unwrap()
            .contains("in the background")
    );
    let outcome = ("IpamDriver.RequestPool", CallOutcome::TimedOut);
    assert_eq!(*seen.0.lock().unwrap(), [outcome]);
}

/// Nobody knows the reference of a pool whose request was answered with an error.
#[tokio::test]
async fn late_work_is_finished_and_its_pool_given_back() {
    let (plugin, _) = plugin();
    plugin.ipam.gate.forget_permits(usize::MAX);
    plugin.send("IpamDriver.RequestPool", POOL).await;
    assert_eq!(plugin.journal.take(), Vec::<String>::new());
    plugin.ipam.gate.add_permits(1);
    let effects = effects(&plugin, 2).await;
    assert!(effects[0].starts_with("request_pool"), "{effects:?}");
    assert_eq!(effects[1], "release_pool pool-0");
}

/// dockerd dies while it waits; half a change would be worse than a whole one that nobody heard of.
#[tokio::test]
async fn a_caller_that_hangs_up_does_not_stop_the_work() {
    let plugin = Plugin::new();
    plugin.ipam.gate.forget_permits(usize::MAX);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("netloom.sock");
    let server = serve(&plugin, &path);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let length = POOL.len();
    let request = format!(
        "POST /IpamDriver.RequestPool HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{POOL}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    while plugin.ipam.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    drop(stream);
    // The server notices by reading the end of the stream.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    plugin.ipam.gate.add_permits(1);
    let effects = effects(&plugin, 1).await;
    server.abort();
    assert!(effects[0].starts_with("request_pool"), "{effects:?}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (plugin, seen) = plugin();
    let (status, _) = plugin
        .send("IpamDriver.ReleasePool", Body::new(Stuck))
        .await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    let outcome = ("IpamDriver.ReleasePool", CallOutcome::Malformed);
    assert_eq!(*seen.0.lock().unwrap(), [outcome]);
}

#[tokio::test]
async fn a_panic_behind_the_edge_is_an_answer() {
    let (plugin, seen) = plugin();
    let options = json!({"com.docker.network.generic": {"netloom.panic": "now"}});
    let body = json!({"NetworkID": "n1", "Options": options}).to_string();
    let (status, answer) = plugin.send("NetworkDriver.CreateNetwork", body).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer["Err"], answer["Error"]);
    let outcome = ("NetworkDriver.CreateNetwork", CallOutcome::Broken);
    assert_eq!(*seen.0.lock().unwrap(), [outcome]);
}
