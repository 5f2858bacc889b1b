//! The vocabulary and the seams of the Container Network Model (CNM).
//!
//! A **network** is a group of endpoints that reach each other; an **endpoint** attaches one
//! sandbox to one network; a **sandbox** is a container's network stack.
//!
//! ```text
//!    callers (Docker's plugin edge, the local API)
//!        |  Controller          |  Ipam, IpamAdmin
//!        v                      v
//!    engine ---- Driver ----  drivers        address pools
//!        |                                      |
//!        +--------------- Store ----------------+
//! ```
//!
//! This crate holds types and traits only. It knows no JSON, no Docker, no netlink and no store;
//! what it decides (which state may follow which) are pure functions.
//!
//! ```
//! use netloom_core::{EndpointEvent, EndpointState};
//!
//! let created = EndpointState::Created;
//! let joining = created.after(EndpointEvent::JoinBegun)?;
//! assert_eq!(joining, EndpointState::Joining);
//! assert!(EndpointState::Deleting.after(EndpointEvent::JoinBegun).is_err());
//! # Ok::<(), netloom_core::InvalidTransition>(())
//! ```
#![forbid(unsafe_code)]

mod clock;
mod cluster;
mod control;
pub mod crash;
mod driver;
mod finding;
mod ipam;
mod model;
mod runtime;
mod state;
pub mod store;
mod store_url;

pub use clock::{Clock, Ids, SystemClock, Timestamp};
pub use cluster::{
    ClusterAdmin, ClusterView, Forgotten, HostView, Membership, ShareView, Standing,
};
pub use control::{ControlError, Controller, EndpointView, NetworkView};
pub use driver::{
    Attachment, Desired, DesiredEndpoint, Driver, DriverError, EndpointGrant, GatewayService,
    InterfacePlacement, Publisher, StaticRoute,
};
pub use finding::{Finding, FindingKind, Repair};
pub use ipam::{
    AddressKind, AddressRequest, AddressSpace, AddressView, Evidence, Ipam, IpamAdmin, IpamError,
    PoolGrant, PoolRequest, PoolView, Purpose, Reservation, ReservedFor, WantedPool,
};
pub use model::{
    Addresses, EndpointSpec, NetworkSpec, Options, PublishedPort, Reach, SandboxRef, SubnetSpec,
};
pub use runtime::{Provider, Runtime, RuntimeEndpoint, RuntimeError, RuntimeNetwork};
pub use state::{
    EndpointEvent, EndpointState, InvalidTransition, NetworkEvent, NetworkState, SandboxEvent,
    SandboxState,
};
pub use store_url::{
    ClientIdentity, InvalidStoreUrl, Login, RemoteStoreConfig, RemoteUrl, StoreEndpoint, StoreKind,
    StoreTransport, StoreUrl, TlsFiles,
};
