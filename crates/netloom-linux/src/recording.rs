//! A kernel made of memory, for tests of drivers: it keeps a model, records every step, and fails
//! where it is told to.

use crate::{
    AcceptNeed, AdminState, Applied, BridgeSpec, Carrier, Direction, Element, ForwardAccept,
    Kernel, KernelError, KernelStep, Link, LinkAddress, LinkIndex, Neighbour, Place, Route,
    RouteSpec, SysctlKey, TableSnapshot, TableState, VethSpec,
};
use netloom_types::{Family, LinkName};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The recording kernel. It models links, masters, addresses, routes, settings, our elements and
/// accepts; it models no packets, and namespaces only as the place where a veth end went.
#[derive(Debug, Default)]
pub struct RecordingKernel {
    model: Mutex<Model>,
}

#[derive(Debug, Default)]
struct Model {
    steps: Vec<KernelStep>,
    applied: usize,
    fail_at: BTreeSet<usize>,
    next_index: u32,
    links: BTreeMap<String, Link>,
    /// Container ends by the name of their host end.
    peers: BTreeMap<String, (Place, String)>,
    addresses: BTreeSet<LinkAddress>,
    routes: Vec<(RouteSpec, Route)>,
    sysctls: BTreeMap<SysctlKey, i32>,
    table: bool,
    elements: BTreeSet<Element>,
    accepts: BTreeSet<ForwardAccept>,
}

impl RecordingKernel {
    /// A host without links, tables or settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the `n`-th call of [`Kernel::apply`] from now on fail (the next one is 0), once.
    /// Undo steps count as calls.
    pub fn fail_at(&self, n: usize) {
        let mut model = self.lock();
        let at = model.applied.saturating_add(n);
        model.fail_at.insert(at);
    }

    /// Takes back every failure that was asked for and has not happened yet.
    pub fn forgive(&self) {
        self.lock().fail_at.clear();
    }

    /// Every step that was applied with success, in order, undo steps included.
    #[must_use]
    pub fn steps(&self) -> Vec<KernelStep> {
        self.lock().steps.clone()
    }

    /// Forgets the recorded steps and keeps the model.
    pub fn clear_steps(&self) {
        self.lock().steps.clear();
    }

    /// Adds a link that someone else made.
    pub fn plant_link(&self, name: &LinkName, kind: Option<&str>) -> LinkIndex {
        let mut model = self.lock();
        let link = model.new_link(name.as_str(), kind);
        let index = link.index;
        model.links.insert(link.name.clone(), link);
        index
    }

    /// Adds a route that someone else made.
    pub fn plant_route(&self, spec: RouteSpec) {
        let mut model = self.lock();
        let link = model.links.get(spec.link.as_str()).map(|link| link.index);
        let route = route_of(&spec, link);
        model.routes.push((spec, route));
    }

    /// Removes our tables and accepts, as a flush by someone else does.
    pub fn flush_ruleset(&self) {
        let mut model = self.lock();
        model.table = false;
        model.elements.clear();
        model.accepts.clear();
    }

    /// Where the container's end of a pair is, and its name; by the host end's name.
    #[must_use]
    pub fn peer_of(&self, host_end: &LinkName) -> Option<(Place, String)> {
        self.lock().peers.get(host_end.as_str()).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Model> {
        // A panic of a test thread must not hide its cause behind a poisoned lock.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kernel for RecordingKernel {
    fn apply(&self, step: &KernelStep) -> Result<Applied, KernelError> {
        let mut model = self.lock();
        let call = model.applied;
        model.applied = call.saturating_add(1);
        if model.fail_at.remove(&call) {
            return Err(KernelError::Refused {
                what: step.to_string(),
                reason: "the test asked for a failure".into(),
                source: nix::Error::EIO,
            });
        }
        let applied = model.apply(step)?;
        model.steps.push(step.clone());
        Ok(applied)
    }

    fn links(&self) -> Result<Vec<Link>, KernelError> {
        Ok(self.lock().links.values().cloned().collect())
    }

    fn link(&self, name: &LinkName) -> Result<Option<Link>, KernelError> {
        Ok(self.lock().links.get(name.as_str()).cloned())
    }

    fn has_link_in(&self, namespace: &Path, name: &LinkName) -> Result<bool, KernelError> {
        let inside = |(place, peer): &(Place, String)| {
            matches!(place, Place::Namespace(path) if path == namespace) && peer == name.as_str()
        };
        Ok(self.lock().peers.values().any(inside))
    }

    fn addresses(&self) -> Result<Vec<LinkAddress>, KernelError> {
        Ok(self.lock().addresses.iter().copied().collect())
    }

    fn routes(&self) -> Result<Vec<Route>, KernelError> {
        Ok(self.lock().routes.iter().map(|(_, route)| *route).collect())
    }

    fn neighbours(&self) -> Result<Vec<Neighbour>, KernelError> {
        Ok(Vec::new())
    }

    fn sysctl(&self, key: &SysctlKey) -> Result<Option<i32>, KernelError> {
        Ok(self.lock().sysctls.get(key).copied())
    }

    fn netloom_table(&self) -> Result<TableSnapshot, KernelError> {
        let model = self.lock();
        Ok(TableSnapshot {
            state: if model.table {
                TableState::Complete
            } else {
                TableState::Absent
            },
            elements: model.elements.clone(),
            strangers: Vec::new(),
        })
    }

    fn accept_need(&self) -> Result<AcceptNeed, KernelError> {
        Ok(AcceptNeed::Chains(vec![Family::V4, Family::V6]))
    }

    fn forward_accepts(&self) -> Result<Vec<ForwardAccept>, KernelError> {
        Ok(self.lock().accepts.iter().cloned().collect())
    }
}

fn missing(what: impl std::fmt::Display) -> KernelError {
    KernelError::NotFound {
        what: format!("link {what}"),
    }
}

fn route_of(spec: &RouteSpec, link: Option<LinkIndex>) -> Route {
    Route {
        destination: spec.destination,
        gateway: spec.gateway.map(crate::NextHop::address),
        link,
        table: 254,
        metric: spec.metric,
    }
}

impl Model {
    fn apply(&mut self, step: &KernelStep) -> Result<Applied, KernelError> {
        match step {
            KernelStep::EnsureTable => Ok(Applied::from(!std::mem::replace(&mut self.table, true))),
            KernelStep::RemoveTable => {
                self.elements.clear();
                Ok(Applied::from(std::mem::replace(&mut self.table, false)))
            }
            KernelStep::AddElement(element) => self.add_element(element),
            KernelStep::DeleteElement(element) => Ok(Applied::from(self.elements.remove(element))),
            KernelStep::AddForwardAccept { bridge } => {
                let before = self.accepts.len();
                self.accepts.extend(accepts_of(bridge));
                Ok(Applied::from(self.accepts.len() != before))
            }
            KernelStep::DeleteForwardAccept { bridge } => {
                let before = self.accepts.len();
                self.accepts.retain(|accept| accept.bridge != *bridge);
                Ok(Applied::from(self.accepts.len() != before))
            }
            KernelStep::CreateBridge(spec) => self.create_bridge(spec),
            KernelStep::CreateVeth(spec) => self.create_veth(spec),
            KernelStep::DeleteLink { link } => Ok(Applied::from(self.delete_link(link.as_str()))),
            KernelStep::DeleteLinks { links } => {
                let gone = links
                    .iter()
                    .filter(|l| self.delete_link(l.as_str()))
                    .count();
                Ok(Applied::from(gone > 0))
            }
            KernelStep::AddRoute(spec) => self.add_route(spec),
            KernelStep::DeleteRoute(spec) => {
                let before = self.routes.len();
                self.routes.retain(|(have, _)| have != spec);
                Ok(Applied::from(self.routes.len() != before))
            }
            KernelStep::SetSysctl { key, value } => Ok(Applied::from(
                self.sysctls.insert(key.clone(), *value) != Some(*value),
            )),
            KernelStep::ConfigureInterface(_)
            | KernelStep::FlushConntrack { .. }
            | KernelStep::Announce { .. } => Ok(Applied::Changed),
            _ => self.apply_to_link(step),
        }
    }

    fn apply_to_link(&mut self, step: &KernelStep) -> Result<Applied, KernelError> {
        match step {
            KernelStep::SetMaster { link, master } => {
                let master = self.find(master)?.index;
                let link = self.find(link)?;
                Ok(Applied::from(link.master.replace(master) != Some(master)))
            }
            KernelStep::ClearMaster { link } => {
                Ok(Applied::from(self.find(link)?.master.take().is_some()))
            }
            KernelStep::SetUp { link } => self.set_state(link, AdminState::Up),
            KernelStep::SetDown { link } => self.set_state(link, AdminState::Down),
            KernelStep::SetMtu { link, mtu } => {
                let link = self.find(link)?;
                Ok(Applied::from(
                    std::mem::replace(&mut link.mtu, *mtu) != *mtu,
                ))
            }
            KernelStep::SetAlias { link, alias } => {
                let alias = Some(alias.as_str().to_owned());
                let link = self.find(link)?;
                Ok(Applied::from(
                    std::mem::replace(&mut link.alias, alias.clone()) != alias,
                ))
            }
            KernelStep::Rename { link, to } => self.rename(link, to),
            KernelStep::SetPortFlags { link, .. } => self.find(link).map(|_| Applied::Changed),
            KernelStep::AddAddress { link, address } => {
                let link = self.find(link)?.index;
                Ok(Applied::from(self.addresses.insert(LinkAddress {
                    link,
                    address: *address,
                })))
            }
            KernelStep::DeleteAddress { link, address } => {
                let Ok(link) = self.find(link).map(|link| link.index) else {
                    return Ok(Applied::AlreadySo);
                };
                Ok(Applied::from(self.addresses.remove(&LinkAddress {
                    link,
                    address: *address,
                })))
            }
            KernelStep::MoveLink { link, namespace } => {
                if self.links.remove(link.as_str()).is_none() {
                    return Err(missing(link));
                }
                let to = Place::Namespace(namespace.clone());
                for (place, name) in self.peers.values_mut() {
                    if name.as_str() == link.as_str() {
                        *place = to.clone();
                    }
                }
                Ok(Applied::Changed)
            }
            other => Err(KernelError::Unsupported {
                what: other.to_string(),
                reason: "the recording kernel does not model it".into(),
            }),
        }
    }

    fn find(&mut self, name: &LinkName) -> Result<&mut Link, KernelError> {
        self.links
            .get_mut(name.as_str())
            .ok_or_else(|| missing(name))
    }

    fn set_state(&mut self, name: &LinkName, state: AdminState) -> Result<Applied, KernelError> {
        let link = self.find(name)?;
        Ok(Applied::from(
            std::mem::replace(&mut link.state, state) != state,
        ))
    }

    fn rename(&mut self, from: &LinkName, to: &LinkName) -> Result<Applied, KernelError> {
        if self.links.contains_key(to.as_str()) {
            return if self.links.contains_key(from.as_str()) {
                Err(KernelError::Exists {
                    what: format!("link {to}"),
                })
            } else {
                Ok(Applied::AlreadySo)
            };
        }
        let mut link = self
            .links
            .remove(from.as_str())
            .ok_or_else(|| missing(from))?;
        link.name = to.as_str().to_owned();
        self.links.insert(link.name.clone(), link);
        Ok(Applied::Changed)
    }

    fn new_link(&mut self, name: &str, kind: Option<&str>) -> Link {
        self.next_index = self.next_index.saturating_add(1);
        Link {
            index: LinkIndex(self.next_index),
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            state: AdminState::Down,
            carrier: Carrier::Off,
            mac: None,
            mtu: 1500,
            master: None,
            peer: None,
            peer_namespace: None,
            alias: None,
            altnames: Vec::new(),
            group: 0,
        }
    }

    /// Whether the link is there already: with the same alias it counts as made.
    fn made_before(&self, name: &LinkName, alias: &str) -> Result<bool, KernelError> {
        match self.links.get(name.as_str()) {
            None => Ok(false),
            Some(link) if link.alias.as_deref() == Some(alias) => Ok(true),
            Some(_) => Err(KernelError::Conflict {
                what: format!("link {name}"),
                difference: "its alias is not ours".into(),
            }),
        }
    }

    fn create_bridge(&mut self, spec: &BridgeSpec) -> Result<Applied, KernelError> {
        if self.made_before(&spec.name, spec.alias.as_str())? {
            return Ok(Applied::AlreadySo);
        }
        let mut link = self.new_link(spec.name.as_str(), Some("bridge"));
        link.state = AdminState::Up;
        link.mac = spec.mac;
        link.mtu = spec.mtu.unwrap_or(link.mtu);
        link.alias = Some(spec.alias.as_str().to_owned());
        self.links.insert(link.name.clone(), link);
        Ok(Applied::Changed)
    }

    fn create_veth(&mut self, spec: &VethSpec) -> Result<Applied, KernelError> {
        if self.made_before(&spec.host.name, spec.alias.as_str())? {
            return Ok(Applied::AlreadySo);
        }
        let master = match &spec.master {
            Some(master) => Some(self.find(master)?.index),
            None => None,
        };
        let mut host = self.new_link(spec.host.name.as_str(), Some("veth"));
        let mut peer = self.new_link(spec.peer.name.as_str(), Some("veth"));
        host.state = AdminState::Up;
        host.mac = spec.host.mac;
        host.mtu = spec.mtu.unwrap_or(host.mtu);
        host.alias = Some(spec.alias.as_str().to_owned());
        host.master = master;
        host.peer = Some(peer.index);
        peer.mac = spec.peer.mac;
        peer.mtu = host.mtu;
        peer.peer = Some(host.index);
        let at = (spec.place.clone(), peer.name.clone());
        self.peers.insert(host.name.clone(), at);
        if spec.place == Place::Host {
            self.links.insert(peer.name.clone(), peer);
        }
        self.links.insert(host.name.clone(), host);
        Ok(Applied::Changed)
    }

    fn delete_link(&mut self, name: &str) -> bool {
        let Some(link) = self.links.remove(name) else {
            return false;
        };
        self.addresses.retain(|address| address.link != link.index);
        self.routes
            .retain(|(_, route)| route.link != Some(link.index));
        for port in self.links.values_mut() {
            if port.master == Some(link.index) {
                port.master = None;
            }
        }
        // Either end takes the other with it.
        let pair = self
            .peers
            .iter()
            .find(|(host, (_, peer))| host.as_str() == name || peer == name)
            .map(|(host, (_, peer))| (host.clone(), peer.clone()));
        if let Some((host, peer)) = pair {
            self.peers.remove(&host);
            self.links.remove(&host);
            self.links.remove(&peer);
        }
        true
    }

    fn add_element(&mut self, element: &Element) -> Result<Applied, KernelError> {
        if !self.table {
            return Err(KernelError::NotFound {
                what: "table inet netloom".into(),
            });
        }
        if let Element::Port(new) = element {
            let taken = self.elements.iter().any(|have| match have {
                Element::Port(have) => {
                    (have.host, have.protocol, have.port) == (new.host, new.protocol, new.port)
                        && have.target != new.target
                }
                _ => false,
            });
            if taken {
                return Err(KernelError::Conflict {
                    what: element.to_string(),
                    difference: "the port goes to another target".into(),
                });
            }
        }
        Ok(Applied::from(self.elements.insert(element.clone())))
    }

    fn add_route(&mut self, spec: &RouteSpec) -> Result<Applied, KernelError> {
        let link = self.find(&spec.link)?.index;
        if self.routes.iter().any(|(have, _)| have == spec) {
            return Ok(Applied::AlreadySo);
        }
        self.routes.push((spec.clone(), route_of(spec, Some(link))));
        Ok(Applied::Changed)
    }
}

fn accepts_of(bridge: &LinkName) -> Vec<ForwardAccept> {
    let mut all = Vec::new();
    for family in [Family::V4, Family::V6] {
        for direction in [Direction::In, Direction::Out] {
            all.push(ForwardAccept {
                family,
                bridge: bridge.clone(),
                direction,
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LinkAlias;

    fn name(text: &str) -> LinkName {
        LinkName::new(text).unwrap()
    }

    fn bridge(text: &str) -> KernelStep {
        KernelStep::CreateBridge(BridgeSpec {
            name: name(text),
            mac: None,
            mtu: None,
            alias: LinkAlias::new("netloom:1").unwrap(),
        })
    }

    #[test]
    fn a_failure_half_way_undoes_what_changed_and_keeps_what_was_there() {
        let kernel = RecordingKernel::new();
        kernel.apply(&KernelStep::EnsureTable).unwrap();
        kernel
            .apply(&KernelStep::AddElement(Element::Bridge(name("b0"))))
            .unwrap();
        kernel.fail_at(3);
        let error = kernel
            .apply_all(&[
                KernelStep::AddElement(Element::Bridge(name("b0"))),
                bridge("b0"),
                KernelStep::AddElement(Element::Internal(name("b0"))),
                KernelStep::SetUp { link: name("b0") },
            ])
            .unwrap_err();
        assert_eq!(error.index, 3);
        assert!(error.undo_failures.is_empty());
        assert!(kernel.links().unwrap().is_empty());
        let left = kernel.netloom_table().unwrap().elements;
        assert_eq!(left, BTreeSet::from([Element::Bridge(name("b0"))]));
    }

    #[test]
    fn a_failed_undo_is_reported_beside_the_cause() {
        let kernel = RecordingKernel::new();
        kernel.fail_at(1);
        kernel.fail_at(2);
        let error = kernel.apply_all(&[bridge("b0"), bridge("b1")]).unwrap_err();
        assert_eq!(error.undo_failures.len(), 1);
        assert!(error.to_string().contains("delete link b0"), "{error}");
    }

    #[test]
    fn steps_applied_twice_say_so() {
        let kernel = RecordingKernel::new();
        assert_eq!(kernel.apply(&bridge("b0")).unwrap(), Applied::Changed);
        assert_eq!(kernel.apply(&bridge("b0")).unwrap(), Applied::AlreadySo);
    }

    #[test]
    fn deleting_one_end_deletes_the_pair() {
        let kernel = RecordingKernel::new();
        let end = |text: &str| crate::VethEnd {
            name: name(text),
            mac: None,
        };
        kernel
            .apply(&KernelStep::CreateVeth(VethSpec {
                host: end("h0"),
                peer: end("c0"),
                place: Place::Host,
                master: None,
                flags: crate::PortFlags::default(),
                mtu: None,
                alias: LinkAlias::new("netloom:e").unwrap(),
            }))
            .unwrap();
        assert_eq!(kernel.links().unwrap().len(), 2);
        kernel
            .apply(&KernelStep::DeleteLink { link: name("c0") })
            .unwrap();
        assert!(kernel.links().unwrap().is_empty());
    }
}
