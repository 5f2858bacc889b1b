//! Stands between dockerd and a plugin, and writes down what they say.

use super::{Exchange, RecordingHeader};
use crate::http::UnixHttp;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UnixListener;

/// As the plugin's own bound.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Longer than the plugin's own deadline, so that its answer is what dockerd gets.
const PATIENCE: Duration = Duration::from_secs(60);

/// A plugin that asks another plugin and keeps the minutes.
#[derive(Debug)]
pub struct RecordingProxy {
    listener: UnixListener,
    forward: Forward,
}

#[derive(Clone)]
struct Forward {
    plugin: UnixHttp,
    minutes: Arc<Mutex<dyn Write + Send>>,
}

impl core::fmt::Debug for Forward {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Forward")
            .field("plugin", &self.plugin)
            .finish_non_exhaustive()
    }
}

impl RecordingProxy {
    /// A proxy that answers on `listener` what the plugin behind the socket `plugin` answers, and
    /// writes the header now and a line per call to `minutes`.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn new(
        listener: UnixListener,
        plugin: &Path,
        header: &RecordingHeader,
        minutes: impl Write + Send + 'static,
    ) -> std::io::Result<Self> {
        let mut minutes = minutes;
        writeln!(minutes, "{}", serde_json::to_string(header)?)?;
        Ok(Self {
            listener,
            forward: Forward {
                plugin: UnixHttp::new(plugin, PATIENCE, BODY_BYTES_MAX),
                minutes: Arc::new(Mutex::new(minutes)),
            },
        })
    }

    /// Serves until the listener fails; drop the future to end it.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run(self) -> std::io::Result<()> {
        let router = Router::new().fallback(forward).with_state(self.forward);
        axum::serve(self.listener, router).await
    }
}

async fn forward(State(forward): State<Forward>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let method = parts.method.to_string();
    let path = parts.uri.path().to_owned();
    let (status, bytes) = match axum::body::to_bytes(body, BODY_BYTES_MAX).await {
        Err(_) => failed("the request broke on its way to the recording proxy"),
        Ok(body) => {
            // The client writes its own length; a copy of the old one would be a second.
            parts.headers.remove(header::CONTENT_LENGTH);
            parts.headers.remove(header::TRANSFER_ENCODING);
            let request = json_of(&body);
            let sent = hyper::Request::from_parts(parts, Full::new(body));
            let (status, bytes) = match forward.plugin.exchange(sent).await {
                Ok(answer) => answer,
                Err(error) => failed(&error.to_string()),
            };
            let exchange = Exchange {
                method,
                path,
                request,
                status: status.as_u16(),
                response: json_of(&bytes).unwrap_or(Value::Null),
            };
            if let Err(error) = write(&forward, &exchange) {
                tracing::error!(%error, "a call was not recorded");
            }
            (status, bytes)
        }
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response
}

fn write(forward: &Forward, exchange: &Exchange) -> std::io::Result<()> {
    let line = serde_json::to_string(exchange)?;
    let mut minutes = forward
        .minutes
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    writeln!(minutes, "{line}")?;
    minutes.flush()
}

/// JSON where it is JSON, the text as it stands where it is not, nothing where there is nothing.
fn json_of(bytes: &Bytes) -> Option<Value> {
    if bytes.is_empty() {
        return None;
    }
    let json = serde_json::from_slice(bytes).ok();
    json.or_else(|| Some(Value::String(String::from_utf8_lossy(bytes).into_owned())))
}

fn failed(text: &str) -> (StatusCode, Bytes) {
    let body = json!({ "Err": text, "Error": text }).to_string();
    (StatusCode::BAD_GATEWAY, Bytes::from(body))
}
