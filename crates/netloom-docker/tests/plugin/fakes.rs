//! A controller and an IPAM made of memory, which write down in short words what they are asked.

use async_trait::async_trait;
use netloom_core::{
    AddressRequest, Attachment, ControlError, Controller, EndpointGrant, EndpointSpec,
    EndpointView, Finding, GatewayService, InterfacePlacement, Ipam, IpamError, NetworkSpec,
    NetworkView, Options, PoolGrant, PoolRequest, PublishedPort, Purpose, Reach, SandboxRef,
    StaticRoute, WantedPool,
};
use netloom_types::{
    EndpointId, Family, HostPorts, InterfaceAddr, LinkName, MacAddr, NetworkId, PoolId,
    PortBinding, Subnet,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// An address that another container got meanwhile.
const TAKEN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 66, 66));

/// What was asked, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    /// What was asked since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[derive(Debug)]
pub(crate) struct FakeController {
    journal: Journal,
    networks: Mutex<BTreeMap<NetworkId, NetworkSpec>>,
    endpoints: Mutex<BTreeMap<EndpointId, EndpointSpec>>,
}

impl FakeController {
    pub(crate) fn new(journal: Journal) -> Self {
        Self {
            journal,
            networks: Mutex::default(),
            endpoints: Mutex::default(),
        }
    }

    fn endpoint(&self, id: &EndpointId) -> Result<EndpointSpec, ControlError> {
        let endpoints = self.endpoints.lock().unwrap();
        endpoints
            .get(id)
            .cloned()
            .ok_or_else(|| ControlError::NotFound(format!("there is no endpoint {id}")))
    }
}

#[async_trait]
impl Controller for FakeController {
    async fn create_network(&self, spec: NetworkSpec) -> Result<(), ControlError> {
        self.journal
            .note(format!("create_network {}", network(&spec)));
        if spec.options.contains_key("netloom.panic") {
            panic!("a planted panic");
        }
        let mut networks = self.networks.lock().unwrap();
        match networks.get(&spec.id) {
            Some(known) if *known != spec => Err(ControlError::Conflict(format!(
                "the network {} exists already with other settings",
                spec.id
            ))),
            _ => {
                networks.insert(spec.id.clone(), spec);
                Ok(())
            }
        }
    }

    async fn delete_network(&self, id: &NetworkId) -> Result<(), ControlError> {
        self.journal.note(format!("delete_network {id}"));
        self.networks.lock().unwrap().remove(id);
        Ok(())
    }

    async fn create_endpoint(&self, spec: EndpointSpec) -> Result<EndpointGrant, ControlError> {
        self.journal
            .note(format!("create_endpoint {}", endpoint(&spec)));
        if !self.networks.lock().unwrap().contains_key(&spec.network) {
            return Err(ControlError::NotFound(format!(
                "there is no network {}",
                spec.network
            )));
        }
        let mac = spec.mac.unwrap_or_else(|| {
            let first = spec.addresses.iter().next();
            first.map_or(MacAddr::new([2, 0, 0, 0, 0, 1]), |a| {
                MacAddr::from_ip(a.ip())
            })
        });
        self.endpoints.lock().unwrap().insert(spec.id.clone(), spec);
        Ok(EndpointGrant { mac })
    }

    async fn delete_endpoint(&self, n: &NetworkId, e: &EndpointId) -> Result<(), ControlError> {
        self.journal.note(format!("delete_endpoint {n} {e}"));
        self.endpoints.lock().unwrap().remove(e);
        Ok(())
    }

    async fn join(
        &self,
        network: &NetworkId,
        endpoint: &EndpointId,
        sandbox: SandboxRef,
    ) -> Result<Attachment, ControlError> {
        let (id, netns) = (&sandbox.id, sandbox.netns.display());
        self.journal
            .note(format!("join {network} {endpoint} sandbox {id} at {netns}"));
        let spec = self.endpoint(endpoint)?;
        let networks = self.networks.lock().unwrap();
        let network = networks
            .get(network)
            .ok_or_else(|| ControlError::NotFound(format!("there is no network {network}")))?;
        let gateway = |family| network.subnets_of(family).find_map(|s| s.gateway);
        let closed = network.reach == Reach::Internal;
        let gateway_v4 = match gateway(Family::V4) {
            Some(IpAddr::V4(ip)) if !closed => Some(ip),
            _ => None,
        };
        let gateway_v6 = match gateway(Family::V6) {
            Some(IpAddr::V6(ip)) if !closed => Some(ip),
            _ => None,
        };
        let name = |prefix: &str| LinkName::new(format!("{prefix}{}", spec.id.short(10)));
        let placed = spec.options.get("netloom.ifname");
        Ok(Attachment {
            interface: match placed {
                Some(link) => InterfacePlacement::Placed {
                    link: LinkName::new(link.clone()).unwrap(),
                },
                None => InterfacePlacement::CallerMoves {
                    link: name("nlv").unwrap(),
                    prefix: "eth".into(),
                },
            },
            gateway_v4,
            gateway_v6,
            routes: network
                .subnets_of(Family::V4)
                .skip(1)
                .map(|s| StaticRoute {
                    destination: s.subnet,
                    next_hop: s.gateway.filter(|_| !closed),
                })
                .collect(),
            gateway_service: match network.reach {
                Reach::Internal => GatewayService::Disabled,
                Reach::External => GatewayService::Allowed,
            },
        })
    }

    async fn leave(&self, n: &NetworkId, e: &EndpointId) -> Result<(), ControlError> {
        self.journal.note(format!("leave {n} {e}"));
        Ok(())
    }

    async fn publish(
        &self,
        network: &NetworkId,
        endpoint: &EndpointId,
        ports: Vec<PortBinding>,
    ) -> Result<Vec<PublishedPort>, ControlError> {
        let ports: Vec<_> = ports.iter().map(binding).collect();
        self.journal
            .note(format!("publish {network} {endpoint} {}", ports.join(" ")));
        self.endpoint(endpoint)?;
        Ok(Vec::new())
    }

    async fn revoke(&self, n: &NetworkId, e: &EndpointId) -> Result<(), ControlError> {
        self.journal.note(format!("revoke {n} {e}"));
        Ok(())
    }

    async fn networks(&self) -> Vec<NetworkView> {
        Vec::new()
    }

    async fn endpoints(&self) -> Vec<EndpointView> {
        Vec::new()
    }

    async fn audit(&self) -> Result<Vec<Finding>, ControlError> {
        Ok(Vec::new())
    }

    async fn reconcile(&self) -> Result<Vec<Finding>, ControlError> {
        Ok(Vec::new())
    }
}

#[derive(Debug)]
pub(crate) struct FakeIpam {
    journal: Journal,
    state: Mutex<Pools>,
    /// Calls wait for a permit where a test took them all away.
    pub(crate) gate: Semaphore,
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Pools {
    granted: u8,
    pools: BTreeMap<PoolId, Subnet>,
    used: BTreeSet<(PoolId, IpAddr)>,
}

impl FakeIpam {
    pub(crate) fn new(journal: Journal) -> Self {
        Self {
            journal,
            state: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            waiting: AtomicUsize::new(0),
        }
    }

    /// How many calls came to the gate.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    async fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _permit = self.gate.acquire().await.unwrap();
    }

    fn subnet(&self, pool: &PoolId) -> Result<Subnet, IpamError> {
        let state = self.state.lock().unwrap();
        let known = state.pools.get(pool).copied();
        known.ok_or_else(|| IpamError::NotFound(format!("there is no pool {pool}")))
    }
}

#[async_trait]
impl Ipam for FakeIpam {
    async fn request_pool(&self, request: PoolRequest) -> Result<PoolGrant, IpamError> {
        self.pass().await;
        let PoolRequest {
            space,
            wanted,
            options: given,
        } = request;
        let wish = match wanted {
            WantedPool::Any(family) => format!("any {family}"),
            WantedPool::Sized(family, bits) => format!("any {family} /{bits}"),
            WantedPool::Exact { subnet, range } => {
                format!(
                    "{subnet} range {}",
                    range.map_or("-".into(), |r| r.to_string())
                )
            }
        };
        let given = options(&given);
        self.journal
            .note(format!("request_pool {space:?} {wish} {given}"));
        let mut state = self.state.lock().unwrap();
        let n = state.granted;
        let subnet = match wanted {
            WantedPool::Any(Family::V4) => {
                Subnet::truncating(Ipv4Addr::new(10, 200, n, 0).into(), 24)
            }
            WantedPool::Any(Family::V6) => format!("fd00:{n:x}::/64").parse().unwrap(),
            WantedPool::Sized(Family::V4, bits) => {
                Subnet::truncating(Ipv4Addr::new(10, 201, n, 0).into(), bits)
            }
            WantedPool::Sized(Family::V6, bits) => {
                Subnet::truncating("fd01::".parse().unwrap(), bits)
            }
            WantedPool::Exact { subnet, .. } => subnet,
        };
        if state.pools.values().any(|known| known.overlaps(subnet)) {
            return Err(IpamError::InUse(format!(
                "the subnet {subnet} is in use by another network of this host"
            )));
        }
        state.granted += 1;
        let id = PoolId::new(format!("pool-{n}")).unwrap();
        state.pools.insert(id.clone(), subnet);
        Ok(PoolGrant { id, subnet })
    }

    async fn release_pool(&self, pool: &PoolId) -> Result<(), IpamError> {
        self.journal.note(format!("release_pool {pool}"));
        self.state.lock().unwrap().pools.remove(pool);
        Ok(())
    }

    async fn request_address(&self, request: AddressRequest) -> Result<InterfaceAddr, IpamError> {
        self.pass().await;
        let AddressRequest {
            pool,
            wanted,
            purpose,
            mac,
            name,
        } = request;
        self.journal.note(format!(
            "request_address {pool} {purpose:?} wanted {} mac {} name {}",
            wanted.map_or("-".into(), |ip| ip.to_string()),
            mac.map_or("-".into(), |mac| mac.to_string()),
            name.as_deref().unwrap_or("-"),
        ));
        let subnet = self.subnet(&pool)?;
        let mut state = self.state.lock().unwrap();
        let first = u128::from(purpose == Purpose::Endpoint) + 1;
        let free = (first..)
            .map_while(|n| subnet.nth(n))
            .find(|ip| !state.used.contains(&(pool.clone(), *ip)));
        let ip = wanted
            .or(free)
            .ok_or_else(|| IpamError::Exhausted(format!("every address of {subnet} is in use")))?;
        let again = !state.used.insert((pool, ip));
        if again && purpose == Purpose::Endpoint {
            return Err(IpamError::InUse(format!("the address {ip} is in use")));
        }
        InterfaceAddr::in_subnet(ip, subnet).map_err(|e| IpamError::Invalid(e.to_string()))
    }

    async fn release_address(&self, pool: &PoolId, ip: IpAddr) -> Result<(), IpamError> {
        self.journal.note(format!("release_address {pool} {ip}"));
        self.subnet(pool)?;
        self.state.lock().unwrap().used.remove(&(pool.clone(), ip));
        Ok(())
    }

    async fn confirm(&self, ip: IpAddr, mac: Option<MacAddr>) -> Result<(), IpamError> {
        let mac = mac.map_or("-".into(), |mac| mac.to_string());
        self.journal.note(format!("confirm {ip} mac {mac}"));
        if ip == TAKEN {
            return Err(IpamError::InUse(format!(
                "{ip} was given to another container"
            )));
        }
        Ok(())
    }
}

fn network(spec: &NetworkSpec) -> String {
    let subnets: Vec<_> = spec
        .subnets
        .iter()
        .map(|s| {
            let gateway = s.gateway.map_or("-".into(), |ip| ip.to_string());
            let aux: Vec<_> = s
                .auxiliary
                .iter()
                .map(|(k, v)| format!(" {k}={v}"))
                .collect();
            format!("[{} gateway {gateway}{}]", s.subnet, aux.concat())
        })
        .collect();
    let (id, driver, reach) = (&spec.id, &spec.driver, spec.reach);
    let options = options(&spec.options);
    format!("{id} {driver} {reach:?} {} {options}", subnets.concat())
}

fn endpoint(spec: &EndpointSpec) -> String {
    let addresses: Vec<_> = spec.addresses.iter().map(|a| a.to_string()).collect();
    let ports: Vec<_> = spec.ports.iter().map(binding).collect();
    let exposed: Vec<_> = spec
        .exposed
        .iter()
        .map(|(p, n)| format!("{n}/{p}"))
        .collect();
    format!(
        "{} in {} [{}] mac {} ports [{}] exposed [{}] {}",
        spec.id,
        spec.network,
        addresses.join(" "),
        spec.mac.map_or("-".into(), |mac| mac.to_string()),
        ports.join(" "),
        exposed.join(" "),
        options(&spec.options),
    )
}

fn binding(port: &PortBinding) -> String {
    let host = port.host_ip.map_or("*".into(), |ip| ip.to_string());
    let ports = match port.host_ports {
        HostPorts::Ephemeral => "any".to_owned(),
        HostPorts::Range { first, last } => format!("{first}-{last}"),
    };
    format!("{host}:{ports}->{}/{}", port.container_port, port.protocol)
}

fn options(options: &Options) -> String {
    let pairs: Vec<_> = options.iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!("{{{}}}", pairs.join(" "))
}
