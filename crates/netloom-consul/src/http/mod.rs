//! HTTP/1.1 to any of several servers, with one promise: a request is never sent twice unless the
//! caller allows it, and a failure says whether anything can have left.

mod answer;
mod dial;
mod pool;
mod token;

pub(crate) use answer::Answer;

use bytes::Bytes;
use dial::Dialer;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use netloom_core::{Login, RemoteStoreConfig, StoreEndpoint};
use pool::{Idle, Pool};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use token::Token;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Any error.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Requests under way at once, long polls not counted. Consul refuses more than 200 connections
/// from one address; the rest is left to watches and to other programs on this host.
const AT_ONCE_MAX: usize = 64;

/// A request without an answer.
#[derive(Debug, thiserror::Error)]
#[error("{server}: {source}")]
pub(crate) struct Failed {
    pub(crate) sent: Sent,
    server: String,
    source: BoxError,
}

/// What may have left of a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Not a byte: it certainly did not happen.
    Nothing,
    /// Nobody knows.
    Maybe,
}

/// Whether a request may be sent again, to another server, when its outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes something.
    Never,
    /// It only reads.
    Freely,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// With the query behind it.
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) repeat: Repeat,
    /// Of the answer's body.
    pub(crate) bytes_max: usize,
}

/// What one answer about one key or one transaction may weigh: above Consul's own limit of
/// 512 KiB for a value, which base64 makes a third larger.
const ANSWER_BYTES_MAX: usize = 2 << 20;

impl Call {
    /// A read of something small.
    pub(crate) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            body: Bytes::new(),
            repeat: Repeat::Freely,
            bytes_max: ANSWER_BYTES_MAX,
        }
    }

    /// A change.
    pub(crate) fn put(path: String, body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::PUT,
            body: body.into(),
            repeat: Repeat::Never,
            ..Self::get(path)
        }
    }
}

/// Several servers of one cluster.
#[derive(Debug)]
pub(crate) struct Client {
    servers: Vec<Pool>,
    /// The number of the server that answered last; the next request starts there.
    preferred: AtomicUsize,
    dialer: Dialer,
    token: Token,
    timeout: Duration,
    at_once: Semaphore,
}

impl Client {
    /// A client; it reads the files once to see that they are there, and connects to nothing yet.
    pub(crate) async fn open(config: &RemoteStoreConfig) -> Result<Self, BoxError> {
        let token = match &config.login {
            Login::Nobody => Token::none(),
            Login::Token { token_file } => Token::in_file(token_file.clone()),
            Login::Password { .. } => return Err("Consul knows tokens, not passwords".into()),
        };
        token.reload().await?;
        let dialer = Dialer::new(config.url.transport, config.tls.clone());
        dialer.check().await?;
        let servers = config.url.endpoints.iter().cloned().map(Pool::new);
        Ok(Self {
            servers: servers.collect(),
            preferred: AtomicUsize::new(0),
            dialer,
            token,
            timeout: config.timeout,
            at_once: Semaphore::new(AT_ONCE_MAX),
        })
    }

    /// Reads the token's file again; whether it held another one.
    pub(crate) async fn token_changed(&self) -> bool {
        self.token.reload().await.unwrap_or(false)
    }

    /// The answer of the first server that gives one, within the time for one operation.
    pub(crate) async fn call(&self, call: &Call) -> Result<Answer, Failed> {
        let end = Instant::now() + self.timeout;
        // The semaphore is never closed: only the time can be over.
        let Ok(Ok(_permit)) = timeout_at(end, self.at_once.acquire()).await else {
            return Err(nothing("here", "too many requests are under way"));
        };
        let answer = self.anywhere(call, end).await?;
        // Refused before anything happened: a token that was changed meanwhile gets its try.
        if answer.status == StatusCode::FORBIDDEN && self.token_changed().await {
            return self.anywhere(call, end).await;
        }
        Ok(answer)
    }

    /// A long poll: the server may keep silent for `wait` before the time for one operation runs.
    pub(crate) async fn wait(&self, call: &Call, wait: Duration) -> Result<Answer, Failed> {
        let call = Call {
            repeat: Repeat::Never,
            ..call.clone()
        };
        let answer = self
            .anywhere(&call, Instant::now() + wait + self.timeout)
            .await?;
        if answer.status == StatusCode::FORBIDDEN {
            // For the next one.
            self.token_changed().await;
        }
        Ok(answer)
    }

    async fn anywhere(&self, call: &Call, end: Instant) -> Result<Answer, Failed> {
        let count = self.servers.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = Err(nothing("here", "no server is named"));
        for turn in 0..count {
            let number = first.wrapping_add(turn) % count.max(1);
            let Some(server) = self.servers.get(number) else {
                break;
            };
            last = self.at(server, call, (end, count - turn)).await;
            let goes_on = match &last {
                Ok(answer) => {
                    answer.nothing_happened()
                        || (answer.status.is_server_error() && call.repeat == Repeat::Freely)
                }
                Err(failed) => failed.sent == Sent::Nothing || call.repeat == Repeat::Freely,
            };
            let healthy = last.is_ok() && !goes_on;
            let next = if healthy { number } else { number + 1 };
            self.preferred.store(next % count, Ordering::Relaxed);
            if !goes_on {
                break;
            }
        }
        last
    }

    /// Asks one server; `left` servers, this one included, share the time that is left.
    async fn at(
        &self,
        server: &Pool,
        call: &Call,
        (end, left): (Instant, usize),
    ) -> Result<Answer, Failed> {
        let name = server.endpoint.to_string();
        let rest = end.saturating_duration_since(Instant::now());
        let left = u32::try_from(left).unwrap_or(u32::MAX).max(1);
        let share = Instant::now() + rest.min(self.timeout) / left;
        let reply_by = match call.repeat {
            Repeat::Never => end,
            Repeat::Freely => share,
        };
        loop {
            let (mut idle, is_new) = match server.take() {
                Some(idle) => (idle, false),
                None => (self.connect(server, share).await?, true),
            };
            let request = self
                .request(&server.endpoint, call)
                .map_err(|error| nothing(&name, error))?;
            match timeout_at(reply_by, exchange(&mut idle, request, call.bytes_max)).await {
                Ok(Exchanged::Answer(answer)) => {
                    server.put_back(idle);
                    return Ok(answer);
                }
                // A connection that died while nobody used it; another one may live.
                Ok(Exchanged::NotSent(_)) if !is_new => {}
                Ok(Exchanged::NotSent(error)) => return Err(nothing(&name, error)),
                Ok(Exchanged::Broke(error)) => return Err(maybe(&name, error)),
                Err(_) => {
                    // Whatever silenced this connection may have silenced its neighbours.
                    server.forget_idle();
                    return Err(maybe(&name, "it did not answer in time"));
                }
            }
        }
    }

    /// A new connection; with it the token is read anew.
    async fn connect(&self, server: &Pool, by: Instant) -> Result<Idle, Failed> {
        let name = server.endpoint.to_string();
        let dialled = async {
            self.token.reload().await?;
            self.dialer.dial(&server.endpoint).await
        };
        match timeout_at(by, dialled).await {
            Ok(Ok(idle)) => Ok(idle),
            Ok(Err(error)) => Err(nothing(&name, error)),
            Err(_) => Err(nothing(&name, "it did not accept a connection in time")),
        }
    }

    fn request(
        &self,
        endpoint: &StoreEndpoint,
        call: &Call,
    ) -> Result<Request<Full<Bytes>>, BoxError> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(&call.path)
            .header(header::HOST, endpoint.to_string())
            .body(Full::new(call.body.clone()))?;
        if let Some(token) = self.token.current() {
            request.headers_mut().insert("x-consul-token", token);
        }
        Ok(request)
    }
}

/// What became of a request on one connection.
enum Exchanged {
    Answer(Answer),
    /// hyper gave the request back: not a byte of it was written.
    NotSent(hyper::Error),
    Broke(BoxError),
}

async fn exchange(idle: &mut Idle, request: Request<Full<Bytes>>, bytes_max: usize) -> Exchanged {
    if let Err(error) = idle.sender.ready().await {
        return Exchanged::NotSent(error);
    }
    match idle.sender.try_send_request(request).await {
        Ok(response) => match collect(response, bytes_max).await {
            Ok(answer) => Exchanged::Answer(answer),
            Err(error) => Exchanged::Broke(error),
        },
        Err(mut error) => match error.take_message() {
            Some(_) => Exchanged::NotSent(error.into_error()),
            None => Exchanged::Broke(error.into_error().into()),
        },
    }
}

async fn collect(response: Response<Incoming>, bytes_max: usize) -> Result<Answer, BoxError> {
    let (head, body) = response.into_parts();
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(Answer::new(&head, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(format!("it answers with more than {bytes_max} bytes").into())
        }
        Err(error) => Err(error),
    }
}

fn nothing(server: &str, source: impl Into<BoxError>) -> Failed {
    Failed {
        sent: Sent::Nothing,
        server: server.to_owned(),
        source: source.into(),
    }
}

fn maybe(server: &str, source: impl Into<BoxError>) -> Failed {
    Failed {
        sent: Sent::Maybe,
        ..nothing(server, source)
    }
}
