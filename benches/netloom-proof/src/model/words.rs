//! A history in sentences.

use super::step::Step;
use super::world::{Kind, Set, each};

/// One sentence a step.
pub(super) fn history(steps: Vec<Step>) -> Vec<String> {
    steps.into_iter().map(sentence).collect()
}

fn sentence(step: Step) -> String {
    match step {
        Step::Send { host, kind, range } => sent(host, kind, range),
        Step::Arrive(host) => format!("{}'s commit reaches the store and is answered", name(host)),
        Step::TimeOut(host) => format!("{} gets no answer to its commit", name(host)),
        Step::Resend(host) => format!("{} sends the same commit again", name(host)),
        Step::GhostArrives(host) => format!("an old commit of {} reaches the store", name(host)),
        Step::Sync(host) => format!("{}'s journal has what the commit did", name(host)),
        Step::Reread(host) => format!("{} reads that its old commit has happened", name(host)),
        Step::SeeGone { host, range } => {
            let range = addresses(range);
            format!("{} sees that {range} is no longer its own", name(host))
        }
        Step::HandOut { host, address } => format!("{} hands out a{address}", name(host)),
        Step::Release { host, address } => format!("{} releases a{address}", name(host)),
        Step::Crash(host) => format!("{}'s daemon dies", name(host)),
        Step::Start(host) => format!("{}'s daemon starts and commits its record", name(host)),
        Step::Keep => "somebody makes a copy of the store".to_owned(),
        Step::RollBack => "the store is put back to the copy".to_owned(),
        Step::BeginEpoch(host) => format!("{} begins a new epoch", name(host)),
        Step::Assert(host) => format!("{} writes its ranges again", name(host)),
        Step::LeaveHeal(host) => format!("{} takes itself out of heal", name(host)),
        Step::Forget(host) => format!("the operator forgets {}", name(host)),
        Step::Free(chunk) => format!("the command frees its runs of chunk {chunk}"),
        Step::Take { host, range } => {
            format!(
                "{} takes {} after a mere read",
                name(host),
                addresses(range)
            )
        }
        Step::CatchUp(host) => format!("{}'s journal catches up", name(host)),
    }
}

fn sent(host: u8, kind: Kind, range: Set) -> String {
    let (host, range) = (name(host), addresses(range));
    match kind {
        Kind::Claim => format!("{host} sends a claim of {range}, which is nobody's"),
        Kind::Adopt => format!("{host} sends the adoption of {range}"),
        Kind::Offer(to) => format!(
            "{host} notes {range} as leaving, sends its offer to {}",
            name(to)
        ),
        Kind::Return => format!("{host} notes {range} as leaving, sends its return"),
        Kind::Keep => format!("{host} sends a new generation for {range}, which stays"),
    }
}

fn name(host: u8) -> char {
    char::from(b'A' + host)
}

fn addresses(range: Set) -> String {
    let all: Vec<String> = each(range).map(|address| format!("a{address}")).collect();
    all.join(" and ")
}
