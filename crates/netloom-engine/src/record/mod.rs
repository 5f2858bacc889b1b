//! The records of networks and endpoints: bytes in the store, and back. Drawn in docs/records.md.
//!
//! The wire types stand apart from the domain types, and every conversion takes its value to
//! pieces completely, so that a new field cannot be forgotten.

mod key;
mod wire;

pub use key::{endpoint_key, endpoints_prefix, network_key, networks_prefix};

use netloom_core::{EndpointView, NetworkView, store::VALUE_BYTES_MAX};
use netloom_types::{BootId, OperationId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The schema that this release writes, and the newest that it reads.
const SCHEMA: u32 = 1;

/// Why bytes from the store are not a record, or a record does not fit into the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A newer release wrote it.
    #[error(
        "the record has schema {found}, this release reads up to {SCHEMA}: start the release that \
         wrote it, or a newer one"
    )]
    NewerSchema {
        /// The schema that was found.
        found: u32,
    },
    /// It is no record.
    #[error("the record is damaged: {0}")]
    Damaged(String),
    /// It would not fit.
    #[error("the record would have {bytes} bytes, the store takes {VALUE_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// What every record begins with; read first, so that a newer schema is named as such.
#[derive(Deserialize)]
struct Envelope {
    schema: u32,
    operation: String,
}

/// A record, whichever its kind.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<T> {
    schema: u32,
    kind: String,
    /// The write that made it, so that a write of unknown outcome can be recognised.
    operation: String,
    body: T,
}

/// A network's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredNetwork {
    /// The network.
    pub view: NetworkView,
    /// The write that made the record.
    pub operation: OperationId,
}

/// An endpoint's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEndpoint {
    /// The endpoint.
    pub view: EndpointView,
    /// The write that made the record.
    pub operation: OperationId,
    /// The boot of the kernel that its link lives in, if it has one.
    pub boot: BootId,
}

/// The bytes of a network's record.
///
/// # Errors
/// `TooLarge`.
pub fn encode_network(view: &NetworkView, by: &OperationId) -> Result<Vec<u8>, RecordError> {
    encode("network", by, wire::Network::from(view))
}

/// The bytes of an endpoint's record.
///
/// # Errors
/// `TooLarge`.
pub fn encode_endpoint(
    view: &EndpointView,
    by: &OperationId,
    boot: &BootId,
) -> Result<Vec<u8>, RecordError> {
    encode("endpoint", by, wire::Endpoint::new(view, boot))
}

/// A network's record from its bytes.
///
/// # Errors
/// `NewerSchema`, `Damaged`.
pub fn decode_network(bytes: &[u8]) -> Result<StoredNetwork, RecordError> {
    let (operation, body) = decode::<wire::Network>("network", bytes)?;
    let view = NetworkView::try_from(body).map_err(|e| RecordError::Damaged(e.to_string()))?;
    Ok(StoredNetwork { view, operation })
}

/// An endpoint's record from its bytes.
///
/// # Errors
/// `NewerSchema`, `Damaged`.
pub fn decode_endpoint(bytes: &[u8]) -> Result<StoredEndpoint, RecordError> {
    let (operation, body) = decode::<wire::Endpoint>("endpoint", bytes)?;
    let (view, boot) = body
        .parse()
        .map_err(|e| RecordError::Damaged(e.to_string()))?;
    Ok(StoredEndpoint {
        view,
        operation,
        boot,
    })
}

/// The operation that wrote a record, whichever its kind and schema.
#[must_use]
pub fn operation_of(bytes: &[u8]) -> Option<OperationId> {
    let envelope: Envelope = serde_json::from_slice(bytes).ok()?;
    OperationId::new(envelope.operation).ok()
}

fn encode<T: Serialize>(kind: &str, by: &OperationId, body: T) -> Result<Vec<u8>, RecordError> {
    let document = Document {
        schema: SCHEMA,
        kind: kind.to_owned(),
        operation: by.to_string(),
        body,
    };
    let bytes = serde_json::to_vec(&document).map_err(|e| RecordError::Damaged(e.to_string()))?;
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(RecordError::TooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(kind: &str, bytes: &[u8]) -> Result<(OperationId, T), RecordError> {
    let damaged = |e: &dyn core::fmt::Display| RecordError::Damaged(e.to_string());
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|e| damaged(&e))?;
    if envelope.schema > SCHEMA {
        return Err(RecordError::NewerSchema {
            found: envelope.schema,
        });
    }
    let document: Document<T> = serde_json::from_slice(bytes).map_err(|e| damaged(&e))?;
    if document.kind != kind || document.schema != SCHEMA {
        return Err(RecordError::Damaged(format!(
            "it is a record of kind {:?} and schema {}, expected was {kind:?} and {SCHEMA}",
            document.kind, document.schema
        )));
    }
    let operation = OperationId::new(document.operation).map_err(|e| damaged(&e))?;
    Ok((operation, document.body))
}

#[cfg(test)]
mod tests;
