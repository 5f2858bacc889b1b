//! Hosts that hand out, die, start, forget and are forgotten; a store that goes back, and its epochs.

use super::plan::{Plan, Planted, Word};
use super::step::{count_write, spend};
use super::world::{Forgetting, History, Host, Kind, Past, Phase, Run, World, each, one, span};

impl Plan {
    pub(super) fn hand_out(&self, world: &mut World, host: u8, address: u8) -> Option<()> {
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

    pub(super) fn start_host(&self, world: &mut World, host: u8) -> Option<()> {
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

    pub(super) fn begin_epoch(&self, world: &mut World, host: u8) -> Option<()> {
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

    pub(super) fn assert(&self, world: &mut World, host: u8) -> Option<()> {
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
        let mut lost = 0;
        if self.has(Planted::YieldToRecord) {
            lost = range & !world.runs(|run| run == Run::Nobody || run.names(host));
            range &= !lost;
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
        state.owned &= !lost | state.busy;
        if self.has(Planted::AssertLeaving) {
            state.leaving = 0;
        }
        world.asserted |= one(host);
        count_write(world);
        Some(())
    }

    pub(super) fn leave_heal(&self, world: &mut World, host: u8) -> Option<()> {
        let healing = world.store.is_healing(host) && world.is_ready(host);
        let asserted = world.asserted & one(host) != 0;
        (healing && (asserted || self.has(Planted::LeaveHealFirst))).then_some(())?;
        world.store.heal &= !one(host);
        world.asserted &= !one(host);
        count_write(world);
        Some(())
    }

    pub(super) fn forget(&self, world: &mut World, host: u8) -> Option<()> {
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

    pub(super) fn tombstone(&self, world: &mut World, host: u8) {
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

    pub(super) fn free(&self, world: &mut World, chunk: u8) -> Option<()> {
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
}

pub(super) fn catch_up(world: &mut World, host: u8) -> Option<()> {
    let state = world.host_mut(host);
    (state.early_busy & !state.early_owned != 0 || state.early_owned & state.owned != 0)
        .then_some(())?;
    state.early_owned &= !state.owned;
    state.busy |= state.early_busy & state.owned;
    state.early_busy &= !state.owned;
    Some(())
}

pub(super) fn release(world: &mut World, host: u8, address: u8) -> Option<()> {
    let state = world.host_mut(host);
    (state.held & one(address) != 0).then_some(())?;
    state.held &= !one(address);
    state.busy &= !one(address);
    state.early_busy &= !one(address);
    Some(())
}

pub(super) fn crash(world: &mut World, host: u8) -> Option<()> {
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

pub(super) fn keep(world: &mut World) -> Option<()> {
    (world.past.is_none() && world.faults.rollbacks > 0).then_some(())?;
    world.past = Some(Past {
        store: world.store,
        writes: 0,
    });
    Some(())
}

/// The store is stopped and started with an older past: what was under way to it is lost.
pub(super) fn roll_back(world: &mut World) -> Option<()> {
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
