//! The readable form.

use super::gates::find;
use super::patterns::{OCCUPANCIES, POOLS};
use crate::report::{self, Gate, Row};

const SUBJECTS: [&str; 9] = [
    "netloom-exclusive",
    "netloom-atomic",
    "netloom-pool",
    "limit-fetch-or",
    "hibitset",
    "mutex-exclusive",
    "roaring",
    "fixedbitset",
    "btreeset",
];

pub(crate) fn print(rows: &[Row], gates: &[Gate]) {
    let churn: Vec<_> = POOLS
        .iter()
        .flat_map(|(pool, _)| OCCUPANCIES.map(|at| ("churn", *pool, Some(at))))
        .collect();
    section(
        "Churn: release a random address + allocate any, ns per pair",
        rows,
        &churn,
        "ns_per_op",
    );
    let specific: Vec<_> = POOLS
        .iter()
        .flat_map(|(pool, _)| [50, 99].map(|at| ("specific", *pool, Some(at))))
        .collect();
    section(
        "Specific: release an address + allocate it again, ns per pair",
        rows,
        &specific,
        "ns_per_op",
    );
    let fill: Vec<_> = POOLS
        .iter()
        .map(|(pool, _)| ("fill", *pool, None))
        .collect();
    section(
        "Fill from empty, ns per allocation",
        rows,
        &fill,
        "ns_per_op",
    );
    let held: Vec<_> = POOLS
        .iter()
        .map(|(pool, _)| ("churn", *pool, Some(50)))
        .collect();
    section("Bytes held", rows, &held, "bytes_held");
    section("Heap calls per pair", rows, &held, "heap_allocs_per_op");
    threads(rows);
    ratios(rows, &churn);
    report::print("\nGates");
    gates.iter().for_each(|gate| report::print(&gate.line()));
}

type Column<'a> = (&'a str, &'a str, Option<u32>);

fn section(title: &str, rows: &[Row], columns: &[Column<'_>], metric: &str) {
    report::print(&format!("\n{title}"));
    report::print(&heading(columns));
    for subject in SUBJECTS {
        let values: Vec<_> = columns
            .iter()
            .map(|column| find(rows, subject, *column, metric))
            .collect();
        if values.iter().any(Option::is_some) {
            let cells = values.into_iter().map(|value| match value {
                Some(value) if value.fract() == 0.0 => format!("{value:>11.0}"),
                Some(value) => format!("{value:>11.1}"),
                None => format!("{:>11}", "-"),
            });
            report::print(&format!("{subject:<20}{}", cells.collect::<String>()));
        }
    }
}

fn threads(rows: &[Row]) {
    report::print("\nThreads: wall time / pairs of all threads, churn at 50 %, ns");
    for row in rows.iter().filter(|row| row.pattern == "threads") {
        let (pool, count) = (row.pool.unwrap_or(""), row.threads.unwrap_or(0));
        report::print(&format!(
            "{:<20}{pool:>5} {count} threads {:>9.1}",
            row.subject, row.value
        ));
    }
}

fn ratios(rows: &[Row], churn: &[Column<'_>]) {
    report::print("\nRatios of churn");
    report::print(&heading(churn));
    for (subject, peer) in [
        ("netloom-exclusive", "hibitset"),
        ("netloom-exclusive", "btreeset"),
        ("netloom-pool", "netloom-exclusive"),
        ("netloom-atomic", "limit-fetch-or"),
        ("netloom-atomic", "mutex-exclusive"),
    ] {
        let of = |name, column: &Column<'_>| find(rows, name, *column, "ns_per_op");
        let cells = churn
            .iter()
            .map(|column| match (of(subject, column), of(peer, column)) {
                (Some(a), Some(b)) => format!("{:>11.2}", a / b),
                _ => format!("{:>11}", "-"),
            });
        let name = format!("{} : {peer}", subject.trim_start_matches("netloom-"));
        report::print(&format!("{name:<27}{}", cells.collect::<String>()));
    }
}

fn heading(columns: &[Column<'_>]) -> String {
    let cells = columns.iter().map(|(_, pool, occupancy)| match occupancy {
        Some(occupancy) => format!("{:>11}", format!("{pool} {occupancy}%")),
        None => format!("{pool:>11}"),
    });
    format!("{:<20}{}", "", cells.collect::<String>())
}
