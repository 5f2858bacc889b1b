//! The running daemon: its parts, and what they know together.

use netloom_core::{
    Clock, Controller, EndpointState, EndpointView, Evidence, Finding, IpamAdmin, Runtime,
    RuntimeNetwork,
};
use netloom_drivers::Inside;
use netloom_engine::Engine;
use netloom_ipam::AddressManager;
use netloom_linux::{Kernel, LinuxKernel};
use netloom_store::CountingStore;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::Config;
use crate::docker_admin::DockerAdmin;
use crate::metrics::{Metrics, Snapshot};

/// Names are a convenience: an answer does not wait longer than this for Docker's list.
const NAMES_TIMEOUT: Duration = Duration::from_secs(3);

/// Everything that handlers and background tasks use.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) config: Config,
    pub(crate) engine: Engine,
    pub(crate) ipam: Arc<dyn IpamAdmin>,
    /// The same, where more of it is needed: hosts, and what it does without being asked.
    pub(crate) addresses: Arc<AddressManager>,
    pub(crate) kernel: Arc<dyn Kernel>,
    /// The kernel that tells of changes; none in tests.
    pub(crate) monitor: Option<Arc<LinuxKernel>>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) docker: DockerAdmin,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counts: Arc<CountingStore>,
    pub(crate) host: String,
    pub(crate) store: String,
    pub(crate) started: Duration,
    pub(crate) seen: Seen,
    /// Into which containers we put interfaces ourselves.
    pub(crate) inside: Inside,
}

/// What the last round in the background saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    findings: Mutex<Vec<Finding>>,
    docker_up: AtomicBool,
    /// Set once the kernel was brought to the records for the first time.
    restored: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    pub(crate) fn findings(&self) -> Vec<Finding> {
        lock(&self.findings).clone()
    }

    pub(crate) fn set_findings(&self, findings: Vec<Finding>) {
        *lock(&self.findings) = findings;
    }

    pub(crate) fn docker_is_up(&self) -> bool {
        self.docker_up.load(Ordering::Relaxed)
    }

    /// Docker answered; says whether it did not before.
    pub(crate) fn docker_came(&self) -> bool {
        !self.docker_up.swap(true, Ordering::Relaxed)
    }

    /// Docker may be another one than before; the next answer counts as the first.
    pub(crate) fn docker_is_new(&self) {
        self.docker_up.store(false, Ordering::Relaxed);
    }

    /// Docker did not answer; said once for each time that it goes.
    pub(crate) fn docker_went(&self) {
        if self.docker_up.swap(false, Ordering::Relaxed) {
            tracing::warn!("Docker does not answer: nothing is settled until it does");
        }
    }

    pub(crate) fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Relaxed)
    }

    pub(crate) fn set_restored(&self) {
        self.restored.store(true, Ordering::Relaxed);
    }
}

impl Daemon {
    /// Docker's networks, or none when it does not answer soon.
    pub(crate) async fn runtime_networks(&self) -> Option<Vec<RuntimeNetwork>> {
        let asked = tokio::time::timeout(NAMES_TIMEOUT, self.runtime.networks()).await;
        match asked {
            Ok(Ok(networks)) => Some(networks),
            Ok(Err(error)) => {
                tracing::debug!(%error, "Docker did not list its networks");
                None
            }
            Err(_) => None,
        }
    }

    /// Docker's version, or why it is not known: a Docker that hangs is not waited for.
    pub(crate) async fn docker_version(&self) -> Result<String, String> {
        match tokio::time::timeout(NAMES_TIMEOUT, self.docker.version()).await {
            Ok(Ok(version)) => Ok(version),
            Ok(Err(error)) => Err(crate::error_chain(&error)),
            Err(_) => Err(format!(
                "Docker took the call and did not answer within {NAMES_TIMEOUT:?}"
            )),
        }
    }

    /// What the address audit compares its journal with.
    pub(crate) async fn evidence(&self, runtime: Option<Vec<RuntimeNetwork>>) -> Evidence {
        // An endpoint that has not joined and that Docker does not list got no answer: its address
        // is nobody's yet, or nobody's any more.
        let listed: Option<BTreeSet<_>> = runtime.as_ref().map(|networks| {
            let endpoints = networks.iter().flat_map(|n| &n.endpoints);
            endpoints.filter_map(|e| e.id.clone()).collect()
        });
        let in_use = |view: &EndpointView| {
            let unlisted = |ids: &BTreeSet<_>| !ids.contains(&view.endpoint.spec.id);
            view.state != EndpointState::Created || !listed.as_ref().is_some_and(unlisted)
        };
        let recorded = self
            .engine
            .endpoints()
            .await
            .into_iter()
            .filter(in_use)
            .flat_map(|view| {
                let mac = view.endpoint.mac;
                let addresses = view.endpoint.spec.addresses;
                addresses.iter().map(move |addr| (addr, Some(mac)))
            })
            .collect();
        Evidence {
            runtime,
            recorded,
            kernel: self.kernel_addresses().await,
        }
    }

    /// The addresses that our bridges carry: gateways that nobody else may get.
    async fn kernel_addresses(&self) -> Vec<IpAddr> {
        let kernel = Arc::clone(&self.kernel);
        let read = tokio::task::spawn_blocking(move || {
            let ours: Vec<_> = kernel
                .links()?
                .into_iter()
                .filter(|link| {
                    let alias = link.alias.as_deref();
                    alias.is_some_and(|a| a.starts_with("netloom:"))
                })
                .map(|link| link.index)
                .collect();
            let addresses = kernel.addresses()?;
            Ok::<Vec<_>, netloom_linux::KernelError>(
                addresses
                    .into_iter()
                    .filter(|a| ours.contains(&a.link))
                    .map(|a| a.address.ip())
                    .collect(),
            )
        });
        match read.await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the kernel's addresses could not be read");
                Vec::new()
            }
            Err(error) => {
                tracing::error!(%error, "reading the kernel's addresses failed inside");
                Vec::new()
            }
        }
    }

    /// What metrics read off now.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        let endpoints = self.engine.endpoints().await;
        let pools = self.ipam.pools().await;
        let mut findings = BTreeMap::new();
        for finding in self.seen.findings() {
            *findings.entry(finding.kind.name()).or_default() += 1;
        }
        Snapshot {
            networks: self.engine.networks().await.len(),
            ports: endpoints.iter().map(|e| e.endpoint.ports.len()).sum(),
            endpoints: endpoints.len(),
            pools: pools
                .iter()
                .map(|pool| (pool.subnet.to_string(), pool.used, pool.capacity))
                .collect(),
            findings,
            docker_up: self.seen.docker_is_up(),
            store: self.counts.counts(),
        }
    }
}
