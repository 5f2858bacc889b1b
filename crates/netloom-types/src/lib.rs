//! Subnets, addresses, names and ids of container networks: parsed once, wrong ones cannot exist.
//!
//! Everything that arrives from a socket, a store or a file is text until it becomes one of these
//! types; behind them nobody checks again. This crate does no I/O, keeps no state and knows nothing
//! of Docker, stores or the kernel.
//!
//! ```
//! use netloom_types::{MacAddr, Subnet};
//!
//! let subnet: Subnet = "10.9.0.0/16".parse()?;
//! assert!(subnet.contains("10.9.3.4".parse().unwrap()));
//! assert!("10.9.0.1/16".parse::<Subnet>().is_err()); // host bits are set
//!
//! let mac: MacAddr = "02:42:0a:09:00:02".parse()?;
//! assert_eq!(mac.to_string(), "02:42:0a:09:00:02");
//! # Ok::<(), netloom_types::ParseError>(())
//! ```
#![forbid(unsafe_code)]

mod address;
mod error;
mod ids;
mod mac;
mod names;
mod ports;
mod subnet;

pub use address::{Family, InterfaceAddr};
pub use error::ParseError;
pub use ids::{BootId, EndpointId, HostId, NetworkId, OperationId, PoolId, SandboxId};
pub use mac::MacAddr;
pub use names::LinkName;
pub use ports::{HostPorts, PortBinding, Protocol};
pub use subnet::{Subnet, Subnets};
