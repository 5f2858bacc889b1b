//! Network drivers: one module each, over `netloom-linux`.
//!
//! A driver turns a network and its endpoints into steps for the kernel. What should stand there is
//! a pure function of the specifications; building, tearing down, repair and audit are all the
//! difference between that and what the kernel has. The crate keeps no records, and knows neither
//! Docker's words nor stores.
//!
//! ```
//! use netloom_core::{Driver, NetworkSpec, Reach};
//! use netloom_drivers::{BridgeConfig, BridgeDriver, NoRelay};
//! use netloom_linux::RecordingKernel;
//! use std::sync::Arc;
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let kernel = Arc::new(RecordingKernel::new());
//! let driver = BridgeDriver::new(kernel.clone(), Arc::new(NoRelay), BridgeConfig::default());
//! let network = NetworkSpec {
//!     id: "4f1c0de5a2b34f1c0de5a2b3".parse()?,
//!     driver: "bridge".into(),
//!     subnets: Vec::new(),
//!     reach: Reach::External,
//!     options: [("netloom.mtu".to_owned(), "1450".to_owned())].into(),
//! };
//! driver.validate_network(&network, &[])?;
//! driver.create_network(&network).await?;
//! assert!(kernel.steps().iter().any(|step| step.to_string() == "make bridge nl-4f1c0de5a2b3"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
#![forbid(unsafe_code)]

mod bridge;
mod ports;
pub mod relay;
mod watch;

pub use bridge::{BridgeConfig, BridgeDriver, FirstInterfaceNumber, Inside, InsideRule};
pub use ports::{FakeKeeper, KeeperError, NoRelay, PortKeeper, RelayClient};
pub use watch::watch_kernel;
