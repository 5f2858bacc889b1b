//! The cells of the bench: pattern, pool, occupancy, subject.

use super::measure::{self, Cell, Effort, Endless, Filling, Pattern, State, threads};
use super::subjects::{Limit, Mutexed, Pool, Shared, Subject};
use crate::report::Row;
use fixedbitset::FixedBitSet;
use hibitset::BitSet;
use netloom_alloc::{AtomicBitmap, Bitmap};
use roaring::RoaringBitmap;
use std::collections::BTreeSet;

/// Pools by the name of their IPv4 prefix length, and their host bits.
pub(crate) const POOLS: [(&str, u32); 3] = [("/24", 8), ("/16", 16), ("/8", 24)];

pub(crate) const OCCUPANCIES: [u32; 3] = [50, 90, 99];

/// Where a row belongs.
#[derive(Debug, Clone, Copy)]
struct Place {
    pattern: &'static str,
    pool: &'static str,
    occupancy: Option<u32>,
}

/// Everything, in the order of the table.
pub(crate) fn all(effort: Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    for (pool, host_bits) in POOLS {
        for occupancy in OCCUPANCIES {
            let state = State::new(host_bits, occupancy);
            let place = Place {
                pattern: "churn",
                pool,
                occupancy: Some(occupancy),
            };
            rows.extend(churn(place, &state, effort));
            if occupancy != 90 {
                let place = Place {
                    pattern: "specific",
                    ..place
                };
                rows.extend(specific(place, &state, effort));
            }
            if occupancy == 50 && pool != "/24" {
                let place = Place {
                    pattern: "threads",
                    ..place
                };
                rows.extend(shared::<AtomicBitmap>(place, &state, effort));
                rows.extend(shared::<Mutexed>(place, &state, effort));
            }
        }
        rows.extend(fill(
            Place {
                pattern: "fill",
                pool,
                occupancy: None,
            },
            host_bits,
            effort,
        ));
    }
    rows
}

fn churn(place: Place, state: &State, effort: Effort) -> Vec<Row> {
    let mut cells: Vec<Box<dyn Cell>> = vec![
        endless::<Bitmap>(state, measure::churn),
        endless::<AtomicBitmap>(state, measure::churn),
        endless::<Pool>(state, measure::churn),
        endless::<Limit>(state, measure::churn),
        endless::<BitSet>(state, measure::churn),
    ];
    if everyone(place, effort) {
        cells.push(endless::<Mutexed>(state, measure::churn));
        cells.push(endless::<RoaringBitmap>(state, measure::churn));
        cells.push(endless::<FixedBitSet>(state, measure::churn));
        cells.push(endless::<BTreeSet<u32>>(state, measure::churn));
    }
    in_turns(&mut cells, effort);
    let mut rows = times(place, &cells);
    for cell in &cells {
        rows.push(place.row(cell.name(), "heap_allocs_per_op", cell.heap_calls()));
        rows.push(place.row(cell.name(), "bytes_held", cell.bytes()));
    }
    rows
}

fn specific(place: Place, state: &State, effort: Effort) -> Vec<Row> {
    let mut cells: Vec<Box<dyn Cell>> = vec![
        endless::<Bitmap>(state, measure::specific),
        endless::<AtomicBitmap>(state, measure::specific),
        endless::<Pool>(state, measure::specific),
        endless::<Limit>(state, measure::specific),
        endless::<BitSet>(state, measure::specific),
    ];
    if everyone(place, effort) {
        cells.push(endless::<Mutexed>(state, measure::specific));
        cells.push(endless::<RoaringBitmap>(state, measure::specific));
        cells.push(endless::<FixedBitSet>(state, measure::specific));
        cells.push(endless::<BTreeSet<u32>>(state, measure::specific));
    }
    in_turns(&mut cells, effort);
    times(place, &cells)
}

/// Fills pools of up to 2^20 addresses wholly, and as many addresses of wider ones.
fn fill(place: Place, host_bits: u32, effort: Effort) -> Vec<Row> {
    let state = State::new(host_bits, 0);
    let count = (1_usize << host_bits.min(20)) - 2;
    let mut cells: Vec<Box<dyn Cell>> = vec![
        Box::new(Filling::<Bitmap>::new(&state, count)),
        Box::new(Filling::<AtomicBitmap>::new(&state, count)),
        Box::new(Filling::<Pool>::new(&state, count)),
        Box::new(Filling::<Mutexed>::new(&state, count)),
    ];
    if everyone(place, effort) {
        cells.push(Box::new(Filling::<BitSet>::new(&state, count)));
        cells.push(Box::new(Filling::<RoaringBitmap>::new(&state, count)));
        cells.push(Box::new(Filling::<BTreeSet<u32>>::new(&state, count)));
    }
    // A scan from the beginning is quadratic here: beyond /16 it would take hours.
    if host_bits <= 16 {
        cells.push(Box::new(Filling::<FixedBitSet>::new(&state, count)));
    }
    // Building a wide pool is most of the work of a turn.
    let rounds = if host_bits > 16 {
        effort.rounds.div_ceil(8)
    } else {
        effort.rounds
    };
    in_turns(&mut cells, Effort { rounds, ..effort });
    times(place, &cells)
}

fn shared<S: Shared>(place: Place, state: &State, effort: Effort) -> Vec<Row> {
    // About one sample per thread at some 40 ns a pair.
    let pairs = if effort.wide { 200_000 } else { 50_000 };
    let rows = [1, 2, 4].map(|count| {
        let runs = (0..effort.rounds).map(|_| threads::<S>(state, count, pairs));
        let least = runs
            .take(if place.pool == "/8" { 4 } else { 12 })
            .fold(f64::INFINITY, f64::min);
        Row {
            threads: Some(count),
            ..place.row(S::NAME, "ns_per_op", least)
        }
    });
    rows.into()
}

fn endless<S: Subject + 'static>(state: &State, pattern: Pattern<S>) -> Box<dyn Cell> {
    Box::new(Endless::new(state, pattern))
}

/// Whether slow subjects take part: in a quick run not in the widest pool.
fn everyone(place: Place, effort: Effort) -> bool {
    effort.wide || place.pool != "/8"
}

fn in_turns(cells: &mut [Box<dyn Cell>], effort: Effort) {
    // The first turns only find out how many operations make a sample.
    for _ in 0..effort.rounds + 3 {
        for cell in cells.iter_mut() {
            cell.measure(effort.sample);
        }
    }
}

fn times(place: Place, cells: &[Box<dyn Cell>]) -> Vec<Row> {
    cells
        .iter()
        .map(|cell| place.row(cell.name(), "ns_per_op", cell.nanoseconds()))
        .collect()
}

impl Place {
    fn row(self, subject: &'static str, metric: &'static str, value: f64) -> Row {
        let Self {
            pattern,
            pool,
            occupancy,
        } = self;
        let pool = Some(pool);
        Row {
            bench: "alloc",
            subject,
            pattern,
            pool,
            occupancy,
            threads: None,
            metric,
            value,
        }
    }
}
