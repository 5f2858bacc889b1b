//! What is counted, in Prometheus' text format.

use netloom_docker::{CallObserver, CallOutcome};
use netloom_store::Counts;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Upper bounds in seconds: from one durable write of a fast disk to dockerd's patience.
const LATENCY_BOUNDS: [f64; 12] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CallLabels {
    method: &'static str,
    outcome: &'static str,
}

impl EncodeLabelSet for CallLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        vec![("method", self.method), ("outcome", self.outcome)].encode(encoder)
    }
}

type Labels = Vec<(&'static str, String)>;
type LatencyFamily = Family<Labels, Histogram, fn() -> Histogram>;

/// All metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    calls: Family<CallLabels, Counter>,
    latency: LatencyFamily,
    /// Well and badly answered calls by method, for `netloom status`.
    by_method: Mutex<BTreeMap<&'static str, (u64, u64)>>,
    networks: Gauge,
    endpoints: Gauge,
    ports: Gauge,
    pool_used: Family<Labels, Gauge<u64, AtomicU64>>,
    pool_capacity: Family<Labels, Gauge<u64, AtomicU64>>,
    findings: Family<Labels, Gauge>,
    docker_up: Gauge,
    store: Family<Labels, Counter>,
    /// What the store had counted when it was looked at last.
    store_seen: Mutex<Counts>,
    /// Rounds in which the records were compared with kernel and Docker.
    pub(crate) rounds: Counter,
    /// Things that were mended without anybody asking.
    pub(crate) mended: Counter,
}

/// What is read off at the moment of asking.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) networks: usize,
    pub(crate) endpoints: usize,
    pub(crate) ports: usize,
    /// Subnet, addresses in use, capacity.
    pub(crate) pools: Vec<(String, u64, u64)>,
    /// Findings by kind.
    pub(crate) findings: BTreeMap<&'static str, usize>,
    pub(crate) docker_up: bool,
    pub(crate) store: Counts,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("netloom"),
            calls: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_BOUNDS)),
            by_method: Mutex::default(),
            networks: Gauge::default(),
            endpoints: Gauge::default(),
            ports: Gauge::default(),
            pool_used: Family::default(),
            pool_capacity: Family::default(),
            findings: Family::default(),
            docker_up: Gauge::default(),
            store: Family::default(),
            store_seen: Mutex::default(),
            rounds: Counter::default(),
            mended: Counter::default(),
        };
        let r = &mut metrics.registry;
        r.register("plugin_calls", "Calls of dockerd", metrics.calls.clone());
        r.register(
            "plugin_call_seconds",
            "Time to answer a call of dockerd",
            metrics.latency.clone(),
        );
        r.register("networks", "Networks on record", metrics.networks.clone());
        r.register(
            "endpoints",
            "Endpoints on record",
            metrics.endpoints.clone(),
        );
        r.register("published_ports", "Published ports", metrics.ports.clone());
        r.register(
            "pool_addresses_used",
            "Addresses of a pool that are in use or reserved",
            metrics.pool_used.clone(),
        );
        r.register(
            "pool_addresses_capacity",
            "Addresses of a pool that can be handed out",
            metrics.pool_capacity.clone(),
        );
        r.register(
            "findings",
            "Findings of the last audit in the background, by kind",
            metrics.findings.clone(),
        );
        r.register(
            "docker_up",
            "Whether Docker answered the last time it was asked",
            metrics.docker_up.clone(),
        );
        r.register(
            "store_operations",
            "What the store was asked: gets, lists, commits, and how many conflicted or failed",
            metrics.store.clone(),
        );
        r.register(
            "audit_rounds",
            "Comparisons of the records with kernel and Docker",
            metrics.rounds.clone(),
        );
        r.register(
            "mended",
            "Things that were mended in the background",
            metrics.mended.clone(),
        );
        metrics
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self, now: &Snapshot) -> Result<String, fmt::Error> {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.networks.set(gauge(now.networks));
        self.endpoints.set(gauge(now.endpoints));
        self.ports.set(gauge(now.ports));
        self.docker_up.set(i64::from(now.docker_up));
        self.count_store(now.store);
        self.pool_used.clear();
        self.pool_capacity.clear();
        for (subnet, used, capacity) in &now.pools {
            let labels = vec![("subnet", subnet.clone())];
            self.pool_used.get_or_create(&labels).set(*used);
            self.pool_capacity.get_or_create(&labels).set(*capacity);
        }
        self.findings.clear();
        for (kind, count) in &now.findings {
            let labels = vec![("kind", (*kind).to_owned())];
            self.findings.get_or_create(&labels).set(gauge(*count));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn count_store(&self, now: Counts) {
        let mut seen = self
            .store_seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for (operation, now, before) in [
            ("get", now.gets, seen.gets),
            ("list", now.lists, seen.lists),
            ("commit", now.commits, seen.commits),
            ("conflict", now.conflicts, seen.conflicts),
            ("failure", now.failures, seen.failures),
        ] {
            let labels = vec![("operation", operation.to_owned())];
            let more = now.saturating_sub(before);
            self.store.get_or_create(&labels).inc_by(more);
        }
        *seen = now;
    }

    /// Methods with their well and badly answered calls.
    pub(crate) fn calls_by_method(&self) -> Vec<(&'static str, u64, u64)> {
        let calls = self
            .by_method
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        calls.iter().map(|(m, (ok, bad))| (*m, *ok, *bad)).collect()
    }
}

impl CallObserver for Metrics {
    fn finished(&self, method: &'static str, outcome: CallOutcome, elapsed: Duration) {
        let labels = CallLabels {
            method,
            outcome: outcome.name(),
        };
        self.calls.get_or_create(&labels).inc();
        self.latency
            .get_or_create(&vec![("method", method.to_owned())])
            .observe(elapsed.as_secs_f64());
        let mut calls = self
            .by_method
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (ok, bad) = calls.entry(method).or_default();
        match outcome {
            CallOutcome::Done => *ok += 1,
            CallOutcome::Refused
            | CallOutcome::Malformed
            | CallOutcome::TimedOut
            | CallOutcome::Broken => *bad += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_gauges_are_told() {
        let metrics = Metrics::new();
        let ms = Duration::from_millis(2);
        metrics.finished("NetworkDriver.Join", CallOutcome::Done, ms);
        metrics.finished("NetworkDriver.Join", CallOutcome::Refused, ms);
        let now = Snapshot {
            networks: 3,
            pools: vec![("10.0.0.0/24".into(), 7, 254)],
            findings: [("stray-link", 2)].into(),
            store: Counts {
                commits: 5,
                ..Counts::default()
            },
            ..Snapshot::default()
        };
        let text = metrics.text(&now).unwrap();
        for line in [
            r#"netloom_plugin_calls_total{method="NetworkDriver.Join",outcome="done"} 1"#,
            r#"netloom_plugin_call_seconds_count{method="NetworkDriver.Join"} 2"#,
            "netloom_networks 3",
            r#"netloom_pool_addresses_used{subnet="10.0.0.0/24"} 7"#,
            r#"netloom_findings{kind="stray-link"} 2"#,
            r#"netloom_store_operations_total{operation="commit"} 5"#,
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        assert_eq!(metrics.calls_by_method(), [("NetworkDriver.Join", 1, 1)]);
        // What is gone is told of no more.
        let text = metrics.text(&Snapshot::default()).unwrap();
        assert!(!text.contains("10.0.0.0/24") && !text.contains("stray-link"));
    }
}
