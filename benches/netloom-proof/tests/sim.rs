//! The simulation: a seed is a run, the promises hold, planted bugs are found.

use netloom_proof::sim::{Bug, Config, Size, hunt, run_many, run_scale, run_seed};

#[test]
fn a_seed_is_always_the_same_run() {
    for seed in 0..60 {
        let (first, second) = (
            run_seed(seed, &Config::default()),
            run_seed(seed, &Config::default()),
        );
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(first.operations, second.operations, "seed {seed}");
    }
    let (one, other) = (
        run_seed(1, &Config::default()),
        run_seed(2, &Config::default()),
    );
    assert_ne!(one.trace_hash, other.trace_hash);
}

#[test]
fn promises_hold_in_a_walk_of_seeds() {
    let report = run_many(0..120, 2, None, &Config::default());
    assert_eq!(report.seeds, 120);
    assert!(report.holds(), "{:?} {:?}", report.broken, report.examples);
    assert!(report.fewest_faults >= 3, "{}", report.fewest_faults);
    assert!(report.unknown > 0);
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let report = hunt(bug, 0..12_000, 2);
        assert!(!report.holds(), "{bug:?} hid in {} seeds", report.seeds);
    }
}

#[test]
fn a_fleet_is_served_again_after_a_power_cut_and_without_its_half() {
    let size = Size {
        hosts: 20,
        containers: 30,
        boot_spread_ms: 5000,
    };
    let report = run_scale(size, 1, |_, _| {});
    assert_eq!(report.duplicates, 0);
    for phase in &report.phases {
        assert!(phase.served_after_ms.is_some(), "{}", phase.name);
    }
}
