//! A small client of Docker's API: what audits compare with, and the pinning of addresses.
//!
//! It is never used while a plugin call is answered: dockerd may hold the lock that its own API
//! needs for an answer.

mod events;
mod pin;
mod view;
mod words;

use crate::http::{HttpError, UnixHttp};
use crate::wire::Object;
use async_trait::async_trait;
use bytes::Bytes;
use events::Events;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, header};
use netloom_core::{Runtime, RuntimeError, RuntimeNetwork};
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Mutex;

/// Docker answers lists of thousands of containers within a second; a stuck daemon never does.
const TIMEOUT: Duration = Duration::from_secs(20);
/// A container's entry in a list has about 3 KiB: this is room for more than ten thousand.
const BYTES_MAX: usize = 64 << 20;

/// How the client finds Docker, and its own networks there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientSettings {
    /// Docker's socket.
    pub socket: PathBuf,
    /// The plugin's name: what stands behind `-d` and `--ipam-driver`.
    pub plugin: String,
    /// For one request.
    pub timeout: Duration,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/docker.sock"),
            plugin: "netloom".to_owned(),
            timeout: TIMEOUT,
        }
    }
}

/// Docker's API on its unix socket.
#[derive(Debug)]
pub struct DockerClient {
    http: UnixHttp,
    plugin: String,
    events: Mutex<Option<Events>>,
}

/// A request to Docker failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("Docker's answer to {path} is not what its API promises")]
    Nonsense {
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("Docker answers {path} with status {status}: {message}")]
    Refused {
        path: String,
        status: StatusCode,
        message: String,
    },
    #[error("{0}")]
    Unfit(String),
}

impl ClientError {
    pub(crate) fn nonsense(
        path: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Nonsense {
            path: path.to_owned(),
            source: source.into(),
        }
    }

    /// Whether Docker does not know what the path names.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

impl DockerClient {
    /// A client; nothing is sent yet.
    #[must_use]
    pub fn new(settings: &ClientSettings) -> Self {
        Self {
            http: UnixHttp::new(&settings.socket, settings.timeout, BYTES_MAX),
            plugin: settings.plugin.clone(),
            events: Mutex::default(),
        }
    }

    /// A client of the daemon behind `socket`, with the plugin's usual name.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self::new(&ClientSettings {
            socket: socket.to_owned(),
            ..ClientSettings::default()
        })
    }

    /// The version to speak. It is asked for anew for every list: the daemon may have been
    /// replaced by an older or a newer one meanwhile.
    async fn version(&self) -> Result<words::ApiVersion, ClientError> {
        let path = "/version";
        let Object(version): Object<words::Version> = self.get(path).await?;
        words::negotiate(&version).map_err(ClientError::Unfit)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.call(Method::GET, path, None).await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::nonsense(path, error))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Bytes, ClientError> {
        let request = request(method, path, body)?;
        let (status, bytes) = self.http.exchange(request).await?;
        if status.is_success() {
            return Ok(bytes);
        }
        Err(ClientError::Refused {
            path: path.to_owned(),
            status,
            message: words::message(&bytes),
        })
    }
}

fn request(
    method: Method,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<Request<Full<Bytes>>, ClientError> {
    let bytes = body.map(|value| Bytes::from(value.to_string()));
    Request::builder()
        .method(method)
        .uri(path)
        // Go's server demands a host; its value is of no interest on a unix socket.
        .header(header::HOST, "docker")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(bytes.unwrap_or_default()))
        .map_err(|error| ClientError::nonsense(path, error))
}

/// Percent-encodes what is not unreserved (RFC 3986 section 2.3): a name in a path, a filter.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn failed(what: &str, source: ClientError) -> RuntimeError {
    RuntimeError {
        what: format!("{what}; check that the Docker daemon runs and its socket is readable"),
        source: Some(Box::new(source)),
    }
}

#[async_trait]
impl Runtime for DockerClient {
    async fn networks(&self) -> Result<Vec<RuntimeNetwork>, RuntimeError> {
        view::networks(self)
            .await
            .map_err(|error| failed("Docker's networks could not be listed", error))
    }

    /// The first call, and the first after an error, returns at once: what happened before the
    /// stream of events began may have been missed by the last list.
    async fn changed(&self) -> Result<(), RuntimeError> {
        let mut events = self.events.lock().await;
        let result = match events.as_mut() {
            None => Events::open(self)
                .await
                .map(|opened| *events = Some(opened)),
            Some(open) => open.next().await,
        };
        result.map_err(|error| {
            *events = None;
            failed("Docker's events could not be followed", error)
        })
    }

    async fn pin(&self, container: &str, network: &str, ip: IpAddr) -> Result<(), RuntimeError> {
        pin::pin(self, container, network, ip)
            .await
            .map_err(|error| RuntimeError {
                what: format!("{ip} was not pinned to the container {container:?}"),
                source: Some(Box::new(error)),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(encoded("web-1.a_b~c"), "web-1.a_b~c");
        assert_eq!(encoded("../x?y=z/%"), "..%2Fx%3Fy%3Dz%2F%25");
        assert_eq!(encoded("\u{e9} "), "%C3%A9%20");
    }
}
