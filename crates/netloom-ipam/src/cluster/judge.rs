//! What a host makes of a store that it meets. Pure.

use super::memory::Memory;
use crate::records::{EpochRecord, HealRecord, HostRecord, HostState};
use crate::registry::Stored;
use netloom_core::store::Version;
use std::collections::BTreeMap;

/// What the store showed, read piece by piece: hints until a commit that checks them succeeds.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) store: Box<str>,
    pub(crate) epoch: Option<Stored<EpochRecord>>,
    pub(crate) heal: Option<Stored<HealRecord>>,
    pub(crate) own: Option<Stored<HostRecord>>,
    /// All hosts on record, by the last part of their keys.
    pub(crate) hosts: BTreeMap<String, HostRecord>,
}

/// Who looks.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    /// The host's id.
    pub(crate) host: String,
    pub(crate) boot: String,
    pub(crate) machine: String,
    /// The journal's identity, 32 hexadecimal digits.
    pub(crate) journal: String,
    /// How often it had started, this time included; none as long as the store did not take that.
    pub(crate) starts: Option<u64>,
}

/// What follows for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The store has no epoch: a person's business.
    Empty,
    /// The store was left for another one, with all that this host owns; says for which.
    Moved(String),
    /// This host may not take part; says why.
    Stop(String),
    /// The store lost its past; says how that shows. This epoch is to begin.
    Begin(u64, String),
    /// The store lost its past, others know it too, and wait for this host.
    Assert,
    /// All is as it should be.
    Join,
}

impl Look {
    /// The version of the record of who is waited for; absent counts as nobody.
    pub(crate) fn heal_version(&self) -> Option<Version> {
        self.heal.as_ref().map(|heal| heal.version.clone())
    }

    pub(crate) fn waiting(&self) -> &[String] {
        self.heal
            .as_ref()
            .map_or(&[], |heal| heal.record.waiting.as_slice())
    }
}

/// Compares the store with what the host remembers.
pub(crate) fn judge(me: &Me, memory: &Memory, look: &Look) -> Verdict {
    let number = match look.epoch.as_ref().map(|epoch| &epoch.record) {
        None => return Verdict::Empty,
        Some(EpochRecord::Moved(to)) => {
            return Verdict::Moved(format!(
                "the store was left for {to}: set `store` to that one, and restart netloomd"
            ));
        }
        Some(EpochRecord::Number(number)) => *number,
    };
    if let Some(why) = refusal(me, look) {
        return Verdict::Stop(why);
    }
    let waited_for = look.waiting().contains(&me.host);
    let lost = lost_past(memory, number, look);
    match lost {
        // Whoever began a later epoch waits for this host: nothing is to be begun once more.
        _ if waited_for && number >= memory.epoch => Verdict::Assert,
        Some(why) => match number.max(memory.epoch).checked_add(1) {
            Some(next) => Verdict::Begin(next, why),
            None => Verdict::Stop("there is no epoch after the last number".to_owned()),
        },
        None => Verdict::Join,
    }
}

/// Changes and starts of all hosts: it never goes back while the store keeps its past.
pub(crate) fn mark_of(hosts: &BTreeMap<String, HostRecord>) -> u64 {
    hosts.values().fold(0, |sum: u64, host| {
        sum.saturating_add(host.counter).saturating_add(host.starts)
    })
}

/// Why this host may not take part at all.
fn refusal(me: &Me, look: &Look) -> Option<String> {
    let own = &look.own.as_ref()?.record;
    let host = &me.host;
    if own.state == HostState::Forgotten {
        return Some(format!(
            "host {host} was forgotten: its addresses may be in use elsewhere. Remove its \
             containers, move its state directory away as a whole, and restart netloomd: it \
             comes back under a new id"
        ));
    }
    if own.journal != me.journal {
        return Some(format!(
            "the store knows host {host} with another address journal ({}, here is {}): the \
             journal was lost, or this is a copy of another host; restore the state directory as \
             a whole, or move it away as a whole",
            own.journal, me.journal
        ));
    }
    if !own.machine.is_empty() && !me.machine.is_empty() && own.machine != me.machine {
        return Some(format!(
            "the store knows host {host} on another machine ({}, here is {}): this is a copy of \
             it; move the copied state directory away as a whole, or, if that machine is gone, \
             forget the host. Then restart netloomd",
            own.machine, me.machine
        ));
    }
    match me.starts {
        Some(starts) if own.starts > starts => Some(format!(
            "another process started as host {host}: its state directory was copied, or is used \
             by two machines; end the other one, and restart netloomd"
        )),
        _ => None,
    }
}

/// How it shows that the store lost its past, if it does.
fn lost_past(memory: &Memory, number: u64, look: &Look) -> Option<String> {
    if memory.is_blank() {
        return None;
    }
    if number < memory.epoch {
        return Some(format!(
            "it is in epoch {number}, and this host was in {}",
            memory.epoch
        ));
    }
    let Some(own) = &look.own else {
        return Some("it does not know this host any more".to_owned());
    };
    let (counter, starts) = (own.record.counter, own.record.starts);
    if counter < memory.counter || starts < memory.starts {
        return Some(format!(
            "it holds {counter} changes and {starts} starts of this host, and there were {} and {}",
            memory.counter, memory.starts
        ));
    }
    if number > memory.epoch {
        // Whoever began it, or copied the store, has seen to it that nothing of this host is lost.
        return None;
    }
    if look.store != memory.store {
        return Some(format!(
            "it is {}, and this host knew {}",
            look.store, memory.store
        ));
    }
    let mark = mark_of(&look.hosts);
    (mark < memory.mark).then(|| {
        format!(
            "it holds {mark} changes and starts of all hosts, and there were {}",
            memory.mark
        )
    })
}
