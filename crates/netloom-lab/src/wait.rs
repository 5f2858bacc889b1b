//! Waiting by the wall clock for what another process does.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Between two looks. Short beside the processes waited for, long beside the cost of a look.
const STEP: Duration = Duration::from_millis(20);

/// Looks again and again until `look` says yes, at most `seconds`.
///
/// # Errors
/// When the time is over; the message names `what` was waited for.
pub fn until(what: &str, seconds: u64, mut look: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !look() {
        if Instant::now() >= end {
            bail!("waited {seconds} s in vain for {what}");
        }
        thread::sleep(STEP);
    }
    Ok(())
}

/// Tries again and again until `attempt` succeeds, at most `seconds`.
///
/// # Errors
/// The last error of `attempt`, when the time is over.
pub fn wait_for<T>(what: &str, seconds: u64, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(e) if Instant::now() >= end => {
                return Err(e).with_context(|| format!("waited {seconds} s in vain for {what}"));
            }
            Err(_) => thread::sleep(STEP),
        }
    }
}
