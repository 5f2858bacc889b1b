//! Renaming of hosts and addresses, so that the walk meets each world once.

use std::cmp::Ordering;

use super::world::{CHUNKS, Chunk, Commit, HOSTS, Host, Kind, Run, Set, Store, World, each, one};

/// One world for all that differ by names only: the least of those in which hosts and addresses stand
/// in the order of their signatures, which do not depend on names.
pub(super) fn representative(world: &World) -> World {
    let hosts = [0, 1, 2].map(|host| host_signature(world, host));
    let chunks = [0, 1].map(|chunk| {
        let [first, second] = [chunk * 2, chunk * 2 + 1].map(|at| address_signature(world, at));
        first.cmp(&second)
    });
    let mut least: Option<World> = None;
    for names in orders(hosts).flat_map(|hosts| swaps(chunks).map(move |swaps| (hosts, swaps))) {
        let (hosts, swaps) = names;
        let renamed = Names { hosts, swaps }.world(world);
        if least.as_ref().is_none_or(|least| renamed < *least) {
            least = Some(renamed);
        }
    }
    least.expect("one order of three hosts is always sorted")
}

/// The renamings under which the hosts' signatures are in order.
fn orders(signatures: [u64; HOSTS]) -> impl Iterator<Item = [u8; HOSTS]> {
    HOST_ORDERS.into_iter().filter(move |order| {
        let mut sorted = [0; HOSTS];
        for (name, signature) in order.iter().zip(signatures) {
            if let Some(place) = sorted.get_mut(usize::from(*name)) {
                *place = signature;
            }
        }
        sorted.is_sorted()
    })
}

/// The ways of swapping under which the addresses' signatures are in order in each chunk.
fn swaps(chunks: [Ordering; CHUNKS]) -> impl Iterator<Item = u8> {
    (0..1 << CHUNKS).filter(move |swaps| {
        (0u8..).zip(chunks).all(|(chunk, order)| match order {
            Ordering::Equal => true,
            Ordering::Less => swaps & one(chunk) == 0,
            Ordering::Greater => swaps & one(chunk) != 0,
        })
    })
}

/// What tells a host from another without naming any.
fn host_signature(world: &World, host: u8) -> u64 {
    let state = world.host(host);
    let bit = |set: Set| u64::from(set >> host & 1);
    let count = |set: Set| u64::from(set.count_ones());
    let commit = |commit: &Commit| match commit.kind {
        Kind::Claim => 1,
        Kind::Adopt => 2,
        Kind::Offer(_) => 3,
        Kind::Return => 4,
        Kind::Keep => 5,
    };
    let open = state
        .open
        .as_ref()
        .map_or(0, |(open, phase)| commit(open) * 3 + *phase as u64);
    let flags = [
        world.ready,
        world.asserted,
        world.gone,
        world.store.heal,
        world.store.forgotten,
    ];
    let parts = [
        (3, count(state.owned)),
        (3, count(state.leaving)),
        (3, count(state.held)),
        (5, open),
        (3, state.ghost.as_ref().map_or(0, commit)),
        (8, u64::from(state.counter.cast_unsigned())),
        (3, count(world.runs(|run| run == Run::Owned(host)))),
        (3, count(world.runs(|run| run == Run::Offered(host)))),
    ];
    let flags = flags.into_iter().fold(0, |all, set| all << 1 | bit(set));
    parts
        .into_iter()
        .fold(flags, |all, (width, part)| all << width | part)
}

/// What tells an address from another without naming any.
fn address_signature(world: &World, address: u8) -> u64 {
    let one = one(address);
    let run = match world.runs(|run| run == Run::Nobody) & one {
        0 => u64::from(world.runs(|run| matches!(run, Run::Offered(_))) & one != 0),
        _ => 2,
    };
    world.hosts.iter().fold(run << 32, |sum, host| {
        let has = |set: Set, worth: u64| if set & one == 0 { 0 } else { worth };
        let open = host.open.map_or(0, |(open, _)| open.range);
        sum + has(host.owned, 1)
            + has(host.leaving, 1 << 4)
            + has(host.held, 1 << 8)
            + has(open, 1 << 12)
    })
}

/// How each host is called, and which chunks have their two addresses swapped.
#[derive(Clone, Copy)]
struct Names {
    hosts: [u8; HOSTS],
    swaps: u8,
}

impl Names {
    fn host(&self, host: u8) -> u8 {
        *self
            .hosts
            .get(usize::from(host))
            .expect("a host of the model")
    }

    fn hosts(&self, set: Set) -> Set {
        each(set).fold(0, |renamed, host| renamed | one(self.host(host)))
    }

    fn addresses(&self, set: Set) -> Set {
        (0..2).fold(0, |renamed, chunk| {
            let pair = (set >> (chunk * 2)) & 0b11;
            let pair = if self.swaps & one(chunk) == 0 {
                pair
            } else {
                pair >> 1 | (pair & 1) << 1
            };
            renamed | pair << (chunk * 2)
        })
    }

    fn runs(&self, chunk: u8, runs: [Run; 2]) -> [Run; 2] {
        let [first, second] = runs.map(|run| match run {
            Run::Nobody => Run::Nobody,
            Run::Owned(host) => Run::Owned(self.host(host)),
            Run::Offered(host) => Run::Offered(self.host(host)),
        });
        if self.swaps & one(chunk) == 0 {
            [first, second]
        } else {
            [second, first]
        }
    }

    fn commit(&self, commit: Commit) -> Commit {
        Commit {
            kind: match commit.kind {
                Kind::Offer(to) => Kind::Offer(self.host(to)),
                kind => kind,
            },
            range: self.addresses(commit.range),
            read: self.runs(commit.chunk, commit.read),
            runs: self.runs(commit.chunk, commit.runs),
            ..commit
        }
    }

    fn state(&self, host: &Host) -> Host {
        Host {
            owned: self.addresses(host.owned),
            leaving: self.addresses(host.leaving),
            busy: self.addresses(host.busy),
            open: host
                .open
                .map(|(commit, phase)| (self.commit(commit), phase)),
            early_owned: self.addresses(host.early_owned),
            early_busy: self.addresses(host.early_busy),
            held: self.addresses(host.held),
            ghost: host.ghost.map(|ghost| self.commit(ghost)),
            ..*host
        }
    }

    fn store(&self, store: &Store) -> Store {
        let mut renamed = Store {
            heal: self.hosts(store.heal),
            forgotten: self.hosts(store.forgotten),
            ..*store
        };
        for host in 0..3 {
            *renamed.counter_mut(self.host(host)) = store.counter(host);
        }
        for number in 0..2 {
            let chunk = store.chunk(number);
            *renamed.chunk_mut(number) = Chunk {
                runs: self.runs(number, chunk.runs),
                ..*chunk
            };
        }
        renamed
    }

    fn world(&self, world: &World) -> World {
        let mut renamed = World {
            store: self.store(&world.store),
            ready: self.hosts(world.ready),
            asserted: self.hosts(world.asserted),
            gone: self.hosts(world.gone),
            ..*world
        };
        for host in 0..3 {
            *renamed.host_mut(self.host(host)) = self.state(world.host(host));
        }
        if let Some(forgetting) = &mut renamed.forgetting {
            forgetting.host = self.host(forgetting.host);
        }
        if let Some(past) = &mut renamed.past {
            past.store = self.store(&past.store);
        }
        renamed
    }
}

const HOST_ORDERS: [[u8; HOSTS]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];
