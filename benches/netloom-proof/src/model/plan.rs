//! What a walk covers: how many hosts, which addresses, how many faults, which planted bug.

use serde::Serialize;

use super::world::{
    CHUNKS, Chunk, Faults, HOSTS, History, Host, Run, Set, Store, WIDTH, World, one,
};

/// One walk through all states of a small world.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Its name in reports.
    pub name: &'static str,
    /// Hosts, at most three.
    pub hosts: u8,
    /// Addresses of the first and of the second chunk, at most two each.
    pub addresses: [u8; CHUNKS],
    /// Daemons killed, together. [`Plan::ANY`]: as often as they like.
    pub crashes: u8,
    /// Commits whose answer is lost or late, together. [`Plan::ANY`]: as often as they like.
    pub timeouts: u8,
    /// Hosts forgotten.
    pub forgets: u8,
    /// Times that the store goes back: none or one.
    pub rollbacks: u8,
    /// How many writes a rollback loses at most.
    pub lost_writes: u8,
    /// When a store that went back may be written again.
    pub promise: Promise,
    /// Whether the operator who forgets a host tells the truth.
    pub word: Word,
    /// A bug that the walk must find.
    pub planted: Option<Planted>,
}

/// When a store that went back may be written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Promise {
    /// Only after a host that can tell has begun a new epoch: what the protocol promises under.
    WitnessFirst,
    /// By any host, at once: what cannot be promised under.
    AnyOrder,
}

/// What is true of a host that an operator forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Word {
    /// Its machine is off, its containers are gone; started again it must be refused.
    True,
    /// It is so when it is forgotten; after a rollback that undid the forgetting somebody starts it
    /// again, and nothing in the store is against it.
    TrueForAWhile,
    /// It runs on.
    False,
}

/// A mistake that an implementation could make. Each one must be found by a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Planted {
    /// Rule 2: hands out of a range before `RangeOwned` is durable.
    UseBeforeDurable,
    /// Rule 2: answers before the journal knows the address.
    AnswerBeforeDurable,
    /// Rule 3: gives a range away without `RangeLeaving`, and hands out of it meanwhile.
    GiveWithoutLeaving,
    /// Rule 3: gives a range away although an address in it is in use.
    GiveWhatIsUsed,
    /// Rule 4: claims what a silent host owns.
    TakeFromSilent,
    /// Rule 5: the chunk's version is not compared.
    IgnoreVersion,
    /// Rule 5: neither epoch nor `heal` is compared.
    IgnoreEpoch,
    /// Rule 5: ranges change hands while hosts have not asserted theirs.
    GrantWhileHealing,
    /// Rule 5: the sender's own record is not compared.
    IgnoreOwnRecord,
    /// Rule 6: a give whose answer is lost is taken for one that failed.
    UnknownIsFailure,
    /// Rule 6: a claim whose answer is lost is taken for one that happened.
    UnknownIsSuccess,
    /// Rule 6: a commit is sent again without a fresh look at the record.
    ResendBlindly,
    /// Rule 6: an open leaving range is kept after a look at the record, without a new generation.
    SettleWithoutFence,
    /// Rule 7: a run that names the host is taken over by a read.
    AdoptByRead,
    /// Rule 9: hands out new addresses after a start before the host's own record is committed.
    HandOutBeforeStart,
    /// Rule 10: runs are freed before the host's record says `forgotten`.
    FreeBeforeTombstone,
    /// Rule 10: a forgotten host's wants stay, and a holder still serves them.
    OfferToForgotten,
    /// Rule 11: a host takes the store's counter for its own after a start.
    TrustStoreCounter,
    /// Rule 11: a leaving range is asserted as an owned one.
    AssertLeaving,
    /// Rule 11: an assertion gives way to what the record, the old one too, says of another host.
    YieldToRecord,
    /// Rule 11: a host takes itself out of `heal` before it has asserted.
    LeaveHealFirst,
    /// Rule 11: the new epoch's `heal` names only the host that begins it.
    HealAlone,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::UseBeforeDurable,
        Self::AnswerBeforeDurable,
        Self::GiveWithoutLeaving,
        Self::GiveWhatIsUsed,
        Self::TakeFromSilent,
        Self::IgnoreVersion,
        Self::IgnoreEpoch,
        Self::GrantWhileHealing,
        Self::IgnoreOwnRecord,
        Self::UnknownIsFailure,
        Self::UnknownIsSuccess,
        Self::ResendBlindly,
        Self::SettleWithoutFence,
        Self::AdoptByRead,
        Self::HandOutBeforeStart,
        Self::FreeBeforeTombstone,
        Self::OfferToForgotten,
        Self::TrustStoreCounter,
        Self::AssertLeaving,
        Self::YieldToRecord,
        Self::LeaveHealFirst,
        Self::HealAlone,
    ];
}

impl Plan {
    /// As many as there may be.
    pub const ANY: u8 = u8::MAX;

    /// Hands change, daemons die and answers are lost, as often as they like; the store keeps its
    /// word. Two hosts, so that it is a matter of seconds.
    #[must_use]
    pub fn smoke() -> Self {
        Self {
            name: "smoke: two hosts, any number of crashes and lost answers",
            hosts: 2,
            addresses: [2, 0],
            crashes: Self::ANY,
            timeouts: Self::ANY,
            forgets: 0,
            rollbacks: 0,
            lost_writes: 0,
            promise: Promise::WitnessFirst,
            word: Word::True,
            planted: None,
        }
    }

    /// The walks that are made at every change: seconds each.
    #[must_use]
    pub fn quick() -> Vec<Self> {
        let three = Self {
            name: "three hosts, two chunks",
            hosts: 3,
            addresses: [1, 1],
            crashes: 1,
            timeouts: 1,
            ..Self::smoke()
        };
        let past = Self {
            name: "two hosts; a store that goes back, and a host that is forgotten",
            addresses: [1, 0],
            crashes: 2,
            timeouts: 2,
            forgets: 1,
            rollbacks: 1,
            lost_writes: 3,
            ..Self::smoke()
        };
        vec![Self::smoke(), three, past]
    }

    /// All walks: minutes.
    #[must_use]
    pub fn full() -> Vec<Self> {
        let split = Self {
            name: "three hosts, a chunk that is split, and a host that is forgotten",
            hosts: 3,
            crashes: 1,
            timeouts: 1,
            forgets: 1,
            ..Self::smoke()
        };
        let past = Self {
            name: "two hosts, a chunk that is split, any number of crashes and lost answers, and a \
                   store that goes back",
            rollbacks: 1,
            lost_writes: 3,
            ..Self::smoke()
        };
        let all = Self {
            name: "three hosts, two chunks, every fault",
            hosts: 3,
            addresses: [1, 1],
            crashes: 1,
            timeouts: 1,
            forgets: 1,
            rollbacks: 1,
            lost_writes: 1,
            ..Self::smoke()
        };
        let one = Self {
            name: "three hosts, one address, every fault, any number of crashes and lost answers",
            hosts: 3,
            addresses: [1, 0],
            forgets: 1,
            rollbacks: 1,
            lost_writes: 2,
            ..Self::smoke()
        };
        let mut walks = Self::quick();
        walks.extend([split, past, all, one]);
        walks
    }

    /// A store goes back and is written before the only witness spoke: what cannot be promised.
    #[must_use]
    pub fn unwitnessed() -> Self {
        Self {
            name: "a store that went back is written before the witness spoke",
            crashes: 0,
            timeouts: 0,
            rollbacks: 1,
            lost_writes: 2,
            promise: Promise::AnyOrder,
            ..Self::smoke()
        }
    }

    /// An operator forgets a host that runs on.
    #[must_use]
    pub fn false_word() -> Self {
        Self {
            name: "a host that runs on is forgotten",
            crashes: 0,
            timeouts: 0,
            forgets: 1,
            word: Word::False,
            ..Self::smoke()
        }
    }

    /// A host is forgotten, the store goes back to before, the host is started again.
    #[must_use]
    pub fn undone_word() -> Self {
        Self {
            name: "a rollback undoes the forgetting of a host that is started again",
            addresses: [1, 0],
            crashes: 1,
            timeouts: 0,
            forgets: 1,
            rollbacks: 1,
            lost_writes: 3,
            word: Word::TrueForAWhile,
            ..Self::smoke()
        }
    }

    /// The smallest walk in which the planted bug can do harm.
    #[must_use]
    pub fn with(planted: Planted) -> Self {
        let base = Self {
            name: "planted bug",
            crashes: 1,
            timeouts: 1,
            planted: Some(planted),
            ..Self::smoke()
        };
        match planted {
            Planted::IgnoreOwnRecord
            | Planted::HandOutBeforeStart
            | Planted::FreeBeforeTombstone
            | Planted::OfferToForgotten => Self { forgets: 1, ..base },
            Planted::IgnoreEpoch
            | Planted::GrantWhileHealing
            | Planted::ResendBlindly
            | Planted::AdoptByRead
            | Planted::TrustStoreCounter
            | Planted::AssertLeaving
            | Planted::YieldToRecord
            | Planted::LeaveHealFirst
            | Planted::HealAlone => Self {
                addresses: [1, 0],
                rollbacks: 1,
                lost_writes: 3,
                ..base
            },
            _ => base,
        }
    }

    pub(super) fn has(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }

    /// All addresses of the walk.
    pub(super) fn all_addresses(&self) -> Set {
        let [first, second] = self.addresses.map(|count| one(count) - 1);
        first | second << WIDTH
    }

    /// All hosts of the walk.
    pub(super) fn all_hosts(&self) -> Set {
        one(self.hosts) - 1
    }

    /// Every host runs, every address is nobody's.
    pub(super) fn start(&self) -> World {
        let chunk = Chunk {
            version: 0,
            runs: [Run::Nobody; WIDTH],
        };
        // A host that the plan leaves out is one that was forgotten before the walk began.
        let absent = !self.all_hosts() & 0b111;
        World {
            store: Store {
                epoch: 0,
                heal: 0,
                forgotten: absent,
                counters: [0; HOSTS],
                chunks: [chunk; CHUNKS],
            },
            hosts: [Host::NEW; HOSTS],
            ready: self.all_hosts(),
            asserted: 0,
            gone: absent,
            forgetting: None,
            past: None,
            faults: Faults {
                crashes: self.crashes,
                timeouts: self.timeouts,
                forgets: self.forgets,
                rollbacks: self.rollbacks,
            },
            history: History::Straight,
        }
    }
}
