//! HTTP/1.1 as a client of a unix socket: one connection per request, bounded in time and size.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("the socket {socket} cannot be reached")]
    Connect {
        socket: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the exchange with {socket} broke")]
    Exchange {
        socket: String,
        #[source]
        source: hyper::Error,
    },
    #[error("the answer of {socket} could not be read")]
    Body {
        socket: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the answer of {socket} is longer than {limit} bytes")]
    TooLong { socket: String, limit: usize },
    #[error("{socket} did not answer within {after:?}")]
    TimedOut { socket: String, after: Duration },
}

/// A server behind a unix socket.
#[derive(Debug, Clone)]
pub(crate) struct UnixHttp {
    socket: PathBuf,
    /// For one exchange, answer's body included.
    timeout: Duration,
    /// Of an answer's body.
    bytes_max: usize,
}

/// The task that moves a connection's bytes; it ends with its owner.
#[derive(Debug)]
pub(crate) struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl UnixHttp {
    pub(crate) fn new(socket: &Path, timeout: Duration, bytes_max: usize) -> Self {
        Self {
            socket: socket.to_owned(),
            timeout,
            bytes_max,
        }
    }

    /// Sends a request and reads its whole answer.
    pub(crate) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), HttpError> {
        timeout(self.timeout, async {
            let (response, _connection) = self.send(request).await?;
            let status = response.status();
            let body = self.collect(response.into_body()).await?;
            Ok((status, body))
        })
        .await
        .unwrap_or_else(|_| Err(self.timed_out()))
    }

    /// Sends a request whose answer never ends; only its head is waited for.
    pub(crate) async fn open(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Connection), HttpError> {
        timeout(self.timeout, self.send(request))
            .await
            .unwrap_or_else(|_| Err(self.timed_out()))
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Connection), HttpError> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|source| HttpError::Connect {
                    socket: self.name(),
                    source,
                })?;
        let broke = |source| HttpError::Exchange {
            socket: self.name(),
            source,
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broke)?;
        // An error of the connection shows in the request or the body as well.
        let connection = Connection(tokio::spawn(async move {
            let _ = connection.await;
        }));
        let response = sender.send_request(request).await.map_err(broke)?;
        Ok((response, connection))
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, HttpError> {
        match Limited::new(body, self.bytes_max).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(HttpError::TooLong {
                socket: self.name(),
                limit: self.bytes_max,
            }),
            Err(source) => Err(HttpError::Body {
                socket: self.name(),
                source,
            }),
        }
    }

    fn timed_out(&self) -> HttpError {
        HttpError::TimedOut {
            socket: self.name(),
            after: self.timeout,
        }
    }

    fn name(&self) -> String {
        self.socket.display().to_string()
    }
}
