//! Tells when the kernel's state may no longer be ours.

use netloom_linux::{Change, KernelError, Monitor};
use std::ops::ControlFlow;
use std::time::Duration;

/// How long a wait lasts before the caller is asked whether to go on.
const TURN: Duration = Duration::from_secs(1);
/// Changes come in bursts (a reload of a firewall, a group of links): one comparison serves all
/// that follow each other within this time.
const QUIET: Duration = Duration::from_millis(50);
/// A burst without end must not put the comparison off for ever: with [`QUIET`], one second.
const BURST_TURNS: u32 = 20;

/// Waits for changes that others make to what the drivers built, and calls `turn` after each burst
/// of them with what may have changed, and about once a second with nothing; until `turn` breaks.
///
/// Blocks its thread. What it tells is a hint: compare and mend (`Driver::reconcile`).
///
/// # Errors
/// When the kernel's notifications cannot be read any more.
pub fn watch_kernel(
    mut monitor: Monitor,
    mut turn: impl FnMut(Option<Change>) -> ControlFlow<()>,
) -> Result<(), KernelError> {
    loop {
        let first = monitor.wait(TURN)?;
        if first.is_some() {
            for _ in 0..BURST_TURNS {
                if monitor.wait(QUIET)?.is_none() {
                    break;
                }
            }
        }
        if turn(first).is_break() {
            return Ok(());
        }
    }
}
