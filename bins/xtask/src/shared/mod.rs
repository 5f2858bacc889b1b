//! Two Docker hosts that share pools through a real store: what an operator does to them, and what
//! must be true afterwards on both.

mod hands;
mod machine;
mod moves;
mod outage;
mod parallel;
mod world;

use anyhow::Result;
use netloom_core::StoreKind;
use netloom_lab::Version;

use crate::TestArgs;
use crate::e2e::{Length, report};
use crate::suite::Tally;
use crate::term;
use world::World;

/// One named scenario, for each kind of store.
struct Scenario {
    name: &'static str,
    run: fn(&mut World) -> Result<()>,
}

/// In the order of running: what others rest on comes first.
const THEMES: [&[Scenario]; 4] = [
    parallel::SCENARIOS,
    hands::SCENARIOS,
    outage::SCENARIOS,
    moves::SCENARIOS,
];

const KINDS: [StoreKind; 3] = [StoreKind::Etcd, StoreKind::Consul, StoreKind::ZooKeeper];

/// The oldest Docker unless another was asked for: address management is the same for all, and
/// the oldest one's retries are the clumsiest.
pub(crate) fn versions(only: Option<Version>) -> &'static [Version] {
    crate::suite::versions(Some(only.unwrap_or(Version::Bookworm)))
}

/// Runs the scenarios that the filter lets through, on each kind of store.
///
/// # Errors
/// When the lab itself fails.
pub(crate) fn run(args: &TestArgs) -> Result<Tally> {
    netloom_lab::sweep_abandoned();
    let mut tally = Tally::default();
    for version in versions(args.docker) {
        for kind in KINDS {
            tally.add(on_one_store(args, *version, kind));
        }
    }
    Ok(tally)
}

fn on_one_store(args: &TestArgs, version: Version, kind: StoreKind) -> Tally {
    let filter = args.filter.as_deref().unwrap_or_default();
    let length = if args.long {
        Length::Full
    } else {
        Length::Smoke
    };
    let mut tally = Tally::default();
    let mut kept: Option<World> = None;
    let chosen: Vec<(String, &Scenario)> = THEMES
        .iter()
        .flat_map(|theme| theme.iter())
        .map(|scenario| (format!("{}: {}", kind.scheme(), scenario.name), scenario))
        .filter(|(name, _)| name.contains(filter))
        .collect();
    if chosen.is_empty() {
        return tally;
    }
    let (suite, store) = (version.suite(), kind.scheme());
    term::heading(&format!("Two hosts on Debian {suite} share {store}"));
    for (name, scenario) in chosen {
        tally.add(report(&name, || {
            let mut world = match kept.take() {
                Some(world) => world,
                None => World::start(version, kind, length)?,
            };
            let outcome = (scenario.run)(&mut world).and_then(|()| world.tidy_up());
            match outcome {
                // The next scenario goes on with these hosts; after a failure with fresh ones.
                Ok(()) => kept = Some(world),
                Err(_) => world.last_words(),
            }
            outcome
        }));
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenario_names_are_unique() {
        let mut names: Vec<&str> = THEMES
            .iter()
            .flat_map(|theme| theme.iter())
            .map(|scenario| scenario.name)
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn the_oldest_docker_is_taken_unless_another_is_asked_for() {
        assert_eq!(versions(None), [Version::Bookworm]);
        assert_eq!(versions(Some(Version::Sid)), [Version::Sid]);
    }
}
