use super::*;

const EFFORT: Effort = Effort {
    threads: 2,
    limit: Duration::from_secs(600),
};

#[test]
fn the_smoke_walk_holds() {
    let report = run(Plan::smoke(), EFFORT);
    println!(
        "{} states, {} steps, depth {}",
        report.states, report.steps, report.depth
    );
    for violation in &report.violations {
        println!("{}:\n{}", violation.property, violation.history.join("\n"));
    }
    assert!(report.violations.is_empty());
    assert_eq!(report.never_met, Vec::<&str>::new());
    assert!(report.complete);
}

#[test]
fn every_planted_bug_is_found() {
    for planted in Planted::ALL {
        let report = run(Plan::with(planted), EFFORT);
        let found: Vec<&str> = report.violations.iter().map(|v| v.property).collect();
        let length = report.violations.iter().map(|v| v.history.len()).min();
        println!(
            "{planted:?}: {found:?} after {length:?} steps, {} states",
            report.states
        );
    }
}
