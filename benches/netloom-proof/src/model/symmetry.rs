//! Renaming of hosts and addresses, so that the walk meets each world once.

use super::world::{CHUNKS, Chunk, Commit, HOSTS, Host, Kind, Run, Set, Store, World, each, one};

/// The least of all worlds that differ from this one by names only.
pub(super) fn representative(world: &World) -> World {
    let mut least: Option<World> = None;
    for hosts in HOST_ORDERS {
        for swaps in 0..(1 << CHUNKS) {
            let renamed = Names { hosts, swaps }.world(world);
            if least.as_ref().is_none_or(|least| renamed < *least) {
                least = Some(renamed);
            }
        }
    }
    least.expect("there is an order of hosts")
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
