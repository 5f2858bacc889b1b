//! Docker hosts in namespaces on one machine, for tests, the demo and benches.
//!
//! A [`DockerHost`] is a machine of its own as far as dockerd and Netloom can tell: network, mount,
//! process and host-name namespaces, a root file system made from Debian packages, its own `/run`,
//! `/var/lib/docker` and boot id. Everything inside stands at its usual place, so commands and
//! defaults are the ones that an operator uses. A [`Peer`] is "another machine" on the same wire.
//!
//! [`servers`] are the stores that hosts share, for real, and [`proxy`] makes the way to them bad.
//!
//! What this crate does not do: of Netloom's crates it knows the addresses of stores alone, it never touches the network
//! of the machine it runs on, and it reaches no registry of container images.
//!
//! ```
//! let words = netloom_lab::words("run --rm lab sh -c 'ping -c 1 web'").expect("quotes match");
//! assert_eq!(words.last().map(String::as_str), Some("ping -c 1 web"));
//! ```
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "a lab of machines starts programs and waits for them by the wall clock"
)]

mod command;
mod dockerd;
mod floor;
mod host;
mod image;
mod leftovers;
mod netloom;
mod peer;
pub mod proxy;
pub mod servers;
mod tree;
mod wait;
mod workdir;

pub use command::{Done, words};
pub use dockerd::Removal;
pub use floor::{FloorPlugin, serve_floor_plugin};
pub use host::{DockerHost, HostOptions};
pub use image::IMAGE;
pub use leftovers::Snapshot;
pub use netloom::PLUGIN_SOCKET;
pub use peer::Peer;
pub use tree::{Trees, Version};
pub use wait::{until, wait_for};
pub use workdir::{remove_all_of_this_process, sweep_abandoned};
