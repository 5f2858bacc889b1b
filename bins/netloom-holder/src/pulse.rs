//! Whether the daemon hangs, decided without touching it.
//!
//! dockerd waits without end for an instance that took its call and stands still, whether that is
//! stuck or was stopped by a signal. One that hangs is as good as dead, and is ended.

use std::time::Duration;

/// Records, addresses and the kernel of a full host are compared within seconds: an instance that
/// is not ready after this hangs.
const START_MAX: Duration = Duration::from_secs(60);

/// How long a ready instance may be silent: two of its deadlines for a call of dockerd.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(20);

/// What is known of the life of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// There is none that is listened for: none runs, or it does not say how it is. Follows all.
    Unwatched,
    /// It was started then. Follows `Unwatched`.
    Starting { since: Duration },
    /// It says that it lives, the last time then. Follows all.
    Beating { last: Duration },
}

impl Pulse {
    /// It says that it is ready. What it says only once proves nothing later.
    pub(crate) fn ready(&mut self) {
        if let Self::Starting { .. } = self {
            *self = Self::Unwatched;
        }
    }

    /// When it is to be ended, if nothing is heard of it until then.
    pub(crate) fn deadline(self) -> Option<Duration> {
        match self {
            Self::Unwatched => None,
            Self::Starting { since } => Some(since.saturating_add(START_MAX)),
            Self::Beating { last } => Some(last.saturating_add(SILENCE_MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_never_gets_ready_and_one_that_falls_silent_have_a_deadline() {
        let now = Duration::from_secs(100);
        let mut pulse = Pulse::Starting { since: now };
        assert_eq!(pulse.deadline(), Some(now + START_MAX));
        pulse.ready();
        assert_eq!(pulse.deadline(), None);
        let mut pulse = Pulse::Beating { last: now };
        pulse.ready();
        assert_eq!(pulse.deadline(), Some(now + SILENCE_MAX));
    }
}
