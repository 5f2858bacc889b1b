//! How long and how often one operation is tried.

use crate::failure::Failure;
use std::time::Duration;
use tokio::time::Instant;

/// Between two rounds over all members: an election takes about a second.
const PAUSE: Duration = Duration::from_millis(100);

/// The tries of one operation.
#[derive(Debug)]
pub(crate) struct Tries {
    members: usize,
    made: usize,
    /// How many tries found nobody at all, one after the other.
    nobody: usize,
    token_renewed: bool,
    pub(crate) deadline: Instant,
}

impl Tries {
    pub(crate) fn new(members: usize, time: Duration) -> Self {
        Self {
            members: members.max(1),
            made: 0,
            nobody: 0,
            token_renewed: false,
            deadline: Instant::now() + time,
        }
    }

    /// Until when the next try may take. A frozen member must not use up the time of those that
    /// are well, so that half of what is left goes to each but the last.
    pub(crate) fn share(&mut self) -> Instant {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.made += 1;
        if self.made.is_multiple_of(self.members) {
            self.deadline
        } else {
            Instant::now() + left / 2
        }
    }

    /// Returns, after a pause if every member had its turn, when a try that failed so is worth
    /// another one.
    ///
    /// # Errors
    /// The failure, when it is not.
    pub(crate) async fn again(&mut self, failure: Failure) -> Result<(), Failure> {
        match &failure {
            Failure::Denied(_) | Failure::TooLarge(_) | Failure::WrongEpoch(_) => {
                return Err(failure);
            }
            Failure::Token(_) if self.token_renewed => return Err(failure),
            Failure::Token(_) => {
                // The next connection logs in anew.
                self.token_renewed = true;
                return Ok(());
            }
            Failure::NotSent(_) => self.nobody += 1,
            Failure::Refused(_) | Failure::Lost(_) => self.nobody = 0,
        }
        // When nobody is there at all, the caller is told soon: it has its own way to go on.
        let all_gone = self.nobody >= 2 * self.members;
        if all_gone || Instant::now() >= self.deadline {
            return Err(failure);
        }
        if self.made.is_multiple_of(self.members) {
            tokio::time::sleep_until(self.deadline.min(Instant::now() + PAUSE)).await;
        }
        Ok(())
    }
}
