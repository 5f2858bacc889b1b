//! The words of netloomd's local API: HTTP and JSON on a unix socket, version 1.
//!
//! The daemon serves it, the command `netloom` and anything else local speaks it. This crate holds
//! the wire types, the table of routes, the OpenAPI document made of both, and a client. It decides
//! nothing and knows none of the daemon's insides.
//!
//! ```no_run
//! # async fn example() -> Result<(), netloom_api::ClientError> {
//! let client = netloom_api::Client::new("/run/netloom/api.sock");
//! for pool in client.pools().await? {
//!     println!("{}: {} of {} in use", pool.subnet, pool.used, pool.capacity);
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod client;
mod cluster;
mod openapi;
mod routes;
mod types;

pub use client::{Client, ClientError};
pub use cluster::{
    Cluster, ForgetHost, Forgotten, Freed, Host, Initialised, Membership, Nothing, Share,
    StandingKind,
};
pub use openapi::openapi;
pub use routes::{Method, ROUTES, Response, Route};
pub use types::{
    Address, AddressKind, AuditReport, AuditRequest, CallMetric, CreateNetwork, Endpoint,
    EndpointState, ErrorBody, Finding, Health, Network, NetworkState, Pool, Port, Removed, Repair,
    Reservation, Status, Subnet, UninstallRequest,
};
