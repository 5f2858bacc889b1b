//! Wires the parts together: store, address management, kernel, drivers, engine, Docker.

use anyhow::Context;
use netloom_core::store::Store;
use netloom_core::{Clock, Driver, Ids, IpamAdmin, Runtime, SystemClock};
use netloom_docker::{ClientSettings, DockerClient, PluginSettings, PluginState};
use netloom_drivers::{BridgeConfig, BridgeDriver, NoRelay, PortKeeper, RelayClient};
use netloom_engine::{Engine, Parts};
use netloom_ipam::journal::DirDisk;
use netloom_ipam::{AddressManager, HostRoutes, IpamConfig, Seams};
use netloom_linux::{Kernel, LinuxKernel};
use netloom_store::EmbeddedStore;
use netloom_types::{BootId, HostId, Subnet};
use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, Toggle};
use crate::daemon::{Daemon, Seen};
use crate::docker_admin::DockerAdmin;
use crate::metrics::Metrics;
use crate::state_dir::{StateDir, boot_id};

/// Builds everything; the kernel is not changed yet.
pub(crate) async fn build(
    config: Config,
    state: &StateDir,
) -> anyhow::Result<(Arc<Daemon>, PluginState)> {
    let system = Arc::new(SystemClock::new());
    let clock: Arc<dyn Clock> = Arc::clone(&system) as _;
    let ids: Arc<dyn Ids> = system;
    let (host, boot) = (state.host_id(&*ids)?, boot_id()?);
    let linux = Arc::new(LinuxKernel::open().context(
        "speaking to the kernel: netloomd needs CAP_NET_ADMIN and CAP_NET_RAW, and nftables",
    )?);
    let kernel: Arc<dyn Kernel> = Arc::clone(&linux) as _;
    let store_path = state.join("store.redb");
    let store: Arc<dyn Store> = Arc::new(
        EmbeddedStore::open(&store_path)
            .with_context(|| format!("opening the store {}", store_path.display()))?,
    );
    let identity = store.identity().await.context("reading the store")?;
    let ipam = addresses(
        &config,
        (host.clone(), boot.clone()),
        Seams {
            disk: Arc::new(
                DirDisk::open(&state.join("journal")).context("opening the address journal")?,
            ),
            store: Arc::clone(&store),
            routes: Arc::new(KernelRoutes(Arc::clone(&kernel))),
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
        },
    )
    .await?;
    let engine = Engine::open(Parts {
        store,
        drivers: drivers(&config, &kernel),
        clock: Arc::clone(&clock),
        ids,
        boot,
        sandbox_exists: Path::exists,
    })
    .await?;
    engine.set_grace(config.settle_after);
    let (runtime, docker) = docker(&config)?;
    let metrics = Arc::new(Metrics::new());
    let mut plugin = PluginState::new(Arc::new(engine.clone()), Arc::clone(&ipam) as _);
    plugin.settings = settings(&config);
    plugin.observer = Arc::clone(&metrics) as _;
    let daemon = Daemon {
        config,
        engine,
        ipam,
        monitor: Some(linux),
        kernel,
        runtime,
        docker,
        metrics,
        started: clock.monotonic(),
        clock,
        host: host.to_string(),
        store: identity.0,
        seen: Seen::default(),
    };
    Ok((Arc::new(daemon), plugin))
}

async fn addresses(
    config: &Config,
    (host, boot): (HostId, BootId),
    seams: Seams,
) -> anyhow::Result<Arc<dyn IpamAdmin>> {
    let mut ipam = IpamConfig::new(host, boot);
    ipam.settle_after = config.settle_after;
    if let Some(pools) = &config.default_pools {
        ipam.default_pools = pools.iter().map(|p| (p.base, p.prefix_len)).collect();
    }
    let manager = AddressManager::open(ipam, seams).await?;
    Ok(Arc::new(manager))
}

fn drivers(config: &Config, kernel: &Arc<dyn Kernel>) -> Vec<Arc<dyn Driver>> {
    let keeper: Arc<dyn PortKeeper> = match config.relay {
        Toggle::On => Arc::new(RelayClient::new(&config.relay_socket)),
        Toggle::Off => Arc::new(NoRelay),
    };
    let bridge = BridgeConfig::default().with_first_interface_number(config.first_interface_number);
    vec![Arc::new(BridgeDriver::new(
        Arc::clone(kernel),
        keeper,
        bridge,
    ))]
}

fn docker(config: &Config) -> anyhow::Result<(Arc<dyn Runtime>, DockerAdmin)> {
    let plugin = config.plugin_name()?;
    let mut settings = ClientSettings::default();
    settings.socket.clone_from(&config.docker_socket);
    settings.plugin.clone_from(&plugin);
    let admin = DockerAdmin::new(&config.docker_socket, &plugin);
    Ok((Arc::new(DockerClient::new(&settings)), admin))
}

fn settings(config: &Config) -> PluginSettings {
    let mut settings = PluginSettings::default();
    settings.deadline = config.deadline;
    settings
}

/// The host's own routes, which no default pool may overlap.
#[derive(Debug)]
struct KernelRoutes(Arc<dyn Kernel>);

impl HostRoutes for KernelRoutes {
    fn destinations(&self) -> Result<Vec<Subnet>, Box<dyn std::error::Error + Send + Sync>> {
        let routes = self.0.routes()?;
        Ok(routes
            .into_iter()
            .map(|route| route.destination)
            .filter(|destination| destination.prefix_len() > 0)
            .collect())
    }
}
