//! The address protocol as a state machine, and a walk through all its interleavings.
//!
//! One step is one write to the store, one sync of a journal, one message lost or late, one death.
//! The walk is breadth first, so a violation comes with a shortest history. What the model leaves
//! out, and why, stands in `docs/address-protocol.md`.

mod commits;
mod members;
mod plan;
mod properties;
mod step;
mod symmetry;
mod words;
mod world;

use std::time::Duration;

use netloom_core::{Clock, SystemClock};
use serde::Serialize;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

pub use plan::{Plan, Planted, Promise, Word};
use step::Step;
use world::World;

/// What a walk found.
#[derive(Debug, Clone, Serialize)]
pub struct ModelReport {
    /// What was walked through.
    pub plan: Plan,
    /// Different states, up to the names of hosts and addresses.
    pub states: usize,
    /// Steps taken, the ones that led to a known state included.
    pub steps: usize,
    /// Steps of the longest of all shortest histories.
    pub depth: usize,
    /// How long it took.
    pub seconds: u64,
    /// Whether every reachable state was seen.
    pub complete: bool,
    /// The invariants that were checked in every state.
    pub invariants: Vec<&'static str>,
    /// What must be possible and was not met.
    pub never_met: Vec<&'static str>,
    /// Invariants that do not hold, each with a shortest history.
    pub violations: Vec<Violation>,
}

impl ModelReport {
    /// Whether every state was seen, every invariant held, and nothing was missing.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.complete && self.violations.is_empty() && self.never_met.is_empty()
    }

    /// Whether an address was handed out twice, or lost: what a planted bug must come to.
    #[must_use]
    pub fn does_harm(&self) -> bool {
        let harm = properties::harm();
        self.violations
            .iter()
            .any(|found| harm.contains(found.property))
    }
}

/// An invariant that does not hold.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    /// Which one.
    pub property: &'static str,
    /// How it comes about, one sentence a step.
    pub history: Vec<String>,
}

/// How much a walk may take.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Threads; with one, a violation's history is a shortest one.
    pub threads: usize,
    /// After that the walk ends incomplete.
    pub limit: Duration,
}

/// Walks through all states of a plan, or until harm is done: an address handed out twice, or lost.
/// The other invariants are noted on the way.
#[must_use]
pub fn run(plan: Plan, effort: Effort) -> ModelReport {
    walk(plan, effort, None)
}

/// The shortest history in which an address is handed out twice.
///
/// The checker looks at properties a block of states at a time, so the first history that it tells may
/// be a few steps too long: shorter ones are asked for until there is none.
#[must_use]
pub fn shortest(plan: &Plan, effort: Effort) -> Option<Violation> {
    let effort = Effort {
        threads: 1,
        ..effort
    };
    let mut best = None;
    loop {
        let depth = best.as_ref().map(|best: &Violation| best.history.len());
        let report = walk(plan.clone(), effort, depth);
        let mut found = report.violations.into_iter();
        match found.find(|violation| violation.property == properties::TWICE) {
            Some(shorter) => best = Some(shorter),
            None => return best,
        }
    }
}

/// A walk through all histories, or through those of fewer steps than `below`.
fn walk(plan: Plan, effort: Effort, below: Option<usize>) -> ModelReport {
    let properties = properties::of(&plan);
    let clock = SystemClock::new();
    // The checker counts worlds; the one before the first step is one of them.
    let worlds = below.map_or(usize::MAX, |steps| steps + 1);
    let checker = Walk { plan: plan.clone() }
        .checker()
        .target_max_depth(worlds)
        .threads(effort.threads)
        .timeout(effort.limit)
        .finish_when(HasDiscoveries::AnyOf(properties::harm()))
        .spawn_bfs()
        .join();
    let took = clock.monotonic();
    let discoveries = checker.discoveries();
    let named = |expectation: Expectation| {
        let of = properties
            .iter()
            .filter(move |property| property.expectation == expectation);
        of.map(|property| property.name)
    };
    let violations: Vec<Violation> = named(Expectation::Always)
        .filter_map(|property| {
            let path = discoveries.get(property)?.clone();
            let history = words::history(path.into_actions());
            Some(Violation { property, history })
        })
        .collect();
    ModelReport {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        seconds: took.as_secs(),
        complete: violations.is_empty() && took < effort.limit,
        invariants: named(Expectation::Always).collect(),
        never_met: named(Expectation::Sometimes)
            .filter(|name| !discoveries.contains_key(name))
            .collect(),
        violations,
        plan,
    }
}

/// The plan as the checker wants it.
struct Walk {
    plan: Plan,
}

impl Model for Walk {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![self.plan.start()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        self.plan.candidates(world, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        self.plan.after(world, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(&self.plan)
    }
}

#[cfg(test)]
mod tests;
