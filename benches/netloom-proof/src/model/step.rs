//! What can happen next, and what the world is then.

use super::commits::{reread, sync};
use super::members::{catch_up, crash, keep, release, roll_back};
use super::plan::{Plan, Planted};
use super::world::{CHUNKS, Kind, Late, Run, Set, World, each, one, span, subsets};

/// One step of one host, of the network, of the store or of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A host sends a commit; for a give, `RangeLeaving` is durable before.
    Send { host: u8, kind: Kind, range: Set },
    /// The commit that a host waits for reaches the store, and the answer the host.
    Arrive(u8),
    /// A host stops waiting for its commit, which may still arrive.
    TimeOut(u8),
    /// A host sends the commit with the unknown outcome once more.
    Resend(u8),
    /// A commit that nobody waits for any more reaches the store.
    GhostArrives(u8),
    /// A host writes to its journal what its commit did.
    Sync(u8),
    /// A host reads in its own record that an old commit of its own has happened after all.
    Reread(u8),
    /// A host sees that a leaving range is no longer its own: `RangeLeft`.
    SeeGone { host: u8, range: Set },
    /// An address is handed out.
    HandOut { host: u8, address: u8 },
    /// A container ends.
    Release { host: u8, address: u8 },
    /// A daemon dies; its containers go on.
    Crash(u8),
    /// A daemon that was started again commits its own record.
    Start(u8),
    /// Somebody keeps a copy of the store.
    Keep,
    /// The store is put back to the copy.
    RollBack,
    /// A host that knows better than the store begins a new epoch.
    BeginEpoch(u8),
    /// A host writes its ranges again.
    Assert(u8),
    /// A host takes itself out of `heal`.
    LeaveHeal(u8),
    /// The operator says that a host will not come back.
    Forget(u8),
    /// The operator's command frees a forgotten host's runs of one chunk.
    Free(u8),
    /// Planted bugs only: the journal takes a range as its own without a commit.
    Take { host: u8, range: Set },
    /// Planted bugs only: the journal learns what the memory knew.
    CatchUp(u8),
}

impl Plan {
    /// All that might happen next; [`Plan::after`] says what really can.
    pub(super) fn candidates(&self, world: &World, steps: &mut Vec<Step>) {
        for host in each(self.all_hosts()) {
            self.sends(world, host, steps);
            steps.extend([
                Step::Arrive(host),
                Step::TimeOut(host),
                Step::Resend(host),
                Step::GhostArrives(host),
                Step::Sync(host),
                Step::Reread(host),
                Step::Crash(host),
                Step::Start(host),
                Step::BeginEpoch(host),
                Step::Assert(host),
                Step::LeaveHeal(host),
                Step::Forget(host),
                Step::CatchUp(host),
            ]);
            for address in each(self.all_addresses()) {
                steps.push(Step::HandOut { host, address });
                steps.push(Step::Release { host, address });
            }
        }
        steps.extend([Step::Keep, Step::RollBack, Step::Free(0), Step::Free(1)]);
    }

    /// The range commits that a host may send, by what its journal and a fresh read say.
    fn sends(&self, world: &World, host: u8, steps: &mut Vec<Step>) {
        let state = world.host(host);
        let all = self.all_addresses();
        let own = world.runs(|run| run == Run::Owned(host));
        let mut nobodys = world.runs(|run| run == Run::Nobody);
        if self.has(Planted::TakeFromSilent) {
            let silent = |run| matches!(run, Run::Owned(of) if of != host && !world.is_ready(of));
            nobodys |= world.runs(silent);
        }
        let free = state.owned & !state.leaving & !state.early_busy & own;
        let free = if self.has(Planted::GiveWhatIsUsed) {
            free
        } else {
            free & !state.busy
        };
        for chunk in [0, 1].map(span) {
            let send = |kind, of: Set| {
                subsets(of & all & chunk).map(move |range| Step::Send { host, kind, range })
            };
            steps.extend(send(Kind::Claim, nobodys & !state.owned));
            let named = world.runs(|run| run.names(host)) & !state.owned & all & chunk;
            if named != 0 {
                steps.push(Step::Send {
                    host,
                    kind: Kind::Adopt,
                    range: named,
                });
                steps.push(Step::Take { host, range: named });
            }
            for to in each(self.all_hosts() & !one(host)) {
                steps.extend(send(Kind::Offer(to), free));
            }
            steps.extend(send(Kind::Return, free));
            let leaving = state.leaving & all & chunk;
            if leaving & own != 0 {
                let range = leaving & own;
                steps.push(Step::Send {
                    host,
                    kind: Kind::Keep,
                    range,
                });
                steps.push(Step::Take { host, range });
            }
            if leaving & !own != 0 {
                steps.push(Step::SeeGone {
                    host,
                    range: leaving & !own,
                });
            }
        }
    }

    /// The world after a step, or nothing where it cannot happen.
    pub(super) fn after(&self, world: &World, step: Step) -> Option<World> {
        let mut next = *world;
        let happened = match step {
            Step::Send { host, kind, range } => self.send(&mut next, host, kind, range),
            Step::Arrive(host) => self.arrive(&mut next, host),
            Step::TimeOut(host) => self.time_out(&mut next, host),
            Step::Resend(host) => self.resend(&mut next, host),
            Step::GhostArrives(host) => self.ghost_arrives(&mut next, host),
            Step::Sync(host) => sync(&mut next, host),
            Step::Reread(host) => reread(&mut next, host),
            Step::SeeGone { host, range } => self.see_gone(&mut next, host, range),
            Step::HandOut { host, address } => self.hand_out(&mut next, host, address),
            Step::Release { host, address } => release(&mut next, host, address),
            Step::Crash(host) => crash(&mut next, host),
            Step::Start(host) => self.start_host(&mut next, host),
            Step::Keep => keep(&mut next),
            Step::RollBack => roll_back(&mut next),
            Step::BeginEpoch(host) => self.begin_epoch(&mut next, host),
            Step::Assert(host) => self.assert(&mut next, host),
            Step::LeaveHeal(host) => self.leave_heal(&mut next, host),
            Step::Forget(host) => self.forget(&mut next, host),
            Step::Free(chunk) => self.free(&mut next, chunk),
            Step::Take { host, range } => self.take(&mut next, host, range),
            Step::CatchUp(host) => catch_up(&mut next, host),
        };
        happened?;
        next.settle(self.late());
        // A copy is as good when it is made just before the first write that it lacks: what happens
        // between the two, away from the store, may as well have happened before.
        let idle = |world: &World| world.past.is_some_and(|past| past.writes == 0);
        let in_bounds = next.past.is_none_or(|past| past.writes <= self.lost_writes);
        let in_bounds = in_bounds && !(idle(world) && idle(&next));
        (in_bounds && next != *world).then_some(next)
    }

    fn late(&self) -> Late {
        match self.planted {
            Some(Planted::IgnoreVersion | Planted::IgnoreEpoch | Planted::IgnoreOwnRecord) => {
                Late::MayHappen
            }
            _ => Late::IsRefused,
        }
    }
}

/// A fault that the plan still allows.
pub(super) fn spend(budget: &mut u8) -> Option<()> {
    if *budget != Plan::ANY {
        *budget = budget.checked_sub(1)?;
    }
    Some(())
}

pub(super) fn count_write(world: &mut World) {
    if let Some(past) = &mut world.past {
        past.writes += 1;
    }
}

const _: () = assert!(CHUNKS == 2, "steps name both chunks");
