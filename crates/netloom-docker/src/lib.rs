//! Docker's words: the remote network and IPAM driver protocols, and a small client of Docker's API.
//!
//! Requests of dockerd are parsed into `netloom-core` types, handed to a [`Controller`] and an
//! [`Ipam`], and answered in Docker's JSON. This crate decides nothing about networks or addresses,
//! keeps no state, and knows no kernel and no store. The client asks Docker for lists and events;
//! no plugin call ever uses it, because dockerd may hold a lock while it waits for us.
//!
//! ```no_run
//! # async fn run(controller: std::sync::Arc<dyn netloom_core::Controller>,
//! #     ipam: std::sync::Arc<dyn netloom_core::Ipam>) -> std::io::Result<()> {
//! let state = netloom_docker::PluginState::new(controller, ipam);
//! let listener = tokio::net::UnixListener::bind("/run/docker/plugins/netloom.sock")?;
//! axum::serve(listener, netloom_docker::router(state)).await
//! # }
//! ```
//!
//! [`Controller`]: netloom_core::Controller
//! [`Ipam`]: netloom_core::Ipam
#![forbid(unsafe_code)]

mod client;
mod failure;
mod http;
mod ipam_calls;
mod method;
mod network_calls;
mod observe;
mod parse;
pub mod recording;
mod server;
mod state;
mod wire;

pub use client::{ClientSettings, DockerClient};
pub use observe::{CallObserver, CallOutcome, NoObserver};
pub use server::router;
pub use state::{PluginSettings, PluginState};
