//! The port relay: reserves every published port of the host, and carries what arrives on it
//! through loopback to the container.
//!
//! Everything else is translated in the kernel and never comes here. The relay is a process of
//! its own, so that ports stay reserved and connections stay open while the daemon restarts. It
//! decides nothing: the daemon tells it which ports to hold (see `netloom_drivers::relay`).
#![forbid(unsafe_code)]

mod carry;
mod control;
mod hold;
mod socket;

pub use control::{Relay, RelayError};
