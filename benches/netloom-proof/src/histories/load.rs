//! What callers ask of a host: enough that the pools are nearly full, and that what one host has is
//! wanted by the next.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use netloom_core::{AddressSpace, Ipam, Options, PoolRequest, WantedPool};
use netloom_types::Subnet;
use tokio::time::sleep;

use super::clock::{Random, now};
use super::host::{Host, subnet};
use super::story::Refusal;

/// Runs all callers until the standard input ends.
pub(super) async fn run(host: &Arc<Host>) -> anyhow::Result<()> {
    let ends = Arc::clone(host);
    std::thread::spawn(move || {
        // Whatever comes, and whatever goes wrong, it is the end.
        let _ = std::io::stdin().read(&mut [0]);
        ends.ends.store(true, Ordering::Relaxed);
    });
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..host.args.callers {
        let random = Random::new(host.args.seed ^ now() ^ u64::from(caller) << 32);
        callers.spawn(call_for_ever(Arc::clone(host), random));
    }
    if host.args.store.is_none() {
        for caller in 0..NETWORKERS {
            callers.spawn(make_networks(Arc::clone(host), caller));
        }
    }
    while !host.ends.load(Ordering::Relaxed) {
        sleep(TELL_EVERY).await;
        host.tell()?;
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(())
}

async fn call_for_ever(host: Arc<Host>, mut random: Random) -> anyhow::Result<()> {
    while !host.ends.load(Ordering::Relaxed) {
        let pool = random.place(host.pools.len());
        let all = subnet(pool, host.args.prefix);
        let held = host.held_of(pool);
        let goal = goal(&host, pool, all);
        let by_value = host.args.hosts > 1 && random.percent(BY_VALUE);
        if held < goal && !(held > goal / 2 && random.percent(20)) {
            let index = u128::from(random.between(2, size(all) - 1));
            let wanted = all.nth(index).filter(|_| by_value);
            match host.take(pool, wanted).await? {
                Ok(_) | Err(Refusal::InUse | Refusal::Other) => {}
                // Somebody else may have some soon.
                Err(Refusal::Full) => release(&host, pool, &mut random).await?,
                Err(Refusal::Away) => sleep(PAUSE).await,
            }
        } else {
            release(&host, pool, &mut random).await?;
        }
    }
    Ok(())
}

async fn release(host: &Host, pool: usize, random: &mut Random) -> anyhow::Result<()> {
    match host.pick(pool, random) {
        Some(ip) => host.release(pool, ip).await,
        None => {
            sleep(PAUSE).await;
            Ok(())
        }
    }
}

/// How many addresses of a pool a host wants now. In scarce times all want more than there is, one host
/// most of it, and every few seconds that is the next one: nearly each call changes a range. They take
/// turns with times of plenty, in which hosts live from what they have.
fn goal(host: &Host, pool: usize, all: Subnet) -> usize {
    let hosts = u64::from(host.args.hosts);
    let size = size(all);
    let turn = now() / TURN_NS + u64::try_from(pool).unwrap_or(0);
    let is_scarce = (now() / SCARCE_NS).is_multiple_of(2);
    let share = if hosts == 1 {
        size * (60 + 40 * (turn % 2)) / 100
    } else if !is_scarce {
        size * 70 / 100 / hosts
    } else if turn % hosts == u64::from(host.args.number) {
        size * 55 / 100
    } else {
        size * 46 / 100 / (hosts - 1)
    };
    usize::try_from(share).unwrap_or(usize::MAX)
}

fn size(all: Subnet) -> u64 {
    u64::try_from(all.size_saturating()).unwrap_or(u64::MAX)
}

/// Networks that come and go: with a store of its own a host asks it for nothing else.
async fn make_networks(host: Arc<Host>, caller: u8) -> anyhow::Result<()> {
    let mut random = Random::new(now() ^ u64::from(caller));
    while !host.ends.load(Ordering::Relaxed) {
        let third = u8::try_from(random.between(0, 64)).unwrap_or(0);
        let base = std::net::IpAddr::from([10, 78 + caller, third, 0]);
        let request = PoolRequest {
            space: AddressSpace::Local,
            wanted: WantedPool::Exact {
                subnet: Subnet::truncating(base, 24),
                range: None,
            },
            options: Options::new(),
        };
        match host.ipam.request_pool(request).await {
            Ok(grant) => host.ipam.release_pool(&grant.id).await?,
            Err(_) => sleep(PAUSE).await,
        }
    }
    Ok(())
}

/// Of a hundred requests, those that name the address.
const BY_VALUE: u64 = 10;
/// How long a host may want most of a pool.
const TURN_NS: u64 = 4_000_000_000;
/// How long it is scarce; then there is plenty for as long. Not the period of the faults: each time meets
/// both of the other.
const SCARCE_NS: u64 = 13_000_000_000;
const PAUSE: Duration = Duration::from_millis(20);
const TELL_EVERY: Duration = Duration::from_millis(500);
/// Callers that make networks.
const NETWORKERS: u8 = 4;
