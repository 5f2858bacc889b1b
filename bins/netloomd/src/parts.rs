//! Wires the parts together: store, address management, kernel, drivers, engine, Docker.

use anyhow::Context;
use netloom_core::store::Store;
use netloom_core::{Clock, Controller, Driver, Ids, IpamAdmin, Runtime, SystemClock};
use netloom_docker::{ClientSettings, DockerClient, PluginState};
use netloom_drivers::{
    BridgeConfig, BridgeDriver, FirstInterfaceNumber, Inside, InsideRule, NoRelay, PortKeeper,
    RelayClient,
};
use netloom_engine::{Engine, Parts};
use netloom_ipam::journal::{DirDisk, Disk};
use netloom_ipam::{AddressManager, ClusterConfig, HostRoutes, IpamConfig, Seams, Sharing};
use netloom_linux::{Kernel, LinuxKernel};
use netloom_store::{CountingStore, EmbeddedStore};
use netloom_stores::SharedStore;
use netloom_types::{BootId, HostId, Subnet};
use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, STORE_FILE, StoreSetting, Toggle};
use crate::daemon::{Daemon, Seen};
use crate::docker_admin::DockerAdmin;
use crate::docker_numbers;
use crate::metrics::Metrics;
use crate::next_pool::NextPool;
use crate::state_dir::{StateDir, boot_id, machine_id};

/// What lies below the parts: the machine, or a test's model of it.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) kernel: Arc<dyn Kernel>,
    /// The kernel that tells of changes; none in tests.
    pub(crate) monitor: Option<Arc<LinuxKernel>>,
    /// This host's own: networks, endpoints, and pools where no store is shared.
    pub(crate) store: Arc<dyn Store>,
    /// The one that hosts share.
    pub(crate) shared: Option<Arc<dyn Store>>,
    pub(crate) disk: Arc<dyn Disk>,
    /// Who holds published ports on this host.
    pub(crate) keeper: Arc<dyn PortKeeper>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) host: HostId,
    pub(crate) boot: BootId,
}

/// Builds everything on this machine; the kernel is not changed yet.
pub(crate) async fn build(
    config: Config,
    state: &StateDir,
) -> anyhow::Result<(Arc<Daemon>, PluginState)> {
    let system = Arc::new(SystemClock::new());
    let clock: Arc<dyn Clock> = Arc::clone(&system) as _;
    let ids: Arc<dyn Ids> = system;
    let linux = Arc::new(LinuxKernel::open().context(
        "speaking to the kernel: netloomd needs CAP_NET_ADMIN and CAP_NET_RAW, and nftables",
    )?);
    let (store_path, shared) = match &config.store {
        StoreSetting::File(path) => (path.clone(), None),
        StoreSetting::Shared(remote) => {
            let shared: Arc<dyn Store> = Arc::new(SharedStore::new((**remote).clone()));
            (state.join(STORE_FILE), Some(shared))
        }
    };
    let ground = Ground {
        kernel: Arc::clone(&linux) as _,
        monitor: Some(linux),
        store: Arc::new(
            EmbeddedStore::open(&store_path)
                .with_context(|| format!("opening the store {}", store_path.display()))?,
        ),
        shared,
        disk: Arc::new(
            DirDisk::open(&state.join("journal")).context("opening the address journal")?,
        ),
        keeper: keeper(&config),
        runtime: docker_client(&config)?,
        host: state.host_id(&*ids)?,
        boot: boot_id()?,
        clock,
        ids,
    };
    assemble(config, ground).await
}

/// Builds everything on `ground`.
pub(crate) async fn assemble(
    config: Config,
    mut ground: Ground,
) -> anyhow::Result<(Arc<Daemon>, PluginState)> {
    let (counts, told_as) = count_store(&config, &mut ground).await?;
    let manager = addresses(&config, &ground).await?;
    let ipam: Arc<dyn IpamAdmin> = Arc::clone(&manager) as _;
    let interface_numbers = FirstInterfaceNumber::new(
        config
            .first_interface_number
            .unwrap_or(docker_numbers::BESIDE_A_COUNTER),
    );
    let inside = Inside::new(InsideRule::Never);
    let bridge = BridgeConfig::default()
        .with_first_interface_number(interface_numbers)
        .with_inside(inside.clone());
    let drivers = drivers(&ground, bridge);
    let Ground {
        kernel,
        monitor,
        store,
        shared: _,
        disk: _,
        keeper: _,
        runtime,
        clock,
        ids,
        host,
        boot,
    } = ground;
    let engine = Engine::open(Parts {
        store,
        drivers,
        clock: Arc::clone(&clock),
        ids,
        boot,
        sandbox_exists: Path::exists,
    })
    .await?;
    engine.set_grace(config.settle_after);
    let metrics = Arc::new(Metrics::new());
    let controller: Arc<dyn Controller> = Arc::new(engine.clone());
    let pools = NextPool {
        ipam: Arc::clone(&ipam),
        controller: Arc::clone(&controller),
    };
    let mut plugin = PluginState::new(controller, Arc::new(pools));
    plugin.settings.deadline = config.deadline;
    plugin.observer = Arc::clone(&metrics) as _;
    let docker = DockerAdmin::new(&config.docker_socket, &config.plugin_name()?);
    let daemon = Daemon {
        config,
        engine,
        ipam,
        addresses: manager,
        monitor,
        kernel,
        runtime,
        docker,
        metrics,
        started: clock.monotonic(),
        clock,
        counts,
        host: host.to_string(),
        store: told_as,
        seen: Seen::default(),
        inside,
    };
    Ok((Arc::new(daemon), plugin))
}

/// Puts a counter before the store that pools lie in (with others, the one that is shared), and says
/// what people are told of it.
async fn count_store(
    config: &Config,
    ground: &mut Ground,
) -> anyhow::Result<(Arc<CountingStore>, String)> {
    let pools = ground.shared.as_mut().unwrap_or(&mut ground.store);
    let counts = Arc::new(CountingStore::new(Arc::clone(pools)));
    *pools = Arc::clone(&counts) as _;
    let told_as = match &ground.shared {
        None => {
            ground
                .store
                .identity()
                .await
                .context("reading the store")?
                .0
        }
        Some(_) => config.store.url(),
    };
    Ok((counts, told_as))
}

async fn addresses(config: &Config, ground: &Ground) -> anyhow::Result<Arc<AddressManager>> {
    let mut ipam = IpamConfig::new(ground.host.clone(), ground.boot.clone());
    ipam.settle_after = config.settle_after;
    // As small as can be where a test kills at named steps, so that it comes to compaction soon.
    if cfg!(feature = "crash-points") {
        ipam.journal.segment_bytes = 0;
    }
    if let Some(pools) = &config.default_pools {
        ipam.default_pools = pools.iter().map(|p| (p.base, p.prefix_len)).collect();
    }
    let (store, mirror) = match &ground.shared {
        None => (Arc::clone(&ground.store), None),
        Some(shared) => {
            ipam.sharing = Sharing::Cluster(ClusterConfig::new(machine_id()));
            (Arc::clone(shared), Some(Arc::clone(&ground.store)))
        }
    };
    let seams = Seams {
        disk: Arc::clone(&ground.disk),
        store,
        mirror,
        routes: Arc::new(KernelRoutes(Arc::clone(&ground.kernel))),
        clock: Arc::clone(&ground.clock),
        ids: Arc::clone(&ground.ids),
    };
    let manager = AddressManager::open(ipam, seams).await?;
    Ok(Arc::new(manager))
}

fn drivers(ground: &Ground, bridge: BridgeConfig) -> Vec<Arc<dyn Driver>> {
    vec![Arc::new(BridgeDriver::new(
        Arc::clone(&ground.kernel),
        Arc::clone(&ground.keeper),
        bridge,
    ))]
}

fn keeper(config: &Config) -> Arc<dyn PortKeeper> {
    match config.relay {
        Toggle::On => Arc::new(RelayClient::new(&config.relay_socket)),
        Toggle::Off => Arc::new(NoRelay),
    }
}

fn docker_client(config: &Config) -> anyhow::Result<Arc<dyn Runtime>> {
    let mut settings = ClientSettings::default();
    settings.socket.clone_from(&config.docker_socket);
    settings.plugin = config.plugin_name()?;
    Ok(Arc::new(DockerClient::new(&settings)))
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
