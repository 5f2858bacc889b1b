//! What a host makes of a store that it meets. Pure.

use super::memory::Memory;
use super::peers::Peers;
use crate::records::{EpochRecord, HealRecord, HostRecord, HostState};
use crate::registry::Stored;
use netloom_core::store::Version;

/// What the store showed, read piece by piece: hints until a commit that checks them succeeds.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// How much this host had taken in when it began to look.
    pub(crate) turn: u64,
    pub(crate) store: Box<str>,
    pub(crate) epoch: Option<Stored<EpochRecord>>,
    pub(crate) heal: Option<Stored<HealRecord>>,
    pub(crate) own: Option<Stored<HostRecord>>,
    /// All hosts on record.
    pub(crate) hosts: Peers,
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
    /// This host changed or read the store meanwhile: the look tells nothing.
    Stale,
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
        Some(why) => match EpochRecord::after(number.max(memory.epoch)) {
            Some(next) => Verdict::Begin(next, why),
            None => Verdict::Stop("there is no epoch after the last number".to_owned()),
        },
        None => Verdict::Join,
    }
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
    let mark = look.hosts.mark();
    (mark < memory.mark).then(|| {
        format!(
            "it holds {mark} changes and starts of all hosts, and there were {}",
            memory.mark
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me(starts: Option<u64>) -> Me {
        Me {
            host: "h1".to_owned(),
            boot: "b".to_owned(),
            machine: "m1".to_owned(),
            journal: "0f".to_owned(),
            starts,
        }
    }

    fn memory() -> Memory {
        Memory {
            counter: 5,
            starts: 2,
            epoch: 3,
            mark: 17,
            alone: false,
            store: "s".into(),
        }
    }

    fn host(name: &str, counter: u64) -> HostRecord {
        HostRecord {
            version: 2,
            operation: "0a".to_owned(),
            state: HostState::Member,
            host: name.to_owned(),
            boot: "b".to_owned(),
            machine: "m1".to_owned(),
            journal: "0f".to_owned(),
            starts: 2,
            counter,
        }
    }

    fn stored<R>(record: R) -> Stored<R> {
        let version = Version::from_bytes([1]);
        Stored { record, version }
    }

    fn hosts(own: u64, other: u64) -> Peers {
        let hosts = [("h1", own), ("h2", other)];
        let hosts = hosts.map(|(name, n)| (name.to_owned(), host(name, n)));
        Peers::of("h1", &hosts.into())
    }

    /// The store as it was left.
    fn look() -> Look {
        Look {
            turn: 0,
            store: "s".into(),
            epoch: Some(stored(EpochRecord::Number(3))),
            heal: None,
            own: Some(stored(host("h1", 5))),
            hosts: hosts(5, 8),
        }
    }

    fn waiting(epoch: u64, hosts: &[&str]) -> Look {
        let heal = HealRecord {
            version: 1,
            operation: "0a".to_owned(),
            epoch,
            waiting: hosts.iter().map(|h| (*h).to_owned()).collect(),
        };
        Look {
            epoch: Some(stored(EpochRecord::Number(epoch))),
            heal: Some(stored(heal)),
            ..look()
        }
    }

    fn verdict(look: &Look) -> Verdict {
        judge(&me(Some(2)), &memory(), look)
    }

    #[test]
    fn a_store_as_it_was_left_or_later_is_joined() {
        assert_eq!(verdict(&look()), Verdict::Join);
        let mut later = look();
        later.hosts = hosts(5, 80);
        later.own = Some(stored(host("h1", 6)));
        assert_eq!(verdict(&later), Verdict::Join);
        let new = Look {
            own: None,
            ..look()
        };
        let blank = judge(&me(None), &Memory::default(), &new);
        assert_eq!(blank, Verdict::Join);
    }

    #[test]
    fn each_sign_of_a_lost_past_begins_an_epoch() {
        let mut fewer = look();
        fewer.hosts = hosts(5, 7);
        let signs = [
            Look {
                own: None,
                ..look()
            },
            Look {
                own: Some(stored(host("h1", 4))),
                ..look()
            },
            Look {
                store: "another".into(),
                ..look()
            },
            Look {
                epoch: Some(stored(EpochRecord::Number(2))),
                ..look()
            },
            fewer,
        ];
        for sign in signs {
            let verdict = verdict(&sign);
            assert!(
                matches!(verdict, Verdict::Begin(4, _)),
                "{sign:?}: {verdict:?}"
            );
        }
    }

    #[test]
    fn whoever_is_waited_for_begins_no_other_epoch() {
        let mut lost = waiting(4, &["h1", "h2"]);
        lost.own = None;
        assert_eq!(verdict(&lost), Verdict::Assert);
        // Not waited for, and not known any more: the others do not remember this host.
        let mut unknown = waiting(4, &["h2"]);
        unknown.own = None;
        assert!(matches!(verdict(&unknown), Verdict::Begin(5, _)));
        // A later epoch in which nothing of this host is missing.
        assert_eq!(verdict(&waiting(4, &["h2"])), Verdict::Join);
        // Older than what this host saw: a store put back into the middle of healing.
        assert!(matches!(
            verdict(&waiting(2, &["h1"])),
            Verdict::Begin(4, _)
        ));
    }

    #[test]
    fn strangers_and_copies_stop() {
        let with = |change: fn(&mut HostRecord)| {
            let mut own = host("h1", 5);
            change(&mut own);
            let own = Some(stored(own));
            verdict(&Look { own, ..look() })
        };
        let stops = [
            with(|own| own.state = HostState::Forgotten),
            with(|own| own.journal = "1e".to_owned()),
            with(|own| own.machine = "m2".to_owned()),
            with(|own| own.starts = 3),
        ];
        for stop in stops {
            assert!(matches!(stop, Verdict::Stop(_)), "{stop:?}");
        }
        let empty = Look {
            epoch: None,
            ..look()
        };
        assert_eq!(verdict(&empty), Verdict::Empty);
        let moved = Some(stored(EpochRecord::Moved("zk://h/n".to_owned())));
        let moved = verdict(&Look {
            epoch: moved,
            ..look()
        });
        assert!(matches!(moved, Verdict::Moved(_)));
    }
}
