//! Links, addresses, routes, namespaces and nftables, spoken to the Linux kernel in-process.
//!
//! The crate knows nothing of networks, Docker or stores: drivers give it [`KernelStep`]s, and
//! read [`Link`]s, [`Route`]s and a [`TableSnapshot`] back.
#![forbid(unsafe_code)]

mod element;
mod error;
mod kernel;
mod recording;
mod step;
mod view;

pub use element::{Element, HostAddress, InboundMode, PortMap};
pub use error::{ApplyError, KernelError};
pub use kernel::{Applied, Kernel};
pub use recording::RecordingKernel;
pub use step::{
    BridgeSpec, ConntrackFilter, InterfaceSpec, KernelStep, LinkAlias, NextHop, Place, PortFlags,
    RouteSpec, Switch, SysctlKey, VethEnd, VethSpec,
};
pub use view::{
    AdminState, Carrier, Direction, ForwardAccept, Link, LinkAddress, LinkIndex, Neighbour, Route,
    TableSnapshot, TableState,
};
