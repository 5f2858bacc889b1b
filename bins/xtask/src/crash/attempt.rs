//! One step with death in it: it succeeds, or fails clearly and its repeat succeeds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netloom_lab::Done;

use super::life::{Again, Step};
use super::machine::Machine;

/// A command may take so long although its daemon dies: dockerd gives up on a call after 15 s at
/// most, and a command makes several calls; the rest is a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What `timeout` answers for a command that it ended, politely or not.
const ENDED_BY_TIMEOUT: [i32; 2] = [124, 137];

/// How a step went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Went {
    /// How long the command took, or what it took to fail.
    pub(super) took: Duration,
    /// Whether its repeat was needed.
    pub(super) repeated: Repeated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeated {
    No,
    Yes,
}

/// Gives the command of `step`, and gives it again after a clear failure: once for each of at most
/// `deaths` instances of the daemon that may die in it.
///
/// # Errors
/// When it hangs, fails without a word, or fails although nobody is left to die.
pub(super) fn attempt(m: &Machine, step: &Step, deaths: usize) -> Result<Went> {
    let start = Instant::now();
    let first = (step.act)(m);
    let took = start.elapsed();
    ensure!(took < LIMIT, "it took {:.0} s", took.as_secs_f32());
    let mut failed = failure(first)?;
    let mut all = Vec::new();
    while let Some(why) = failed {
        all.push(why);
        let so_far = all.join("; then: ");
        ensure!(all.len() <= deaths, "it failed again: {so_far}");
        m.recovered()
            .with_context(|| format!("after the clear failure: {so_far}"))?;
        let again = (step.clear)(m).with_context(|| format!("clearing up after: {so_far}"))?;
        if again == Again::Done {
            break;
        }
        failed = failure((step.act)(m))?;
    }
    m.recovered().context("after a success")?;
    (step.check)(m).with_context(|| format!("after failures: {}", all.join("; then: ")))?;
    Ok(Went {
        took,
        repeated: if all.is_empty() {
            Repeated::No
        } else {
            Repeated::Yes
        },
    })
}

/// Why a command failed, if it did; an error where it hung or said nothing.
fn failure(outcome: Result<Done>) -> Result<Option<String>> {
    let done = match outcome {
        Ok(done) => done,
        Err(e) => return Ok(Some(format!("{e:#}"))),
    };
    ensure!(!ENDED_BY_TIMEOUT.contains(&done.code), "it hung: {done}");
    if done.code == 0 {
        return Ok(None);
    }
    let said = format!("{} {}", done.stdout, done.stderr);
    ensure!(!said.trim().is_empty(), "it failed without a word: {done}");
    Ok(Some(said.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::machine::well;

    #[test]
    fn a_hanging_or_silent_command_is_no_clear_failure() {
        assert!(failure(Ok(well())).expect("clear").is_none());
        let with = |code, stderr: &str| {
            failure(Ok(Done {
                code,
                stderr: stderr.into(),
                ..well()
            }))
        };
        assert!(with(124, "").is_err());
        assert!(with(1, " ").is_err());
        assert_eq!(with(1, "no").expect("clear").as_deref(), Some("no"));
    }
}
