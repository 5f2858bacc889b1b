//! Which points each step passes, and lives in which the daemon dies at them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use super::attempt::attempt;
use super::life::{LIFE, Step, When};
use super::machine::Machine;
use super::points::EXCUSED;
use super::tally::Seen;
use crate::term;

/// The points of each step of the life, in the order of passing.
#[derive(Debug, Default)]
pub(super) struct Listing(Vec<Vec<String>>);

/// Where the daemon dies in each step of one life; an instance after the other.
type Plan<'a> = Vec<Vec<&'a str>>;

/// A machine that is there when it is needed: a new one after a failure.
pub(super) struct Machines<'a> {
    pub(super) programs: &'a Path,
    pub(super) kept: Option<Machine>,
}

impl Machines<'_> {
    pub(super) fn take(&mut self) -> Result<Machine> {
        match self.kept.take() {
            Some(machine) => Ok(machine),
            None => Machine::boot(self.programs),
        }
    }
}

/// Lives one life without a kill and lists what it passes.
///
/// # Errors
/// When a step fails although nobody dies: then the matrix would say nothing.
pub(super) fn list(m: &Machine) -> Result<Listing> {
    let mut listing = Listing::default();
    m.passed();
    for step in LIFE {
        let start = Instant::now();
        attempt(m, step, 0).with_context(|| format!("{}, although nobody died", step.name))?;
        let passed = m.passed();
        let took = start.elapsed().as_secs_f32();
        term::aside(&format!(
            "{:<32} {took:5.1} s {:3} points",
            step.name,
            passed.len()
        ));
        listing
            .0
            .push(passed.into_iter().map(|(name, _)| name).collect());
    }
    m.is_clean().context("after a life without a kill")?;
    Ok(listing)
}

impl Listing {
    /// The points that were passed in any step.
    pub(super) fn reached(&self) -> BTreeSet<&str> {
        self.0.iter().flatten().map(String::as_str).collect()
    }

    /// Keeps the pairs of step and point whose words `step: point` contain `filter`.
    pub(super) fn filtered(mut self, filter: &str) -> Self {
        for (step, points) in LIFE.iter().zip(&mut self.0) {
            points.retain(|point| format!("{}: {point}", step.name).contains(filter));
        }
        self
    }

    /// Lives that together die once at every pair of step and point.
    fn every_pair(&self) -> Vec<Plan<'_>> {
        let lives = self.0.iter().map(Vec::len).max().unwrap_or(0);
        (0..lives)
            .map(|n| {
                let steps = self.0.iter();
                steps.map(|points| planned(points, n)).collect()
            })
            .collect()
    }

    /// `lives` lives that together die at as many different points as they can, leaving out those
    /// in `used` as long as there are others; what they die at is added to it.
    fn some<'a>(&'a self, lives: usize, used: &mut BTreeSet<&'a str>) -> Vec<Plan<'a>> {
        let mut choose = |points: &'a Vec<String>| -> Vec<&'a str> {
            // Those that only this step passes come late in it, as a rule: from the end.
            let names = points.iter().rev().map(String::as_str);
            let fresh = names.clone().find(|name| !used.contains(name));
            let chosen = fresh.or_else(|| names.clone().next());
            used.extend(chosen);
            chosen.into_iter().collect()
        };
        (0..lives)
            .map(|_| self.0.iter().map(&mut choose).collect())
            .collect()
    }

    /// A life that dies at the points at which nobody has died yet; none when there are no such.
    fn alive(&self, killed_at: &BTreeSet<String>) -> Vec<Plan<'_>> {
        let steps = self.0.iter().map(|points| {
            let alive = points.iter().find(|point| !killed_at.contains(*point));
            alive.map(String::as_str).into_iter().collect::<Vec<_>>()
        });
        let plan: Plan<'_> = steps.collect();
        let any = plan.iter().any(|points| !points.is_empty());
        any.then_some(plan).into_iter().collect()
    }

    /// Lives in which a second instance dies while it recovers, at every point of a recovery once.
    fn twice<'a>(&'a self, lives: Option<usize>, used: &mut BTreeSet<&'a str>) -> Vec<Plan<'a>> {
        let recovery = LIFE.iter().position(|s| s.name.starts_with("restart"));
        let recovery: Vec<&str> = recovery
            .and_then(|n| self.0.get(n))
            .map(|points| points.iter().map(String::as_str).collect())
            .unwrap_or_default();
        let mut second = recovery.iter().cycle();
        let steps = self.0.iter().filter(|p| !p.is_empty()).count().max(1);
        let all = recovery.len().div_ceil(steps) + 1;
        let lives = lives.unwrap_or(all).min(recovery.len());
        let first = self.some(lives, used);
        first
            .into_iter()
            .map(|mut plan| {
                for points in plan.iter_mut().filter(|p| !p.is_empty()) {
                    points.extend(second.next());
                }
                plan
            })
            .collect()
    }
}

fn planned(points: &[String], n: usize) -> Vec<&str> {
    points.get(n).map(String::as_str).into_iter().collect()
}

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// A few lives.
    Smoke,
    /// Every pair of step and point, and every point of a recovery.
    Full,
}

/// Lives of the smoke: one with about twenty deaths; another one has two deaths in each step.
const SMOKE_LIVES: usize = 1;

/// Lives all lives that `extent` asks for.
///
/// # Errors
/// When a machine cannot be made; what fails in a life is noted in `seen`.
pub(super) fn run(
    listing: &Listing,
    extent: Extent,
    machines: &mut Machines<'_>,
    seen: &mut Seen,
) -> Result<()> {
    let mut used = BTreeSet::new();
    let once = match extent {
        Extent::Smoke => listing.some(SMOKE_LIVES, &mut used),
        Extent::Full => listing.every_pair(),
    };
    let twice = match extent {
        Extent::Smoke => listing.twice(Some(1), &mut used),
        Extent::Full => listing.twice(None, &mut used),
    };
    live_all(
        &once.into_iter().chain(twice).collect::<Vec<_>>(),
        machines,
        seen,
    )?;
    if extent == Extent::Full {
        for _ in 0..SECOND_CHANCES {
            live_all(&listing.alive(&seen.killed_at), machines, seen)?;
        }
    }
    Ok(())
}

/// What goes on by itself does not pass its points in every life: those at which nobody has died
/// yet get so many lives more.
const SECOND_CHANCES: usize = 2;

fn live_all(plans: &[Plan<'_>], machines: &mut Machines<'_>, seen: &mut Seen) -> Result<()> {
    let all = plans.len();
    for (n, plan) in plans.iter().enumerate() {
        let start = Instant::now();
        let (kills, failures) = (seen.kills + seen.second_kills, seen.failures.len());
        let machine = machines.take()?;
        if live(&machine, plan, seen) {
            machines.kept = Some(machine);
        }
        term::say(&format!(
            "life {} of {all}: {} kills, {} failures, {:.0} s",
            n + 1,
            seen.kills + seen.second_kills - kills,
            seen.failures.len() - failures,
            start.elapsed().as_secs_f32()
        ));
    }
    Ok(())
}

/// One life with deaths in it; `false` where the machine is of no use any more.
fn live(m: &Machine, plan: &Plan<'_>, seen: &mut Seen) -> bool {
    for (step, points) in LIFE.iter().zip(plan) {
        if step.when == When::Alone && points.is_empty() {
            continue;
        }
        if let Err(e) = step_with_deaths(m, step, points, seen) {
            let earlier = deaths(plan, step.name);
            let here = points.join(", then ");
            seen.failed(format!(
                "{} / {here}: {e:#}; deaths before: {earlier}",
                step.name
            ));
            seen.duplicates += m.doubled().map_or(0, |doubled| doubled.len());
            m.last_words();
            return false;
        }
    }
    match m.is_clean() {
        Ok(()) => {
            seen.passed += 1;
            true
        }
        Err(e) => {
            seen.leaks += 1;
            let deaths = deaths(plan, "");
            seen.failed(format!("the end of a life: {e:#}; deaths: {deaths}"));
            m.last_words();
            false
        }
    }
}

/// The deaths that were planned before the step named `until`.
fn deaths(plan: &Plan<'_>, until: &str) -> String {
    let steps = LIFE.iter().zip(plan).take_while(|(s, _)| s.name != until);
    let with_deaths = steps.filter(|(_, points)| !points.is_empty());
    with_deaths
        .map(|(step, points)| format!("{} / {}", step.name, points.join(", then ")))
        .collect::<Vec<_>>()
        .join("; ")
}

fn step_with_deaths(m: &Machine, step: &Step, points: &[&str], seen: &mut Seen) -> Result<()> {
    if points.is_empty() {
        return attempt(m, step, 0).map(drop);
    }
    m.rest()?;
    m.arm(points)?;
    let outcome = attempt(m, step, points.len());
    let left = m.disarm()?;
    m.died(points.len() - left);
    for (n, point) in points.iter().enumerate() {
        if n + left >= points.len() {
            seen.missed += 1;
            continue;
        }
        seen.killed_at.insert((*point).to_owned());
        if n == 0 {
            seen.kills += 1;
        } else {
            seen.second_kills += 1;
        }
    }
    seen.survived(outcome?);
    Ok(())
}

/// Points that nothing passed although nothing excuses them.
pub(super) fn unreached<'a>(
    all: &'a BTreeSet<String>,
    reached: &BTreeSet<&str>,
) -> Vec<&'a String> {
    let excused = |name: &str| EXCUSED.iter().any(|(excused, _)| *excused == name);
    all.iter()
        .filter(|name| !reached.contains(name.as_str()) && !excused(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        let mut steps: Vec<Vec<String>> = LIFE.iter().map(|_| Vec::new()).collect();
        let restart = LIFE
            .iter()
            .position(|s| s.name.starts_with("restart"))
            .expect("the life has a restart");
        steps[1] = ["a", "b", "c"].map(str::to_owned).into();
        steps[restart] = ["r", "s"].map(str::to_owned).into();
        Listing(steps)
    }

    #[test]
    fn the_full_matrix_dies_at_every_pair_once() {
        let listing = listing();
        let lives = listing.every_pair();
        assert_eq!(lives.len(), 3);
        let kills: Vec<&str> = lives.iter().flatten().flatten().copied().collect();
        assert_eq!(kills, ["a", "r", "b", "s", "c"]);
    }

    #[test]
    fn a_few_lives_die_at_different_points() {
        let listing = listing();
        let mut used = BTreeSet::new();
        let lives = listing.some(2, &mut used);
        let kills: Vec<&str> = lives.iter().flatten().flatten().copied().collect();
        assert_eq!(kills, ["c", "s", "b", "r"]);
    }

    #[test]
    fn a_second_death_comes_at_every_point_of_a_recovery() {
        let listing = listing();
        let lives = listing.twice(None, &mut BTreeSet::new());
        let second: BTreeSet<&str> = lives
            .iter()
            .flatten()
            .filter_map(|points| points.get(1).copied())
            .collect();
        assert_eq!(second, BTreeSet::from(["r", "s"]));
    }

    #[test]
    fn a_point_that_nothing_passes_is_named() {
        let all = BTreeSet::from(["a".to_owned(), "never".to_owned()]);
        assert_eq!(unreached(&all, &listing().reached()), ["never"]);
    }
}
