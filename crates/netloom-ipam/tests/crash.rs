//! A real process is killed at every named step, once and twice in a row; what it acknowledged is
//! there afterwards, and nothing else but what was in doubt.
#![cfg(feature = "crash-points")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print their seed"
)]

mod common;

#[path = "crash/group.rs"]
mod group;

use common::{Host, any, exact, gateway, ip, mac, network, seed, subnet, this};
use netloom_core::{
    AddressKind, Evidence, Ipam, IpamAdmin, Provider, Reservation, ReservedFor, RuntimeNetwork,
};
use netloom_ipam::AddressManager;
use netloom_types::{NetworkId, PoolId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

const CHILD: &str = "NETLOOM_TEST_CHILD";
const SUBNET: &str = "10.9.0.0/24";

/// What the child wrote down before and after each step.
pub struct Diary(pub std::fs::File);

impl Diary {
    pub fn note(&mut self, line: &str) {
        writeln!(self.0, "{line}").unwrap();
    }
}

/// Not a test of its own: the life of the process that is killed.
#[tokio::test]
async fn child() {
    let Some(directory) = std::env::var_os(CHILD) else {
        return;
    };
    let directory = Path::new(&directory);
    let host = Host::new(seed());
    let ipam = AddressManager::open(Host::config(), host.seams_in(directory))
        .await
        .unwrap();
    let diary = directory.join("diary");
    let begun = diary.exists();
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(diary)
        .unwrap();
    if !begun {
        live(&host, &ipam, &mut Diary(file)).await;
    }
}

async fn live(host: &Host, ipam: &AddressManager, diary: &mut Diary) {
    diary.note("try pool");
    let pool = network(ipam, SUBNET).await.id;
    diary.note(&format!("pool {pool}"));
    let offered = ipam.request_pool(exact("10.8.0.0/24")).await.unwrap();
    ipam.request_address(this(&pool, ip("10.9.0.200"), None))
        .await
        .unwrap();
    let mut held = Vec::new();
    for n in 0..90 {
        diary.note("try take");
        let got = ipam.request_address(any(&pool, mac(n))).await.unwrap().ip();
        diary.note(&format!("took {got}"));
        if n % 2 == 0 {
            ipam.confirm(got, Some(mac(n))).await.unwrap();
            diary.note(&format!("confirmed {got}"));
        }
        held.push(got);
        if n % 3 == 0 {
            let back = held.remove(0);
            diary.note(&format!("try free {back}"));
            ipam.release_address(&pool, back).await.unwrap();
            diary.note(&format!("freed {back}"));
        }
    }
    let kept = ip("10.9.0.150");
    let holder = ReservedFor::Explicit;
    ipam.reserve(Reservation { ip: kept, holder })
        .await
        .unwrap();
    ipam.unreserve(kept).await.unwrap();
    audit(host, ipam, diary, &held).await;
    ipam.release_pool(&offered.id).await.unwrap();
    ipam.release_address(&pool, ip("10.9.0.200")).await.unwrap();
    diary.note("try end");
    for address in held {
        diary.note(&format!("try free {address}"));
    }
    ipam.release_pool(&pool).await.unwrap();
    diary.note("end");
}

/// Two addresses vanish, one that nobody handed out shows up, and so it is seen twice.
async fn audit(host: &Host, ipam: &AddressManager, diary: &mut Diary, held: &[IpAddr]) {
    let stray = ip("10.9.0.222");
    let mut evidence = Evidence {
        runtime: Some(vec![runtime_network()]),
        recorded: Vec::new(),
        kernel: held.iter().skip(2).copied().chain([stray]).collect(),
    };
    for gone in held.iter().take(2) {
        diary.note(&format!("try free {gone}"));
    }
    diary.note(&format!("try adopt {stray}"));
    for _ in 0..2 {
        ipam.audit(&evidence).await;
        ipam.repair(&evidence).await.unwrap();
        host.clock.advance(Duration::from_secs(41));
    }
    diary.note(&format!("took {stray}"));
    diary.note(&format!("try free {stray}"));
    evidence.kernel.pop();
    for _ in 0..2 {
        ipam.repair(&evidence).await.unwrap();
        host.clock.advance(Duration::from_secs(41));
    }
}

fn runtime_network() -> RuntimeNetwork {
    RuntimeNetwork {
        id: NetworkId::new("n").unwrap(),
        name: "blue".to_owned(),
        driver: Provider::Ours,
        ipam: Provider::Ours,
        subnets: vec![(subnet(SUBNET), None)],
        auxiliary: Vec::new(),
        endpoints: Vec::new(),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the process that is killed is this test itself"
)]
fn run_child(child: &str, directory: &Path, point: Option<&str>, log: &Path) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", child, "--test-threads=1", "-q"])
        .env(CHILD, directory);
    command
        .env("NETLOOM_CRASH_LOG", log)
        .stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null());
    if let Some(point) = point {
        command.env("NETLOOM_CRASH_POINT", point);
    }
    command.status().unwrap()
}

/// All points that the source names.
fn points() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let named = text.split("crash_point!(\"").skip(1);
            found.extend(named.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    found
}

/// What the diary says must be, may be, and must not be.
#[derive(Default)]
struct Known {
    pool: Option<PoolId>,
    held: BTreeMap<IpAddr, AddressKind>,
    maybe_gone: BTreeSet<IpAddr>,
    maybe_taken: usize,
    ending: bool,
}

fn read_diary(directory: &Path) -> Known {
    let mut known = Known::default();
    let text = std::fs::read_to_string(directory.join("diary")).unwrap_or_default();
    for line in text.lines() {
        match *line.split(' ').collect::<Vec<_>>() {
            ["pool", id] => known.pool = Some(PoolId::new(id).unwrap()),
            ["try", "take"] => known.maybe_taken = 1,
            ["try", "adopt", _] => known.maybe_taken = 1,
            ["took", address] => {
                known.maybe_taken = 0;
                known.held.insert(ip(address), AddressKind::InDoubt);
            }
            ["confirmed", address] => {
                known.held.insert(ip(address), AddressKind::Endpoint);
            }
            ["try", "free", address] => {
                known.maybe_gone.insert(ip(address));
            }
            ["freed", address] => {
                known.held.remove(&ip(address));
                known.maybe_gone.remove(&ip(address));
            }
            ["try", "end"] => known.ending = true,
            _ => {}
        }
    }
    known
}

async fn verify(directory: &Path) -> Result<(), String> {
    let known = read_diary(directory);
    let host = Host::new(seed());
    let ipam = AddressManager::open(Host::config(), host.seams_in(directory))
        .await
        .map_err(|e| format!("it does not open: {e}"))?;
    let views = ipam.addresses(subnet(SUBNET)).await.unwrap_or_default();
    let mut extra = 0;
    let mut wrong = String::new();
    let shown: BTreeMap<_, _> = views.iter().map(|v| (v.ip, v.kind)).collect();
    for (address, kind) in &shown {
        let infrastructure = matches!(
            kind,
            AddressKind::Gateway | AddressKind::Auxiliary | AddressKind::Reserved
        );
        if !infrastructure && !known.held.contains_key(address) {
            extra += 1;
        }
        if known.held.get(address) == Some(&AddressKind::Endpoint) && *kind != AddressKind::Endpoint
        {
            let _ = write!(wrong, "{address} forgot its confirmation; ");
        }
    }
    for address in known.held.keys() {
        let there = shown.contains_key(address) || known.maybe_gone.contains(address);
        if !there && !known.ending {
            let _ = write!(wrong, "{address} was acknowledged and is gone; ");
        }
    }
    if extra > known.maybe_taken {
        let _ = write!(wrong, "{extra} addresses that nobody asked for; ");
    }
    // What follows works, and gives no address out twice.
    if let Some(pool) = known.pool.filter(|_| !known.ending) {
        ipam.request_address(gateway(&pool))
            .await
            .map_err(|e| e.to_string())?;
        for n in 0..20 {
            let got = ipam
                .request_address(any(&pool, mac(n)))
                .await
                .map_err(|e| e.to_string())?;
            if shown.contains_key(&got.ip()) {
                let _ = write!(wrong, "{} was given twice; ", got.ip());
            }
        }
        ipam.release_pool(&pool).await.map_err(|e| e.to_string())?;
    }
    let again = network_or_offer(&ipam).await;
    again.map_err(|e| format!("a repeat of the command fails: {e}"))?;
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// The command that made the network, repeated after dockerd gave back what it knows of.
async fn network_or_offer(ipam: &AddressManager) -> Result<(), netloom_core::IpamError> {
    for view in ipam.pools().await {
        for reference in view.references {
            ipam.release_pool(&reference).await?;
        }
    }
    let grant = ipam.request_pool(exact(SUBNET)).await?;
    ipam.request_address(gateway(&grant.id)).await.map(drop)
}

/// What one life passes, killed nowhere.
fn reached(child: &str, base: &Path) -> BTreeSet<String> {
    let log = base.join(format!("reached-{}", child.replace(':', "-")));
    let whole = base.join(format!("whole-{}", child.replace(':', "-")));
    std::fs::create_dir(&whole).unwrap();
    let status = run_child(child, &whole, None, &log);
    assert!(status.success(), "{child} fails by itself");
    let reached = std::fs::read_to_string(&log).unwrap();
    reached.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_kill_at_any_step_loses_nothing_acknowledged() {
    if std::env::var_os(CHILD).is_some() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let log = base.path().join("reached");
    let alone = reached("child", base.path());
    let grouped = reached(group::LIFE, base.path());
    let passed = |point: &String| alone.contains(point) || grouped.contains(point);
    let missing: Vec<_> = points().into_iter().filter(|p| !passed(p)).collect();
    assert!(missing.is_empty(), "never passed: {missing:?}");
    verify(&base.path().join("whole-child")).await.unwrap();
    for (number, point) in points().into_iter().enumerate() {
        for nth in [1, 2, 7] {
            let chosen = format!("{point}:{nth}");
            for life in ["child", group::LIFE] {
                let group = life == group::LIFE;
                // Hosts in company do what a lone one does, and that was tried with it.
                if !(if group { &grouped } else { &alone }).contains(&point)
                    || (group && alone.contains(&point) && nth != 2)
                {
                    continue;
                }
                let directory = base.path().join(format!("{number}-{nth}-{group}"));
                std::fs::create_dir(&directory).unwrap();
                let first = run_child(life, &directory, Some(&chosen), &log);
                if first.success() {
                    assert!(nth > 1, "{point} was not reached");
                    continue;
                }
                // Killed again while it recovers, if it comes that far.
                run_child(life, &directory, Some(&point), &log);
                let verdict = if group {
                    group::verify(&directory).await
                } else {
                    verify(&directory).await
                };
                assert!(verdict.is_ok(), "{life} {chosen}: {}", verdict.unwrap_err());
            }
        }
    }
}
