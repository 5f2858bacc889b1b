//! What can happen next, and what the world is then.

use super::plan::{Plan, Planted, Promise, Word};
use super::world::{
    CHUNKS, Commit, Forgetting, History, Host, Kind, Late, Past, Phase, Run, Set, World, each, one,
    span, subsets,
};

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

    /// Whether a host, after a read of the store, goes about changing ranges at all.
    fn may_change_hands(&self, world: &World, host: u8) -> Option<()> {
        let state = world.host(host);
        let joined = state.epoch == world.store.epoch && world.store.heal == 0;
        let joined = joined
            || self.has(Planted::IgnoreEpoch)
            || (self.has(Planted::GrantWhileHealing) && !world.store.is_healing(host));
        let own = state.counter == world.store.counter(host) || self.has(Planted::IgnoreOwnRecord);
        (world.is_ready(host) && !world.store.is_forgotten(host) && joined && own).then_some(())
    }

    fn send(&self, world: &mut World, host: u8, kind: Kind, range: Set) -> Option<()> {
        self.may_change_hands(world, host)?;
        let chunk = u8::from(range & span(0) == 0);
        let to = match kind {
            Kind::Claim | Kind::Adopt | Kind::Keep => Run::Owned(host),
            Kind::Offer(to) => Run::Offered(to),
            Kind::Return => Run::Nobody,
        };
        if let Kind::Offer(to) = kind
            && world.store.is_forgotten(to)
        {
            return None;
        }
        let commit = Commit {
            kind,
            chunk,
            range,
            read: world.store.chunk(chunk).runs,
            runs: world.store.with(chunk, range, to),
            version: world.store.chunk(chunk).version,
            counter: world.host(host).counter,
            epoch: world.host(host).epoch,
        };
        let state = world.host_mut(host);
        match (state.open, kind) {
            (None, _) => {}
            // A give of unknown outcome may be abandoned for its fence.
            (Some((open, Phase::Unknown)), Kind::Keep) if open.kind.gives() => {}
            _ => return None,
        }
        if kind.gives() && !self.has(Planted::GiveWithoutLeaving) {
            state.leaving |= range;
        }
        state.open = Some((commit, Phase::Sent));
        Some(())
    }

    /// Rule 5: whether the store accepts a commit.
    fn is_accepted(&self, world: &World, host: u8, commit: &Commit) -> bool {
        let store = &world.store;
        let epoch = self.has(Planted::IgnoreEpoch)
            || (commit.epoch == store.epoch
                && (store.heal == 0 || self.has(Planted::GrantWhileHealing)));
        let own = self.has(Planted::IgnoreOwnRecord)
            || (!store.is_forgotten(host) && store.counter(host) == commit.counter);
        let version =
            self.has(Planted::IgnoreVersion) || store.chunk(commit.chunk).version == commit.version;
        // The want that an offer answers is withdrawn when its host is forgotten.
        let wanted = match commit.kind {
            Kind::Offer(to) => !store.is_forgotten(to) || self.has(Planted::OfferToForgotten),
            _ => true,
        };
        epoch && own && version && wanted
    }

    /// Whether the walk leaves out that this host writes now, see [`Promise`].
    fn must_wait(&self, world: &World, host: u8) -> Option<()> {
        let blind = self.promise == Promise::WitnessFirst
            && world.history == History::WentBack
            && !world.is_witness(host)
            && each(self.all_hosts()).any(|other| world.is_witness(other));
        (!blind).then_some(())
    }

    fn arrive(&self, world: &mut World, host: u8) -> Option<()> {
        let (commit, phase) = world.host(host).open?;
        let waits = matches!(phase, Phase::Sent | Phase::Overtaken);
        waits.then_some(())?;
        self.must_wait(world, host)?;
        let store = world.store;
        let before = phase == Phase::Sent
            && store.counter(host) == commit.counter + 1
            && commit.epoch == store.epoch;
        let refused =
            commit.epoch == store.epoch && store.heal == 0 && store.counter(host) == commit.counter;
        if store.is_forgotten(host) && !self.has(Planted::IgnoreOwnRecord) {
            world.ready &= !one(host);
            world.host_mut(host).open = None;
        } else if self.is_accepted(world, host, &commit) {
            write(world, host, &commit);
            world.host_mut(host).open = Some((commit, Phase::Won));
        } else if before {
            // Found by its operation id: sent twice, it happened once.
            world.host_mut(host).open = Some((commit, Phase::Won));
        } else {
            let state = world.host_mut(host);
            state.open = None;
            if refused && commit.kind.gives() {
                state.leaving &= !commit.range;
            }
        }
        Some(())
    }

    fn ghost_arrives(&self, world: &mut World, host: u8) -> Option<()> {
        let ghost = world.host(host).ghost?;
        self.must_wait(world, host)?;
        world.host_mut(host).ghost = None;
        if self.is_accepted(world, host, &ghost) {
            write(world, host, &ghost);
            let open = &mut world.host_mut(host).open;
            if let Some((commit, phase @ (Phase::Sent | Phase::Unknown))) = open
                && *commit != ghost
            {
                *phase = Phase::Overtaken;
            }
        }
        Some(())
    }

    fn time_out(&self, world: &mut World, host: u8) -> Option<()> {
        let (commit, Phase::Sent) = world.host(host).open? else {
            return None;
        };
        spend(&mut world.faults.timeouts)?;
        let state = world.host_mut(host);
        state.ghost = Some(commit);
        state.open = Some((commit, Phase::Unknown));
        if self.has(Planted::UnknownIsFailure) && commit.kind.gives() {
            state.open = None;
            state.leaving &= !commit.range;
        }
        if self.has(Planted::UnknownIsSuccess) && commit.kind == Kind::Claim {
            state.open = Some((commit, Phase::Won));
        }
        Some(())
    }

    /// Sends the commit with the unknown outcome again, after a fresh look: a version says the same as
    /// before also when the store went back and somebody else has written since.
    fn resend(&self, world: &mut World, host: u8) -> Option<()> {
        let (commit, Phase::Unknown) = world.host(host).open? else {
            return None;
        };
        let record = world.store.chunk(commit.chunk);
        let as_read = record.version == commit.version && record.runs == commit.read;
        let happened = world.store.counter(host) == commit.counter + 1;
        let usable = as_read || happened || self.has(Planted::ResendBlindly);
        world.host_mut(host).open = usable.then_some((commit, Phase::Sent));
        Some(())
    }

    fn see_gone(&self, world: &mut World, host: u8, range: Set) -> Option<()> {
        self.may_change_hands(world, host)?;
        let state = world.host_mut(host);
        state.open.is_none().then_some(())?;
        state.owned &= !range;
        state.leaving &= !range;
        Some(())
    }

    fn hand_out(&self, world: &mut World, host: u8, address: u8) -> Option<()> {
        let early = self.has(Planted::UseBeforeDurable);
        let ready = world.is_ready(host) || self.has(Planted::HandOutBeforeStart);
        let state = world.host_mut(host);
        if early
            && let Some((commit, Phase::Won)) = state.open
            && matches!(commit.kind, Kind::Claim | Kind::Adopt)
        {
            state.early_owned |= commit.range;
        }
        let free = (state.owned | state.early_owned) & !state.leaving;
        let free = free & !state.busy & !state.early_busy;
        (ready && free & one(address) != 0).then_some(())?;
        let twice = state.held & one(address) != 0;
        state.held |= one(address);
        if early || self.has(Planted::AnswerBeforeDurable) {
            state.early_busy |= one(address);
        } else {
            state.busy |= one(address);
        }
        if twice {
            world.history = History::Doubled;
        }
        Some(())
    }

    fn start_host(&self, world: &mut World, host: u8) -> Option<()> {
        let trusts = self.has(Planted::TrustStoreCounter);
        let barred = world.is_ready(host) || world.store.is_forgotten(host) || world.is_gone(host);
        (!barred && (trusts || !world.is_witness(host))).then_some(())?;
        self.must_wait(world, host)?;
        let stored = world.store.counter(host);
        let known = if trusts {
            stored
        } else {
            stored.max(world.host(host).counter)
        };
        *world.store.counter_mut(host) = known + 1;
        world.host_mut(host).counter = known + 1;
        world.ready |= one(host);
        count_write(world);
        Some(())
    }

    fn begin_epoch(&self, world: &mut World, host: u8) -> Option<()> {
        world.is_witness(host).then_some(())?;
        world.store.epoch += 1;
        world.store.heal = if self.has(Planted::HealAlone) {
            one(host)
        } else {
            self.all_hosts() & !world.store.forgotten
        };
        if world.history == History::WentBack {
            world.history = History::Healed;
        }
        count_write(world);
        Some(())
    }

    fn assert(&self, world: &mut World, host: u8) -> Option<()> {
        let done = world.asserted & one(host) != 0 || !world.store.is_healing(host);
        let state = *world.host(host);
        let journalled = !matches!(state.open, Some((_, Phase::Won)));
        (world.is_ready(host) && !done && journalled).then_some(())?;
        let mut range = state.owned;
        // What is being given away may be somebody else's already, who asserts it himself: it is
        // settled when heal is empty.
        if !self.has(Planted::AssertLeaving) {
            range &= !state.leaving;
        }
        for chunk in [0, 1] {
            if range & span(chunk) != 0 {
                let runs = world.store.with(chunk, range, Run::Owned(host));
                let record = world.store.chunk_mut(chunk);
                record.runs = runs;
                record.version += 1;
            }
        }
        let counter = world.store.counter(host).max(state.counter) + 1;
        *world.store.counter_mut(host) = counter;
        let epoch = world.store.epoch;
        let state = world.host_mut(host);
        state.counter = counter;
        state.epoch = epoch;
        state.open = None;
        if self.has(Planted::AssertLeaving) {
            state.leaving = 0;
        }
        world.asserted |= one(host);
        count_write(world);
        Some(())
    }

    fn leave_heal(&self, world: &mut World, host: u8) -> Option<()> {
        let healing = world.store.is_healing(host) && world.is_ready(host);
        let asserted = world.asserted & one(host) != 0;
        (healing && (asserted || self.has(Planted::LeaveHealFirst))).then_some(())?;
        world.store.heal &= !one(host);
        world.asserted &= !one(host);
        count_write(world);
        Some(())
    }

    fn forget(&self, world: &mut World, host: u8) -> Option<()> {
        let possible = match self.word {
            Word::True | Word::TrueForAWhile => !world.is_ready(host),
            Word::False => true,
        };
        let idle = world.forgetting.is_none() && !world.store.is_forgotten(host);
        (possible && idle).then_some(())?;
        // A host that is gone is forgotten again after a rollback that undid it.
        if !world.is_gone(host) {
            spend(&mut world.faults.forgets)?;
        }
        if self.word != Word::False {
            world.host_mut(host).held = 0;
        }
        world.forgetting = Some(Forgetting { host, left: 0b11 });
        if !self.has(Planted::FreeBeforeTombstone) {
            self.tombstone(world, host);
        }
        Some(())
    }

    fn tombstone(&self, world: &mut World, host: u8) {
        if self.word == Word::True {
            world.gone |= one(host);
            // What its journal said matters to nobody any more.
            if !self.has(Planted::HandOutBeforeStart) {
                let ghost = world.host(host).ghost;
                *world.host_mut(host) = Host { ghost, ..Host::NEW };
            }
        }
        world.store.forgotten |= one(host);
        world.store.heal &= !one(host);
        *world.store.counter_mut(host) += 1;
        count_write(world);
    }

    fn free(&self, world: &mut World, chunk: u8) -> Option<()> {
        let mut forgetting = world.forgetting?;
        (forgetting.left & one(chunk) != 0).then_some(())?;
        let range = world.runs(|run| run.names(forgetting.host)) & span(chunk);
        if range != 0 {
            let runs = world.store.with(chunk, range, Run::Nobody);
            let record = world.store.chunk_mut(chunk);
            record.runs = runs;
            record.version += 1;
            count_write(world);
        }
        forgetting.left &= !one(chunk);
        world.forgetting = (forgetting.left != 0).then_some(forgetting);
        if forgetting.left == 0 && self.has(Planted::FreeBeforeTombstone) {
            self.tombstone(world, forgetting.host);
        }
        Some(())
    }

    fn take(&self, world: &mut World, host: u8, range: Set) -> Option<()> {
        let ready = world.is_ready(host);
        let state = world.host_mut(host);
        let leaving = range & state.leaving != 0;
        let planted = if leaving {
            self.has(Planted::SettleWithoutFence)
        } else {
            self.has(Planted::AdoptByRead)
        };
        (planted && ready).then_some(())?;
        match state.open {
            None => {}
            Some((open, Phase::Unknown)) if leaving && open.kind.gives() => state.open = None,
            _ => return None,
        }
        state.owned |= range;
        state.leaving &= !range;
        Some(())
    }
}

impl Kind {
    fn gives(self) -> bool {
        matches!(self, Self::Offer(_) | Self::Return)
    }
}

/// A fault that the plan still allows.
fn spend(budget: &mut u8) -> Option<()> {
    if *budget != Plan::ANY {
        *budget = budget.checked_sub(1)?;
    }
    Some(())
}

fn count_write(world: &mut World) {
    if let Some(past) = &mut world.past {
        past.writes += 1;
    }
}

fn write(world: &mut World, host: u8, commit: &Commit) {
    *world.store.counter_mut(host) += 1;
    let chunk = world.store.chunk_mut(commit.chunk);
    chunk.version += 1;
    chunk.runs = commit.runs;
    count_write(world);
}

fn sync(world: &mut World, host: u8) -> Option<()> {
    let state = world.host_mut(host);
    let (commit, Phase::Won) = state.open? else {
        return None;
    };
    state.open = None;
    state.counter = commit.counter + 1;
    match commit.kind {
        Kind::Claim | Kind::Adopt => state.owned |= commit.range,
        Kind::Offer(_) | Kind::Return => {
            state.owned &= !commit.range;
            state.leaving &= !commit.range;
        }
        Kind::Keep => state.leaving &= !commit.range,
    }
    catch_up(world, host);
    Some(())
}

fn reread(world: &mut World, host: u8) -> Option<()> {
    let (stored, epoch) = (world.store.counter(host), world.store.epoch);
    let usable = world.is_ready(host) && !world.store.is_forgotten(host);
    let state = world.host_mut(host);
    let ahead = state.open.is_none() && state.epoch == epoch && stored > state.counter;
    (usable && ahead).then_some(())?;
    state.counter = stored;
    Some(())
}

fn catch_up(world: &mut World, host: u8) -> Option<()> {
    let state = world.host_mut(host);
    (state.early_busy & !state.early_owned != 0 || state.early_owned & state.owned != 0)
        .then_some(())?;
    state.early_owned &= !state.owned;
    state.busy |= state.early_busy & state.owned;
    state.early_busy &= !state.owned;
    Some(())
}

fn release(world: &mut World, host: u8, address: u8) -> Option<()> {
    let state = world.host_mut(host);
    (state.held & one(address) != 0).then_some(())?;
    state.held &= !one(address);
    state.busy &= !one(address);
    state.early_busy &= !one(address);
    Some(())
}

fn crash(world: &mut World, host: u8) -> Option<()> {
    world.is_ready(host).then_some(())?;
    spend(&mut world.faults.crashes)?;
    world.ready &= !one(host);
    world.asserted &= !one(host);
    let state = world.host_mut(host);
    if let Some((commit, Phase::Sent)) = state.open {
        state.ghost = Some(commit);
    }
    state.open = None;
    state.early_owned = 0;
    state.early_busy = 0;
    Some(())
}

fn keep(world: &mut World) -> Option<()> {
    (world.past.is_none() && world.faults.rollbacks > 0).then_some(())?;
    world.past = Some(Past {
        store: world.store,
        writes: 0,
    });
    Some(())
}

/// The store is stopped and started with an older past: what was under way to it is lost.
fn roll_back(world: &mut World) -> Option<()> {
    let past = world.past.take()?;
    (past.writes > 0).then_some(())?;
    world.store = past.store;
    world.faults.rollbacks -= 1;
    world.history = History::WentBack;
    // A command that the rollback cut short, or undid in part, is given again.
    let unfreed = |host: &u8| world.runs(|run| run.names(*host)) != 0;
    world.forgetting = each(world.store.forgotten)
        .find(unfreed)
        .map(|host| Forgetting { host, left: 0b11 });
    let store = world.store;
    for (name, host) in (0u8..).zip(&mut world.hosts) {
        host.ghost = None;
        host.open = host.open.and_then(|(commit, phase)| match phase {
            // The own record still names the older operation: this one never happened.
            Phase::Overtaken if store.counter(name) > commit.counter => None,
            Phase::Won => Some((commit, Phase::Won)),
            _ => Some((commit, Phase::Unknown)),
        });
    }
    Some(())
}

const _: () = assert!(CHUNKS == 2, "steps name both chunks");
