//! Address pools with a durable journal, reservations and audit.
#![forbid(unsafe_code)]

mod admin;
mod audit;
mod config;
mod core;
mod event;
mod infrastructure;
pub mod journal;
mod live;
mod manager;
mod mending;
mod pools;
mod records;
mod registry;
mod sightings;
mod space;
mod table;

pub use config::{HostRoutes, IpamConfig, NoRoutes, Seams};
pub use manager::AddressManager;
