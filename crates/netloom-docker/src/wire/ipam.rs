//! Bodies of the IPAM driver's calls.

use super::or_default;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
pub(crate) struct RequestPoolRequest {
    #[serde(rename = "addressspace", default, deserialize_with = "or_default")]
    pub(crate) address_space: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) pool: String,
    #[serde(rename = "subpool", default, deserialize_with = "or_default")]
    pub(crate) sub_pool: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) options: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) v6: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PoolRef {
    #[serde(rename = "poolid", default, deserialize_with = "or_default")]
    pub(crate) pool_id: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RequestAddressRequest {
    #[serde(rename = "poolid", default, deserialize_with = "or_default")]
    pub(crate) pool_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) address: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) options: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ReleaseAddressRequest {
    #[serde(rename = "poolid", default, deserialize_with = "or_default")]
    pub(crate) pool_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) address: String,
}
