//! The search for an order of one address's calls.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Call, Holder, Outcome, Verdict, Witness};

/// Searches for an order of the calls of one address, which was nobody's before the first.
#[must_use]
pub fn check_address(calls: &[Call], worlds_max: usize) -> Verdict {
    let mut search = Search::new(worlds_max);
    for event in events(calls) {
        match event {
            Event::Invoked(call) => search.invoke(call),
            Event::Returned(call) => match search.explain(call) {
                Ok(()) => {}
                Err(Stop::Unexplained(holders)) => {
                    return Verdict::Violation(witness(calls, *call, holders));
                }
                Err(Stop::TooMany(worlds)) => return Verdict::Unknown { worlds },
            },
        }
    }
    Verdict::Linearizable
}

enum Event<'a> {
    Invoked(&'a Call),
    Returned(&'a Call),
}

/// Invocations and answers in the order of time. At one moment invocations come first: then the two
/// calls overlap, which is what a clock that did not move cannot deny.
fn events(calls: &[Call]) -> impl Iterator<Item = Event<'_>> {
    let invoked = calls.iter().map(|call| ((call.invoked, false), call));
    let returned = calls
        .iter()
        .filter(|call| call.outcome != Outcome::Unknown)
        .map(|call| ((call.returned.max(call.invoked), true), call));
    let mut all: Vec<_> = invoked.chain(returned).collect();
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|((_, is_answer), call)| {
        if is_answer {
            Event::Returned(call)
        } else {
            Event::Invoked(call)
        }
    })
}

/// A world that explains all answers so far.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    /// Which of the calls under way have already happened in it, by their place in `Search::open`.
    happened: u64,
    holder: Holder,
    /// How many of the unanswered calls of each kind have happened in it.
    spent: Vec<u16>,
}

/// Worlds found so far, without those that are a worse copy of another: the same, and more spent.
#[derive(Debug, Default)]
struct Worlds {
    best: BTreeMap<(u64, Holder), Vec<Vec<u16>>>,
    count: usize,
}

impl Worlds {
    /// Takes a world in unless one is there that can do all that it can.
    fn add(&mut self, world: &World) -> bool {
        let known = self.best.entry((world.happened, world.holder)).or_default();
        let as_good = |spent: &[u16], than: &[u16]| spent.iter().zip(than).all(|(a, b)| a <= b);
        if known.iter().any(|spent| as_good(spent, &world.spent)) {
            return false;
        }
        self.count -= known.len();
        known.retain(|spent| !as_good(&world.spent, spent));
        known.push(world.spent.clone());
        self.count += known.len();
        true
    }

    fn into_worlds(self) -> Vec<World> {
        let each = self.best.into_iter();
        each.flat_map(|((happened, holder), all)| {
            all.into_iter().map(move |spent| World {
                happened,
                holder,
                spent,
            })
        })
        .collect()
    }
}

/// Why the search ends.
enum Stop {
    /// No world explains an answer; these were the holders before it.
    Unexplained(Vec<Holder>),
    /// More worlds than may be held.
    TooMany(usize),
}

struct Search<'a> {
    worlds: Vec<World>,
    /// The calls under way that will be answered.
    open: [Option<&'a Call>; 64],
    /// Calls under way for which `open` had no room.
    crowd: usize,
    /// The unanswered calls, by who asked what, and how many.
    unanswered: Vec<(u32, Action, u16)>,
    worlds_max: usize,
}

impl<'a> Search<'a> {
    fn new(worlds_max: usize) -> Self {
        let start = World {
            happened: 0,
            holder: Holder::Nobody,
            spent: Vec::new(),
        };
        Self {
            worlds: vec![start],
            open: [None; 64],
            crowd: 0,
            unanswered: Vec::new(),
            worlds_max,
        }
    }

    fn invoke(&mut self, call: &'a Call) {
        if call.outcome != Outcome::Unknown {
            match self.open.iter_mut().find(|place| place.is_none()) {
                Some(place) => *place = Some(call),
                None => self.crowd += 1,
            }
            return;
        }
        let mut kinds = self.unanswered.iter_mut();
        match kinds.find(|(host, action, _)| (*host, *action) == (call.host, call.action)) {
            Some((_, _, count)) => *count = count.saturating_add(1),
            None => {
                self.unanswered.push((call.host, call.action, 1));
                for world in &mut self.worlds {
                    world.spent.push(0);
                }
            }
        }
    }

    /// Goes on to the worlds in which this call has happened by now.
    fn explain(&mut self, call: &Call) -> Result<(), Stop> {
        if self.crowd > 0 {
            return Err(Stop::TooMany(self.worlds.len()));
        }
        let is_it = |place: &Option<&Call>| place.is_some_and(|open| std::ptr::eq(open, call));
        let place = self
            .open
            .iter()
            .position(is_it)
            .expect("an answer follows its invocation");
        let bit = 1 << place;
        let holders: BTreeSet<Holder> = self.worlds.iter().map(|world| world.holder).collect();
        let (mut seen, mut explained) = (Worlds::default(), Worlds::default());
        let mut todo = std::mem::take(&mut self.worlds);
        while let Some(world) = todo.pop() {
            if !seen.add(&world) {
                continue;
            }
            if world.happened & bit != 0 {
                explained.add(&World {
                    happened: world.happened & !bit,
                    ..world
                });
            } else {
                self.next(&world, &mut todo);
            }
            if seen.count > self.worlds_max {
                return Err(Stop::TooMany(seen.count));
            }
        }
        if let Some(place) = self.open.get_mut(place) {
            *place = None;
        }
        self.worlds = explained.into_worlds();
        if self.worlds.is_empty() {
            return Err(Stop::Unexplained(holders.into_iter().collect()));
        }
        Ok(())
    }

    /// The worlds one call later.
    fn next(&self, world: &World, todo: &mut Vec<World>) {
        if let Holder::InDoubt(_) = world.holder {
            todo.push(World {
                holder: Holder::Nobody,
                ..world.clone()
            });
        }
        for (place, call) in self.open.iter().enumerate() {
            let bit = 1 << place;
            if let Some(call) = call
                && world.happened & bit == 0
                && let Some(holder) = answered(world.holder, call)
            {
                let happened = world.happened | bit;
                todo.push(World {
                    happened,
                    holder,
                    spent: world.spent.clone(),
                });
            }
        }
        for (kind, (host, action, count)) in self.unanswered.iter().enumerate() {
            let mut spent = world.spent.clone();
            let Some(used) = spent.get_mut(kind).filter(|used| **used < *count) else {
                continue;
            };
            *used += 1;
            if let Some(holder) = unanswered(world.holder, *host, *action) {
                todo.push(World {
                    happened: world.happened,
                    holder,
                    spent,
                });
            }
        }
    }
}

/// Who holds the address after a call, if its answer fits who held it before.
fn answered(holder: Holder, call: &Call) -> Option<Holder> {
    let own = matches!(holder, Holder::Host(host) | Holder::InDoubt(host) if host == call.host);
    let held = holder != Holder::Nobody;
    match (call.action, call.outcome) {
        (Action::Take, Outcome::Done) => (!held).then_some(Holder::Host(call.host)),
        (Action::Take, _) => held.then_some(holder),
        (Action::Release, Outcome::Done) => own.then_some(Holder::Nobody),
        (Action::Release, _) => (!own).then_some(holder),
    }
}

/// Who holds the address after an unanswered call that had an effect.
fn unanswered(holder: Holder, host: u32, action: Action) -> Option<Holder> {
    match (action, holder) {
        (Action::Take, Holder::Nobody) => Some(Holder::InDoubt(host)),
        (Action::Release, Holder::Host(of) | Holder::InDoubt(of)) if of == host => {
            Some(Holder::Nobody)
        }
        _ => None,
    }
}

/// The calls that are worth a look: the last ones that were asked before the wrong answer came.
fn witness(calls: &[Call], call: Call, holders: Vec<Holder>) -> Witness {
    let mut earlier: Vec<Call> = calls
        .iter()
        .filter(|other| other.invoked <= call.returned && **other != call)
        .copied()
        .collect();
    earlier.sort_by_key(|other| other.invoked);
    let kept = earlier.len().saturating_sub(WITNESS_CALLS_MAX);
    let mut before = earlier.split_off(kept);
    before.push(call);
    Witness {
        call,
        holders,
        before,
    }
}

/// As many as fit on a screen.
const WITNESS_CALLS_MAX: usize = 30;
