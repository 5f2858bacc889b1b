//! The JSON of both protocols, as it comes: texts and numbers, nothing checked yet.
//!
//! Docker is written in Go, whose decoder ignores the case of keys, ignores unknown keys and takes
//! `null` for any value. [`Folded`] and [`or_default`] do the same, for the keys of the protocol
//! only: the keys inside option maps are users' words and keep their case.

mod ipam;
mod network;

pub(crate) use ipam::{PoolRef, ReleaseAddressRequest, RequestAddressRequest, RequestPoolRequest};
pub(crate) use network::{
    AllocateRequest, ConnectivityRequest, CreateEndpointRequest, CreateNetworkRequest, EndpointRef,
    ExposedPort, GatewayCheckRequest, Interface, InterfaceName, IpamData, JoinRequest,
    JoinResponse, NetworkRef, PortMapping, Route,
};

use crate::failure::Failure;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::{Map, Value};

/// An object whose own keys are matched in lower case.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Folded<T>(pub(crate) T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Folded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Map::<String, Value>::deserialize(deserializer)?;
        let mut folded = Map::new();
        for (key, value) in object {
            let key = key.to_ascii_lowercase();
            if folded.contains_key(&key) {
                return Err(D::Error::custom(format_args!(
                    "the key {key:?} is there twice"
                )));
            }
            folded.insert(key, value);
        }
        T::deserialize(Value::Object(folded))
            .map(Self)
            .map_err(D::Error::custom)
    }
}

/// An object and nothing else: derived decoders would take an array as well, field by field.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Map::<String, Value>::deserialize(deserializer)?;
        T::deserialize(Value::Object(object))
            .map(Self)
            .map_err(D::Error::custom)
    }
}

/// `null` is the type's own nothing, as in Go.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Decodes a request. Nesting is bounded by serde_json (128 levels), length by the server.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice::<Folded<T>>(body)
        .map(|folded| folded.0)
        .map_err(Failure::bad_body)
}

/// Decodes a value inside of a request, such as a list of ports.
pub(crate) fn decode_value<T: DeserializeOwned>(what: &str, value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| Failure::bad_body(format!("{what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_protocol_have_no_case_and_null_is_nothing() {
        let odd = br#"{"networkid":"n","ENDPOINTID":null,"more":{"deep":[1]}}"#;
        let ids: EndpointRef = decode(odd).unwrap();
        assert_eq!(ids.network_id, "n");
        assert_eq!(ids.endpoint_id, "");
    }

    #[test]
    fn a_key_in_two_spellings_is_an_error() {
        assert!(decode::<NetworkRef>(br#"{"NetworkID":"a","networkid":"b"}"#).is_err());
    }

    #[test]
    fn a_depth_bomb_is_an_error() {
        let bomb = format!("{{\"x\":{}{}}}", "[".repeat(400_000), "]".repeat(400_000));
        assert!(decode::<NetworkRef>(bomb.as_bytes()).is_err());
    }

    #[test]
    fn keys_of_options_keep_their_case() {
        let body = br#"{"NetworkID":"n","Options":{"Mixed.Case":"Value"}}"#;
        let request: CreateNetworkRequest = decode(body).unwrap();
        assert!(request.options.contains_key("Mixed.Case"));
    }
}
