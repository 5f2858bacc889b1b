//! The memory of what an audit saw before: nothing is mended that was not seen twice, with a grace
//! time between.

use crate::space::Reference;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// What can be seen again. An operation's number stands for one use of one address: when it was
/// released and taken anew, the count starts over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// An address in use that nobody shows.
    Unused(u64),
    /// An address that somebody shows and that is not in use.
    Unrecorded(IpAddr),
    /// A reference without a network.
    Reference(Reference),
}

/// When each was seen first, in time that never goes back.
#[derive(Debug, Default)]
pub(crate) struct Sightings(HashMap<Subject, Duration>);

impl Sightings {
    /// Notes all that is seen now, and forgets what is not seen any more.
    pub(crate) fn note(&mut self, seen: impl Iterator<Item = Subject>, now: Duration) {
        self.0 = seen
            .map(|subject| (subject, self.0.get(&subject).copied().unwrap_or(now)))
            .collect();
    }

    /// Whether it was seen before too.
    pub(crate) fn again(&self, subject: Subject, now: Duration) -> bool {
        self.0.get(&subject).is_some_and(|first| *first < now)
    }

    /// Whether it was seen before, and the grace time is over.
    pub(crate) fn ripe(&self, subject: Subject, now: Duration, grace: Duration) -> bool {
        let over = |first: &Duration| now.saturating_sub(*first) >= grace;
        self.again(subject, now) && self.0.get(&subject).is_some_and(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(40);

    #[test]
    fn one_sighting_is_never_enough_and_a_gap_starts_over() {
        let subject = Subject::Unused(1);
        let at = Duration::from_secs;
        let mut sightings = Sightings::default();
        sightings.note([subject].into_iter(), at(100));
        assert!(!sightings.ripe(subject, at(100), GRACE));
        assert!(!sightings.ripe(subject, at(100), Duration::ZERO));
        sightings.note([subject].into_iter(), at(139));
        assert!(!sightings.ripe(subject, at(139), GRACE));
        sightings.note([].into_iter(), at(140));
        sightings.note([subject].into_iter(), at(141));
        assert!(!sightings.ripe(subject, at(180), GRACE));
        assert!(sightings.ripe(subject, at(181), GRACE));
    }
}
