//! The kernel of this machine.

use crate::kernel::undo_changed;
use crate::monitor::Monitor;
use crate::netns::{Namespace, NamespaceId};
use crate::nft::forward;
use crate::nft::table::{ElementChange, Table};
use crate::rt::neigh::Announcer;
use crate::rt::{self, addr, link, list, neigh, route};
use crate::socket::NetlinkSocket;
use crate::{
    AcceptNeed, AdminState, Applied, ApplyError, ForwardAccept, InterfaceSpec, Kernel, KernelError,
    KernelStep, Link, LinkAddress, Neighbour, Place, Route, SysctlKey, TableSnapshot, VethSpec,
    conntrack, sysctl,
};
use netloom_types::LinkName;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The real kernel, through one long-lived socket per purpose.
///
/// All of it acts on the network namespace in which [`LinuxKernel::open`] was called, except that
/// settings ([`KernelStep::SetSysctl`]) belong to the namespace of the calling thread.
#[derive(Debug)]
pub struct LinuxKernel {
    namespace: NamespaceId,
    links: Mutex<NetlinkSocket>,
    table: Mutex<Table>,
    conntrack: Mutex<NetlinkSocket>,
    announcer: Mutex<Announcer>,
}

/// A panic while a socket was in use leaves at most a late answer in its queue, which sequence
/// numbers skip; so a poisoned lock is no reason to stop serving.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LinuxKernel {
    /// Opens the sockets, in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the process lacks CAP_NET_ADMIN or CAP_NET_RAW, or the kernel lacks nftables.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self {
            namespace: NamespaceId::current()?,
            links: Mutex::new(rt::open()?),
            table: Mutex::new(Table::open()?),
            conntrack: Mutex::new(conntrack::open()?),
            announcer: Mutex::new(Announcer::open()?),
        })
    }

    /// The network namespace that this kernel acts on.
    #[must_use]
    pub fn namespace(&self) -> NamespaceId {
        self.namespace
    }

    /// Listens for changes by others, in the calling thread's namespace, which must be that of
    /// this kernel.
    ///
    /// # Errors
    /// When the sockets cannot be opened.
    pub fn monitor(&self) -> Result<Monitor, KernelError> {
        let own_port = lock(&self.table).socket().port()?;
        Monitor::open(own_port)
    }

    /// Gives a link an additional name.
    ///
    /// # Errors
    /// When the link is missing, or the name is taken.
    pub fn add_altname(&self, name: &LinkName, altname: &str) -> Result<Applied, KernelError> {
        link::add_altname(&mut lock(&self.links), name, altname)
    }

    fn create_veth(&self, spec: &VethSpec) -> Result<Applied, KernelError> {
        let namespace = match &spec.place {
            Place::Host => None,
            Place::Namespace(path) => Some(Namespace::open(path, self.namespace)?),
        };
        link::create_veth(&mut lock(&self.links), spec, namespace.as_ref())
    }

    fn apply_to_link(&self, step: &KernelStep) -> Result<Applied, KernelError> {
        let socket = &mut *lock(&self.links);
        match step {
            KernelStep::CreateBridge(spec) => link::create_bridge(socket, spec),
            KernelStep::DeleteLink { link } => link::delete(socket, link),
            KernelStep::DeleteLinks { links } => link::delete_many(socket, links),
            KernelStep::SetMaster { link, master } => link::set_master(socket, link, Some(master)),
            KernelStep::ClearMaster { link } => link::set_master(socket, link, None),
            KernelStep::SetUp { link } => link::set_state(socket, link, AdminState::Up),
            KernelStep::SetDown { link } => link::set_state(socket, link, AdminState::Down),
            KernelStep::SetMtu { link, mtu } => link::set_mtu(socket, link, *mtu),
            KernelStep::SetAlias { link, alias } => link::set_alias(socket, link, alias),
            KernelStep::Rename { link, to } => link::rename(socket, link, to),
            KernelStep::SetPortFlags { link, flags } => link::set_port_flags(socket, link, *flags),
            KernelStep::AddAddress { link, address } => addr::add(socket, link, *address),
            KernelStep::DeleteAddress { link, address } => addr::delete(socket, link, *address),
            KernelStep::AddRoute(spec) => route::add(socket, spec),
            KernelStep::DeleteRoute(spec) => route::delete(socket, spec),
            KernelStep::MoveLink { link, namespace } => {
                let namespace = Namespace::open(namespace, self.namespace)?;
                link::move_to(socket, link, &namespace)
            }
            KernelStep::Announce { link, mac, address } => {
                let index = list::index(socket, link)?;
                lock(&self.announcer).announce(link, index, *mac, *address)?;
                Ok(Applied::Changed)
            }
            other => Err(KernelError::Unsupported {
                what: other.to_string(),
                reason: "it is not a step on a link".into(),
            }),
        }
    }

    fn configure_interface(&self, spec: &InterfaceSpec) -> Result<Applied, KernelError> {
        let namespace = Namespace::open(&spec.namespace, self.namespace)?;
        namespace.run(|| configure(spec))
    }

    /// Applies a run of element steps as one transaction; on failure says which one is to blame.
    fn apply_elements(
        &self,
        changes: &[ElementChange<'_>],
    ) -> Result<Vec<Applied>, (usize, KernelError)> {
        lock(&self.table).change(changes)
    }
}

/// Configures an interface of the calling thread's namespace.
fn configure(spec: &InterfaceSpec) -> Result<Applied, KernelError> {
    let socket = &mut rt::open()?;
    let mut changed = false;
    let mut note = |applied: Applied| changed |= applied == Applied::Changed;
    let name = match &spec.rename {
        Some(to) => {
            note(link::rename(socket, &spec.name, to)?);
            to
        }
        None => &spec.name,
    };
    let loopback = LinkName::new("lo").map_err(|_| KernelError::NotFound {
        what: "the loopback link".into(),
    })?;
    note(link::set_state(socket, &loopback, AdminState::Up)?);
    for (key, value) in &spec.sysctls {
        note(sysctl::set(key, *value)?);
    }
    for address in &spec.addresses {
        note(addr::add(socket, name, *address)?);
    }
    note(link::set_state(socket, name, AdminState::Up)?);
    // Being asked makes the kernel (6.9 and newer) finish at once what else it does some time
    // later: until then it drops what the container sends.
    list::present(socket, name)?;
    for route in &spec.routes {
        note(route::add(socket, route)?);
    }
    Ok(Applied::from(changed))
}

/// An element step as the change that a transaction carries.
fn element_change(step: &KernelStep) -> Option<ElementChange<'_>> {
    match step {
        KernelStep::AddElement(element) => Some(ElementChange::Add(element)),
        KernelStep::DeleteElement(element) => Some(ElementChange::Delete(element)),
        _ => None,
    }
}

/// Elements in one transaction: at some hundred bytes each they stay well below the send buffer
/// that a socket has without asking (208 KiB).
const TRANSACTION_ELEMENTS_MAX: usize = 400;

impl Kernel for LinuxKernel {
    fn apply(&self, step: &KernelStep) -> Result<Applied, KernelError> {
        match step {
            KernelStep::EnsureTable => lock(&self.table).ensure(),
            KernelStep::RemoveTable => lock(&self.table).remove(),
            KernelStep::AddElement(element) => self
                .apply_elements(&[ElementChange::Add(element)])
                .map(|all| all.first().copied().unwrap_or(Applied::AlreadySo))
                .map_err(|(_, error)| error),
            KernelStep::DeleteElement(element) => self
                .apply_elements(&[ElementChange::Delete(element)])
                .map(|all| all.first().copied().unwrap_or(Applied::AlreadySo))
                .map_err(|(_, error)| error),
            KernelStep::AddForwardAccept { bridge } => {
                forward::add(lock(&self.table).socket(), bridge)
            }
            KernelStep::DeleteForwardAccept { bridge } => {
                forward::delete(lock(&self.table).socket(), bridge)
            }
            KernelStep::CreateVeth(spec) => self.create_veth(spec),
            KernelStep::ConfigureInterface(spec) => self.configure_interface(spec),
            KernelStep::SetSysctl { key, value } => sysctl::set(key, *value),
            KernelStep::FlushConntrack { family, filter } => {
                let flushed = conntrack::flush(&mut lock(&self.conntrack), *family, filter)?;
                Ok(Applied::from(flushed > 0))
            }
            other => self.apply_to_link(other),
        }
    }

    fn apply_all(&self, steps: &[KernelStep]) -> Result<Vec<Applied>, ApplyError> {
        let mut done: Vec<Applied> = Vec::with_capacity(steps.len());
        while let Some(step) = steps.get(done.len()) {
            let run: Vec<_> = steps
                .iter()
                .skip(done.len())
                .map_while(element_change)
                .take(TRANSACTION_ELEMENTS_MAX)
                .collect();
            let result = if run.is_empty() {
                self.apply(step).map(|one| vec![one]).map_err(|e| (0, e))
            } else {
                self.apply_elements(&run)
            };
            match result {
                Ok(applied) => done.extend(applied),
                Err((at, source)) => {
                    let index = done.len().saturating_add(at);
                    return Err(ApplyError {
                        index,
                        step: steps.get(index).unwrap_or(step).to_string(),
                        source,
                        undo_failures: undo_changed(self, steps, &done),
                    });
                }
            }
        }
        Ok(done)
    }

    fn links(&self) -> Result<Vec<Link>, KernelError> {
        list::links(&mut lock(&self.links))
    }

    fn link(&self, name: &LinkName) -> Result<Option<Link>, KernelError> {
        list::link(&mut lock(&self.links), name)
    }

    fn has_link_in(&self, namespace: &Path, name: &LinkName) -> Result<bool, KernelError> {
        let namespace = Namespace::open(namespace, self.namespace)?;
        namespace.run(|| Ok(list::link(&mut rt::open()?, name)?.is_some()))
    }

    fn addresses(&self) -> Result<Vec<LinkAddress>, KernelError> {
        addr::addresses(&mut lock(&self.links))
    }

    fn routes(&self) -> Result<Vec<Route>, KernelError> {
        route::routes(&mut lock(&self.links))
    }

    fn neighbours(&self) -> Result<Vec<Neighbour>, KernelError> {
        neigh::neighbours(&mut lock(&self.links))
    }

    fn sysctl(&self, key: &SysctlKey) -> Result<Option<i32>, KernelError> {
        sysctl::get(key)
    }

    fn netloom_table(&self) -> Result<TableSnapshot, KernelError> {
        lock(&self.table).snapshot()
    }

    fn accept_need(&self) -> Result<AcceptNeed, KernelError> {
        forward::need(lock(&self.table).socket())
    }

    fn forward_accepts(&self) -> Result<Vec<ForwardAccept>, KernelError> {
        forward::list(lock(&self.table).socket())
    }
}
