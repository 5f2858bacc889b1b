//! Links, addresses, routes, namespaces and nftables, spoken to the Linux kernel in-process.
//!
//! The crate knows nothing of networks, Docker or stores: drivers give it [`KernelStep`]s, and
//! read [`Link`]s, [`Route`]s and a [`TableSnapshot`] back. It executes no program.
//!
//! ```
//! use netloom_linux::{Applied, BridgeSpec, Kernel, KernelStep, LinkAlias, RecordingKernel};
//! use netloom_types::LinkName;
//!
//! let kernel = RecordingKernel::new(); // LinuxKernel::open()? for the real one
//! let bridge = LinkName::new("nl-0123456789ab")?;
//! let plan = [KernelStep::CreateBridge(BridgeSpec {
//!     name: bridge.clone(),
//!     mac: None,
//!     mtu: Some(1500),
//!     alias: LinkAlias::new("netloom:0123456789ab").expect("short and printable"),
//! })];
//! assert_eq!(kernel.apply_all(&plan)?, [Applied::Changed]);
//! assert_eq!(kernel.apply_all(&plan)?, [Applied::AlreadySo]);
//! assert!(kernel.link(&bridge)?.is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod conntrack;
mod element;
mod error;
#[cfg(test)]
mod hostile;
mod kernel;
mod linux;
mod monitor;
mod netns;
mod nft;
mod recording;
mod rt;
mod socket;
mod step;
mod sysctl;
mod view;
mod wire;

pub use element::{Element, HostAddress, InboundMode, PortMap};
pub use error::{ApplyError, KernelError};
pub use kernel::{Applied, Kernel};
pub use linux::LinuxKernel;
pub use monitor::{Change, Monitor};
pub use netns::{Namespace, NamespaceId};
pub use recording::RecordingKernel;
pub use step::{
    BridgeSpec, ConntrackFilter, InterfaceSpec, KernelStep, LinkAlias, NextHop, Place, PortFlags,
    RouteSpec, Switch, SysctlKey, VethEnd, VethSpec,
};
pub use view::{
    AcceptNeed, AdminState, Carrier, Direction, ForwardAccept, Link, LinkAddress, LinkIndex,
    Neighbour, Route, TableSnapshot, TableState,
};
