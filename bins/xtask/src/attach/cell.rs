//! One cell of the matrix, measured for all peers in turn.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::fixture::{Fixture, Peer};

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// `docker network connect` of a running container.
    Connect,
    /// `docker run -d`: create and start.
    Run,
}

impl Operation {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Run => "run",
        }
    }

    /// A container without a network cannot be connected to one.
    fn peers(self) -> &'static [Peer] {
        match self {
            Self::Connect => &[Peer::Netloom, Peer::Bridge, Peer::Floor],
            // What is connected later is made inside anyhow, but for the first interface.
            Self::Run => &[
                Peer::Netloom,
                Peer::Inside,
                Peer::Bridge,
                Peer::Floor,
                Peer::None,
            ],
        }
    }
}

/// What is measured, and beside what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) operation: Operation,
    /// Published TCP ports of each container.
    pub(super) ports: u16,
    /// How many operations at a time.
    pub(super) parallel: usize,
    /// How many idle containers stand on the network already.
    pub(super) present: usize,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            operation,
            ports,
            parallel,
            present,
        } = self;
        let operation = operation.name();
        write!(
            f,
            "{operation}, {ports} ports, {parallel} at a time, {present} present"
        )
    }
}

/// The times of one peer in one cell.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) cell: Cell,
    pub(super) peer: Peer,
    /// `connect`, `disconnect` or `run`.
    pub(super) pattern: &'static str,
    /// Sorted, in microseconds.
    pub(super) times_us: Vec<u64>,
}

impl Row {
    /// The time that `percent` of the operations did not exceed.
    pub(super) fn percentile(&self, percent: usize) -> u64 {
        let last = self.times_us.len().saturating_sub(1);
        let index = (self.times_us.len() * percent / 100).min(last);
        self.times_us.get(index).copied().unwrap_or(0)
    }
}

/// Host ports of the first worker; below the ephemeral range, and 100 a worker.
const FIRST_PORT: u16 = 20_000;

fn ports_of(worker: usize, count: u16) -> Vec<u16> {
    let first = FIRST_PORT + u16::try_from(worker * 100).unwrap_or(0);
    (first..first + count).collect()
}

/// Measures all peers of one cell, `repetitions` times in turn.
pub(super) fn measure(fixture: &Fixture, cell: Cell, repetitions: usize) -> Result<Vec<Row>> {
    match cell.operation {
        Operation::Connect => connect(fixture, cell, repetitions),
        Operation::Run => run(fixture, cell, repetitions),
    }
}

fn connect(fixture: &Fixture, cell: Cell, repetitions: usize) -> Result<Vec<Row>> {
    let containers = (0..cell.parallel)
        .map(|worker| {
            let name = format!("connect-{worker}");
            fixture.waiting_container(&name, &ports_of(worker, cell.ports))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for &peer in cell.operation.peers() {
        for pattern in ["connect", "disconnect"] {
            rows.push(Row {
                cell,
                peer,
                pattern,
                times_us: Vec::new(),
            });
        }
    }
    // The first round warms caches up and is not counted.
    for round in 0..=repetitions {
        for pair in rows.chunks_exact_mut(2) {
            let [joins, leaves] = pair else { continue };
            let peer = joins.peer;
            let there = at_once(&containers, |_, id| fixture.connect(peer, id))?;
            let back = at_once(&containers, |_, id| fixture.disconnect(peer, id))?;
            if round > 0 {
                joins.times_us.extend(there);
                leaves.times_us.extend(back);
            }
        }
    }
    for id in &containers {
        fixture.remove(id)?;
    }
    Ok(sorted(rows))
}

fn run(fixture: &Fixture, cell: Cell, repetitions: usize) -> Result<Vec<Row>> {
    let workers: Vec<usize> = (0..cell.parallel).collect();
    let mut rows: Vec<Row> = cell
        .operation
        .peers()
        .iter()
        .map(|&peer| Row {
            cell,
            peer,
            pattern: "run",
            times_us: Vec::new(),
        })
        .collect();
    for round in 0..=repetitions {
        for row in &mut rows {
            let peer = row.peer;
            let name = |worker: usize| format!("run-{worker}-{round}");
            let times = at_once(&workers, |_, &worker| {
                fixture
                    .run_container(peer, &name(worker), &ports_of(worker, cell.ports))
                    .map(drop)
            })?;
            for &worker in &workers {
                fixture.remove(&name(worker))?;
            }
            if round > 0 {
                row.times_us.extend(times);
            }
        }
    }
    Ok(sorted(rows))
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.iter_mut().for_each(|row| row.times_us.sort_unstable());
    rows
}

/// Does `work` for all `items` at the same time and times each.
fn at_once<T: Sync>(
    items: &[T],
    work: impl Fn(usize, &T) -> Result<()> + Sync,
) -> Result<Vec<u64>> {
    let timed = |index: usize, item: &T| -> Result<u64> {
        let begun = Instant::now();
        work(index, item)?;
        Ok(micros(begun.elapsed()))
    };
    if let [only] = items {
        return Ok(vec![timed(0, only)?]);
    }
    std::thread::scope(|scope| {
        let timed = &timed;
        let threads: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(index, item)| scope.spawn(move || timed(index, item)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a worker panicked"))?)
            .collect()
    })
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_times_stay_inside() {
        let cell = Cell {
            operation: Operation::Run,
            ports: 0,
            parallel: 1,
            present: 0,
        };
        let row = |times_us| Row {
            cell,
            peer: Peer::None,
            pattern: "run",
            times_us,
        };
        assert_eq!(row(vec![]).percentile(50), 0);
        assert_eq!(row(vec![7]).percentile(99), 7);
        assert_eq!(row(vec![1, 2, 3, 4]).percentile(50), 3);
        assert_eq!(row((1..=100).collect()).percentile(99), 100);
    }

    #[test]
    fn workers_never_share_a_port() {
        let all: Vec<u16> = (0..8).flat_map(|worker| ports_of(worker, 50)).collect();
        let unique: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len());
    }

    #[test]
    fn a_failing_worker_fails_the_measurement() {
        assert!(
            at_once(&[1, 2], |_, n| if *n == 2 {
                Err(anyhow!("x"))
            } else {
                Ok(())
            })
            .is_err()
        );
    }
}
