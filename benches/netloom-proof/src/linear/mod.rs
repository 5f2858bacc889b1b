//! Whether a history of takes and releases, seen by real hosts, could have happened one call at a
//! time: linearizability, address by address.
//!
//! The search is Wing and Gong's, with Lowe's memory, and goes through the calls in the order of time:
//! what it keeps at any moment is the set of worlds that explain all answers so far. A call whose
//! outcome nobody learned stays open for ever; of such calls only their number per host matters, so
//! they do not make the search grow with the length of the history.
//!
//! Not a goal: a check across addresses. An address is an object of its own; that two of them are not
//! confused is what `duplicates` checks.

mod search;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use search::check_address;

/// What a host asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// An address is to be handed out.
    Take,
    /// An address is no longer used.
    Release,
}

/// What a host was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Done,
    /// Not done: taken by somebody; or, of a release, not held.
    Refused,
    /// No answer: done, not done, or done later. A take may also be undone by the host itself when it
    /// finds that nobody uses the address.
    Unknown,
}

/// One call and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Which address.
    pub address: IpAddr,
    /// Who asked.
    pub host: u32,
    /// What for.
    pub action: Action,
    /// With what answer.
    pub outcome: Outcome,
    /// When it was asked, by a clock that all hosts share.
    pub invoked: u64,
    /// When the answer came; of no meaning without one.
    pub returned: u64,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Take => "take",
            Action::Release => "release",
        };
        let Self {
            host,
            address,
            invoked,
            returned,
            ..
        } = self;
        match self.outcome {
            Outcome::Done => write!(
                f,
                "{invoked}..{returned} host {host}: {action} {address}: done"
            ),
            Outcome::Refused => {
                write!(
                    f,
                    "{invoked}..{returned} host {host}: {action} {address}: refused"
                )
            }
            Outcome::Unknown => write!(f, "{invoked}.. host {host}: {action} {address}: no answer"),
        }
    }
}

/// What the search says of one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    Violation(Witness),
    /// The search was given up. Never a pass.
    Unknown {
        /// How many worlds it held.
        worlds: usize,
    },
}

/// Why there is no order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Witness {
    /// The first call whose answer nothing explains.
    pub call: Call,
    /// Who could have held the address just before, as far as all earlier answers tell.
    pub holders: Vec<Holder>,
    /// The last calls that were asked before its answer came, this one last.
    pub before: Vec<Call>,
}

/// Who holds an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// A host that was told so.
    Host(u32),
    /// A host that asked and was not told; it may undo it at any time.
    InDoubt(u32),
}

/// What the search says of a whole history.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LinearReport {
    /// Calls looked at.
    pub calls: usize,
    /// Calls without an answer among them.
    pub unanswered: usize,
    /// Different addresses.
    pub addresses: usize,
    /// Addresses for which there is an order.
    pub linearizable: usize,
    /// Addresses for which there is none.
    pub violations: Vec<Witness>,
    /// Addresses for which the search was given up.
    pub unknown: Vec<IpAddr>,
}

impl LinearReport {
    /// Whether every address has an order; one that is unknown has not passed.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.violations.is_empty() && self.unknown.is_empty()
    }
}

/// Checks a history of many addresses. `worlds_max` bounds the search of each.
#[must_use]
pub fn check(mut history: Vec<Call>, worlds_max: usize) -> LinearReport {
    history.sort_by_key(|call| (call.address, call.invoked));
    let mut report = LinearReport {
        calls: history.len(),
        unanswered: history
            .iter()
            .filter(|call| call.outcome == Outcome::Unknown)
            .count(),
        ..LinearReport::default()
    };
    for calls in history.chunk_by(|one, other| one.address == other.address) {
        report.addresses += 1;
        match check_address(calls, worlds_max) {
            Verdict::Linearizable => report.linearizable += 1,
            Verdict::Violation(witness) => report.violations.push(witness),
            Verdict::Unknown { .. } => report.unknown.extend(calls.first().map(|c| c.address)),
        }
    }
    report
}

#[cfg(test)]
mod tests;
