//! The judgement over a run: what hosts wrote down, what their journals say, what the store says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use netloom_core::store::{Key, Store};
use netloom_lab::proxy::Faults as WayFaults;
use netloom_types::Subnet;
use serde::{Deserialize, Serialize};

use super::host::{diary_path, journal_path, name, subnet};
use super::journal;
use super::run::Goals;
use super::site::{Site, StoreChoice};
use super::story::{Story, Tally};
use super::trouble::Faults;
use crate::duplicates::{self, DuplicateReport, Range, Sides, Use, Way};
use crate::linear::{self, Call, LinearReport, Outcome};

/// What a run did and what was found.
#[derive(Debug, Serialize)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "two answers to two questions"
)]
pub struct HistoryReport {
    /// Whether everything held, at no less than the least rate, without a verdict left open.
    pub passed: bool,
    /// Whether it was as long as was wanted.
    pub goals_reached: bool,
    /// On which store.
    pub store: StoreChoice,
    /// How many servers it had.
    pub servers: usize,
    /// The seed of faults and load.
    pub seed: u64,
    /// How many hosts took part.
    pub hosts: u32,
    /// How many callers each host had.
    pub callers: u32,
    /// How many pools they shared.
    pub pools: u8,
    /// Addresses in each.
    pub pool_size: u64,
    /// How long the load lasted.
    pub seconds: f64,
    /// Calls that were answered.
    pub operations: u64,
    /// The same, a second.
    pub rate: f64,
    /// Below this it has not passed.
    pub rate_least: f64,
    /// What was wanted.
    pub goals: Goals,
    /// Calls by how they ended.
    pub calls: Tally,
    /// Changes of hands that the store took: the sum of the hosts' counters on record.
    pub hands_changed: u64,
    /// Faults, by kind.
    pub faults: Faults,
    /// What the proxies did for them, by kind.
    pub ways: BTreeMap<&'static str, u64>,
    /// Linearizability, address by address.
    pub linear: LinearReport,
    /// Duplicates, from three sides.
    pub duplicates: DuplicateReport,
    /// Whatever else was wrong.
    pub wrong: Vec<String>,
}

impl HistoryReport {
    /// Says whether it passed.
    pub(super) fn conclude(&mut self) {
        let faults: u64 = self.faults.values().sum();
        self.goals_reached = self.operations >= self.goals.operations
            && self.calls.commits >= self.goals.commits
            && faults >= self.goals.faults;
        self.passed = self.linear.holds()
            && self.duplicates.found.is_empty()
            && self.wrong.is_empty()
            && self.rate >= self.rate_least
            && faults > 0;
    }
}

/// Reads all sides and compares them.
pub(super) fn judge(site: &mut Site, faults: Faults, seconds: f64) -> Result<HistoryReport> {
    let mut sides = Sides::default();
    let mut history: Vec<Call> = Vec::new();
    let mut calls = Tally::default();
    let mut wrong = Vec::new();
    let mut gateways: BTreeMap<usize, IpAddr> = BTreeMap::new();
    for host in 0..site.hosts.len() {
        let number = u32::try_from(host)?;
        let dir = site.host_dir(host);
        let story = Story::read(&diary_path(&dir), number)?;
        calls = calls.and(story.tally);
        history.extend(story.calls);
        wrong.extend(story.wrong);
        for (pool, ip) in story.gateways {
            let known = *gateways.entry(pool).or_insert(ip);
            if known != ip {
                wrong.push(format!("gateway {ip} on host {host}, {known} elsewhere"));
            }
        }
        sides.held.extend(story.held.into_iter().map(|address| Use {
            address,
            host: name(number),
        }));
        let (ranges, used) = journal::read(&journal_path(&dir), &name(number))?;
        sides.journals.extend(ranges);
        sides.journalled.extend(used);
    }
    // A gateway is refused to everybody, and is nobody's.
    let is_gateway = |address: &IpAddr| gateways.values().any(|gateway| gateway == address);
    history.retain(|call| call.outcome != Outcome::Refused || !is_gateway(&call.address));
    let hands_changed = read_store(site, &mut sides)?;
    let only_ours = |address: &IpAddr| {
        let mut pools = 0..usize::from(site.args.pools);
        pools.any(|pool| subnet(pool, site.args.prefix).contains(*address))
    };
    sides.journals.retain(|range| only_ours(&range.first));
    let args = &site.args;
    let pool_size = subnet(0, args.prefix).size_saturating();
    let operations = calls.operations();
    Ok(HistoryReport {
        passed: false,
        goals_reached: false,
        store: args.store,
        servers: site.servers.as_ref().map_or(0, |servers| servers.members()),
        seed: args.seed,
        hosts: args.hosts,
        callers: args.callers,
        pools: args.pools,
        pool_size: u64::try_from(pool_size)?,
        seconds,
        operations,
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        rate: operations as f64 / seconds,
        rate_least: args.rate_least,
        goals: args.goals,
        calls,
        hands_changed,
        faults,
        ways: ways(site),
        linear: linear::check(history, WORLDS_MAX),
        duplicates: duplicates::compare(&sides),
        wrong,
    })
}

/// What the proxies counted.
fn ways(site: &Site) -> BTreeMap<&'static str, u64> {
    let mut ways = BTreeMap::new();
    for proxy in site.proxies.iter().flatten() {
        let WayFaults {
            connections,
            delayed,
            trickled,
            cut_before,
            cut_after,
            unanswered,
            swallowed,
            stalled,
            refused,
        } = proxy.faults();
        for (word, count) in [
            ("connections", connections),
            ("delayed", delayed),
            ("trickled", trickled),
            ("cut_before", cut_before),
            ("cut_after", cut_after),
            ("unanswered", unanswered),
            ("swallowed", swallowed),
            ("stalled", stalled),
            ("refused", refused),
        ] {
            *ways.entry(word).or_default() += count;
        }
    }
    ways
}

/// Reads the runs of all chunks, and how often ranges changed hands.
fn read_store(site: &Site, sides: &mut Sides) -> Result<u64> {
    let own;
    let shared;
    let store: &dyn Store = match site.store() {
        Some(store) => {
            shared = store;
            &shared
        }
        None => {
            own =
                netloom_store::EmbeddedStore::open(super::host::own_store_path(&site.host_dir(0)))?;
            &own
        }
    };
    site.runtime.block_on(async {
        for pool in 0..usize::from(site.args.pools) {
            sides
                .store
                .extend(runs(store, subnet(pool, site.args.prefix)).await?);
        }
        let mut hands_changed = 0;
        for (key, row) in store.list(&Key::new("hosts")?).await? {
            let host: HostRecord =
                serde_json::from_slice(&row.value).with_context(|| format!("the record {key}"))?;
            hands_changed += host.counter;
        }
        Ok(hands_changed)
    })
}

async fn runs(store: &dyn Store, subnet: Subnet) -> Result<Vec<Range>> {
    let mut found = Vec::new();
    let part = format!("/{}-{}/", subnet.first(), subnet.prefix_len());
    for (key, row) in store.list(&Key::new("chunks")?).await? {
        if !key.as_str().contains(&part) {
            continue;
        }
        let record: ChunkRecord =
            serde_json::from_slice(&row.value).with_context(|| format!("the record {key}"))?;
        let mut numbers = key.as_str().rsplit('/');
        let mut number = || {
            let text = numbers
                .next()
                .context("a chunk's key ends with its number")?;
            Ok::<_, anyhow::Error>(u128::from_str_radix(text, 16)?)
        };
        let (low, high) = (number()?, number()?);
        let base = (high * 256 + low) * CHUNK;
        for Run(first, last, state, owner, ..) in record.runs {
            let way = match state.as_str() {
                "owned" => Way::Settled,
                "offered" => Way::Underway,
                _ => continue,
            };
            found.push(Range {
                first: subnet.nth(base + first).context("a run of the pool")?,
                last: subnet
                    .nth(base + last)
                    .or(Some(subnet.last()))
                    .context("")?,
                owner: record.owners.get(owner).cloned().unwrap_or_default(),
                way,
            });
        }
    }
    Ok(found)
}

/// A host's record, as far as it matters here.
#[derive(Deserialize)]
struct HostRecord {
    counter: u64,
}

/// A chunk's record, as far as it matters here.
#[derive(Deserialize)]
struct ChunkRecord {
    owners: Vec<String>,
    runs: Vec<Run>,
}

/// First and last address, state, place of the owner, generation, idle time.
#[derive(Deserialize)]
struct Run(
    u128,
    u128,
    String,
    usize,
    #[allow(dead_code)] u64,
    #[allow(dead_code)] u64,
);

const CHUNK: u128 = 1024;
/// Far more than any address of a sound history needs.
const WORLDS_MAX: usize = 100_000;
