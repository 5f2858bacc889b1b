//! A client of the local API.

use crate::cluster::{Cluster, ForgetHost, Forgotten, Host, Initialised, Nothing};
use crate::types::{
    Address, AuditReport, AuditRequest, CreateNetwork, Endpoint, ErrorBody, Network, Pool, Port,
    Removed, Reservation, Status, UninstallRequest,
};
use crate::{Method, openapi};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// An audit reads the whole kernel state and asks Docker; nothing takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A million addresses as JSON stay below it.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Why a call did not work, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error(
        "netloomd does not answer at {path}: start it (systemctl start netloomd), or name its \
         socket with --socket or NETLOOM_SOCKET"
    )]
    NotRunning {
        /// The socket's path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The socket's permissions exclude the caller.
    #[error("you may not speak to netloomd at {path}: use sudo, or join the socket's group")]
    NotAllowed {
        /// The socket's path.
        path: String,
    },
    /// The daemon refused; its text says why and what to do.
    #[error("{0}")]
    Refused(String),
    /// There is no such thing; the daemon's text says what was looked for.
    #[error("{0}")]
    NotFound(String),
    /// The connection broke, or the answer is not one.
    #[error("the answer of netloomd to {request} could not be read: {reason}")]
    Broken {
        /// Method and path.
        request: String,
        /// Why.
        reason: String,
    },
}

/// Speaks to one daemon. Every call opens a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon behind `socket`; nothing is opened yet.
    #[must_use]
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
        }
    }

    /// How the daemon is.
    ///
    /// # Errors
    /// See [`ClientError`]; the same for every call.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// All networks.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn networks(&self) -> Result<Vec<Network>, ClientError> {
        self.get("/v1/networks").await
    }

    /// One network, by id or name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn network(&self, id: &str) -> Result<Network, ClientError> {
        self.get(&format!("/v1/networks/{}", escape(id))).await
    }

    /// Makes a network through Docker's API.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_network(&self, wish: &CreateNetwork) -> Result<Network, ClientError> {
        self.post("/v1/networks", wish).await
    }

    /// Removes a network through Docker's API.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_network(&self, id: &str) -> Result<(), ClientError> {
        self.delete(&format!("/v1/networks/{}", escape(id))).await
    }

    /// All endpoints.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn endpoints(&self) -> Result<Vec<Endpoint>, ClientError> {
        self.get("/v1/endpoints").await
    }

    /// One endpoint, by id or by its container's name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn endpoint(&self, id: &str) -> Result<Endpoint, ClientError> {
        self.get(&format!("/v1/endpoints/{}", escape(id))).await
    }

    /// All published ports.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ports(&self) -> Result<Vec<Port>, ClientError> {
        self.get("/v1/ports").await
    }

    /// All pools.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pools(&self) -> Result<Vec<Pool>, ClientError> {
        self.get("/v1/pools").await
    }

    /// The addresses that are not free, of one pool or of all.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn addresses(&self, subnet: Option<&str>) -> Result<Vec<Address>, ClientError> {
        match subnet {
            Some(subnet) => {
                self.get(&format!("/v1/addresses?subnet={}", escape(subnet)))
                    .await
            }
            None => self.get("/v1/addresses").await,
        }
    }

    /// Keeps an address for somebody.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn reserve(&self, reservation: &Reservation) -> Result<(), ClientError> {
        let body = self.encode("/v1/reservations", reservation)?;
        self.call(Method::Post, "/v1/reservations", body)
            .await
            .map(drop)
    }

    /// Ends a reservation.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn unreserve(&self, ip: &str) -> Result<(), ClientError> {
        self.delete(&format!("/v1/reservations/{}", escape(ip)))
            .await
    }

    /// Compares records, journal, kernel and Docker.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn audit(&self, wish: AuditRequest) -> Result<AuditReport, ClientError> {
        self.post("/v1/audit", &wish).await
    }

    /// What is wrong with this host.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn doctor(&self) -> Result<AuditReport, ClientError> {
        self.get("/v1/doctor").await
    }

    /// Removes everything of ours from the kernel.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn uninstall(&self, wish: UninstallRequest) -> Result<Removed, ClientError> {
        self.post("/v1/uninstall", &wish).await
    }

    /// How the daemon's host stands to the store that it shares with others.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cluster(&self) -> Result<Cluster, ClientError> {
        self.get("/v1/cluster").await
    }

    /// Initialises the daemon's store, which must be empty.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn init_cluster(&self) -> Result<Initialised, ClientError> {
        self.post("/v1/cluster/init", &Nothing {}).await
    }

    /// All hosts on record.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn hosts(&self) -> Result<Vec<Host>, ClientError> {
        self.get("/v1/hosts").await
    }

    /// Declares a host gone for ever.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn forget_host(&self, wish: &ForgetHost) -> Result<Forgotten, ClientError> {
        self.post("/v1/hosts/forget", wish).await
    }

    /// The API's own description. It needs no daemon.
    #[must_use]
    pub fn openapi(&self) -> serde_json::Value {
        openapi()
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.call(Method::Get, path, Bytes::new()).await?;
        decode(path, &body)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        wish: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        let body = self
            .call(Method::Post, path, self.encode(path, wish)?)
            .await?;
        decode(path, &body)
    }

    async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.call(Method::Delete, path, Bytes::new())
            .await
            .map(drop)
    }

    fn encode(&self, path: &str, wish: &impl Serialize) -> Result<Bytes, ClientError> {
        serde_json::to_vec(wish)
            .map(Bytes::from)
            .map_err(|error| broken(path, error))
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let what = format!("{} {path}", method.name());
        match tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(broken(&what, "no answer within 60 seconds")),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        let what = format!("{} {path}", method.name());
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|e| self.unreachable(e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&what, error))?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method.name())
            .uri(path)
            .header("Host", "netloomd")
            .header("Content-Type", "application/json")
            .body(Full::new(body))
            .map_err(|error| broken(&what, error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&what, error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| broken(&what, error))?
            .to_bytes();
        driver.abort();
        accept(&what, status, body)
    }

    fn unreachable(&self, source: std::io::Error) -> ClientError {
        let path = self.socket.display().to_string();
        match source.kind() {
            std::io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path },
            _ => ClientError::NotRunning { path, source },
        }
    }
}

fn accept(what: &str, status: StatusCode, body: Bytes) -> Result<Bytes, ClientError> {
    if status.is_success() {
        return Ok(body);
    }
    let Ok(ErrorBody { error: text }) = serde_json::from_slice(&body) else {
        return Err(broken(
            what,
            format!("status {status} without an explanation"),
        ));
    };
    Err(match status {
        StatusCode::NOT_FOUND => ClientError::NotFound(text),
        _ => ClientError::Refused(text),
    })
}

fn decode<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| broken(path, error))
}

fn broken(request: &str, reason: impl std::fmt::Display) -> ClientError {
    ClientError::Broken {
        request: request.to_owned(),
        reason: reason.to_string(),
    }
}

/// Percent-encodes what could end a path segment or a query (RFC 3986, section 2.3 lists what may
/// stay).
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out_of_its_path_segment() {
        assert_eq!(escape("../status?x#y z"), "..%2Fstatus%3Fx%23y%20z");
        assert_eq!(escape("10.9.0.0/16"), "10.9.0.0%2F16");
    }

    #[test]
    fn error_answers_keep_their_class() {
        let body = || Bytes::from_static(br#"{"error":"there is no network blue"}"#);
        let missing = accept("GET /", StatusCode::NOT_FOUND, body());
        assert!(matches!(missing, Err(ClientError::NotFound(_))));
        let refused = accept("GET /", StatusCode::CONFLICT, body());
        assert!(matches!(refused, Err(ClientError::Refused(_))));
        let odd = accept(
            "GET /",
            StatusCode::BAD_GATEWAY,
            Bytes::from_static(b"<html>"),
        );
        assert!(matches!(odd, Err(ClientError::Broken { .. })));
    }

    #[tokio::test]
    async fn a_missing_daemon_is_named_with_the_next_step() {
        let directory = tempfile::tempdir().unwrap();
        let client = Client::new(directory.path().join("api.sock"));
        let error = client.status().await.unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }));
        assert!(error.to_string().contains("systemctl start netloomd"));
    }
}
