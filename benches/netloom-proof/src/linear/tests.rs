use super::*;
use std::collections::BTreeMap;

const WORLDS_MAX: usize = 100_000;

fn call(host: u32, action: Action, outcome: Outcome, (invoked, returned): (u64, u64)) -> Call {
    let address = IpAddr::from([10, 9, 0, 7]);
    Call {
        address,
        host,
        action,
        outcome,
        invoked,
        returned,
    }
}

fn take(host: u32, at: (u64, u64)) -> Call {
    call(host, Action::Take, Outcome::Done, at)
}

fn release(host: u32, at: (u64, u64)) -> Call {
    call(host, Action::Release, Outcome::Done, at)
}

fn refused(host: u32, action: Action, at: (u64, u64)) -> Call {
    call(host, action, Outcome::Refused, at)
}

fn unknown(host: u32, action: Action, at: u64) -> Call {
    call(host, action, Outcome::Unknown, (at, 0))
}

#[track_caller]
fn holds(calls: &[Call]) {
    assert_eq!(check_address(calls, WORLDS_MAX), Verdict::Linearizable);
}

#[track_caller]
fn fails_at(calls: &[Call], wrong: usize) {
    match check_address(calls, WORLDS_MAX) {
        Verdict::Violation(witness) => assert_eq!(witness.call, calls[wrong], "{witness:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_host_after_the_other_is_in_order() {
    holds(&[
        take(1, (1, 2)),
        refused(2, Action::Take, (3, 4)),
        release(1, (5, 6)),
        take(2, (7, 8)),
        refused(1, Action::Release, (9, 10)),
    ]);
}

#[test]
fn two_hosts_hold_one_address() {
    fails_at(&[take(1, (1, 2)), take(2, (3, 4))], 1);
    fails_at(&[take(1, (1, 4)), take(2, (2, 3))], 0);
}

#[test]
fn overlapping_calls_may_have_either_order() {
    // The second take began before the release was answered.
    holds(&[take(1, (1, 2)), release(1, (3, 9)), take(2, (4, 5))]);
    // It ended before the release began.
    fails_at(&[take(1, (1, 2)), take(2, (3, 4)), release(1, (5, 6))], 1);
}

#[test]
fn a_refusal_needs_a_holder() {
    fails_at(&[refused(2, Action::Take, (1, 2))], 0);
    holds(&[refused(2, Action::Take, (1, 4)), take(1, (2, 3))]);
    fails_at(
        &[
            take(1, (1, 2)),
            release(1, (3, 4)),
            refused(2, Action::Take, (5, 6)),
        ],
        2,
    );
}

#[test]
fn a_release_needs_its_own_take() {
    fails_at(&[release(1, (1, 2))], 0);
    fails_at(&[take(1, (1, 2)), release(2, (3, 4))], 1);
    fails_at(&[take(1, (1, 2)), refused(1, Action::Release, (3, 4))], 1);
    fails_at(
        &[take(1, (1, 2)), release(1, (3, 4)), release(1, (5, 6))],
        2,
    );
}

#[test]
fn an_unanswered_call_stays_open_for_ever() {
    let lost = unknown(1, Action::Take, 1);
    // It happened, long after; or not at all; or it was undone.
    holds(&[
        lost,
        take(2, (10, 11)),
        release(2, (12, 13)),
        refused(2, Action::Take, (90, 91)),
    ]);
    holds(&[lost, refused(2, Action::Take, (3, 4)), take(2, (10, 11))]);
    holds(&[
        take(1, (1, 2)),
        unknown(1, Action::Release, 3),
        take(2, (100, 101)),
    ]);
    // Not before it was asked, and not of another host.
    fails_at(
        &[
            refused(2, Action::Take, (1, 2)),
            unknown(1, Action::Take, 5),
        ],
        0,
    );
    fails_at(
        &[
            take(1, (1, 2)),
            unknown(3, Action::Release, 3),
            take(2, (5, 6)),
        ],
        2,
    );
}

#[test]
fn an_unanswered_call_happens_once() {
    let lost = unknown(1, Action::Release, 3);
    holds(&[
        take(1, (1, 2)),
        lost,
        take(2, (5, 6)),
        release(2, (7, 8)),
        take(1, (9, 10)),
    ]);
    fails_at(
        &[
            take(1, (1, 2)),
            lost,
            take(2, (5, 6)),
            release(2, (7, 8)),
            take(1, (9, 10)),
            take(2, (11, 12)),
        ],
        5,
    );
}

#[test]
fn many_unanswered_calls_do_not_make_the_search_grow() {
    let mut calls: Vec<Call> = (0..2_000)
        .map(|n| unknown(u32::try_from(n % 7).unwrap(), Action::Take, n))
        .collect();
    calls.extend((0..2_000).map(|n| {
        let at = 10_000 + n * 10;
        if n % 2 == 0 {
            take(9, (at, at + 1))
        } else {
            release(9, (at, at + 1))
        }
    }));
    match check_address(&calls, 500) {
        Verdict::Linearizable => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_search_that_is_too_wide_says_so() {
    let mut calls: Vec<Call> = (0..20).map(|host| take(host, (1, 100))).collect();
    calls.extend((0..20).map(|host| release(host, (2, 99))));
    assert!(matches!(check_address(&calls, 50), Verdict::Unknown { .. }));
    let report = check(calls, 50);
    assert!(!report.holds());
    assert_eq!(report.unknown.len(), 1);
}

#[test]
fn more_calls_under_way_than_the_search_can_hold_are_no_pass() {
    let calls: Vec<Call> = (0..65).map(|host| take(host, (1, 100))).collect();
    assert!(matches!(check_address(&calls, 50), Verdict::Unknown { .. }));
}

/// Small random numbers that are the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A true history: every call happens at a moment between its two ends.
fn lived(seed: u64, calls: u64, addresses: u64) -> Vec<Call> {
    let mut dice = Dice(seed);
    let mut holders: BTreeMap<u64, u32> = BTreeMap::new();
    let mut history = Vec::new();
    for n in 0..calls {
        let number = dice.below(addresses);
        let host = u32::try_from(dice.below(4)).unwrap();
        let holder = holders.get(&number).copied();
        let release = holder == Some(host) || dice.below(8) == 0;
        let (action, done) = match (release, holder) {
            (true, of) => (Action::Release, of == Some(host)),
            (false, of) => (Action::Take, of.is_none()),
        };
        let effect = dice.below(20) > 0;
        let answered = effect && dice.below(20) > 0;
        if effect && done {
            match action {
                Action::Take => holders.insert(number, host),
                Action::Release => holders.remove(&number),
            };
        }
        let outcome = match (answered, done) {
            (false, _) => Outcome::Unknown,
            (true, true) => Outcome::Done,
            (true, false) => Outcome::Refused,
        };
        let at = 1_000 + n * 10;
        history.push(Call {
            address: IpAddr::from([
                10,
                9,
                u8::try_from(number >> 8).unwrap(),
                (number & 255) as u8,
            ]),
            host,
            action,
            outcome,
            invoked: at - dice.below(25),
            returned: at + dice.below(25),
        });
    }
    history
}

#[test]
fn what_was_lived_is_in_order() {
    for seed in 0..300 {
        let report = check(lived(seed, 400, 5), WORLDS_MAX);
        assert!(
            report.holds(),
            "seed {seed}: {:?} {:?}",
            report.violations,
            report.unknown
        );
    }
}

#[test]
fn what_was_lived_and_then_forged_is_found() {
    let mut found = 0;
    for seed in 0..300 {
        let mut history = lived(seed, 400, 5);
        // A second holder appears in the middle of a hold whose ends are known.
        let held: Vec<Call> = history
            .iter()
            .filter(|c| c.action == Action::Take && c.outcome == Outcome::Done)
            .copied()
            .collect();
        let forged = held[usize::try_from(seed).unwrap() % held.len()];
        let at = forged.returned + 1;
        let other = forged.host + 10;
        history.push(Call {
            host: other,
            invoked: at,
            returned: at,
            ..forged
        });
        found += usize::from(!check(history, WORLDS_MAX).violations.is_empty());
    }
    // The rest are explained by a release that overlaps or was never answered.
    assert!(found >= 150, "{found} of 300");
}

#[test]
fn a_large_history_is_checked_address_by_address() {
    let report = check(lived(7, 100_000, 4_096), WORLDS_MAX);
    assert!(report.holds());
    assert_eq!((report.calls, report.addresses), (100_000, 4_096));
    assert!(report.unanswered > 1_000);
}
