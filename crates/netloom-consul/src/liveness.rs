//! Who is alive, by Consul's sessions: hints, and no more.
//!
//! A session ends up to twice its time after the last sign of life, and may end early when the
//! servers say so. So its end means nothing to an address; it is only shown to people.

use crate::http::{Call, Client};
use crate::rows::Row;
use crate::store::{expect_answer, unavailable};
use hyper::StatusCode;
use netloom_core::store::StoreError;
use netloom_types::HostId;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// One key for each host that is alive.
const ALIVE: &str = "netloom.alive";
/// The shortest time that Consul allows by default. A host counts as dead after once to twice
/// that, so a sign of life is due every five seconds.
const TTL: &str = "10s";
/// After a session's end nobody may take its key for this long. 0 would become 15 seconds.
const LOCK_DELAY: &str = "1ms";

/// The sessions of the hosts that this process speaks for: commonly one.
#[derive(Debug)]
pub(crate) struct Sessions {
    client: Arc<Client>,
    known: Mutex<HashMap<HostId, Session>>,
}

/// A session's id: a UUID, made by Consul.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session(String);

#[derive(Debug, Deserialize)]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

impl Sessions {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            known: Mutex::default(),
        }
    }

    pub(crate) async fn announce(&self, host: &HostId) -> Result<(), StoreError> {
        let mut known = self.known.lock().await;
        let session = match known.get(host) {
            Some(session) if self.renew(session).await? => session.clone(),
            _ => {
                known.remove(host);
                let session = self.create(host).await?;
                known.insert(host.clone(), session.clone());
                session
            }
        };
        if !self.holds(host, &session).await? {
            // Refused with `false` while an earlier life's session still holds the key; that one
            // shows the host as alive, and its key is taken after its end.
            let path = format!("/v1/kv/{ALIVE}/{host}?acquire={}", session.0);
            let answer = self.client.call(&Call::put(path, "")).await;
            expect_answer(answer.map_err(unavailable)?)?;
        }
        Ok(())
    }

    pub(crate) async fn alive(&self) -> Result<Vec<HostId>, StoreError> {
        let path = format!("/v1/kv/{ALIVE}/?keys&separator=/&consistent");
        let answer = self.client.call(&Call::get(path)).await;
        let answer = expect_answer(answer.map_err(unavailable)?)?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        let keys: Vec<String> = serde_json::from_slice(&answer.body).map_err(|error| {
            StoreError::Corrupt(format!("Consul told names that are none: {error}"))
        })?;
        let names = keys
            .iter()
            .filter_map(|key| key.strip_prefix(ALIVE)?.strip_prefix('/'));
        // What is no host's name was put there by hand.
        Ok(names.filter_map(|name| HostId::new(name).ok()).collect())
    }

    async fn create(&self, host: &HostId) -> Result<Session, StoreError> {
        // Without checks: Consul's own opinion of the node of whichever server was asked says
        // nothing about this host.
        let wanted = serde_json::json!({
            "Name": format!("netloom {host}"),
            "TTL": TTL,
            "Behavior": "delete",
            "LockDelay": LOCK_DELAY,
            "Checks": [],
            "NodeChecks": [],
        });
        let call = Call::put("/v1/session/create".to_owned(), wanted.to_string());
        let answer = self.client.call(&call).await.map_err(unavailable)?;
        let answer = expect_answer(answer)?;
        let created: Option<Created> = serde_json::from_slice(&answer.body).ok();
        match created.map(|created| created.id) {
            Some(id) if is_id(&id) => Ok(Session(id)),
            _ => Err(StoreError::Corrupt(
                "Consul told a session's id that is none".to_owned(),
            )),
        }
    }

    /// Whether it still lives. What cannot be asked is an error, and proves nothing.
    async fn renew(&self, session: &Session) -> Result<bool, StoreError> {
        let call = Call::put(format!("/v1/session/renew/{}", session.0), "");
        let answer = self.client.call(&call).await.map_err(unavailable)?;
        Ok(expect_answer(answer)?.status == StatusCode::OK)
    }

    async fn holds(&self, host: &HostId, session: &Session) -> Result<bool, StoreError> {
        let path = format!("/v1/kv/{ALIVE}/{host}?consistent");
        let answer = self.client.call(&Call::get(path)).await;
        let answer = expect_answer(answer.map_err(unavailable)?)?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let rows = Row::parse_all(&answer.body)?;
        Ok(rows
            .iter()
            .any(|row| row.session.as_ref() == Some(&session.0)))
    }
}

/// It becomes part of a path.
fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
