//! Stores that lose their past, and hosts that say again what they own.
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print their seed"
)]

mod common;

use common::machine::*;
use common::store::Fault;
use common::{any, exact, gateway, ip, mac, this};
use netloom_core::{ClusterAdmin, Ipam, IpamAdmin, IpamError, Reservation, ReservedFor, Standing};
use netloom_types::HostId;
use std::collections::BTreeSet;

#[tokio::test(start_paused = true)]
async fn a_store_without_its_past_is_healed_by_those_who_remember() {
    let store = initialised().await;
    let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
    let (first, second) = (one.start().await, two.start().await);
    let before = network(&first, "10.9.0.0/16").await.id;
    let mut given = BTreeSet::new();
    given.insert(take(&first, &before, 1).await.unwrap());
    pass(60).await;
    let snapshot = store.snapshot();
    // What follows is lost: a range of the second host, and a pool.
    let shared = network(&second, "10.9.0.0/16").await.id;
    for n in 10..20 {
        given.insert(take(&second, &shared, n).await.unwrap());
    }
    let young = network(&second, "10.7.0.0/24").await.id;
    let in_young = take(&second, &young, 30).await.unwrap();
    store.restore(&snapshot);
    pass(120).await;
    assert_eq!(first.cluster().await.epoch, 2);
    for host in [&first, &second] {
        assert_eq!(host.cluster().await.standing, Standing::Joined);
    }
    for n in 0..1500 {
        let (host, pool) = if n % 2 == 0 {
            (&first, &before)
        } else {
            (&second, &shared)
        };
        let ip = take(host, pool, 1000 + n).await.unwrap();
        assert!(given.insert(ip), "{ip} twice");
    }
    assert_ne!(take(&second, &young, 31).await.unwrap(), in_young);
    let third = network(&first, "10.7.0.0/24").await.id;
    let ip = take(&first, &third, 32).await.unwrap();
    assert_ne!(ip, in_young);
}

#[tokio::test(start_paused = true)]
async fn e8_a_wiped_store_is_initialised_by_a_person_and_filled_by_the_hosts() {
    let store = initialised().await;
    let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
    let (first, second) = (one.start().await, two.start().await);
    let pools = [
        network(&first, "10.9.0.0/16").await.id,
        network(&second, "10.9.0.0/16").await.id,
    ];
    let mut given = BTreeSet::new();
    given.insert(take(&first, &pools[0], 1).await.unwrap());
    given.insert(take(&second, &pools[1], 2).await.unwrap());
    pass(60).await;
    store.wipe();
    pass(60).await;
    assert!(
        store
            .values()
            .iter()
            .all(|(key, _)| key.starts_with("status/")),
        "a daemon wrote more than hints into it: {:?}",
        store.values()
    );
    // Goes on meanwhile, from what it owns.
    given.insert(take(&first, &pools[0], 3).await.unwrap());
    assert_eq!(first.initialise().await.unwrap(), 2);
    pass(120).await;
    for host in [&first, &second] {
        assert_eq!(host.cluster().await.standing, Standing::Joined);
    }
    for n in 0..1500 {
        let host = [&first, &second][n % 2];
        let ip = take(host, &pools[n % 2], 1000 + u32::try_from(n).unwrap())
            .await
            .unwrap();
        assert!(given.insert(ip), "{ip} twice");
    }
    let gateway = first.request_address(gateway(&pools[0])).await.unwrap();
    assert_eq!(gateway.ip(), ip("10.9.0.1"));
}

#[tokio::test(start_paused = true)]
async fn healing_waits_for_all_and_a_person_ends_the_wait() {
    let store = initialised().await;
    let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
    let (first, second) = (one.start().await, two.start().await);
    let snapshot = store.snapshot();
    let pool = network(&first, "10.9.0.0/16").await.id;
    take(&first, &pool, 1).await.unwrap();
    network(&second, "10.9.0.0/16").await;
    pass(60).await;
    drop(second);
    store.restore(&snapshot);
    pass(60).await;
    let view = first.cluster().await;
    let waiting = vec![HostId::new("h2").unwrap()];
    assert_eq!(view.standing, Standing::Healing { waiting });
    let refused = first.request_pool(exact("10.6.0.0/24")).await.unwrap_err();
    assert!(is_unavailable(&refused, "h2"), "{refused}");
    take(&first, &pool, 2).await.unwrap();
    first.forget(&HostId::new("h2").unwrap()).await.unwrap();
    assert_eq!(first.cluster().await.standing, Standing::Joined);
    first.request_pool(exact("10.6.0.0/24")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_off_while_the_store_lost_its_past_heals_it_when_it_starts() {
    let store = initialised().await;
    let machine = Machine::new("h1", &store);
    let one = machine.start().await;
    let snapshot = store.snapshot();
    let pool = network(&one, "10.9.0.0/24").await.id;
    let kept = take(&one, &pool, 1).await.unwrap();
    pass(60).await;
    drop(one);
    store.restore(&snapshot);
    let one = machine.start().await;
    assert_eq!(one.cluster().await.standing, Standing::Joined);
    assert_eq!(one.cluster().await.epoch, 2);
    let again = one.request_address(this(&pool, kept, Some(mac(7)))).await;
    assert!(matches!(again, Err(IpamError::InUse(_))), "{again:?}");
    assert_ne!(take(&one, &pool, 2).await.unwrap(), kept);
}

#[tokio::test(start_paused = true)]
async fn whatever_the_store_does_not_say_of_a_start_or_of_healing_both_come_off() {
    for fault in [Fault::UnknownDone, Fault::UnknownLost, Fault::Unavailable] {
        for at in 0..14 {
            let store = initialised().await;
            let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
            let before = store.snapshot();
            store.fail_next([fault]);
            let (first, second) = (one.start().await, two.start().await);
            pass(30).await;
            let pools = [
                network(&first, "10.9.0.0/22").await.id,
                network(&second, "10.9.0.0/22").await.id,
            ];
            let mut given = BTreeSet::new();
            for n in 0..40 {
                let host = [&first, &second][n % 2];
                let ip = take(host, &pools[n % 2], u32::try_from(n).unwrap()).await;
                given.insert(ip.unwrap());
            }
            pass(30).await;
            // Everything is lost, and the hosts write it again with a store that does not tell.
            drop(second);
            store.restore(&before);
            let lost = (0..at).map(|n| match n % 3 {
                0 => Fault::UnknownDone,
                1 => Fault::UnknownLost,
                _ => fault,
            });
            store.fail_next(lost.chain([fault; 5]));
            let second = two.start().await;
            pass(120).await;
            store.clear_faults();
            pass(120).await;
            for host in [&first, &second] {
                let view = host.cluster().await;
                assert_eq!(view.standing, Standing::Joined, "{fault:?} at {at}");
                assert!(view.epoch > 1);
            }
            assert_eq!(netloom_ipam::store_check(&store).await.unwrap(), []);
            for n in 100..200 {
                let host = [&first, &second][n % 2];
                let ip = take(host, &pools[n % 2], u32::try_from(n).unwrap())
                    .await
                    .unwrap();
                assert!(given.insert(ip), "{ip} twice");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_while_it_heals_goes_on_from_there() {
    for left in 0..40 {
        let store = initialised().await;
        let machine = Machine::new("h1", &store);
        let before = store.snapshot();
        let one = machine.start().await;
        let pool = network(&one, "10.9.0.0/22").await.id;
        let mut given = BTreeSet::new();
        for n in 0..40 {
            given.insert(take(&one, &pool, n).await.unwrap());
        }
        pass(60).await;
        drop(one);
        store.restore(&before);
        // So many commits later it is gone.
        store.die_after(left);
        let one = machine.start().await;
        pass(20).await;
        drop(one);
        store.come_back();
        let one = machine.start().await;
        pass(60).await;
        assert_eq!(
            one.cluster().await.standing,
            Standing::Joined,
            "after {left}"
        );
        assert_eq!(netloom_ipam::store_check(&store).await.unwrap(), []);
        for n in 100..200 {
            let ip = take(&one, &pool, n).await.unwrap();
            assert!(given.insert(ip), "{ip} twice, after {left}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_owners_by_a_store_that_went_back_unseen_are_one_again_after_healing() {
    for first_speaks in [true, false] {
        let store = initialised().await;
        let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
        let (first, second) = (one.start().await, two.start().await);
        let pools = [
            network(&first, "10.9.0.0/27").await.id,
            network(&second, "10.9.0.0/27").await.id,
        ];
        let before = store.snapshot();
        let mut firsts = BTreeSet::new();
        for n in 0..12 {
            firsts.insert(take(&first, &pools[0], n).await.unwrap());
        }
        // Nobody else saw any of this, and the only witness is off.
        drop(first);
        store.restore(&before);
        let mut seconds = BTreeSet::new();
        while let Ok(ip) = take(
            &second,
            &pools[1],
            100 + u32::try_from(seconds.len()).unwrap(),
        )
        .await
        {
            seconds.insert(ip);
        }
        let twice: BTreeSet<_> = firsts.intersection(&seconds).copied().collect();
        assert!(!twice.is_empty(), "the history that cannot be helped");
        let first = one.start().await;
        pass(120).await;
        let hosts = [(&first, &pools[0]), (&second, &pools[1])];
        for (host, _) in hosts {
            assert_eq!(host.cluster().await.standing, Standing::Joined);
            assert!(host.cluster().await.epoch > 1);
        }
        // From here on each address has one owner, who gives it when it is free on both.
        for ip in &twice {
            first.release_address(&pools[0], *ip).await.unwrap();
            second.release_address(&pools[1], *ip).await.unwrap();
        }
        pass(60).await;
        let mut again = BTreeSet::new();
        for n in 0..2 * twice.len() {
            let at = (n + usize::from(first_speaks)) % 2;
            let (host, pool) = hosts[at];
            if let Ok(ip) = take(host, pool, 1000 + u32::try_from(n).unwrap()).await {
                assert!(again.insert(ip), "{ip} has two owners");
            }
        }
        assert!(!again.is_empty());
    }
}

/// A host that had given its network up, and not yet what it owned of the pool, brings no pool to life
/// that nobody uses.
#[tokio::test(start_paused = true)]
async fn a_pool_that_nobody_refers_to_is_not_brought_to_life() {
    let store = initialised().await;
    let machine = Machine::new("h1", &store);
    let first = machine.start().await;
    let second = Machine::new("h2", &store).start().await;
    let pool = network(&first, "10.9.7.0/24").await.id;
    network(&second, "10.9.7.0/24").await;
    let ip = take(&first, &pool, 1).await.unwrap();
    pass(60).await;
    first.release_address(&pool, ip).await.unwrap();
    first.release_pool(&pool).await.unwrap();
    drop((first, second));
    store.wipe();
    initialise(&store, ["h1"]).await;
    let first = machine.start().await;
    pass(120).await;
    let gone = HostId::new("h2").unwrap();
    first.forget(&gone).await.unwrap();
    pass(60).await;
    assert_eq!(first.cluster().await.standing, Standing::Joined);
    let third = Machine::new("h3", &store).start().await;
    network(&third, "10.9.0.0/16").await;
}

/// A host was about to give ranges back when the store was put back to within that: it still does.
#[tokio::test(start_paused = true)]
async fn ranges_that_were_to_be_given_back_to_a_store_that_went_back_are() {
    let store = initialised().await;
    let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
    let (first, second) = (one.start().await, two.start().await);
    let ended = network(&first, "10.9.0.0/24").await.id;
    let pool = network(&second, "10.9.0.0/24").await.id;
    let given = take(&first, &ended, 1).await.unwrap();
    first.release_address(&ended, given).await.unwrap();
    pass(60).await;
    first.release_pool(&ended).await.unwrap();
    let snapshot = store.snapshot();
    network(&first, "10.10.0.0/24").await;
    store.restore(&snapshot);
    // It finds out before it looks after its ranges.
    drop(first.request_pool(exact("10.11.0.0/24")).await);
    pass(300).await;
    assert_eq!(first.cluster().await.standing, Standing::Joined);
    drop(first);
    for n in 0..253 {
        take(&second, &pool, n).await.unwrap();
    }
}

/// A host that hears of a new epoch by a glance at it does not compare that with what it knew of the other
/// hosts before: it would take the store for one that lost its past once more.
#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_begins_one_epoch_and_no_second_one() {
    for seconds in 0..24 {
        let store = initialised().await;
        let machine = |name| Machine::new(name, &store);
        let first = machine("h1").start().await;
        pass(seconds).await;
        let (second, third) = (machine("h2").start().await, machine("h3").start().await);
        pass(60).await;
        let before = store.snapshot();
        for _ in 0..20 {
            let pool = network(&third, "10.9.0.0/24").await.id;
            third.release_pool(&pool).await.unwrap();
        }
        pass(60).await;
        drop(third);
        store.restore(&before);
        pass(120).await;
        for host in [&first, &second] {
            let cluster = host.cluster().await;
            let waiting = vec![HostId::new("h3").unwrap()];
            assert_eq!(cluster.standing, Standing::Healing { waiting });
            assert_eq!(cluster.epoch, 2, "{seconds}");
        }
    }
}

/// A host had an address reserved, a store that went back gave it to another host: the reservation stands,
/// and hands out nothing that is not this host's.
#[tokio::test(start_paused = true)]
async fn a_reserved_address_that_another_host_has_by_now_is_not_handed_out() {
    let store = initialised().await;
    let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
    let (first, second) = (one.start().await, two.start().await);
    let pools = [
        network(&first, "10.9.0.0/28").await.id,
        network(&second, "10.9.0.0/28").await.id,
    ];
    let before = store.snapshot();
    let mut in_use = BTreeSet::from([take(&first, &pools[0], 1).await.unwrap()]);
    let kept = in_use.pop_first().unwrap();
    first.release_address(&pools[0], kept).await.unwrap();
    let reservation = Reservation {
        ip: kept,
        holder: ReservedFor::Mac(mac(5)),
    };
    first.reserve(reservation).await.unwrap();
    drop(first);
    store.restore(&before);
    while let Ok(ip) = take(&second, &pools[1], 100 + in_use.len() as u32).await {
        in_use.insert(ip);
    }
    assert!(in_use.contains(&kept));
    let first = one.start().await;
    pass(120).await;
    for wanted in [Some(kept), None] {
        let mut wish = any(&pools[0], mac(5));
        wish.wanted = wanted;
        let taken = first.request_address(wish).await;
        assert!(matches!(taken, Err(IpamError::InUse(_))), "{taken:?}");
    }
}

/// A store that goes back to when a pool's life had ended may be asked to live it again, by a host
/// that heard of neither its gateway nor its end: nobody would know that gateway any more.
#[tokio::test(start_paused = true)]
async fn a_life_that_ended_keeps_no_gateway_and_no_auxiliary_address() {
    let store = initialised().await;
    let machine = Machine::new("h1", &store);
    let host = machine.start().await;
    let pool = host.request_pool(exact("10.9.0.0/16")).await.unwrap().id;
    host.request_address(gateway(&pool)).await.unwrap();
    for n in 1..=12 {
        let wish = this(&pool, ip(&format!("10.9.{}.{n}", 4 * n)), None);
        host.request_address(wish).await.unwrap();
    }
    let kept = || {
        let values = store.values().into_iter();
        let mut chunks = values.filter(|(key, _)| key.starts_with("chunks/"));
        chunks.any(|(_, value)| String::from_utf8_lossy(&value).contains("\"pool\""))
    };
    assert!(kept(), "or the test looks at something else");
    host.release_pool(&pool).await.unwrap();
    assert!(!kept(), "{:?}", store.values());
}

/// The only one who has anything of the pool has it in a former life: a claim in the later one, which
/// another host remembers, would take the place of what is in use.
#[tokio::test(start_paused = true)]
async fn a_pool_that_is_back_in_a_former_life_is_claimed_in_that_life() {
    let store = initialised().await;
    let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
    let (first, second) = (one.start().await, two.start().await);
    let pool = network(&first, "10.9.0.0/24").await.id;
    let taken = take(&first, &pool, 1).await.unwrap();
    let (old, seen) = (one.copy(), one.mirror.snapshot());
    first.release_address(&pool, taken).await.unwrap();
    first.release_pool(&pool).await.unwrap();
    // The second life, of which the other host has nothing.
    network(&first, "10.9.0.0/24").await;
    let shared = network(&second, "10.9.0.0/24").await.id;
    second.release_pool(&shared).await.unwrap();
    pass(60).await;
    drop(first);
    store.wipe();
    one.mirror.restore(&seen);
    let first = old.start().await;
    assert_eq!(first.initialise().await.unwrap(), 2);
    pass(60).await;
    for host in [&first, &second] {
        assert_eq!(host.cluster().await.standing, Standing::Joined);
    }
    let holder = ReservedFor::Explicit;
    let reserved = second.reserve(Reservation { ip: taken, holder }).await;
    assert!(reserved.is_err(), "{taken} is in use");
    let more = take(&first, &pool, 2).await.unwrap();
    let shared = network(&second, "10.9.0.0/24").await.id;
    let other = take(&second, &shared, 3).await.unwrap();
    assert_eq!(BTreeSet::from([taken, more, other]).len(), 3);
}

/// Whoever began the epoch had not met the third host; the first one had, and speaks for it.
#[tokio::test(start_paused = true)]
async fn a_host_that_only_one_other_remembers_is_waited_for_by_all() {
    let store = initialised().await;
    let machines = ["h1", "h2", "h3"].map(|name| Machine::new(name, &store));
    let first = machines[0].start().await;
    let second = machines[1].start().await;
    let elsewhere = network(&second, "10.8.0.0/24").await.id;
    take(&second, &elsewhere, 3).await.unwrap();
    drop(second);
    let third = machines[2].start().await;
    let pools = [
        network(&first, "10.9.0.0/24").await.id,
        network(&third, "10.9.0.0/24").await.id,
    ];
    let mut given = BTreeSet::new();
    given.insert(take(&first, &pools[0], 1).await.unwrap());
    given.insert(take(&third, &pools[1], 2).await.unwrap());
    pass(60).await;
    drop(third);
    store.wipe();
    let second = machines[1].start().await;
    assert_eq!(second.initialise().await.unwrap(), 2);
    pass(60).await;
    let waiting = vec![HostId::new("h3").unwrap()];
    for host in [&first, &second] {
        let standing = host.cluster().await.standing;
        let waiting = waiting.clone();
        assert_eq!(standing, Standing::Healing { waiting });
    }
    let third = machines[2].start().await;
    pass(60).await;
    for n in 10..200 {
        let (host, pool) = [(&first, &pools[0]), (&third, &pools[1])][n % 2];
        let ip = take(host, pool, u32::try_from(n).unwrap()).await.unwrap();
        assert!(given.insert(ip), "{ip} twice");
    }
}
