//! Address pools of one host, built for many: pools in a store that hosts can share, every address
//! in a local journal, and both in memory.
//!
//! ```text
//!   request --> address book in memory --> journal (one write and one sync, shared by callers)
//!                     |
//!                     +-- first use of a pool, of 1,024 addresses, of a gateway --> store
//! ```
//!
//! | question | who has the truth |
//! |---|---|
//! | which pools are there, who refers to them, what is the gateway | the store |
//! | which host hands out which chunk of 1,024 addresses | the store |
//! | what is each address used for | the journal |
//! | which address is next | memory, rebuilt from both |
//!
//! An address is in doubt from the answer on, until an endpoint confirms it. What nobody confirms
//! is settled by [`IpamAdmin::audit`](netloom_core::IpamAdmin::audit) with the runtime's list and
//! the kernel's links as witnesses: seen twice, with dockerd's retry window between, never before.
//!
//! The crate knows no Docker, no netlink and no store in particular, and never decides by a clock
//! that an address is free.
//!
//! ```
//! use netloom_core::store::Store;
//! use netloom_core::{
//!     AddressRequest, AddressSpace, Ipam, Options, PoolRequest, Purpose, SystemClock,
//!     WantedPool,
//! };
//! use netloom_ipam::journal::DirDisk;
//! use netloom_ipam::{AddressManager, IpamConfig, NoRoutes, Seams};
//! use netloom_types::{BootId, Family, HostId};
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! async fn first_address(
//!     store: Arc<dyn Store>,
//!     directory: &Path,
//! ) -> Result<String, Box<dyn std::error::Error>> {
//!     let clock = Arc::new(SystemClock::new());
//!     let seams = Seams {
//!         disk: Arc::new(DirDisk::open(directory)?),
//!         store,
//!         mirror: None,
//!         routes: Arc::new(NoRoutes),
//!         clock: clock.clone(),
//!         ids: clock,
//!     };
//!     let config = IpamConfig::new(HostId::new("host-1")?, BootId::new("boot-1")?);
//!     let ipam = AddressManager::open(config, seams).await?;
//!     let request = PoolRequest {
//!         space: AddressSpace::Local,
//!         wanted: WantedPool::Any(Family::V4),
//!         options: Options::new(),
//!     };
//!     let pool = ipam.request_pool(request).await?.id;
//!     let request = AddressRequest {
//!         pool,
//!         wanted: None,
//!         purpose: Purpose::Gateway,
//!         mac: None,
//!         name: None,
//!     };
//!     Ok(ipam.request_address(request).await?.to_string()) // "10.128.0.1/20"
//! }
//! ```
//!
//! The [`journal`] can be used alone:
//!
//! ```
//! use netloom_core::SystemClock;
//! use netloom_ipam::journal::{DirDisk, Fold, Journal, JournalOptions};
//! use std::sync::Arc;
//!
//! #[derive(Default)]
//! struct Sum(u64);
//!
//! impl Fold for Sum {
//!     fn apply(&mut self, event: &[u8]) -> Result<(), String> {
//!         let number = event.try_into().map_err(|_| "not eight bytes")?;
//!         self.0 += u64::from_le_bytes(number);
//!         Ok(())
//!     }
//!     fn dump(&self, sink: &mut dyn FnMut(&[u8])) {
//!         sink(&self.0.to_le_bytes());
//!     }
//! }
//!
//! let directory = tempfile::tempdir()?;
//! for expected in [0, 3] {
//!     let disk = Arc::new(DirDisk::open(directory.path())?);
//!     let ids = Arc::new(SystemClock::new());
//!     let (journal, sum) = Journal::open::<Sum>(disk, ids, JournalOptions::default())?;
//!     assert_eq!(sum.0, expected);
//!     journal.append(&[&3u64.to_le_bytes()])?.wait()?; // durable from here on
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! `crash-points` lets a test kill the process at a named step.
#![forbid(unsafe_code)]

mod admin;
mod audit;
mod book;
mod chunk;
mod cluster;
mod config;
mod cooling;
mod event;
mod infrastructure;
pub mod journal;
mod live;
mod manager;
mod mending;
mod names;
mod pools;
mod ranges;
mod records;
mod references;
mod registry;
mod sightings;
mod space;
mod table;

pub use cluster::{Copied, CopyError, Problem, cluster_init, store_check, store_copy, store_dump};
pub use config::{ClusterConfig, HostRoutes, IpamConfig, NoRoutes, Seams, Sharing};
pub use manager::AddressManager;
