//! Commits whose answer is late or lost, in a store that loses its past meanwhile: what another host took
//! is nobody else's.
#![allow(
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use common::machine::{Machine, Process, initialise, initialised, loner, network, pass, take};
use common::slow::{Place, Slow};
use common::store::{Fault, Snapshot};
use common::{TestStore, exact, gateway, ip, mac, this};
use netloom_core::store::{CommitError, Store, Transaction};
use netloom_core::{ClusterAdmin, Ipam, IpamError, Standing};
use netloom_ipam::Sharing;
use netloom_types::PoolId;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The first host, on that store.
async fn start(slow: &Arc<Slow>) -> Process {
    let machine = Machine::new("h1", &slow.store);
    let mut config = machine.config();
    if let Sharing::Cluster(cluster) = &mut config.sharing {
        cluster.status_every = LOOKS_EVERY;
    }
    machine.start_on(Arc::clone(slow) as _, config).await
}

const SUBNET: &str = "10.9.0.0/28";
/// It looks at the store also while its commit is under way.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// `giver` has the whole pool, and some of it to give; `asker` has nothing.
struct Scene {
    store: TestStore,
    slow: Arc<Slow>,
    giver: Process,
    asker: Arc<Process>,
    given: PoolId,
    asked: PoolId,
    in_use: BTreeSet<IpAddr>,
}

impl Scene {
    async fn new() -> Self {
        let store = initialised().await;
        let slow = Slow::new(&store);
        let giver = start(&slow).await;
        let asker = Arc::new(Machine::new("h2", &store).start().await);
        let given = giver.request_pool(exact(SUBNET)).await.unwrap().id;
        let mut in_use = BTreeSet::new();
        while let Ok(ip) = take(&giver, &given, in_use.len() as u32).await {
            in_use.insert(ip);
        }
        assert_eq!(in_use.len(), 14);
        let asked = asker.request_pool(exact(SUBNET)).await.unwrap().id;
        for ip in in_use.iter().copied().take(4).collect::<Vec<_>>() {
            giver.release_address(&given, ip).await.unwrap();
            in_use.remove(&ip);
        }
        pass(60).await;
        Self {
            store,
            slow,
            giver,
            asker,
            given,
            asked,
            in_use,
        }
    }

    /// The other host asks for an address.
    fn ask(&self) -> tokio::task::JoinHandle<Result<IpAddr, IpamError>> {
        let (asker, pool) = (Arc::clone(&self.asker), self.asked.clone());
        tokio::spawn(async move { take(&asker, &pool, 100).await })
    }

    async fn reached(&self) {
        self.slow.reached().await;
    }

    fn go_on(&self) {
        self.slow.go_on.notify_one();
    }

    /// The giver offers an address, which the asker takes, and hears nothing of it.
    async fn offered(&self) -> IpAddr {
        self.slow.stop_at([Place::Own, Place::Own, Place::Own]);
        let asked = self.ask();
        self.reached().await;
        asked.await.unwrap().unwrap()
    }

    /// The offer is sent again, and meets a conflict: the giver looks what happened, and joins meanwhile.
    async fn joins_before_it_knows(mut self, taken: IpAddr) {
        for _ in 0..2 {
            self.go_on();
            self.reached().await;
        }
        breathe().await;
        self.go_on();
        self.giver_has_not(taken).await;
        self.ends_well().await;
    }

    /// The giver hands out all that it has.
    async fn giver_has_not(&mut self, taken: IpAddr) {
        assert!(self.in_use.insert(taken), "{taken} was in use");
        while let Ok(ip) = take(&self.giver, &self.given, 300).await {
            assert!(self.in_use.insert(ip), "{ip} was handed out twice");
        }
    }

    /// All is healed, and what is left is handed out once.
    async fn ends_well(mut self) {
        pass(120).await;
        for (host, pool) in [(&*self.giver, &self.given), (&**self.asker, &self.asked)] {
            for n in 200..220 {
                match take(host, pool, n).await {
                    Ok(ip) => assert!(self.in_use.insert(ip), "{ip} was handed out twice"),
                    Err(IpamError::Exhausted(_)) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert_eq!(self.in_use.len(), 14, "addresses are lost");
    }
}

/// The store was emptied and made anew behind the offer, and the giver had joined it before it heard
/// what became of the offer.
#[tokio::test(start_paused = true)]
async fn an_offer_in_a_store_that_was_emptied_is_not_the_givers_again() {
    let scene = Scene::new().await;
    let taken = scene.offered().await;
    scene.store.wipe();
    initialise(&scene.store, ["h1", "h2"]).await;
    scene.joins_before_it_knows(taken).await;
}

/// The same in a store that was put back to within its epoch, to when it had no record of the giver yet.
#[tokio::test(start_paused = true)]
async fn an_offer_in_a_store_that_forgot_the_giver_is_not_the_givers_again() {
    let scene = Scene::new().await;
    scene.store.wipe();
    initialise(&scene.store, ["h1", "h2"]).await;
    let before = scene.store.snapshot();
    pass(120).await;
    let taken = scene.offered().await;
    scene.store.restore(&before);
    scene.joins_before_it_knows(taken).await;
}

/// The answer to a gateway's return was lost, and the gateway asked for anew: the return, should it arrive
/// yet, takes nothing.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_asked_for_anew_is_not_taken_by_its_late_return() {
    let store = initialised().await;
    let slow = Slow::new(&store);
    let host = start(&slow).await;
    let pool = host.request_pool(exact(SUBNET)).await.unwrap().id;
    let given = host.request_address(gateway(&pool)).await.unwrap().ip();
    slow.hold_back();
    host.release_address(&pool, given).await.unwrap_err();
    let late = slow.held_back();
    assert!(!late.is_empty());
    let again = host.request_address(gateway(&pool)).await.unwrap().ip();
    assert_eq!(again, given);
    for transaction in late {
        arrives_in_vain(&store, transaction).await;
    }
}

async fn arrives_in_vain(store: &TestStore, late: Transaction) {
    let arrived = store.commit(late).await;
    assert!(matches!(arrived, Err(CommitError::Conflict { .. })));
}

/// A gateway's return, which was not answered and is on its way.
async fn returns_unheard(slow: &Arc<Slow>, host: &Process) -> (PoolId, IpAddr, Transaction) {
    let pool = host.request_pool(exact("10.9.0.0/16")).await.unwrap().id;
    let given = host.request_address(gateway(&pool)).await.unwrap().ip();
    take(host, &pool, 1).await.unwrap();
    slow.hold_back();
    host.release_address(&pool, given).await.unwrap_err();
    let mut copies = slow.held_back();
    (pool, given, copies.pop().unwrap())
}

/// Whoever was told that it is the gateway has it: no container of another host gets it.
async fn nobody_else_gets(store: &TestStore, given: IpAddr) {
    let other = Machine::new("h2", store).start().await;
    let pool = other.request_pool(exact("10.9.0.0/16")).await.unwrap().id;
    let wish = this(&pool, given, Some(mac(9)));
    let taken = other.request_address(wish).await;
    assert!(
        matches!(taken, Err(IpamError::InUse(_))),
        "{given} is the gateway, and {taken:?} a container's"
    );
}

/// A network's removal was not answered, and it is used on: the removal, should it arrive yet, takes
/// nothing.
#[tokio::test(start_paused = true)]
async fn a_network_that_is_used_on_is_not_taken_by_its_late_removal() {
    let store = initialised().await;
    let slow = Slow::new(&store);
    let host = start(&slow).await;
    let pool = host.request_pool(exact("10.9.0.0/16")).await.unwrap().id;
    take(&host, &pool, 1).await.unwrap();
    slow.hold_back();
    host.release_pool(&pool).await.unwrap_err();
    let late = slow.held_back().pop().unwrap();
    take(&host, &pool, 2).await.unwrap();
    arrives_in_vain(&store, late).await;
    take(&host, &pool, 3).await.unwrap();
}

/// A gateway that another host holds, too, was asked for without an answer, and given back: the request,
/// should it arrive yet, holds nothing.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_was_given_back_is_not_held_by_its_late_request() {
    let store = initialised().await;
    let other = Machine::new("h2", &store).start().await;
    let theirs = other.request_pool(exact(SUBNET)).await.unwrap().id;
    let given = other.request_address(gateway(&theirs)).await.unwrap().ip();
    let slow = Slow::new(&store);
    let host = start(&slow).await;
    let pool = host.request_pool(exact(SUBNET)).await.unwrap().id;
    take(&host, &pool, 1).await.unwrap();
    slow.hold_back();
    host.request_address(gateway(&pool)).await.unwrap_err();
    let late = slow.held_back().pop().unwrap();
    host.release_address(&pool, given).await.unwrap();
    arrives_in_vain(&store, late).await;
}

/// A host brings its pool to the shared store and hears nothing of that; the network is removed. Whether the
/// pool arrived before, or would after: it is gone.
#[tokio::test(start_paused = true)]
async fn a_pool_that_was_brought_unheard_goes_with_its_network() {
    for arrives_before in [false, true] {
        let store = initialised().await;
        let (mut machine, pool, _) = loner("h1", "10.9.0.0/24", 1).await;
        machine.host.store = store.clone();
        let slow = Slow::new(&store);
        slow.hold_back_below("references/");
        let start = machine.start_on(Arc::clone(&slow) as _, machine.config());
        let host = start.await;
        let late = slow.held_back().pop().unwrap();
        if arrives_before {
            store.commit(late.clone()).await.unwrap();
        }
        host.release_pool(&pool).await.unwrap();
        arrives_in_vain(&store, late).await;
        pass(60).await;
        let other = Machine::new("h2", &store).start().await;
        network(&other, "10.9.0.0/16").await;
    }
}

/// What a host had is said again to an emptied store without an answer, and the network is removed: it does
/// not come back.
#[tokio::test(start_paused = true)]
async fn a_pool_that_was_said_again_unheard_goes_with_its_network() {
    let store = initialised().await;
    let slow = Slow::new(&store);
    let host = start(&slow).await;
    let pool = network(&host, "10.9.0.0/24").await.id;
    slow.hold_back_below("references/");
    store.wipe();
    initialise(&store, ["h1"]).await;
    while !slow.holds_something() {
        pass(1).await;
    }
    let late = slow.held_back().pop().unwrap();
    host.release_pool(&pool).await.unwrap();
    arrives_in_vain(&store, late).await;
}

/// A claim was not answered, and its host looks what became of it: it does not arrive behind that look,
/// to be kept for nobody.
#[tokio::test(start_paused = true)]
async fn a_claim_does_not_arrive_after_its_host_looked_for_it() {
    let store = initialised().await;
    let slow = Slow::new(&store);
    let host = start(&slow).await;
    let _other = Machine::new("h2", &store).start().await;
    pass(60).await;
    let pool = host.request_pool(exact("10.9.0.0/16")).await.unwrap().id;
    take(&host, &pool, 1).await.unwrap();
    pass(60).await;
    slow.hold_back_claims();
    let far = this(&pool, ip("10.9.200.7"), Some(mac(7)));
    host.request_address(far).await.unwrap_err();
    let late = slow.held_back().pop().unwrap();
    pass(60).await;
    arrives_in_vain(&store, late).await;
}

/// The process ended behind the return, and the next one is not known to the store yet: it does not know
/// what may be late.
#[tokio::test(start_paused = true)]
async fn a_gateway_is_not_confirmed_before_the_store_took_the_start() {
    let store = initialised().await;
    let machine = Machine::new("h1", &store);
    let slow = Slow::new(&store);
    let host = machine
        .start_on(Arc::clone(&slow) as _, machine.config())
        .await;
    let (pool, given, late) = returns_unheard(&slow, &host).await;
    drop(host);
    store.fail_next([Fault::Unavailable; 40]);
    let host = machine.start().await;
    host.request_address(gateway(&pool)).await.unwrap_err();
    store.clear_faults();
    store.commit(late).await.unwrap();
    pass(60).await;
    let again = host.request_address(gateway(&pool)).await.unwrap().ip();
    assert_eq!(again, given);
    nobody_else_gets(&store, given).await;
}

/// The store went back; the offer, sent again, met a record that was another one then, and before
/// it was made anew the other host had begun to heal.
#[tokio::test(start_paused = true)]
async fn an_offer_that_met_a_conflict_in_a_store_that_went_back_is_not_the_givers_again() {
    let mut scene = Scene::new().await;
    scene
        .slow
        .stop_at([Place::Wanted, Place::Own, Place::Member, Place::Pools]);
    let asked = scene.ask();
    scene.reached().await;
    let before: Snapshot = scene.store.snapshot();
    // Its record changes: what the offer checks of it is not what it was.
    scene
        .asker
        .request_pool(exact("10.8.0.0/24"))
        .await
        .unwrap();
    scene.go_on();
    scene.reached().await;
    let taken = asked.await.unwrap().unwrap();
    scene.store.restore(&before);
    scene.go_on();
    scene.reached().await;
    let other = scene.asker.request_pool(exact("10.7.0.0/24")).await;
    assert!(other.is_err(), "the store lost its past");
    breathe().await;
    scene.go_on();
    // What it thinks that it may give, before it hears of the others'.
    scene.reached().await;
    scene.giver_has_not(taken).await;
    scene.go_on();
    scene.ends_well().await;
}

/// Enough for a host to look at the store and join it anew, too short for one that is held up to give
/// up.
async fn breathe() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// A claim got lost; the store went back to before another claim of the same chunk, and a third host made
/// one that has the version of that one. The lost claim, sent again as it was, would take its place.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_sent_again_takes_nobodys_place() {
    let store = initialised().await;
    let slow = Slow::new(&store);
    let first = Arc::new(start(&slow).await);
    let second = Machine::new("h2", &store).start().await;
    let third = Machine::new("h3", &store).start().await;
    let mut pools = Vec::new();
    for host in [&*first, &second, &third] {
        pools.push(host.request_pool(exact("10.9.0.0/24")).await.unwrap().id);
        take(host, &pools[pools.len() - 1], pools.len() as u32)
            .await
            .unwrap();
    }
    pass(60).await;
    let before = store.snapshot();
    let wish = |host: usize, last: u8, n: u32| {
        this(&pools[host], ip(&format!("10.9.0.{last}")), Some(mac(n)))
    };
    third.request_address(wish(2, 253, 30)).await.unwrap();
    drop(third);
    slow.stop_at([Place::Own]);
    let (host, request) = (Arc::clone(&first), wish(0, 252, 10));
    let claimed = tokio::spawn(async move { host.request_address(request).await });
    slow.reached().await;
    store.rewind(&before);
    second.request_address(wish(1, 252, 20)).await.unwrap();
    slow.go_on.notify_one();
    let claimed = claimed.await.unwrap();
    assert!(claimed.is_err(), "{claimed:?} is another host's");
}

/// A store that was emptied, and then put back to a moment in which a host had not said all that it owns:
/// the host says all of it once more.
#[tokio::test(start_paused = true)]
async fn a_store_that_goes_back_while_it_is_healed_is_healed() {
    let store = initialised().await;
    let slow = Slow::new(&store);
    let first = start(&slow).await;
    let second = Machine::new("h2", &store).start().await;
    pass(60).await;
    let pool = first.request_pool(exact("10.9.0.0/20")).await.unwrap().id;
    let mut in_use = BTreeSet::new();
    // All four chunks, and then something of each to give.
    while let Ok(ip) = take(&first, &pool, in_use.len() as u32).await {
        in_use.insert(ip);
    }
    assert_eq!(in_use.len(), 4094);
    for ip in in_use.iter().copied().step_by(64).collect::<Vec<_>>() {
        first.release_address(&pool, ip).await.unwrap();
        in_use.remove(&ip);
    }
    pass(60).await;
    store.wipe();
    slow.stop_at([Place::Pools, Place::SecondChunk]);
    initialise(&store, ["h1", "h2"]).await;
    slow.reached().await;
    let copy = store.snapshot();
    slow.go_on.notify_one();
    slow.reached().await;
    store.restore(&copy);
    slow.go_on.notify_one();
    pass(120).await;
    assert_eq!(netloom_ipam::store_check(&store).await.unwrap(), []);
    let pool = second.request_pool(exact("10.9.0.0/20")).await.unwrap().id;
    let mut more = 5000;
    while let Ok(ip) = take(&second, &pool, more).await {
        more += 1;
        assert!(in_use.insert(ip), "{ip} was handed out twice");
    }
    assert!(more > 5000, "nothing is left of 64");
}

/// A host counts who uses a pool, and is about to drop the last reference, while another one says again
/// that it has one: the pool lives on.
#[tokio::test(start_paused = true)]
async fn a_reference_that_is_said_again_meanwhile_keeps_the_pool() {
    let store = initialised().await;
    let slow = Slow::new(&store);
    let leaver = Arc::new(start(&slow).await);
    let machine = Machine::new("h2", &store);
    let left = leaver.request_pool(exact(SUBNET)).await.unwrap().id;
    leaver.request_address(gateway(&left)).await.unwrap();
    let stays = machine.start().await;
    let before = store.snapshot();
    let pool = stays.request_pool(exact(SUBNET)).await.unwrap().id;
    stays.request_address(gateway(&pool)).await.unwrap();
    let taken = take(&stays, &pool, 1).await.unwrap();
    pass(60).await;
    drop(stays);
    store.restore(&before);
    // The first one has said again what it owns, and waits for the other.
    pass(60).await;
    slow.stop_at([Place::FirstChunk]);
    let host = Arc::clone(&leaver);
    let released = tokio::spawn(async move { host.release_pool(&left).await });
    slow.reached().await;
    let stays = machine.start().await;
    breathe().await;
    slow.go_on.notify_one();
    released.await.unwrap().unwrap();
    pass(60).await;
    take(&stays, &pool, 2).await.unwrap();
    let third = Machine::new("h3", &store).start().await;
    let theirs = third.request_pool(exact(SUBNET)).await.unwrap().id;
    let wish = this(&theirs, taken, Some(mac(9)));
    let twice = third.request_address(wish).await;
    assert!(matches!(twice, Err(IpamError::InUse(_))), "{twice:?}");
}

/// A host comes from a store of its own, and in the middle of bringing its pool another one comes with the same,
/// or with one that overlaps, or makes it in the shared store (no life): one of them stops, and the other one is
/// not hindered by what it left.
#[tokio::test(start_paused = true)]
async fn of_two_hosts_that_bring_a_pool_at_once_one_stops() {
    for place in [Place::FirstChunk, Place::Pools] {
        for (subnet, lives) in [
            ("10.9.7.0/24", [1, 1]),
            ("10.9.7.0/24", [1, 3]),
            ("10.9.7.0/24", [3, 1]),
            ("10.9.0.0/16", [1, 1]),
            ("10.9.7.0/24", [1, 0]),
            ("10.9.7.0/24", [3, 0]),
        ] {
            let told = format!("{place:?} {subnet} {lives:?}");
            let store = initialised().await;
            let slow = Slow::new(&store);
            let (first, own, mut own_given) = loner("h1", "10.9.7.0/24", lives[0]).await;
            slow.stop_at([place]);
            let (on, config) = (Arc::clone(&slow), first.config());
            let started = tokio::spawn(async move { first.start_on(on, config).await });
            slow.reached().await;
            let (second, pool, mut given) = if lives[1] == 0 {
                let second = Machine::new("h2", &store).start().await;
                let pool = network(&second, subnet).await.id;
                (second, pool, BTreeSet::new())
            } else {
                let (mut second, pool, given) = loner("h2", subnet, lives[1]).await;
                second.host.store = store.clone();
                (second.start().await, pool, given)
            };
            slow.go_on.notify_one();
            let first = started.await.unwrap();
            pass(120).await;
            let mut stand = Vec::new();
            for (host, pool, given) in
                [(&first, &own, &mut own_given), (&second, &pool, &mut given)]
            {
                let standing = host.cluster().await.standing;
                stand.push(standing == Standing::Joined);
                match (standing, take(host, pool, 1000).await) {
                    (Standing::Joined, Ok(ip)) => assert!(given.insert(ip), "{told}: {ip} twice"),
                    (Standing::Stopped { why }, Err(_)) => {
                        assert!(why.contains("overlaps"), "{why}");
                    }
                    other => panic!("{told}: {other:?}"),
                }
            }
            assert!(stand[0] != stand[1], "{told}: {stand:?} join");
            let (host, pool) = if stand[0] {
                (&first, &own)
            } else {
                (&second, &pool)
            };
            let of = if stand[0] { "10.9.7.0/24" } else { subnet };
            let first_one = common::subnet(of).nth(1);
            let given = host.request_address(gateway(pool)).await.unwrap();
            assert_eq!(Some(given.ip()), first_one, "{told}");
            assert_eq!(
                netloom_ipam::store_check(&store).await.unwrap(),
                [],
                "{told}"
            );
        }
    }
}
