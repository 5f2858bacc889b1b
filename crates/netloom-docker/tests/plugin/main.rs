//! Both plugin protocols from outside: requests as dockerd writes them, fakes behind the edge.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic, as the tests do"
)]

mod deadlines;
mod fake_docker;
mod fakes;
mod golden;
mod hostile;
mod recordings;
mod runtime;
mod socket;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use fakes::{FakeController, FakeIpam, Journal};
use netloom_docker::{PluginState, router};
use serde_json::Value;
use std::sync::Arc;
use tower::ServiceExt;

/// A plugin whose controller and IPAM are made of memory.
struct Plugin {
    state: PluginState,
    journal: Journal,
    ipam: Arc<FakeIpam>,
}

impl Plugin {
    fn new() -> Self {
        let journal = Journal::default();
        let controller = Arc::new(FakeController::new(journal.clone()));
        let ipam = Arc::new(FakeIpam::new(journal.clone()));
        Self {
            state: PluginState::new(controller, ipam.clone()),
            journal,
            ipam,
        }
    }

    fn router(&self) -> Router {
        router(self.state.clone())
    }

    /// Sends a body as dockerd does: POST, no content type.
    async fn send(&self, call: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let request = Request::post(format!("/{call}")).body(body.into()).unwrap();
        let response = self.router().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap();
        let value = serde_json::from_slice(&bytes).expect("every answer is JSON");
        (status, value)
    }
}

/// Whether Docker would take an answer for a success.
fn is_success(status: StatusCode, answer: &Value) -> bool {
    let silent = |key| match answer.get(key) {
        Some(Value::String(text)) => text.is_empty(),
        _ => true,
    };
    status == StatusCode::OK && silent("Err") && silent("Error")
}
