//! Docker's stream of events, as a hint that something may have changed.

use super::{ClientError, DockerClient, encoded, request};
use crate::http::Connection;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use serde_json::json;

/// Longer than any event; only line ends are looked for, so nothing is kept of a line but its length.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Events that change which endpoints exist or what they are called. Health checks and `exec` make
/// events every few seconds and are left out.
const WANTED: [&str; 9] = [
    "create",
    "start",
    "die",
    "destroy",
    "rename",
    "connect",
    "disconnect",
    "remove",
    "update",
];

/// An open stream.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    /// Whole lines that came and were not told of yet.
    lines: usize,
    /// Bytes of the line that is not whole yet.
    partial: usize,
    _connection: Connection,
}

impl Events {
    pub(super) async fn open(client: &DockerClient) -> Result<Self, ClientError> {
        let version = client.version().await?;
        let filters = json!({ "type": ["network", "container"], "event": WANTED }).to_string();
        let path = format!("{version}/events?filters={}", encoded(&filters));
        let (response, connection) = client.http.open(request(Method::GET, &path, None)?).await?;
        if !response.status().is_success() {
            return Err(ClientError::Refused {
                path: "/events".to_owned(),
                status: response.status(),
                message: "the stream of events was not opened".to_owned(),
            });
        }
        Ok(Self {
            body: response.into_body(),
            lines: 0,
            partial: 0,
            _connection: connection,
        })
    }

    /// Waits for an event. Several that came together are one hint. May be cancelled.
    pub(super) async fn next(&mut self) -> Result<(), ClientError> {
        let broke = |why: &str| ClientError::nonsense("/events", why);
        while self.lines == 0 {
            let frame = match self.body.frame().await {
                None => return Err(broke("the stream ended")),
                Some(Err(error)) => return Err(ClientError::nonsense("/events", error)),
                Some(Ok(frame)) => frame,
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            let ends = data.iter().filter(|byte| **byte == b'\n').count();
            let tail = data.iter().rev().take_while(|byte| **byte != b'\n').count();
            self.lines = self.lines.saturating_add(ends);
            self.partial = if ends == 0 {
                self.partial.saturating_add(tail)
            } else {
                tail
            };
            if self.partial > LINE_BYTES_MAX {
                return Err(broke("a line of the stream never ends"));
            }
        }
        self.lines = 0;
        Ok(())
    }
}
