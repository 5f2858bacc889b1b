//! The one place that reads the machine's clock.

use std::time::Instant;

/// The time that `body` takes, in nanoseconds.
#[allow(clippy::disallowed_methods, reason = "a bench measures real time")]
pub(crate) fn nanoseconds(body: impl FnOnce()) -> f64 {
    let start = Instant::now();
    body();
    start.elapsed().as_secs_f64() * 1e9
}

/// The time from the first beginning to the last end of what several threads did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(Instant, Instant);

impl Span {
    #[allow(clippy::disallowed_methods, reason = "a bench measures real time")]
    pub(crate) fn of(body: impl FnOnce()) -> Self {
        let start = Instant::now();
        body();
        Self(start, Instant::now())
    }

    pub(crate) fn join(self, other: Self) -> Self {
        Self(self.0.min(other.0), self.1.max(other.1))
    }

    pub(crate) fn nanoseconds(self) -> f64 {
        (self.1 - self.0).as_secs_f64() * 1e9
    }
}
