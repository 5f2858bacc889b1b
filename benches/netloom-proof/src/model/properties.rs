//! What must hold in every state, and what must be possible.

use std::collections::BTreeSet;

use stateright::Property;

use super::Walk;
use super::plan::{Plan, Promise, Word};
use super::world::{History, Phase, Run, Set, World, each, one};

/// The invariants of every walk, and what its plan must make possible.
pub(super) fn of(plan: &Plan) -> Vec<Property<Walk>> {
    let mut properties = vec![
        Property::always(TWICE, |walk: &Walk, world: &World| {
            never_twice(&walk.plan, world)
        }),
        Property::always(
            "no two journals own one address",
            |walk: &Walk, world: &World| one_owner(&walk.plan, world),
        ),
        Property::always(
            "what a host owns is its own in the store",
            |walk: &Walk, world: &World| owned_is_recorded(&walk.plan, world),
        ),
        Property::always(
            "what was answered is in the journal",
            |walk: &Walk, world: &World| answered_is_durable(&walk.plan, world),
        ),
        Property::always(LOST, |walk: &Walk, world: &World| {
            nothing_lost(&walk.plan, world)
        }),
    ];
    if plan.planted.is_none() && plan.promise == Promise::WitnessFirst && plan.word == Word::True {
        properties.extend(possible(plan));
    }
    properties
}

/// The invariants whose violation people would feel; the others are why these hold.
pub(super) fn harm() -> BTreeSet<&'static str> {
    [TWICE, LOST].into()
}

/// I1.
pub(super) const TWICE: &str = "no address is handed out twice";
const LOST: &str = "no address is lost";

/// What a walk must meet, or it would prove little.
fn possible(plan: &Plan) -> Vec<Property<Walk>> {
    let mut properties = vec![
        Property::sometimes(
            "all addresses are in use, on all hosts",
            |walk: &Walk, world: &World| {
                let held = union(world, |host| world.host(host).held);
                let all = each(walk.plan.all_hosts()).all(|host| world.host(host).held != 0);
                held == walk.plan.all_addresses()
                    && (all
                        || walk.plan.all_addresses().count_ones()
                            < walk.plan.all_hosts().count_ones())
            },
        ),
        Property::sometimes(
            "one host uses all addresses",
            |walk: &Walk, world: &World| {
                each(walk.plan.all_hosts())
                    .any(|host| world.host(host).held == walk.plan.all_addresses())
            },
        ),
        Property::sometimes("an address is offered", |_: &Walk, world: &World| {
            world.runs(|run| matches!(run, Run::Offered(_))) != 0
        }),
        Property::sometimes(
            "a given address is used before its giver knows",
            |walk: &Walk, world: &World| {
                each(walk.plan.all_hosts()).any(|host| {
                    let others = others(&walk.plan, world, host, |other| world.host(other).held);
                    world.host(host).leaving & others != 0
                })
            },
        ),
        Property::sometimes(
            "a late commit meets a newer one of its sender",
            |_: &Walk, world: &World| {
                world
                    .hosts
                    .iter()
                    .any(|host| host.ghost.is_some() && matches!(host.open, Some((_, Phase::Sent))))
            },
        ),
    ];
    if plan.forgets > 0 {
        properties.push(Property::sometimes(
            "all addresses are in use after a host was forgotten",
            |walk: &Walk, world: &World| {
                let gone = walk.plan.all_hosts() & world.store.forgotten & world.gone;
                let held = union(world, |host| world.host(host).held);
                gone != 0 && held == walk.plan.all_addresses()
            },
        ));
    }
    if plan.rollbacks > 0 {
        properties.push(Property::sometimes(
            "after a healed rollback an address changes hands",
            |_: &Walk, world: &World| {
                let healed = world.history == History::Healed && world.store.heal == 0;
                healed && world.runs(|run| matches!(run, Run::Offered(_))) != 0
            },
        ));
    }
    properties
}

/// I1: by what containers use.
fn never_twice(plan: &Plan, world: &World) -> bool {
    world.history != History::Doubled
        && disjoint(each(plan.all_hosts()).map(|host| world.host(host).held))
}

/// I4: by the journals.
fn one_owner(plan: &Plan, world: &World) -> bool {
    let dead = world.gone | world.store.forgotten;
    disjoint(each(plan.all_hosts() & !dead).map(|host| {
        let state = world.host(host);
        (state.owned | state.early_owned) & !state.leaving
    }))
}

/// I4, the other way round: journal and store agree, unless the store lost its past.
fn owned_is_recorded(plan: &Plan, world: &World) -> bool {
    let dead = world.gone | world.store.forgotten;
    each(plan.all_hosts() & !dead & !world.store.heal).all(|host| {
        let state = world.host(host);
        let recorded = world.runs(|run| run == Run::Owned(host));
        let blind = world.history == History::WentBack && world.is_witness(host);
        blind || state.epoch != world.store.epoch || state.owned & !state.leaving & !recorded == 0
    })
}

/// I3: a crash now would lose nothing that was answered.
fn answered_is_durable(plan: &Plan, world: &World) -> bool {
    each(plan.all_hosts() & !world.gone).all(|host| {
        let state = world.host(host);
        state.held & !(state.busy & state.owned & !state.leaving) == 0
    })
}

/// I2: every address is nobody's, or of a host on record, unless somebody is about to free it.
fn nothing_lost(plan: &Plan, world: &World) -> bool {
    let forgetting = world
        .forgetting
        .map_or(0, |forgetting| one(forgetting.host));
    each(plan.all_hosts() & world.store.forgotten & !forgetting)
        .all(|host| world.runs(|run| run.names(host)) == 0)
}

fn union(world: &World, of: impl Fn(u8) -> Set) -> Set {
    (0u8..)
        .zip(&world.hosts)
        .fold(0, |all, (host, _)| all | of(host))
}

fn others(plan: &Plan, world: &World, host: u8, of: impl Fn(u8) -> Set) -> Set {
    let others = plan.all_hosts() & !one(host);
    union(world, |other| {
        if others & one(other) == 0 {
            0
        } else {
            of(other)
        }
    })
}

fn disjoint(sets: impl Iterator<Item = Set>) -> bool {
    let mut seen = 0;
    for set in sets {
        if seen & set != 0 {
            return false;
        }
        seen |= set;
    }
    true
}
