//! Where the daemon counts and times plugin calls.

use std::time::Duration;

/// How a plugin call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallOutcome {
    /// It was done.
    Done,
    /// It was understood and refused: the answer carries an error for the user.
    Refused,
    /// It was not understood: no body, no JSON, unknown method, too long.
    Malformed,
    /// It was not finished within the deadline; the work goes on.
    TimedOut,
    /// Its handler failed in a way that should not exist.
    Broken,
}

impl CallOutcome {
    /// A stable name for metrics, such as `timed-out`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::TimedOut => "timed-out",
            Self::Broken => "broken",
        }
    }
}

/// Is told of every finished call.
pub trait CallObserver: core::fmt::Debug + Send + Sync {
    /// A call of `method` (such as `NetworkDriver.Join`, or `unknown`) was answered.
    fn finished(&self, method: &'static str, outcome: CallOutcome, elapsed: Duration);
}

/// Looks away.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl CallObserver for NoObserver {
    fn finished(&self, _method: &'static str, _outcome: CallOutcome, _elapsed: Duration) {}
}
