//! Where the plugin's socket should be, decided without touching it.

use std::time::Duration;

/// Where the socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At its path: dockerd reaches it.
    Published,
    /// At a hidden path, in the hands of a daemon that has not said yet that it is ready.
    /// Reached from `Published` (the daemon took too long) and from `Gone` (it was started).
    Parked,
    /// Closed and unlinked. Whoever waited on it was told.
    Gone,
}

/// What is to be done with the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make a new one at the hidden path.
    Make,
    /// Move it to its path.
    Publish,
    /// Move it to the hidden path: the daemon's copy of it stays good.
    Park,
    /// Close and unlink it.
    Discard,
}

/// Whether an instance of the daemon runs, ready or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alive {
    Yes,
    No,
}

/// The socket and the time since when nobody answers at it.
#[derive(Debug)]
pub(crate) struct Door {
    place: Place,
    away_since: Option<Duration>,
    limit: Duration,
}

impl Door {
    /// A published socket, for a daemon that has yet to be started.
    pub(crate) fn new(now: Duration, limit: Duration) -> Self {
        Self {
            place: Place::Published,
            away_since: Some(now),
            limit,
        }
    }

    /// The daemon is about to be started, and needs a socket to inherit.
    pub(crate) fn starting(&mut self) -> Option<Step> {
        match self.place {
            Place::Gone => {
                self.place = Place::Parked;
                Some(Step::Make)
            }
            Place::Published | Place::Parked => None,
        }
    }

    /// The daemon answers.
    pub(crate) fn ready(&mut self) -> Option<Step> {
        self.away_since = None;
        match self.place {
            Place::Parked => {
                self.place = Place::Published;
                Some(Step::Publish)
            }
            Place::Published | Place::Gone => None,
        }
    }

    /// The daemon died.
    pub(crate) fn died(&mut self, now: Duration) -> Option<Step> {
        self.away_since.get_or_insert(now);
        match self.place {
            Place::Parked => {
                self.place = Place::Gone;
                Some(Step::Discard)
            }
            Place::Published | Place::Gone => None,
        }
    }

    /// Time passed.
    pub(crate) fn passed(&mut self, now: Duration, alive: Alive) -> Option<Step> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        match alive {
            Alive::Yes => {
                self.place = Place::Parked;
                Some(Step::Park)
            }
            Alive::No => {
                self.place = Place::Gone;
                Some(Step::Discard)
            }
        }
    }

    /// The last step failed, and the socket was discarded.
    pub(crate) fn lost(&mut self, now: Duration) {
        self.away_since.get_or_insert(now);
        self.place = Place::Gone;
    }

    /// When the socket goes, if nothing happens until then.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self.place {
            Place::Published => Some(self.away_since?.saturating_add(self.limit)),
            Place::Parked | Place::Gone => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const LIMIT: Duration = Duration::from_secs(2);

    /// What the steps do to a socket that somebody could look at.
    fn carry_out(place: Place, step: Option<Step>) -> Place {
        match (place, step) {
            (place, None) => place,
            (Place::Gone, Some(Step::Make)) | (Place::Published, Some(Step::Park)) => Place::Parked,
            (Place::Parked, Some(Step::Publish)) => Place::Published,
            (Place::Published | Place::Parked, Some(Step::Discard)) => Place::Gone,
            (place, Some(step)) => panic!("{step:?} cannot be done to a socket that is {place:?}"),
        }
    }

    /// Every story of eight events, one second apart: the daemon is started, gets ready, dies.
    #[test]
    fn in_every_story_the_socket_is_there_for_a_daemon_and_gone_after_the_limit() {
        let mut ends = BTreeSet::new();
        for story in 0..4_u32.pow(8) {
            let mut door = Door::new(Duration::ZERO, LIMIT);
            let (mut place, mut alive, mut ready) = (Place::Published, Alive::No, false);
            let mut away_for = 0;
            for second in 1..=8 {
                let now = Duration::from_secs(second);
                away_for = if ready { 0 } else { away_for + 1 };
                place = carry_out(place, door.passed(now, alive));
                let event = story / 4_u32.pow(u32::try_from(second).unwrap() - 1) % 4;
                match (event, alive) {
                    (1, Alive::No) => {
                        place = carry_out(place, door.starting());
                        alive = Alive::Yes;
                        assert_ne!(
                            place,
                            Place::Gone,
                            "{story}: it was started without a socket"
                        );
                    }
                    (2, Alive::Yes) => {
                        place = carry_out(place, door.ready());
                        ready = true;
                    }
                    (3, Alive::Yes) => {
                        place = carry_out(place, door.died(now));
                        alive = Alive::No;
                        ready = false;
                    }
                    _ => {}
                }
                assert_eq!(place, door.place, "{story}");
                if ready {
                    assert_eq!(
                        place,
                        Place::Published,
                        "{story}: ready and not to be reached"
                    );
                }
                if away_for > LIMIT.as_secs() && !ready {
                    assert_ne!(place, Place::Published, "{story}: away and still published");
                }
                if away_for == 0 && !ready {
                    assert_eq!(place, Place::Published, "{story}: gone at once");
                }
            }
            ends.insert(format!("{place:?} {alive:?} {ready}"));
        }
        assert_eq!(
            ends.len(),
            5,
            "the stories do not reach everything: {ends:?}"
        );
    }
}
