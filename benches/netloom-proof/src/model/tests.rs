use super::*;

/// Far more than a walk takes; it ends one that grew by mistake.
const EFFORT: Effort = Effort {
    threads: 2,
    limit: Duration::from_secs(3_600),
};

#[track_caller]
fn holds(plan: Plan) {
    let report = run(plan, EFFORT);
    let name = report.plan.name;
    println!("{name}: {} states, {} steps", report.states, report.steps);
    assert!(
        report.violations.is_empty(),
        "{name}: {:#?}",
        report.violations
    );
    assert_eq!(report.never_met, Vec::<&str>::new(), "{name}");
    assert!(report.complete, "{name}");
}

#[test]
fn the_quick_walks_hold() {
    Plan::quick().into_iter().for_each(holds);
}

#[test]
#[ignore = "minutes: cargo xtask prove makes these walks"]
fn the_full_walks_hold() {
    Plan::full().into_iter().for_each(holds);
}

/// Not only that an invariant breaks: an address is handed out twice, or lost.
#[test]
fn every_planted_bug_does_harm_and_is_found() {
    for planted in Planted::ALL {
        let report = run(Plan::with(planted), EFFORT);
        let broken: Vec<&str> = report.violations.iter().map(|v| v.property).collect();
        println!("{planted:?}: {} states, {broken:?}", report.states);
        assert!(report.does_harm(), "{planted:?}: {broken:?}");
    }
}

#[test]
fn without_its_bug_each_of_these_walks_holds() {
    let mut walks: Vec<Plan> = Vec::new();
    for planted in Planted::ALL {
        let plan = Plan {
            planted: None,
            ..Plan::with(planted)
        };
        let known = |walk: &Plan| (walk.forgets, walk.rollbacks) == (plan.forgets, plan.rollbacks);
        if !walks.iter().any(known) {
            walks.push(plan);
        }
    }
    assert_eq!(walks.len(), 3);
    walks.into_iter().for_each(holds);
}

/// What cannot be promised: the walk must go on finding it, and the document tells how.
#[test]
fn the_document_tells_the_shortest_history_of_what_cannot_be_promised() {
    let document = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/address-protocol.md"
    );
    let document = std::fs::read_to_string(document).unwrap();
    let mut untold = Vec::new();
    for plan in [Plan::unwitnessed(), Plan::undone_word(), Plan::false_word()] {
        let violation = shortest(&plan, EFFORT).expect("it cannot be promised");
        let numbered = (1..).zip(&violation.history);
        let told: String = numbered
            .map(|(n, step)| format!("{n:2}. {step}\n"))
            .collect();
        println!("{}:\n{told}", plan.name);
        if !document.contains(&format!("```text\n{told}```")) {
            untold.push(plan.name);
        }
    }
    assert_eq!(untold, Vec::<&str>::new());
}
