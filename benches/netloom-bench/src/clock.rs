//! The one place that reads the machine's clock.

use std::time::Instant;

/// The time that `body` takes, in nanoseconds.
#[allow(clippy::disallowed_methods, reason = "a bench measures real time")]
pub(crate) fn nanoseconds(body: impl FnOnce()) -> f64 {
    let start = Instant::now();
    body();
    start.elapsed().as_secs_f64() * 1e9
}
