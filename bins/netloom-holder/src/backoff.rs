//! When to start a program again that died.

use std::time::Duration;

/// The pause before the second restart in a row; it doubles from there. The first comes at once:
/// a single crash should cost nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: dockerd gives up on a call after 15 s, so several tries fit.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A program that ran for this long did start; its death is not the continuation of the last one.
const STEADY: Duration = Duration::from_secs(10);

/// How often a program died in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    deaths: u32,
}

impl Backoff {
    /// Notes a death after `ran`, and says how long to wait before the next start.
    pub(crate) fn died(&mut self, ran: Duration) -> Duration {
        if ran >= STEADY {
            self.deaths = 0;
        }
        let pause = match self.deaths.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => 2_u32
                .checked_pow(doublings)
                .and_then(|factor| FIRST_PAUSE.checked_mul(factor))
                .map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE)),
        };
        self.deaths = self.deaths.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_comes_at_once_and_the_pauses_grow_to_a_limit() {
        let mut backoff = Backoff::default();
        let mut pause = || backoff.died(Duration::ZERO).as_millis();
        let pauses = [
            pause(),
            pause(),
            pause(),
            pause(),
            pause(),
            pause(),
            pause(),
        ];
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 2000]);
        backoff.deaths = u32::MAX;
        assert_eq!(backoff.died(Duration::ZERO), LONGEST_PAUSE);
    }

    #[test]
    fn a_long_life_forgives_earlier_deaths() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.died(Duration::ZERO);
        }
        assert_eq!(backoff.died(STEADY), Duration::ZERO);
        assert_eq!(backoff.died(Duration::ZERO), FIRST_PAUSE);
    }
}
