use super::*;

fn effort() -> Effort {
    Effort {
        threads: 2,
        limit: Duration::from_secs(std::env::var("LIMIT").map_or(600, |v| v.parse().unwrap())),
    }
}

#[test]
fn the_smoke_walk_holds() {
    let report = run(Plan::smoke(), effort());
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
        let report = run(Plan::with(planted), effort());
        let found: Vec<&str> = report.violations.iter().map(|v| v.property).collect();
        let length = report.violations.iter().map(|v| v.history.len()).min();
        println!(
            "{planted:?}: {found:?} after {length:?} steps, {} states",
            report.states
        );
    }
}

#[test]
#[ignore = "minutes"]
fn measure() {
    let smoke = Plan::smoke();
    let n = |s: &str| std::env::var(s).map_or(0, |v| v.parse().unwrap());
    let plan = Plan {
        hosts: n("H"),
        addresses: [n("A"), n("B")],
        crashes: n("C"),
        timeouts: n("T"),
        forgets: n("F"),
        rollbacks: n("R"),
        lost_writes: n("L"),
        promise: if n("P") == 1 {
            Promise::AnyOrder
        } else {
            Promise::WitnessFirst
        },
        word: if n("W") == 1 { Word::False } else { Word::True },
        ..smoke
    };
    let report = run(plan, effort());
    println!(
        "{} states, {} steps, depth {} complete {}",
        report.states, report.steps, report.depth, report.complete
    );
    for violation in &report.violations {
        println!(
            "{}:\n  {}",
            violation.property,
            violation.history.join("\n  ")
        );
    }
    println!("never met {:?}", report.never_met);
}
