//! Recorded requests, sent to a server again.

use super::{Exchange, Recording, is_success};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use serde_json::Value;
use std::collections::BTreeMap;
use tower::ServiceExt;

/// A call that ended otherwise than on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Which call, counted from zero.
    pub at: usize,
    /// Its path.
    pub path: String,
    /// What was expected and what came.
    pub what: String,
}

/// Sends every request of a recording to `router`, and compares how each call ended: its status, and
/// whether Docker would take it for a success.
///
/// Where an answer holds another value than on record (a pool's id, an address), later requests
/// are sent with the new one, as Docker would send it.
///
/// # Errors
/// The calls that ended otherwise.
pub async fn replay(router: &Router, recording: &Recording) -> Result<(), Vec<Mismatch>> {
    let mut renamed = BTreeMap::new();
    let mut mismatches = Vec::new();
    for (at, exchange) in recording.exchanges.iter().enumerate() {
        let mut request = exchange.request.clone();
        if let Some(request) = &mut request {
            rename(request, &renamed);
        }
        let (status, answer) = send(router, exchange, request.as_ref()).await;
        let (was, is) = (is_success(&exchange.response), is_success(&answer));
        if (status, is) == (exchange.status, was) {
            compare(&exchange.response, &answer, &mut renamed);
        } else {
            let what = format!(
                "status {} {} became status {status} {answer}",
                exchange.status, exchange.response
            );
            let path = exchange.path.clone();
            mismatches.push(Mismatch { at, path, what });
        }
    }
    if mismatches.is_empty() {
        Ok(())
    } else {
        Err(mismatches)
    }
}

async fn send(router: &Router, exchange: &Exchange, request: Option<&Value>) -> (u16, Value) {
    let body = match request {
        None => Body::empty(),
        Some(Value::String(raw)) => Body::from(raw.clone()),
        Some(value) => Body::from(format!("{value}\n")),
    };
    let built = Request::builder()
        .method(exchange.method.as_str())
        .uri(exchange.path.as_str())
        .body(body);
    let Ok(request) = built else {
        return (0, Value::String("the recorded request is no HTTP".into()));
    };
    let Ok(response) = router.clone().oneshot(request).await;
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await;
    let value = body
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    (status, value.unwrap_or(Value::Null))
}

/// Answers of the plugin protocols are short.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Learns which values of the recording are other ones now.
fn compare(was: &Value, is: &Value, renamed: &mut BTreeMap<String, String>) {
    match (was, is) {
        (Value::String(was), Value::String(is)) if was != is => {
            // Docker gives addresses back without their prefix length.
            if let (Some((was, _)), Some((is, _))) = (was.split_once('/'), is.split_once('/')) {
                renamed.insert(was.to_owned(), is.to_owned());
            }
            renamed.insert(was.clone(), is.clone());
        }
        (Value::Object(was), Value::Object(is)) => {
            for (key, was) in was {
                if let Some(is) = is.get(key) {
                    compare(was, is, renamed);
                }
            }
        }
        _ => {}
    }
}

fn rename(value: &mut Value, renamed: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            if let Some(new) = renamed.get(text) {
                text.clone_from(new);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, renamed)),
        Value::Object(fields) => fields.values_mut().for_each(|field| rename(field, renamed)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
