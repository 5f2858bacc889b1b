//! Histories of real hosts on real stores, under faults.
//!
//! ```text
//!   host 0 (process) --- proxy --- server 0          every call: asked, answered, by one clock
//!   host 1 (process) --x-- proxy --- server 1        a file per host, written before and after
//!   host 2 (process) --- proxy --- server 2
//!        journal on disk                 all sides compared when everything has come to rest
//! ```
//!
//! Each host is a process with the real address management and its background, a journal on disk and
//! callers. Servers, ways and hosts are killed, frozen, cut and parted while the load goes on. What
//! callers were told is then held against the journals, against the store, and against every order in
//! which it could have happened.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test tool: it starts programs, paces its faults by the clock and tells how it goes"
)]

mod clock;
mod counted;
mod host;
mod journal;
mod judge;
mod load;
mod planted;
mod run;
mod site;
mod story;
mod trouble;
mod walls;

pub use host::{HostArgs, run_host};
pub use judge::HistoryReport;
pub use planted::Flaw;
pub use run::{Goals, RunArgs, run};
pub use site::StoreChoice;
pub use story::Tally;
pub use trouble::{Fault, Faults};
pub use walls::Walls;
