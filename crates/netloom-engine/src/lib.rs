//! The controller of the Container Network Model: it decides what an event means for networks and
//! endpoints, records the intent, has drivers act, and records the outcome.
//!
//! ```text
//!   event + situation --plan (pure)--> steps, each with its undo --apply--> store, drivers
//! ```
//!
//! Every record is committed by compare-and-swap before a driver acts on it, so a process that dies
//! at any moment leaves either no trace or a record that [`Engine::open`] finds and
//! `Controller::reconcile` completes. What Docker was told is settled with Docker's own list by
//! [`Engine::settle`].
//!
//! This crate does not know Docker's protocol, netlink, or where addresses come from.
//!
//! ```
//! use netloom_core::{NetworkState, NetworkView, NetworkSpec, Reach, Timestamp};
//! use netloom_engine::plan::{plan, Event, Situation, Step};
//!
//! let spec = NetworkSpec {
//!     id: "n1".parse()?,
//!     driver: "bridge".into(),
//!     subnets: vec![],
//!     reach: Reach::External,
//!     options: Default::default(),
//! };
//! let plan = plan(&Situation::default(), &Event::CreateNetwork(spec), Timestamp(1)).unwrap();
//! // The intent is on record before the kernel hears of it.
//! assert!(matches!(
//!     plan.steps.first().map(|planned| &planned.step),
//!     Some(Step::PutNetwork(NetworkView { state: NetworkState::Creating, .. }))
//! ));
//! # Ok::<(), netloom_types::ParseError>(())
//! ```
#![forbid(unsafe_code)]

mod apply;
mod control;
mod doubt;
mod due;
mod engine;
mod give_way;
mod locks;
mod memory;
pub mod plan;
mod reconcile;
pub mod record;
mod settle;
mod write;

pub use engine::{Engine, OpenError, Parts};
pub use settle::Remedy;
