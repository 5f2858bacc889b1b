//! What the local API asks Docker to do: make and remove networks. Never used by a plugin call.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Docker makes a network by asking us back several times, each within our own deadline.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Answers to these requests have some hundred bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why Docker did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DockerError {
    /// It was not reached, or broke off.
    #[error("Docker does not answer at {socket}: is it running? (`systemctl status docker`)")]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It refused.
    #[error("Docker refused: {message}")]
    Refused { status: StatusCode, message: String },
}

/// Docker's API, for changes.
#[derive(Debug, Clone)]
pub(crate) struct DockerAdmin {
    socket: PathBuf,
    plugin: String,
}

/// One subnet of a network to be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct SubnetWish {
    pub(crate) subnet: String,
    pub(crate) gateway: Option<String>,
    pub(crate) range: Option<String>,
}

/// A network to be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkWish {
    pub(crate) name: String,
    pub(crate) subnets: Vec<SubnetWish>,
    pub(crate) flags: NetworkFlags,
    pub(crate) options: std::collections::BTreeMap<String, String>,
}

/// Docker's own switches of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NetworkFlags {
    pub(crate) reach: netloom_core::Reach,
    pub(crate) ipv6: Ipv6,
}

/// Whether a network has IPv6.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Ipv6 {
    /// It has IPv4 alone.
    #[default]
    Without,
    /// It has both.
    With,
}

/// Docker's settings that we go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuntimeWays {
    pub(crate) live_restore: LiveRestore,
}

/// Whether containers go on while Docker restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LiveRestore {
    On,
    Off,
    /// It did not say.
    Unknown,
}

impl DockerAdmin {
    pub(crate) fn new(socket: &Path, plugin: &str) -> Self {
        Self {
            socket: socket.to_owned(),
            plugin: plugin.to_owned(),
        }
    }

    /// Docker's version.
    pub(crate) async fn version(&self) -> Result<String, DockerError> {
        let answer = self.call(Method::GET, "/version", None).await?;
        let version = answer.get("Version").and_then(Value::as_str);
        Ok(version.unwrap_or("unknown").to_owned())
    }

    /// Docker's settings that we go by.
    pub(crate) async fn ways(&self) -> Result<RuntimeWays, DockerError> {
        let answer = self.call(Method::GET, "/info", None).await?;
        let live_restore = match answer.get("LiveRestoreEnabled").and_then(Value::as_bool) {
            Some(true) => LiveRestore::On,
            Some(false) => LiveRestore::Off,
            None => LiveRestore::Unknown,
        };
        Ok(RuntimeWays { live_restore })
    }

    /// Makes a network and gives its id.
    pub(crate) async fn create_network(&self, wish: &NetworkWish) -> Result<String, DockerError> {
        let configs: Vec<Value> = wish
            .subnets
            .iter()
            .map(|subnet| {
                let mut config = json!({ "Subnet": subnet.subnet });
                if let Value::Object(fields) = &mut config {
                    let extra = [("Gateway", &subnet.gateway), ("IPRange", &subnet.range)];
                    for (key, value) in extra {
                        if let Some(value) = value {
                            fields.insert(key.to_owned(), json!(value));
                        }
                    }
                }
                config
            })
            .collect();
        let body = json!({
            "Name": wish.name,
            "CheckDuplicate": true,
            "Driver": self.plugin,
            "Internal": wish.flags.reach == netloom_core::Reach::Internal,
            "EnableIPv6": wish.flags.ipv6 == Ipv6::With,
            "IPAM": { "Driver": self.plugin, "Config": configs },
            "Options": wish.options,
        });
        let answer = self
            .call(Method::POST, "/networks/create", Some(&body))
            .await?;
        let id = answer.get("Id").and_then(Value::as_str);
        id.map(str::to_owned).ok_or_else(|| DockerError::Refused {
            status: StatusCode::OK,
            message: "its answer names no network id".into(),
        })
    }

    /// Removes a network by its id.
    pub(crate) async fn remove_network(&self, id: &str) -> Result<(), DockerError> {
        let path = format!("/networks/{id}");
        self.call(Method::DELETE, &path, None).await.map(drop)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, DockerError> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| {
            let socket = self.socket.clone();
            DockerError::Unreachable { socket, source }
        };
        let (status, bytes) = tokio::time::timeout(TIMEOUT, self.exchange(method, path, body))
            .await
            .map_err(|elapsed| unreachable(elapsed.into()))?
            .map_err(unreachable)?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer.get("message").and_then(Value::as_str);
        Err(DockerError::Refused {
            status,
            message: message.unwrap_or("without saying why").to_owned(),
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driving = tokio::spawn(connection);
        let text = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "docker")
            .header("Content-Type", "application/json")
            .body(Full::new(Bytes::from(text)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await?
            .to_bytes();
        driving.abort();
        Ok((status, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Json;
    use axum::routing::{get, post};

    #[tokio::test]
    async fn a_network_is_asked_for_in_dockers_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let app = axum::Router::new()
            .route(
                "/version",
                get(|| async { Json(json!({"Version": "28.5"})) }),
            )
            .route(
                "/info",
                get(|| async { Json(json!({"LiveRestoreEnabled": true})) }),
            )
            .route(
                "/networks/create",
                post(|Json(body): Json<Value>| async move {
                    if body["Name"] == "taken" {
                        let error = json!({"message": "network with name taken already exists"});
                        return (StatusCode::CONFLICT, Json(error));
                    }
                    assert_eq!(body["IPAM"]["Config"][0]["Gateway"], "10.1.0.1");
                    assert_eq!(body["IPAM"]["Driver"], "nl2");
                    assert!(body["IPAM"]["Config"][0].get("IPRange").is_none());
                    (StatusCode::CREATED, Json(json!({"Id": "abc"})))
                }),
            );
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        let docker = DockerAdmin::new(&path, "nl2");
        assert_eq!(docker.version().await.unwrap(), "28.5");
        let ways = docker.ways().await.unwrap();
        assert_eq!(ways.live_restore, LiveRestore::On);
        let mut wish = NetworkWish {
            name: "a".into(),
            subnets: vec![SubnetWish {
                subnet: "10.1.0.0/24".into(),
                gateway: Some("10.1.0.1".into()),
                range: None,
            }],
            ..NetworkWish::default()
        };
        assert_eq!(docker.create_network(&wish).await.unwrap(), "abc");
        wish.name = "taken".into();
        let error = docker.create_network(&wish).await.unwrap_err();
        assert!(error.to_string().contains("already exists"), "{error}");
        server.abort();
    }

    #[tokio::test]
    async fn a_docker_that_is_not_there_is_named() {
        let docker = DockerAdmin::new(Path::new("/nonexistent/docker.sock"), "netloom");
        let error = docker.version().await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/docker.sock"));
    }
}
