//! A host that leaves its own store for a shared one, and is cut off on the way.
#![allow(
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use async_trait::async_trait;
use common::disk::Trouble;
use common::machine::{Machine, Process, initialise, initialised, loner, network, pass, take};
use common::store::{Fault, Snapshot};
use common::{Random, SimDisk, TestStore, exact, ip, mac, this};
use netloom_core::store::{
    CommitError, Committed, Key, Operation, Store, StoreError, StoreIdentity, Transaction,
    Versioned, Watch,
};
use netloom_core::{AddressSpace, ClusterAdmin, Ipam, IpamAdmin, IpamError, Standing};
use netloom_ipam::Sharing;
use netloom_types::PoolId;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

/// What stands in the shared store of the host's own one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brought {
    Nothing,
    Copy,
}

/// What becomes of the process that was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoesOn,
    Dies,
    /// It has no containers any more, and its network is removed before it looks again.
    IsAskedAtOnce,
}

/// The network is removed after the move broke off, wherever that was: its subnet is free, and its host
/// goes on.
#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_network_that_is_removed_after_a_move_broke_off() {
    for brought in [Brought::Nothing, Brought::Copy] {
        for then in [Then::GoesOn, Then::Dies, Then::IsAskedAtOnce] {
            for fault in [Fault::DoneAndAway, Fault::LostAndAway] {
                for commits in 0..10 {
                    println!("{brought:?} {then:?} {fault:?} after {commits} commits");
                    breaks_off(brought, then, fault, commits).await;
                }
            }
        }
    }
}

async fn breaks_off(brought: Brought, then: Then, fault: Fault, commits: u64) {
    let store = initialised().await;
    let (mut machine, pool, mut given) = loner("h1", "10.9.0.0/24", 1).await;
    if then == Then::IsAskedAtOnce {
        release_alone(&machine, &pool, std::mem::take(&mut given)).await;
    }
    if brought == Brought::Copy {
        copy(&machine.mirror, &store);
    }
    machine.host.store = store.clone();
    store.fail_after(commits, [fault]);
    let mut host = machine.start().await;
    store.come_back();
    store.clear_faults();
    if then == Then::Dies {
        drop(host);
        host = machine.start().await;
    }
    for ip in given {
        host.release_address(&pool, ip).await.unwrap();
    }
    remove(&host, &pool).await;
    pass(300).await;
    assert_eq!(host.cluster().await.standing, Standing::Joined);
    let other = Machine::new("h2", &store).start().await;
    let wide = network(&other, "10.9.0.0/16").await.id;
    take(&other, &wide, 1).await.unwrap();
    pass(300).await;
    drop(host);
    let host = machine.start().await;
    pass(300).await;
    assert_eq!(host.cluster().await.standing, Standing::Joined);
    assert_eq!(netloom_ipam::store_check(&store).await.unwrap(), []);
}

/// Gives addresses back while the host is alone with its own store.
async fn release_alone(machine: &Machine, pool: &PoolId, given: BTreeSet<IpAddr>) {
    let alone = start_alone(machine).await;
    for ip in given {
        alone.release_address(pool, ip).await.unwrap();
    }
}

async fn start_alone(machine: &Machine) -> Process {
    let mut config = machine.config();
    config.sharing = Sharing::Alone;
    let alone = Arc::new(machine.mirror.clone());
    machine.start_on(alone, config).await
}

/// As Docker does: again, until it is done.
async fn remove(host: &Process, pool: &PoolId) {
    for _ in 0..20 {
        match host.release_pool(pool).await {
            Ok(()) => return,
            Err(error) => println!("{error}"),
        }
        pass(5).await;
    }
    panic!("the network cannot be removed");
}

fn copy(from: &TestStore, to: &TestStore) {
    for (key, value) in from.values() {
        let is_of_pools = ["pools/", "references/", "chunks/"];
        if is_of_pools.iter().any(|of| key.starts_with(of)) {
            to.put(&key, value);
        }
    }
}

/// A move waits for a host that is off, in a store that was emptied meanwhile, and the mover is started anew:
/// it brings all that it had, the gateway too.
#[tokio::test(start_paused = true)]
async fn a_gateway_comes_along_from_a_move_that_waited_in_an_emptied_store() {
    let store = initialised().await;
    let (mut machine, pool, _) = loner("h1", "10.9.0.0/24", 1).await;
    machine.host.store = store.clone();
    store.fail_after(1, [Fault::LostAndAway]);
    let host = machine.start().await;
    store.clear_faults();
    store.wipe();
    store.come_back();
    initialise(&store, ["h1", "h2"]).await;
    pass(60).await;
    drop(host);
    let host = machine.start().await;
    pass(60).await;
    let other = Machine::new("h2", &store).start().await;
    pass(120).await;
    take(&host, &pool, 100).await.unwrap();
    refused_gateway((&host, &pool), &other).await;
}

/// The gateway of the pool that was brought is no container's, whoever asks.
async fn refused_gateway(own: (&Process, &PoolId), other: &Process) {
    let theirs = other.request_pool(exact("10.9.0.0/24")).await.unwrap().id;
    for (host, pool) in [own, (other, &theirs)] {
        let wish = this(pool, ip("10.9.0.1"), Some(mac(200)));
        let given = host.request_address(wish).await;
        assert!(matches!(given, Err(IpamError::InUse(_))), "{given:?}");
    }
}

/// The store took the last word of a move and was away then, its host lost power, and the store was emptied:
/// what nobody else has seen of the pool, its host knows still.
#[tokio::test(start_paused = true)]
async fn a_gateway_comes_along_from_a_move_whose_end_was_not_looked_at() {
    for commits in 0..8 {
        println!("after {commits} commits");
        let store = initialised().await;
        let (mut machine, pool, _) = loner("h1", "10.9.0.0/24", 1).await;
        machine.host.store = store.clone();
        store.die_after(commits);
        drop(machine.start().await);
        machine.host.disk.lose_power(&mut Random(commits));
        store.wipe();
        store.come_back();
        initialise(&store, ["h1"]).await;
        let host = machine.start().await;
        pass(60).await;
        assert_eq!(host.cluster().await.standing, Standing::Joined);
        let other = Machine::new("h2", &store).start().await;
        refused_gateway((&host, &pool), &other).await;
    }
}

/// The disk was full when a move arrived, so that the journal did not take it: it is made again.
#[tokio::test(start_paused = true)]
async fn a_move_that_a_full_disk_kept_out_of_the_journal_is_made_again() {
    let store = initialised().await;
    let (mut machine, pool, given) = loner("h1", "10.9.0.0/24", 1).await;
    // A network without containers, of which the journal tells nothing.
    release_alone(&machine, &pool, given).await;
    machine.host.store = store.clone();
    let filling = FullAtArrival {
        store: store.clone(),
        disk: machine.host.disk.clone(),
    };
    let host = machine.start_on(Arc::new(filling), machine.config()).await;
    pass(120).await;
    drop(host);
    let host = machine.start().await;
    pass(120).await;
    assert_eq!(host.cluster().await.standing, Standing::Joined);
    take(&host, &pool, 100).await.unwrap();
    // Docker keeps the id of before the move, and whoever compares ids has to know it by the later one.
    let listed = host.listed_as(&pool);
    assert_ne!(listed, pool);
    assert_eq!(host.pools().await[0].references, [listed]);
    let other = Machine::new("h2", &store).start().await;
    refused_gateway((&host, &pool), &other).await;
}

/// A store beside whose host's disk is full from the moment in which a pool becomes one of all.
#[derive(Debug)]
struct FullAtArrival {
    store: TestStore,
    disk: SimDisk,
}

impl FullAtArrival {
    fn fill(&self) {
        let mut rows = self.store.values().into_iter();
        if rows.any(|(key, _)| key.starts_with("references/")) {
            self.disk.trouble(Trouble::NoSpace);
        }
    }
}

#[async_trait]
impl Store for FullAtArrival {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.store.identity().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.fill();
        self.store.get(key).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.fill();
        self.store.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        self.store.commit(transaction).await
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        self.store.watch(prefix).await
    }
}

/// The store was named before it was initialised; a network that is removed meanwhile is gone.
#[tokio::test(start_paused = true)]
async fn a_network_can_be_removed_before_the_store_has_an_epoch() {
    let store = TestStore::default();
    let (mut machine, pool, given) = loner("h1", "10.9.0.0/24", 1).await;
    machine.host.store = store.clone();
    let host = machine.start().await;
    pass(60).await;
    for ip in given {
        host.release_address(&pool, ip).await.unwrap();
    }
    host.release_pool(&pool).await.unwrap();
    initialise(&store, ["h1"]).await;
    pass(60).await;
    let other = Machine::new("h2", &store).start().await;
    network(&other, "10.9.0.0/16").await;
}

/// By whose record alone the store shows that it lost its past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LostOf {
    Mover,
    Another,
}

/// The store went back between a look at it and a move, and shows a pool again that is in the move's way: its
/// host says what it has, and what was lost, before it stops over that.
#[tokio::test(start_paused = true)]
async fn a_conflict_of_a_store_that_lost_its_past_keeps_nobody_from_saying_what_it_has() {
    for lost in [LostOf::Mover, LostOf::Another] {
        stops_over_a_pool_of_before(lost).await;
    }
}

async fn stops_over_a_pool_of_before(lost: LostOf) {
    let store = initialised().await;
    let second = Machine::new("h2", &store);
    let (two, three) = (
        second.start().await,
        Machine::new("h3", &store).start().await,
    );
    let theirs = network(&two, "10.8.0.0/26").await.id;
    let (mut machine, _, _) = loner("h1", "10.9.0.0/24", 1).await;
    machine.host.store = store.clone();
    let moving = BackAtMove {
        store: store.clone(),
        snapshot: Arc::default(),
    };
    let one = machine
        .start_on(Arc::new(moving.clone()), machine.config())
        .await;
    pass(60).await;
    let former = network(&three, "10.9.0.0/24").await.id;
    let snapshot = store.snapshot();
    drop(two);
    three.release_pool(&former).await.unwrap();
    let who = match lost {
        LostOf::Mover => &one,
        LostOf::Another => &three,
    };
    let pool = network(who, "10.8.0.0/26").await.id;
    let given = take(who, &pool, 1).await.unwrap();
    if lost == LostOf::Another {
        // The mover sees it, and has nothing to say of its own.
        pass(60).await;
    }
    drop(three);
    *moving.snapshot.lock().unwrap() = Some(snapshot);
    pass(60).await;
    let standing = one.cluster().await.standing;
    let Standing::Stopped { why } = standing else {
        panic!("{standing:?}")
    };
    let refused = one.request_pool(exact("10.9.0.0/24")).await.unwrap_err();
    assert!(refused.to_string().contains(&why), "{refused}");
    let two = second.start().await;
    pass(60).await;
    for n in 100..200 {
        if let Ok(ip) = take(&two, &theirs, n).await {
            assert_ne!(ip, given, "lost of {lost:?}");
        }
    }
}

/// While the second of two pools waits for its move, wherever it broke off, its host does not make the pool
/// anew beside it, nor one that overlaps it.
#[tokio::test(start_paused = true)]
async fn a_pool_that_has_yet_to_move_is_not_made_anew() {
    for wanted in ["10.8.0.0/24", "10.8.0.0/16"] {
        for commits in 0..12 {
            let store = initialised().await;
            let (mut machine, _, _) = loner("h1", "10.9.0.0/24", 1).await;
            make_alone(&machine, "10.8.0.0/24").await;
            machine.host.store = store.clone();
            store.fail_after(commits, [Fault::Unavailable]);
            let host = machine.start().await;
            let refused = host.request_pool(exact(wanted)).await.unwrap_err();
            println!("{wanted} after {commits} commits: {refused}");
            pass(120).await;
            assert_eq!(host.cluster().await.standing, Standing::Joined);
            let pools = host.pools().await;
            let spaces: BTreeSet<_> = pools.iter().map(|pool| pool.space).collect();
            assert_eq!(
                (pools.len(), spaces),
                (2, BTreeSet::from([AddressSpace::Global]))
            );
        }
    }
}

/// One more network with a container, while the host is alone with its own store.
async fn make_alone(machine: &Machine, subnet: &str) {
    let alone = start_alone(machine).await;
    let pool = network(&alone, subnet).await.id;
    take(&alone, &pool, 1).await.unwrap();
}

/// A store in which no pool can be brought, and which then goes back when one is to be.
#[derive(Debug, Clone)]
struct BackAtMove {
    store: TestStore,
    snapshot: Arc<Mutex<Option<Snapshot>>>,
}

#[async_trait]
impl Store for BackAtMove {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.store.identity().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        if key.as_str().starts_with("spaces/")
            && let Some(snapshot) = self.snapshot.lock().unwrap().take()
        {
            self.store.restore(&snapshot);
        }
        self.store.get(key).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.store.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let mut keys = transaction.operations.iter().map(Operation::key);
        if keys.any(|key| key.as_str().starts_with("spaces/")) {
            return Err(CommitError::Unavailable(None));
        }
        self.store.commit(transaction).await
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        self.store.watch(prefix).await
    }
}
