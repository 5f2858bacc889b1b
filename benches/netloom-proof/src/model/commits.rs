//! Range commits: sent, accepted or refused, late, sent again, and what journals make of them.

use super::members::catch_up;
use super::plan::{Plan, Planted, Promise};
use super::step::{count_write, spend};
use super::world::{Commit, History, Kind, Phase, Run, Set, World, each, one, span};

impl Plan {
    /// Whether a host, after a read of the store, goes about changing ranges at all.
    pub(super) fn may_change_hands(&self, world: &World, host: u8) -> Option<()> {
        let state = world.host(host);
        let joined = state.epoch == world.store.epoch && world.store.heal == 0;
        let joined = joined
            || self.has(Planted::IgnoreEpoch)
            || (self.has(Planted::GrantWhileHealing) && !world.store.is_healing(host));
        let own = state.counter == world.store.counter(host) || self.has(Planted::IgnoreOwnRecord);
        (world.is_ready(host) && !world.store.is_forgotten(host) && joined && own).then_some(())
    }

    pub(super) fn send(&self, world: &mut World, host: u8, kind: Kind, range: Set) -> Option<()> {
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
    pub(super) fn is_accepted(&self, world: &World, host: u8, commit: &Commit) -> bool {
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
    pub(super) fn must_wait(&self, world: &World, host: u8) -> Option<()> {
        let blind = self.promise == Promise::WitnessFirst
            && world.history == History::WentBack
            && !world.is_witness(host)
            && each(self.all_hosts()).any(|other| world.is_witness(other));
        (!blind).then_some(())
    }

    pub(super) fn arrive(&self, world: &mut World, host: u8) -> Option<()> {
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

    pub(super) fn ghost_arrives(&self, world: &mut World, host: u8) -> Option<()> {
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

    pub(super) fn time_out(&self, world: &mut World, host: u8) -> Option<()> {
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
    pub(super) fn resend(&self, world: &mut World, host: u8) -> Option<()> {
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

    pub(super) fn see_gone(&self, world: &mut World, host: u8, range: Set) -> Option<()> {
        self.may_change_hands(world, host)?;
        let state = world.host_mut(host);
        state.open.is_none().then_some(())?;
        state.owned &= !range;
        state.leaving &= !range;
        Some(())
    }

    pub(super) fn take(&self, world: &mut World, host: u8, range: Set) -> Option<()> {
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
    pub(super) fn gives(self) -> bool {
        matches!(self, Self::Offer(_) | Self::Return)
    }
}

pub(super) fn write(world: &mut World, host: u8, commit: &Commit) {
    *world.store.counter_mut(host) += 1;
    let chunk = world.store.chunk_mut(commit.chunk);
    chunk.version += 1;
    chunk.runs = commit.runs;
    count_write(world);
}

pub(super) fn sync(world: &mut World, host: u8) -> Option<()> {
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

pub(super) fn reread(world: &mut World, host: u8) -> Option<()> {
    let (stored, epoch) = (world.store.counter(host), world.store.epoch);
    let usable = world.is_ready(host) && !world.store.is_forgotten(host);
    let state = world.host_mut(host);
    let ahead = state.open.is_none() && state.epoch == epoch && stored > state.counter;
    (usable && ahead).then_some(())?;
    state.counter = stored;
    Some(())
}
