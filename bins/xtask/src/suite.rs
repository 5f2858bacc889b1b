//! `cargo xtask test`: unit tests, the house rules, scenarios on real Dockers.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result};
use netloom_lab::Version;

use crate::{Suite, TestArgs, crash, e2e, interrupt, repo, setup, shared, term, tidy};

/// How many tests passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// One test: whether it passed.
impl From<bool> for Tally {
    fn from(passed: bool) -> Self {
        Self {
            passed: usize::from(passed),
            failed: usize::from(!passed),
        }
    }
}

/// Runs the suites that were asked for; `false` where a test failed.
pub(crate) fn run(args: &TestArgs) -> Result<bool> {
    let wants = |suite| args.only.is_none_or(|only| only == suite);
    let needed = match args.only {
        None | Some(Suite::E2e) => versions(args.docker),
        Some(Suite::Crash) => &[Version::Bookworm],
        Some(Suite::Shared) => shared::versions(args.docker),
        Some(Suite::Unit | Suite::Tidy) => &[],
    };
    setup::run(&args.consent, needed)?;
    if wants(Suite::Unit) || wants(Suite::E2e) || wants(Suite::Shared) {
        setup::stores(&args.consent)?;
    }
    let mut tally = Tally::default();
    if wants(Suite::Tidy) {
        tally.add(tidy::suite()?);
    }
    if wants(Suite::Unit) {
        tally.add(unit()?);
    }
    if wants(Suite::E2e) {
        if !args.prebuilt {
            repo::build_programs()?;
        }
        if repo::is_root() {
            interrupt::remove_machines_on_interrupt()?;
            tally.add(e2e::run(args, versions(args.docker))?);
        } else {
            // The scenarios print their own tally; here they count as one.
            tally.add(repo::again_as_root(&root_words("e2e", args))?.into());
        }
    }
    if wants(Suite::Shared) {
        tally.add(shared_stores(args)?);
    }
    if wants(Suite::Crash) {
        tally.add(crash_matrix(args)?);
    }
    term::tally(tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

fn crash_matrix(args: &TestArgs) -> Result<Tally> {
    if !args.prebuilt {
        crash::build()?;
    }
    if repo::is_root() {
        interrupt::remove_machines_on_interrupt()?;
        return crash::run(args);
    }
    Ok(repo::again_as_root(&root_words("crash", args))?.into())
}

fn shared_stores(args: &TestArgs) -> Result<Tally> {
    if !args.prebuilt {
        repo::build_programs()?;
    }
    if repo::is_root() {
        interrupt::remove_machines_on_interrupt()?;
        return shared::run(args);
    }
    Ok(repo::again_as_root(&root_words("shared", args))?.into())
}

pub(crate) const fn versions(only: Option<Version>) -> &'static [Version] {
    match only {
        None => &Version::ALL,
        Some(Version::Bookworm) => &[Version::Bookworm],
        Some(Version::Trixie) => &[Version::Trixie],
        Some(Version::Sid) => &[Version::Sid],
    }
}

/// How this program is asked for one suite as root.
fn root_words(suite: &str, args: &TestArgs) -> Vec<String> {
    let mut words: Vec<String> = ["test", "--only", suite, "--prebuilt", "--yes"]
        .map(str::to_owned)
        .into();
    if let Some(version) = args.docker {
        words.extend(["--docker".to_owned(), version.suite().to_owned()]);
    }
    if args.long {
        words.push("--long".to_owned());
    }
    words.extend(args.filter.clone());
    words
}

/// `cargo test --workspace`, its words passed through and its results counted.
fn unit() -> Result<Tally> {
    term::heading("Unit tests");
    let mut command = repo::cargo();
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("could not start cargo")?;
    let mut tally = Tally::default();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line?;
            if let Some(result) = result_of(&line) {
                tally.add(result);
            }
            println!("{line}");
        }
    }
    // A test binary that does not build or that dies prints no result line.
    if !child.wait()?.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}

/// Reads `test result: ok. 12 passed; 0 failed; ...`.
fn result_of(line: &str) -> Option<Tally> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let number = |what: &str| {
        let before = rest.split(what).next()?;
        before.trim().rsplit(' ').next()?.parse::<usize>().ok()
    };
    Some(Tally {
        passed: number("passed")?,
        failed: number("failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_line_of_a_test_binary_is_counted() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            result_of(line),
            Some(Tally {
                passed: 12,
                failed: 3
            })
        );
        assert_eq!(result_of("test store::opens ... ok"), None);
    }
}
