//! What a host writes down of its calls, and what the lines add up to.
//!
//! A line is written with one call of the system before a request is sent and one after its answer
//! came: what a process wrote outlives its death. Its next life says first what the journal shows of
//! the calls that the death cut short, so that no outcome stays open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::linear::{Action, Call, Outcome};

/// Why a take was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Refusal {
    /// Every address is in use.
    Full,
    /// The address asked for is in use.
    InUse,
    /// The store or a holder did not answer; nothing was handed out.
    Away,
    /// Anything else: nothing that the load asks for may end so.
    Other,
}

/// One line. Times are nanoseconds of the shared clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "a", rename_all = "snake_case")]
pub(super) enum Line {
    /// A process of this host began.
    Life,
    /// The reference to a pool, by the pool's place.
    Pool { pool: usize, id: String },
    /// A pool's gateway, as this host was told.
    Gateway { pool: usize, ip: IpAddr },
    /// A take is asked for.
    Take {
        call: u64,
        at: u64,
        wanted: Option<IpAddr>,
    },
    /// It was answered with an address.
    Took { call: u64, at: u64, ip: IpAddr },
    /// It was answered with an error.
    Not {
        call: u64,
        at: u64,
        why: Refusal,
        what: Option<String>,
    },
    /// A release is asked for.
    Release { call: u64, at: u64, ip: IpAddr },
    /// It was answered.
    Released { call: u64, at: u64 },
    /// It was answered with an error: nobody knows whether it happened.
    Unclear { call: u64, at: u64, what: String },
    /// After a start: in use by the journal, by a take that nobody was answered.
    Found { at: u64, ip: IpAddr },
    /// After a start: a release that was cut short had happened.
    Gone { at: u64, ip: IpAddr },
    /// After a start: a caller was given it, and the journal does not know.
    Lost { at: u64, ip: IpAddr },
    /// After a start: all that is to be said of the life before has been said.
    Recovered,
    /// Transactions that the store took of this process so far, and those that ended in a conflict
    /// or without an answer.
    Commits { taken: u64, lost: u64 },
}

/// The file that lines go to.
#[derive(Debug)]
pub(super) struct Diary(Mutex<File>);

impl Diary {
    /// Goes on with a file; a line that a death cut short ends here.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::options().create(true).append(true).open(path)?;
        file.write_all(b"\n")?;
        Ok(Self(Mutex::new(file)))
    }

    pub(super) fn write(&self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&text)
    }
}

/// A call without an answer so far.
#[derive(Debug, Clone, Copy)]
enum Open {
    Take { at: u64 },
    Release { at: u64, ip: IpAddr },
}

/// How many calls ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Addresses handed out without a wish.
    pub taken: u64,
    /// Addresses handed out by their value.
    pub taken_by_value: u64,
    /// Addresses given back.
    pub released: u64,
    /// Refused: every address was in use.
    pub full: u64,
    /// Refused: the address asked for was in use.
    pub in_use: u64,
    /// Refused within the time: the store or a holder did not answer.
    pub away: u64,
    /// Refused for a reason that there should not be.
    pub refused_oddly: u64,
    /// Releases without a clear answer.
    pub unclear: u64,
    /// Calls that the death of their process cut short.
    pub cut_short: u64,
    /// Of those: takes that had happened.
    pub found: u64,
    /// Of those: releases that had happened.
    pub gone: u64,
    /// Processes.
    pub lives: u64,
    /// Transactions that the store took.
    pub commits: u64,
    /// Transactions that ended in a conflict or without an answer.
    pub commits_lost: u64,
}

impl Tally {
    /// Calls that were answered, other than that the store was away.
    #[must_use]
    pub const fn operations(&self) -> u64 {
        self.taken + self.taken_by_value + self.released + self.full + self.in_use
    }

    /// Together with another host's.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            taken: self.taken + other.taken,
            taken_by_value: self.taken_by_value + other.taken_by_value,
            released: self.released + other.released,
            full: self.full + other.full,
            in_use: self.in_use + other.in_use,
            away: self.away + other.away,
            refused_oddly: self.refused_oddly + other.refused_oddly,
            unclear: self.unclear + other.unclear,
            cut_short: self.cut_short + other.cut_short,
            found: self.found + other.found,
            gone: self.gone + other.gone,
            lives: self.lives + other.lives,
            commits: self.commits + other.commits,
            commits_lost: self.commits_lost + other.commits_lost,
        }
    }
}

/// What the lines of one host add up to.
#[derive(Debug, Default)]
pub(super) struct Story {
    host: u32,
    /// Calls with what became of them.
    pub(super) calls: Vec<Call>,
    /// Addresses that callers have.
    pub(super) held: BTreeSet<IpAddr>,
    /// References to pools, by place.
    pub(super) pools: BTreeMap<usize, String>,
    /// Gateways, by the pool's place.
    pub(super) gateways: BTreeMap<usize, IpAddr>,
    pub(super) tally: Tally,
    /// What must not be, in words.
    pub(super) wrong: Vec<String>,
    /// When each address was handed out last.
    taken_at: BTreeMap<IpAddr, u64>,
    open: BTreeMap<u64, Open>,
    wished: BTreeMap<u64, IpAddr>,
    /// Takes that the last death cut short and that were not found yet.
    cut_takes: u64,
    /// When the first of them was asked.
    cut_since: u64,
    /// Releases that it cut short.
    cut_releases: BTreeMap<IpAddr, u64>,
    /// Releases without a clear answer.
    limbo: BTreeSet<IpAddr>,
    commits_before: (u64, u64),
    next_call: u64,
}

impl Story {
    /// Reads a host's file; none is an empty story.
    pub(super) fn read(path: &Path, host: u32) -> io::Result<Self> {
        let mut story = Self {
            host,
            ..Self::default()
        };
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(story),
            text => text?,
        };
        let mut torn = None;
        for line in text.lines().filter(|line| !line.is_empty()) {
            match serde_json::from_str(line) {
                Ok(line) => {
                    if torn.take().is_some() && line != Line::Life {
                        story.wrong.push("a line in the middle is torn".to_owned());
                    }
                    story.add(&line);
                }
                // The last words of a process that was killed.
                Err(_) => torn = Some(()),
            }
        }
        Ok(story)
    }

    /// The number of the next call.
    pub(super) const fn next_call(&self) -> u64 {
        self.next_call
    }

    /// Addresses whose release the last death cut short.
    pub(super) fn cut_releases(&self) -> impl Iterator<Item = IpAddr> {
        self.cut_releases.keys().copied()
    }

    pub(super) fn add(&mut self, line: &Line) {
        match line {
            Line::Life => self.begin_life(),
            Line::Pool { pool, id } => {
                self.pools.insert(*pool, id.clone());
            }
            Line::Gateway { pool, ip } => {
                self.gateways.insert(*pool, *ip);
            }
            Line::Take { call, at, wanted } => {
                self.next_call = self.next_call.max(call + 1);
                self.open.insert(*call, Open::Take { at: *at });
                if let Some(ip) = wanted {
                    self.wished.insert(*call, *ip);
                }
            }
            Line::Took { call, at, ip } => self.took(*call, *at, *ip),
            Line::Not {
                call,
                at,
                why,
                what,
            } => self.refused(*call, *at, *why, what.as_deref()),
            Line::Release { call, at, ip } => {
                self.next_call = self.next_call.max(call + 1);
                self.held.remove(ip);
                self.open.insert(*call, Open::Release { at: *at, ip: *ip });
            }
            Line::Released { call, at } => {
                if let Some(Open::Release { at: invoked, ip }) = self.open.remove(call) {
                    self.tally.released += 1;
                    self.call(ip, Action::Release, Outcome::Done, (invoked, *at));
                }
            }
            Line::Unclear { call, at, .. } => {
                if let Some(Open::Release { at: invoked, ip }) = self.open.remove(call) {
                    self.tally.unclear += 1;
                    self.limbo.insert(ip);
                    self.call(ip, Action::Release, Outcome::Unknown, (invoked, *at));
                }
            }
            Line::Found { at, ip } => self.found(*at, *ip),
            Line::Gone { at, ip } => {
                if let Some(invoked) = self.cut_releases.remove(ip) {
                    self.tally.gone += 1;
                    self.call(*ip, Action::Release, Outcome::Done, (invoked, *at));
                }
            }
            Line::Lost { ip, .. } => {
                self.held.remove(ip);
                self.wrong.push(format!(
                    "host {}: a caller was given {ip}, and the journal does not know",
                    self.host
                ));
            }
            Line::Recovered => {
                self.cut_takes = 0;
                self.cut_releases.clear();
                self.limbo.clear();
            }
            Line::Commits { taken, lost } => {
                self.tally.commits = self.commits_before.0 + taken;
                self.tally.commits_lost = self.commits_before.1 + lost;
            }
        }
    }

    fn call(&mut self, address: IpAddr, action: Action, outcome: Outcome, time: (u64, u64)) {
        let (invoked, returned) = time;
        self.calls.push(Call {
            address,
            host: self.host,
            action,
            outcome,
            invoked,
            returned,
        });
    }

    /// What was open is cut short; the process says next what came of it.
    fn begin_life(&mut self) {
        self.tally.lives += 1;
        self.commits_before = (self.tally.commits, self.tally.commits_lost);
        for (_, open) in std::mem::take(&mut self.open) {
            self.tally.cut_short += 1;
            match open {
                Open::Take { at } => {
                    self.cut_since = match self.cut_takes {
                        0 => at,
                        _ => self.cut_since.min(at),
                    };
                    self.cut_takes += 1;
                }
                // Another caller here was given it since, so the release had happened.
                Open::Release { at, ip } if self.held.contains(&ip) => {
                    let until = self.taken_at.get(&ip).copied().unwrap_or(at);
                    self.tally.gone += 1;
                    self.call(ip, Action::Release, Outcome::Done, (at, until));
                }
                Open::Release { at, ip } => {
                    self.cut_releases.insert(ip, at);
                }
            }
        }
        self.wished.clear();
    }

    fn took(&mut self, call: u64, at: u64, ip: IpAddr) {
        let Some(Open::Take { at: invoked }) = self.open.remove(&call) else {
            return;
        };
        if self.wished.remove(&call).is_some() {
            self.tally.taken_by_value += 1;
        } else {
            self.tally.taken += 1;
        }
        self.call(ip, Action::Take, Outcome::Done, (invoked, at));
        self.taken_at.insert(ip, at);
        if !self.held.insert(ip) {
            let host = self.host;
            self.wrong
                .push(format!("host {host} was given {ip}, which it has"));
        }
    }

    fn refused(&mut self, call: u64, at: u64, why: Refusal, what: Option<&str>) {
        let Some(Open::Take { at: invoked }) = self.open.remove(&call) else {
            return;
        };
        let wished = self.wished.remove(&call);
        match why {
            Refusal::Full => self.tally.full += 1,
            Refusal::InUse => {
                self.tally.in_use += 1;
                if let Some(ip) = wished {
                    self.call(ip, Action::Take, Outcome::Refused, (invoked, at));
                }
            }
            Refusal::Away => self.tally.away += 1,
            Refusal::Other => {
                self.tally.refused_oddly += 1;
                self.wrong.push(format!(
                    "host {}: refused oddly: {}",
                    self.host,
                    what.unwrap_or_default()
                ));
            }
        }
    }

    /// It was taken by one of the calls that were cut short, nobody knows by which: by the first of
    /// them at the earliest.
    fn found(&mut self, at: u64, ip: IpAddr) {
        // A release that had not happened, and never will.
        if self.cut_releases.remove(&ip).is_some() || self.limbo.remove(&ip) {
            self.held.insert(ip);
            return;
        }
        let Some(left) = self.cut_takes.checked_sub(1) else {
            let host = self.host;
            let wrong = format!("host {host}: nobody asked for {ip}, in use");
            return self.wrong.push(wrong);
        };
        self.cut_takes = left;
        self.tally.found += 1;
        self.call(ip, Action::Take, Outcome::Done, (self.cut_since, at));
        self.held.insert(ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear;

    fn ip() -> IpAddr {
        [10, 77, 0, 9].into()
    }

    fn story(lines: &[Line]) -> Story {
        let mut story = Story::default();
        story.add(&Line::Life);
        lines.iter().for_each(|line| story.add(line));
        story
    }

    fn take(call: u64, at: u64) -> Line {
        let wanted = None;
        Line::Take { call, at, wanted }
    }

    fn took(call: u64, at: u64) -> Line {
        Line::Took { call, at, ip: ip() }
    }

    fn release(call: u64, at: u64) -> Line {
        Line::Release { call, at, ip: ip() }
    }

    #[test]
    fn a_take_that_was_cut_short_is_found_once() {
        let found = Line::Found { at: 9, ip: ip() };
        let mut story = story(&[take(0, 1), Line::Life, found.clone()]);
        assert_eq!((story.tally.cut_short, story.tally.found), (1, 1));
        assert!(story.held.contains(&ip()) && story.wrong.is_empty());
        story.add(&found);
        assert_eq!(story.wrong.len(), 1, "nobody asked for a second one");
    }

    #[test]
    fn a_release_that_was_cut_short_has_happened_or_not() {
        let before = [take(0, 1), took(0, 2), release(1, 3), Line::Life];
        let mut gone = story(&before);
        gone.add(&Line::Gone { at: 9, ip: ip() });
        assert!(gone.held.is_empty());
        assert_eq!(gone.calls.len(), 2);
        let mut kept = story(&before);
        kept.add(&Line::Found { at: 9, ip: ip() });
        assert!(kept.held.contains(&ip()) && kept.wrong.is_empty());
        assert_eq!(kept.calls.len(), 1);
    }

    #[test]
    fn a_take_shows_that_the_release_before_it_had_happened() {
        let lines = [
            take(0, 1),
            took(0, 2),
            release(1, 3),
            take(2, 4),
            took(2, 5),
        ];
        let mut story = story(&lines);
        story.add(&Line::Life);
        assert_eq!(story.tally.gone, 1);
        assert!(linear::check(story.calls, 100).holds());
    }

    #[test]
    fn one_address_given_twice_and_one_that_is_lost_are_wrong() {
        let twice = story(&[take(0, 1), took(0, 2), take(1, 3), took(1, 4)]);
        assert_eq!(twice.wrong.len(), 1);
        assert!(!linear::check(twice.calls, 100).holds());
        let lost = Line::Lost { at: 9, ip: ip() };
        let lost = story(&[take(0, 1), took(0, 2), Line::Life, lost]);
        assert_eq!(lost.wrong.len(), 1);
    }
}
