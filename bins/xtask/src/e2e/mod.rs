//! Scenarios on real Dockers: what an operator does, and what must be true afterwards.

mod basics;
mod compose;
mod faults;
mod floor;
mod ipam;
mod isolation;
mod lab;
mod lifecycle;
mod modes;
mod placement;
mod ports;
mod soak;

use std::time::Instant;

use anyhow::Result;
use netloom_lab::Version;

pub(crate) use lab::{Lab, Length};

use crate::TestArgs;
use crate::suite::Tally;
use crate::term::{self, Colour};

/// On which Dockers a scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// On all three, also on the middle one that gets the short list.
    Short,
    /// On the oldest and the newest.
    Whole,
    /// Only on 28 and newer.
    NewDocker,
}

/// One named scenario.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    name: &'static str,
    scope: Scope,
    run: fn(&mut Lab) -> Result<()>,
}

impl Scenario {
    const fn short(name: &'static str, run: fn(&mut Lab) -> Result<()>) -> Self {
        Self {
            name,
            scope: Scope::Short,
            run,
        }
    }

    const fn whole(name: &'static str, run: fn(&mut Lab) -> Result<()>) -> Self {
        Self {
            name,
            scope: Scope::Whole,
            run,
        }
    }

    const fn new_docker(name: &'static str, run: fn(&mut Lab) -> Result<()>) -> Self {
        Self {
            name,
            scope: Scope::NewDocker,
            run,
        }
    }

    fn runs_on(&self, version: Version) -> bool {
        match self.scope {
            Scope::Short => true,
            Scope::Whole => version != Version::Trixie,
            Scope::NewDocker => version == Version::Sid,
        }
    }
}

/// Every theme, in the order of running: what others rest on comes first.
const THEMES: [&[Scenario]; 10] = [
    basics::SCENARIOS,
    ports::SCENARIOS,
    modes::SCENARIOS,
    isolation::SCENARIOS,
    ipam::SCENARIOS,
    placement::SCENARIOS,
    compose::SCENARIOS,
    lifecycle::SCENARIOS,
    faults::SCENARIOS,
    soak::SCENARIOS,
];

/// Runs the scenarios of `versions` that the filter lets through.
///
/// # Errors
/// When the lab itself fails.
pub(crate) fn run(args: &TestArgs, versions: &[Version]) -> Result<Tally> {
    netloom_lab::sweep_abandoned();
    let filter = args.filter.as_deref().unwrap_or_default();
    let mut tally = Tally::default();
    for version in versions {
        let chosen: Vec<Scenario> = THEMES
            .iter()
            .flat_map(|theme| theme.iter())
            .filter(|s| s.runs_on(*version) && s.name.contains(filter))
            .copied()
            .collect();
        tally.add(on_one_docker(args, *version, &chosen)?);
    }
    Ok(tally)
}

fn on_one_docker(args: &TestArgs, version: Version, chosen: &[Scenario]) -> Result<Tally> {
    let mut tally = Tally::default();
    let filter = args.filter.as_deref().unwrap_or_default();
    term::heading(&format!("End to end on Debian {}", version.suite()));
    if floor::NAME.contains(filter) {
        tally.add(report(floor::NAME, || {
            floor::the_lab_works(version).map(|docker| term::say(&docker))
        }));
    }
    let length = if args.long {
        Length::Full
    } else {
        Length::Smoke
    };
    let mut kept: Option<Lab> = None;
    for scenario in chosen {
        let good = report(scenario.name, || {
            let mut lab = match kept.take() {
                Some(lab) => lab,
                None => Lab::start(version, length)?,
            };
            let outcome = (scenario.run)(&mut lab).and_then(|()| lab.tidy_up());
            match outcome {
                // The next scenario goes on in the same machine; after a failure in a fresh one.
                Ok(()) => kept = Some(lab),
                Err(_) => lab.last_words(),
            }
            outcome
        });
        tally.add(good);
    }
    if let Some(lab) = kept.take() {
        let name = "end: after uninstall nothing of ours is left on the host";
        tally.add(report(name, || lab.leaves_no_trace()));
    }
    Ok(tally)
}

/// Runs one scenario and prints its line.
pub(crate) fn report(name: &str, run: impl FnOnce() -> Result<()>) -> Tally {
    let start = Instant::now();
    let outcome = run();
    let took = format!("{:.1} s", start.elapsed().as_secs_f32());
    match &outcome {
        Ok(()) => {
            println!(
                "  {} {name} {}",
                term::paint("ok", Colour::Green),
                term::paint(&took, Colour::Grey)
            );
        }
        Err(e) => {
            println!(
                "  {} {name} {}",
                term::paint("FAILED", Colour::Red),
                term::paint(&took, Colour::Grey)
            );
            println!("      {e:#}");
        }
    }
    outcome.is_ok().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenario_names_are_unique_and_say_their_theme() {
        let mut names: Vec<&str> = THEMES
            .iter()
            .flat_map(|t| t.iter())
            .map(|s| s.name)
            .collect();
        assert!(names.iter().all(|n| n.contains(": ")));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn the_middle_docker_gets_the_short_list() {
        let whole = Scenario::whole("a: b", |_| Ok(()));
        assert!(!whole.runs_on(Version::Trixie));
        assert!(whole.runs_on(Version::Sid) && whole.runs_on(Version::Bookworm));
        assert!(!Scenario::new_docker("a: c", |_| Ok(())).runs_on(Version::Bookworm));
    }
}
