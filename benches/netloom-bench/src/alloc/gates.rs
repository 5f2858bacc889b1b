//! What a run must show, as ratios of its own rows.

use super::patterns::{OCCUPANCIES, POOLS};
use crate::report::{Gate, Row};

const EXCLUSIVE: &str = "netloom-exclusive";
const ATOMIC: &str = "netloom-atomic";

pub(crate) fn all(rows: &[Row]) -> Vec<Gate> {
    let churn = |subject, pool, occupancy| {
        find(rows, subject, ("churn", pool, Some(occupancy)), "ns_per_op").unwrap_or(f64::NAN)
    };
    let mut gates = vec![Gate {
        name: "exclusive to hibitset, churn /16 50 %".into(),
        value: churn(EXCLUSIVE, "/16", 50) / churn("hibitset", "/16", 50),
        at_most: 0.6,
    }];
    for (pool, _) in POOLS {
        gates.push(Gate {
            name: format!("atomic to fetch_or + fetch_and, churn {pool} 50 %"),
            value: churn(ATOMIC, pool, 50) / churn("limit-fetch-or", pool, 50),
            at_most: 1.3,
        });
    }
    for subject in [EXCLUSIVE, ATOMIC] {
        let cells = POOLS
            .iter()
            .flat_map(|(pool, _)| OCCUPANCIES.map(|at| (*pool, at)));
        let times: Vec<f64> = cells.map(|(pool, at)| churn(subject, pool, at)).collect();
        let worst = times.iter().copied().fold(0.0, f64::max);
        let best = times.iter().copied().fold(f64::INFINITY, f64::min);
        gates.push(Gate {
            name: format!("{subject}: worst churn cell to the best"),
            value: worst / best,
            at_most: 4.0,
        });
        gates.push(Gate {
            name: format!("{subject}: heap calls per operation, most of all cells"),
            value: most(rows, subject, "heap_allocs_per_op"),
            at_most: 0.0,
        });
        for (pool, host_bits) in POOLS {
            let raw = f64::from(1_u32 << host_bits) / 8.0;
            let place = ("churn", pool, Some(50));
            gates.push(Gate {
                name: format!("{subject}: bytes held to 1.05 raw + 128, {pool}"),
                value: find(rows, subject, place, "bytes_held").unwrap_or(f64::NAN)
                    / (1.05 * raw + 128.0),
                at_most: 1.0,
            });
        }
    }
    gates.push(Gate {
        name: "netloom-pool: heap calls per operation, most of all cells".into(),
        value: most(rows, "netloom-pool", "heap_allocs_per_op"),
        at_most: 0.0,
    });
    gates
}

/// The figure of one subject at pattern, pool and occupancy.
pub(crate) fn find(
    rows: &[Row],
    subject: &str,
    (pattern, pool, occupancy): (&str, &str, Option<u32>),
    metric: &str,
) -> Option<f64> {
    let fits = |row: &&Row| {
        row.subject == subject
            && row.pattern == pattern
            && row.pool == Some(pool)
            && row.occupancy == occupancy
            && row.metric == metric
    };
    rows.iter().find(fits).map(|row| row.value)
}

fn most(rows: &[Row], subject: &str, metric: &str) -> f64 {
    let fits = |row: &&Row| row.subject == subject && row.metric == metric;
    rows.iter()
        .filter(fits)
        .map(|row| row.value)
        .fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_without_its_rows_fails() {
        let gates = all(&[]);
        assert!(gates.iter().any(|gate| !gate.passes()));
        assert!(!gates[0].passes(), "{:?}", gates[0]);
    }
}
