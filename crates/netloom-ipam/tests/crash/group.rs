//! The life of two hosts in one process that is killed, on one store in a file.

use super::common::{self, Host, TestStore, any, gateway, ip, mac, seed, subnet, this};
use super::{CHILD, Diary};
use crate::common::store::Fault;
use netloom_core::{AddressKind, ClusterAdmin, Ipam, IpamAdmin, IpamError, Standing};
use netloom_ipam::journal::DirDisk;
use netloom_ipam::{AddressManager, ClusterConfig, IpamConfig, Seams, Sharing};
use netloom_types::{BootId, HostId, PoolId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The name of the test that is no test of its own.
pub(crate) const LIFE: &str = "group::life";
const POOL: &str = "10.7.0.0/28";
/// Far longer than hosts need to heal a store.
const PATIENCE: Duration = Duration::from_secs(20);

struct Pair {
    store: TestStore,
    first: AddressManager,
    second: AddressManager,
}

async fn open(
    name: &str,
    directory: &Path,
    store: &TestStore,
) -> Result<AddressManager, IpamError> {
    let host = Host::new(seed());
    let disk = DirDisk::open(&directory.join(name)).unwrap();
    let seams = Seams {
        disk: Arc::new(disk),
        store: Arc::new(store.clone()),
        ..host.seams()
    };
    let mut config = IpamConfig {
        host: HostId::new(name).unwrap(),
        boot: BootId::new("boot-1").unwrap(),
        ..Host::config()
    };
    let mut cluster = ClusterConfig::new(name);
    // A busy machine answers late, and this life is not about what comes of that.
    cluster.answer_time = Duration::from_secs(2);
    cluster.status_every = Duration::from_millis(10);
    config.sharing = Sharing::Cluster(cluster);
    AddressManager::open(config, seams).await
}

/// Lets hosts do what they do in the background until all take part that may.
async fn settled(hosts: Vec<AddressManager>) -> Result<Vec<AddressManager>, String> {
    let hosts: Vec<_> = hosts.into_iter().map(Arc::new).collect();
    let tending = hosts
        .iter()
        .map(|host| tokio::spawn(Arc::clone(host).tend()));
    let tending: Vec<_> = tending.collect();
    let all_joined = async {
        for host in &hosts {
            while !takes_part(host).await && !was_forgotten(host).await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let joined = tokio::time::timeout(PATIENCE, all_joined).await;
    for task in tending {
        task.abort();
        let _ = task.await;
    }
    if joined.is_err() {
        let mut standing = String::new();
        for host in &hosts {
            let _ = write!(standing, "{:?}; ", host.cluster().await);
        }
        return Err(standing);
    }
    let mut alone = Vec::new();
    for host in hosts {
        if takes_part(&host).await {
            alone.push(Arc::try_unwrap(host).unwrap());
        }
    }
    Ok(alone)
}

async fn takes_part(host: &AddressManager) -> bool {
    host.cluster().await.standing == Standing::Joined
}

async fn was_forgotten(host: &AddressManager) -> bool {
    matches!(host.cluster().await.standing, Standing::Stopped { why } if why.contains("forgotten"))
}

/// The store in a file, as a person initialised it.
fn shared_store(directory: &Path) -> TestStore {
    let store = TestStore::in_file(&directory.join("shared.json"));
    if store.values().is_empty() {
        store.put("epoch", b"1".to_vec());
    }
    store
}

impl Pair {
    async fn open(directory: &Path) -> Result<Self, IpamError> {
        let store = shared_store(directory);
        let first = open("first", directory, &store).await?;
        let second = open("second", directory, &store).await?;
        drop(first);
        // Each knows of the other.
        let first = open("first", directory, &store).await?;
        Ok(Self {
            store,
            first,
            second,
        })
    }
}

/// While one asks, the other one answers.
async fn served<T>(server: &AddressManager, asked: impl Future<Output = T>) -> T {
    let mut asked = std::pin::pin!(asked);
    loop {
        tokio::select! {
            biased;
            done = &mut asked => return done,
            () = tokio::time::sleep(Duration::from_millis(1)) => {
                // A store that is away is a part of this life.
                let _ = server.on_change().await;
            }
        }
    }
}

async fn pool(ipam: &AddressManager) -> PoolId {
    let mut request = super::exact(POOL);
    // The checker's network is the one of before, made again.
    let name = ("netloom.network".to_owned(), "blue".to_owned());
    request.options.extend([name]);
    let grant = ipam.request_pool(request).await.unwrap();
    ipam.request_address(gateway(&grant.id)).await.unwrap();
    grant.id
}

#[tokio::test]
async fn life() {
    let Some(directory) = std::env::var_os(CHILD) else {
        return;
    };
    let directory = Path::new(&directory);
    let Ok(pair) = Pair::open(directory).await else {
        // What a store that lost its past needs is looked at by the checker.
        return;
    };
    let diary = directory.join("diary");
    if diary.exists() {
        return;
    }
    let file = std::fs::File::create(diary).unwrap();
    live(directory, pair, &mut Diary(file)).await;
}

async fn live(directory: &Path, pair: Pair, diary: &mut Diary) {
    let Pair {
        store,
        first,
        second,
    } = pair;
    let (one, two) = (pool(&first).await, pool(&second).await);
    let mut held = Vec::new();
    for n in 0..8 {
        held.push(take(&first, &one, n, diary).await);
    }
    // Out of the hands of an endpoint, into those of the pool.
    give(&first, &one, held.remove(0), diary).await;
    let spare = ip("10.7.0.2");
    first
        .request_address(this(&one, spare, None))
        .await
        .unwrap();
    first.release_address(&one, spare).await.unwrap();
    for ip in held.drain(..5) {
        give(&first, &one, ip, diary).await;
    }
    let mut others = Vec::new();
    for n in 20..26 {
        others.push(served(&first, take(&second, &two, n, diary)).await);
    }
    open_offer(&store, &first, &second, &two, diary).await;
    // No network of the second one uses the pool any more.
    for ip in others {
        give(&second, &two, ip, diary).await;
    }
    second.release_pool(&two).await.unwrap();
    second.keep().await.unwrap();
    lose_past(directory, &store, first, second).await;
}

/// An offer whose outcome stays unknown until the store is back.
async fn open_offer(
    store: &TestStore,
    first: &AddressManager,
    second: &AddressManager,
    pool: &PoolId,
    diary: &mut Diary,
) {
    diary.note("try take");
    let asked = second.request_address(any(pool, mac(40)));
    let answered = async {
        while store
            .values()
            .iter()
            .all(|(key, _)| !key.starts_with("wants/"))
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        store.fail_next([Fault::LostAndAway]);
        let _ = first.on_change().await;
        store.clear_faults();
        store.come_back();
    };
    let (got, ()) = tokio::join!(asked, answered);
    if let Ok(got) = got {
        diary.note(&format!("took {}", got.ip()));
        give(second, pool, got.ip(), diary).await;
    }
    first.keep().await.unwrap();
}

/// The store is put back to a moment before, both heal it, and one is forgotten.
async fn lose_past(
    directory: &Path,
    store: &TestStore,
    first: AddressManager,
    second: AddressManager,
) {
    let snapshot = store.snapshot();
    // What follows makes the journal durable, too.
    let later = common::network(&first, "10.6.0.0/28").await.id;
    first.request_address(any(&later, mac(70))).await.unwrap();
    store.restore(&snapshot);
    drop((first, second));
    let first = open("first", directory, store).await.unwrap();
    let second = open("second", directory, store).await.unwrap();
    let first = settled(vec![first, second]).await.unwrap().remove(0);
    let gone = HostId::new("second").unwrap();
    first.forget(&gone).await.unwrap();
}

async fn take(ipam: &AddressManager, pool: &PoolId, n: u32, diary: &mut Diary) -> IpAddr {
    diary.note("try take");
    let got = ipam.request_address(any(pool, mac(n))).await.unwrap().ip();
    diary.note(&format!("took {got}"));
    got
}

async fn give(ipam: &AddressManager, pool: &PoolId, ip: IpAddr, diary: &mut Diary) {
    diary.note(&format!("try free {ip}"));
    ipam.release_address(pool, ip).await.unwrap();
    diary.note(&format!("freed {ip}"));
}

/// No address is in two journals, what was acknowledged is there, and all the rest can be had.
pub(crate) async fn verify(directory: &Path) -> Result<(), String> {
    let store = shared_store(directory);
    let told = |e: IpamError| format!("it does not open: {e}");
    let mut hosts = Vec::new();
    for name in ["first", "second"] {
        match open(name, directory, &store).await {
            Ok(host) => hosts.push(host),
            Err(error) if error.to_string().contains("was forgotten") => {}
            Err(error) => return Err(told(error)),
        }
    }
    let hosts = settled(hosts).await?;
    let forgotten = hosts.len() < 2;
    for host in &hosts {
        host.keep().await.map_err(|e| format!("{e}"))?;
    }
    let mut in_use: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (number, host) in hosts.iter().enumerate() {
        for view in host.addresses(subnet(POOL)).await.unwrap_or_default() {
            let used = matches!(view.kind, AddressKind::Endpoint | AddressKind::InDoubt);
            if used && in_use.insert(view.ip, number).is_some() {
                return Err(format!("{} is in two journals", view.ip));
            }
        }
    }
    let known = super::read_diary(directory);
    for address in known.held.keys() {
        if !forgotten && !in_use.contains_key(address) && !known.maybe_gone.contains(address) {
            return Err(format!("{address} was acknowledged and is gone"));
        }
    }
    rest(&hosts, &in_use.keys().copied().collect()).await
}

async fn rest(hosts: &[AddressManager], in_use: &BTreeSet<IpAddr>) -> Result<(), String> {
    let mut all = in_use.clone();
    let mut pools = Vec::new();
    for host in hosts {
        pools.push(pool(host).await);
    }
    let auxiliary: usize = match hosts {
        [host, ..] => {
            let views = host.addresses(subnet(POOL)).await.unwrap_or_default();
            let kept = views.iter().filter(|v| v.kind == AddressKind::Auxiliary);
            kept.count()
        }
        [] => 0,
    };
    for n in 500..600 {
        let at = n as usize % hosts.len();
        let asked = hosts[at].request_address(any(&pools[at], mac(n)));
        let got = match hosts {
            [one, two] => served(if at == 0 { two } else { one }, asked).await,
            _ => asked.await,
        };
        match got {
            Ok(got) if all.insert(got.ip()) => {}
            Ok(got) => return Err(format!("{got} was given twice")),
            Err(IpamError::Exhausted(_)) => break,
            Err(error) => return Err(format!("{error}")),
        }
    }
    let expected = 13 - auxiliary;
    if all.len() == expected {
        Ok(())
    } else {
        Err(format!("{} of {expected} addresses are left", all.len()))
    }
}
