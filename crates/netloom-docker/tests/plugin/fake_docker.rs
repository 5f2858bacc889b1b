//! A Docker daemon made of files.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Bytes, Frame};
use netloom_docker::{ClientSettings, DockerClient};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Answers by method and path, without the version and the query.
pub(crate) type Answers = BTreeMap<String, (u16, String)>;

/// What clients send, and where their events come from.
#[derive(Debug, Clone, Default)]
struct Seen {
    asked: Arc<Mutex<Vec<String>>>,
    streams: Arc<Mutex<Vec<UnboundedSender<Bytes>>>>,
}

pub(crate) struct FakeDocker {
    dir: TempDir,
    seen: Seen,
}

/// A body that is written while it is read.
struct Stream(UnboundedReceiver<Bytes>);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.0.poll_recv(context);
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl FakeDocker {
    pub(crate) fn start(answers: Answers) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let seen = Seen::default();
        let shared = seen.clone();
        let router = Router::new().fallback(move |request: Request| {
            let (answers, seen) = (answers.clone(), shared.clone());
            async move { answer(&answers, &seen, request).await }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { dir, seen }
    }

    pub(crate) fn client(&self) -> DockerClient {
        client(&self.dir.path().join("docker.sock"), Duration::from_secs(5))
    }

    /// The calls that change something.
    pub(crate) fn changes(&self) -> Vec<String> {
        let asked = self.seen.asked.lock().unwrap();
        asked
            .iter()
            .filter(|call| !call.starts_with("GET"))
            .cloned()
            .collect()
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.seen.asked.lock().unwrap().clone()
    }

    /// Writes to every open stream of events.
    pub(crate) fn emit(&self, text: &str) {
        for stream in self.seen.streams.lock().unwrap().iter() {
            let _ = stream.send(Bytes::from(text.to_owned()));
        }
    }

    /// Ends every open stream of events.
    pub(crate) fn end_events(&self) {
        self.seen.streams.lock().unwrap().clear();
    }
}

pub(crate) fn client(socket: &Path, timeout: Duration) -> DockerClient {
    let mut settings = ClientSettings::default();
    settings.socket = socket.to_owned();
    settings.timeout = timeout;
    DockerClient::new(&settings)
}

async fn answer(answers: &Answers, seen: &Seen, request: Request) -> Response {
    let method = request.method().clone();
    let uri = request.uri().clone();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
    let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
    let call = format!("{method} {uri} {body}");
    seen.asked.lock().unwrap().push(call.trim().to_owned());
    let path = match uri.path().strip_prefix("/v1.") {
        Some(rest) => rest.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => uri.path(),
    };
    if path == "/events" {
        let (sender, receiver) = unbounded_channel();
        seen.streams.lock().unwrap().push(sender);
        return Response::new(Body::new(Stream(receiver)));
    }
    let missing = (404, "{\"message\":\"no such thing\"}".to_owned());
    let found = answers.get(&format!("{method} {path}"));
    let (status, body) = found.cloned().unwrap_or(missing);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// What a real daemon answered, ids numbered: `GET_networks_ID.json` is `GET /networks/ID`.
pub(crate) fn on_file(version: &str) -> Answers {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/docker")
        .join(version);
    let mut answers = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let (method, rest) = name.split_once('_').unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        answers.insert(format!("{method} /{}", rest.replace('_', "/")), (200, text));
    }
    answers
}
