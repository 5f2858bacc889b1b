//! What the crash matrix has seen so far.

use std::collections::BTreeSet;
use std::time::Duration;

use super::attempt::{Repeated, Went};
use crate::suite::Tally;
use crate::term;

/// Counts of kills, and what came of them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Lives and kills that ended well.
    pub(super) passed: usize,
    /// What failed, in words.
    pub(super) failures: Vec<String>,
    /// Points at which a daemon died.
    pub(super) killed_at: BTreeSet<String>,
    /// Daemons that died at a named point.
    pub(super) kills: usize,
    /// Daemons that died while they recovered from such a death.
    pub(super) second_kills: usize,
    /// Daemons that died at a system call.
    pub(super) system_calls: usize,
    /// Planned kills whose point was not passed this time.
    pub(super) missed: usize,
    /// Commands that had to be repeated.
    pub(super) repeats: usize,
    pub(super) duplicates: usize,
    pub(super) leaks: usize,
    /// The longest command with a death in it.
    pub(super) slowest: Duration,
}

impl Seen {
    /// Notes a step that ended well although daemons died in it.
    pub(super) fn survived(&mut self, went: Went) {
        self.passed += 1;
        self.repeats += usize::from(went.repeated == Repeated::Yes);
        self.slowest = self.slowest.max(went.took);
    }

    /// Notes and tells what failed.
    pub(super) fn failed(&mut self, what: String) {
        term::failure(&what);
        self.failures.push(what);
    }

    /// The two lines that stand for all of it.
    pub(super) fn tell(&self, points: usize) {
        term::say(&format!(
            "points killed {}/{points}; kills {}, second kills in recovery {}, at system calls {}, \
             planned but not passed again {}",
            self.killed_at.len(),
            self.kills,
            self.second_kills,
            self.system_calls,
            self.missed,
        ));
        term::say(&format!(
            "recovery failures {}, duplicates {}, leaks {}; repeats needed {}, slowest command {:.1} s",
            self.failures.len(),
            self.duplicates,
            self.leaks,
            self.repeats,
            self.slowest.as_secs_f32(),
        ));
    }

    pub(super) fn tally(&self) -> Tally {
        Tally {
            passed: self.passed,
            failed: self.failures.len(),
        }
    }
}
