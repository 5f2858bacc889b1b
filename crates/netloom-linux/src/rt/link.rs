//! Making, changing and deleting links.

use super::list::{self, UP, header, ifla};
use crate::netns::Namespace;
use crate::socket::NetlinkSocket;
use crate::wire::{CREATE, EXCLUSIVE, Message};
use crate::{
    AdminState, Applied, BridgeSpec, KernelError, Link, LinkAlias, PortFlags, Switch, VethSpec,
};
use netloom_types::LinkName;
use std::os::fd::AsRawFd;

/// `RTM_NEWLINK`.
const NEW_LINK: u16 = 16;
/// `RTM_DELLINK`.
const DELETE_LINK: u16 = 17;
/// `RTM_SETLINK`.
const SET_LINK: u16 = 19;
/// `RTM_NEWLINKPROP`.
const NEW_LINK_PROPERTY: u16 = 108;

/// Every link of ours is born in this group, because a group, unlike the alias, can be given in
/// the message that makes a link: a link whose maker died before it set the alias is still known
/// as ours. The number is `nl` in ASCII, above what people choose by hand.
pub(crate) const OUR_GROUP: u32 = 0x6e6c_0001;
/// Links to be deleted together are put into this group first.
const DOOMED_GROUP: u32 = 0x6e6c_0002;

/// Numbers of `linux/if_link.h` that only changes need.
mod info {
    /// `IFLA_INFO_DATA`.
    pub(super) const DATA: u16 = 2;
    /// `IFLA_INFO_SLAVE_KIND`.
    pub(super) const PORT_KIND: u16 = 4;
    /// `IFLA_INFO_SLAVE_DATA`.
    pub(super) const PORT_DATA: u16 = 5;
    /// `VETH_INFO_PEER`.
    pub(super) const VETH_PEER: u16 = 1;
    /// `IFLA_BR_STP_STATE`.
    pub(super) const STP: u16 = 5;
    /// `IFLA_BR_MCAST_SNOOPING`.
    pub(super) const SNOOPING: u16 = 23;
    /// `IFLA_BRPORT_MODE`.
    pub(super) const HAIRPIN: u16 = 4;
    /// `IFLA_BRPORT_LEARNING`.
    pub(super) const LEARNING: u16 = 8;
    /// `IFLA_BRPORT_UNICAST_FLOOD`.
    pub(super) const UNICAST_FLOOD: u16 = 9;
    /// `IFLA_AF_SPEC`.
    pub(super) const FAMILIES: u16 = 26;
    /// `AF_INET6`.
    pub(super) const INET6: u16 = 10;
    /// `IFLA_INET6_ADDR_GEN_MODE`.
    pub(super) const ADDRESS_MODE: u16 = 8;
    /// `IN6_ADDR_GEN_MODE_NONE`.
    pub(super) const ADDRESS_MODE_NONE: u8 = 1;
    /// `IFLA_BRPORT_ISOLATED`.
    pub(super) const ISOLATED: u16 = 33;
}

/// A change of a link by its name.
fn change(name: &LinkName) -> Message {
    Message::new(SET_LINK, 0, &header(0, 0, 0)).text(ifla::NAME, name.as_str())
}

/// Makes a bridge and sets it up: one message to make it, one for what can only be set later.
pub(crate) fn create_bridge(
    socket: &mut NetlinkSocket,
    spec: &BridgeSpec,
) -> Result<Applied, KernelError> {
    let name = &spec.name;
    let make = Message::new(NEW_LINK, CREATE | EXCLUSIVE, &header(0, 0, 0))
        .text(ifla::NAME, name.as_str())
        .u32(ifla::GROUP, OUR_GROUP)
        .when(spec.mac, |m, mac| m.bytes(ifla::ADDRESS, &mac.octets()))
        .nested(ifla::LINKINFO, |m| {
            m.text(ifla::INFO_KIND, "bridge")
                .nested(info::DATA, |m| m.u32(info::STP, 0).u8(info::SNOOPING, 0))
        });
    let what = format!("making bridge {name}");
    let made = match socket.request(make, &what) {
        Ok(()) => Applied::Changed,
        Err(KernelError::Exists { .. }) => {
            let link = list::present(socket, name)?;
            if is_ours(&link, "bridge", &spec.alias)? && link.state == AdminState::Up {
                return Ok(Applied::AlreadySo);
            }
            Applied::Changed
        }
        Err(error) => return Err(error),
    };
    // The MTU comes after birth, so that the bridge knows it as the operator's and does not
    // follow its ports.
    let settle = Message::new(SET_LINK, 0, &header(0, UP, UP))
        .text(ifla::NAME, name.as_str())
        .text(ifla::ALIAS, spec.alias.as_str())
        .when(spec.mtu, |m, mtu| m.u32(ifla::MTU, mtu));
    let settled = socket.request(settle, &what);
    or_delete(socket, name, settled)?;
    Ok(made)
}

/// Makes a veth pair whose host end is up and a port of its bridge, and whose other end may be
/// born in another namespace.
pub(crate) fn create_veth(
    socket: &mut NetlinkSocket,
    spec: &VethSpec,
    namespace: Option<&Namespace>,
) -> Result<Applied, KernelError> {
    let what = format!("making veth {}", spec.host.name);
    let master = match &spec.master {
        Some(bridge) => Some(list::index(socket, bridge)?),
        None => None,
    };
    match socket.request(veth_message(spec, master, namespace), &what) {
        Ok(()) => {}
        Err(KernelError::Exists { .. }) => {
            let Some(link) = list::link(socket, &spec.host.name)? else {
                return Err(KernelError::Exists {
                    what: format!("the container's end {}", spec.peer.name),
                });
            };
            let complete = is_ours(&link, "veth", &spec.alias)?;
            if complete && link.master.map(|index| index.0) == master {
                return Ok(Applied::AlreadySo);
            }
        }
        Err(error) => return Err(bridge_full(error, spec.master.as_ref())),
    }
    let settle = Message::new(NEW_LINK, 0, &header(0, UP, UP))
        .text(ifla::NAME, spec.host.name.as_str())
        .text(ifla::ALIAS, spec.alias.as_str())
        .when(master, |m, master| {
            port_flags(m.u32(ifla::MASTER, master), spec.flags)
        });
    let settled = match master {
        Some(_) => match socket.request(no_link_local(settle.clone()), &what) {
            // A host without IPv6 does not know the attribute, and needs it not.
            Err(KernelError::Unsupported { .. }) => socket.request(settle, &what),
            other => other,
        },
        None => socket.request(settle, &what),
    };
    let settled = or_delete(socket, &spec.host.name, settled);
    settled.map_err(|error| bridge_full(error, spec.master.as_ref()))?;
    Ok(Applied::Changed)
}

fn veth_message(spec: &VethSpec, master: Option<u32>, namespace: Option<&Namespace>) -> Message {
    let fd = namespace.and_then(|ns| u32::try_from(ns.as_raw_fd()).ok());
    Message::new(NEW_LINK, CREATE | EXCLUSIVE, &header(0, UP, UP))
        .text(ifla::NAME, spec.host.name.as_str())
        .u32(ifla::GROUP, OUR_GROUP)
        .when(spec.host.mac, |m, mac| {
            m.bytes(ifla::ADDRESS, &mac.octets())
        })
        .when(spec.mtu, |m, mtu| m.u32(ifla::MTU, mtu))
        .when(master, |m, index| m.u32(ifla::MASTER, index))
        .nested(ifla::LINKINFO, |m| {
            m.text(ifla::INFO_KIND, "veth").nested(info::DATA, |m| {
                m.nested(info::VETH_PEER, |m| {
                    m.raw(&header(0, 0, 0))
                        .text(ifla::NAME, spec.peer.name.as_str())
                        .when(spec.peer.mac, |m, mac| {
                            m.bytes(ifla::ADDRESS, &mac.octets())
                        })
                        .when(spec.mtu, |m, mtu| m.u32(ifla::MTU, mtu))
                        .when(fd, |m, fd| m.u32(ifla::NAMESPACE_FD, fd))
                })
            })
        })
}

/// A bridge port needs no link-local address of its own; without one, it sends no multicast
/// reports and no duplicate detection into the container's first second. The peer is still down,
/// so the kernel has not made one yet.
fn no_link_local(message: Message) -> Message {
    message.nested(info::FAMILIES, |m| {
        m.nested(info::INET6, |m| {
            m.u8(info::ADDRESS_MODE, info::ADDRESS_MODE_NONE)
        })
    })
}

/// Removes a link that was made but could not be finished.
fn or_delete(
    socket: &mut NetlinkSocket,
    name: &LinkName,
    result: Result<(), KernelError>,
) -> Result<(), KernelError> {
    result.inspect_err(|_| {
        // The cause is what the caller needs; a leftover is in our group, and audit finds it.
        let _ = delete(socket, name);
    })
}

/// Whether a link that is in the way is complete (true) or was left half made by us (false).
fn is_ours(link: &Link, kind: &str, alias: &LinkAlias) -> Result<bool, KernelError> {
    let differs = |difference: String| KernelError::Conflict {
        what: format!("link {}", link.name),
        difference,
    };
    if link.kind.as_deref() != Some(kind) {
        return Err(differs(format!("it is not a {kind}")));
    }
    match link.alias.as_deref() {
        Some(have) if have == alias.as_str() => Ok(true),
        None if link.group == OUR_GROUP => Ok(false),
        Some(have) => Err(differs(format!("it is tagged {have}"))),
        None => Err(differs("it carries no tag of ours".into())),
    }
}

fn bridge_full(error: KernelError, bridge: Option<&LinkName>) -> KernelError {
    match (error, bridge) {
        (
            KernelError::Refused {
                source: nix::Error::EXFULL,
                ..
            },
            Some(bridge),
        ) => KernelError::BridgeFull {
            bridge: bridge.clone(),
        },
        (error, _) => error,
    }
}

pub(crate) fn delete(socket: &mut NetlinkSocket, name: &LinkName) -> Result<Applied, KernelError> {
    let message = Message::new(DELETE_LINK, 0, &header(0, 0, 0)).text(ifla::NAME, name.as_str());
    gone_or(socket.request(message, &format!("deleting link {name}")))
}

/// A deletion that found nothing to delete is done.
pub(super) fn gone_or(result: Result<(), KernelError>) -> Result<Applied, KernelError> {
    match result {
        Ok(()) => Ok(Applied::Changed),
        Err(error) if error.is_not_found() => Ok(Applied::AlreadySo),
        Err(error) => Err(error),
    }
}

/// Deletes links by their group: the kernel waits for its grace period once for all.
pub(crate) fn delete_many(
    socket: &mut NetlinkSocket,
    names: &[LinkName],
) -> Result<Applied, KernelError> {
    let mut marked = 0_usize;
    for name in names {
        let mark = change(name).u32(ifla::GROUP, DOOMED_GROUP);
        match socket.request(mark, &format!("marking link {name} for deletion")) {
            Ok(()) => marked = marked.saturating_add(1),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    if marked == 0 {
        return Ok(Applied::AlreadySo);
    }
    let message = Message::new(DELETE_LINK, 0, &header(0, 0, 0)).u32(ifla::GROUP, DOOMED_GROUP);
    gone_or(socket.request(message, "deleting links"))
}

pub(crate) fn set_master(
    socket: &mut NetlinkSocket,
    name: &LinkName,
    master: Option<&LinkName>,
) -> Result<Applied, KernelError> {
    let index = match master {
        Some(master) => list::index(socket, master)?,
        None => 0,
    };
    let have = list::present(socket, name)?
        .master
        .map_or(0, |index| index.0);
    if have == index {
        return Ok(Applied::AlreadySo);
    }
    let message = change(name).u32(ifla::MASTER, index);
    socket
        .request(message, &format!("changing the bridge of {name}"))
        .map_err(|error| bridge_full(error, master))?;
    Ok(Applied::Changed)
}

pub(crate) fn set_state(
    socket: &mut NetlinkSocket,
    name: &LinkName,
    state: AdminState,
) -> Result<Applied, KernelError> {
    if list::present(socket, name)?.state == state {
        return Ok(Applied::AlreadySo);
    }
    let flags = if state == AdminState::Up { UP } else { 0 };
    let message = Message::new(SET_LINK, 0, &header(0, flags, UP)).text(ifla::NAME, name.as_str());
    socket.request(message, &format!("setting {name} up or down"))?;
    Ok(Applied::Changed)
}

pub(crate) fn set_mtu(
    socket: &mut NetlinkSocket,
    name: &LinkName,
    mtu: u32,
) -> Result<Applied, KernelError> {
    if list::present(socket, name)?.mtu == mtu {
        return Ok(Applied::AlreadySo);
    }
    let message = change(name).u32(ifla::MTU, mtu);
    socket.request(message, &format!("setting the MTU of {name} to {mtu}"))?;
    Ok(Applied::Changed)
}

pub(crate) fn set_alias(
    socket: &mut NetlinkSocket,
    name: &LinkName,
    alias: &LinkAlias,
) -> Result<Applied, KernelError> {
    if list::present(socket, name)?.alias.as_deref() == Some(alias.as_str()) {
        return Ok(Applied::AlreadySo);
    }
    let message = change(name).text(ifla::ALIAS, alias.as_str());
    socket.request(message, &format!("tagging {name}"))?;
    Ok(Applied::Changed)
}

pub(crate) fn add_altname(
    socket: &mut NetlinkSocket,
    name: &LinkName,
    altname: &str,
) -> Result<Applied, KernelError> {
    let message = Message::new(NEW_LINK_PROPERTY, CREATE | EXCLUSIVE, &header(0, 0, 0))
        .text(ifla::NAME, name.as_str())
        .nested(ifla::PROP_LIST, |m| m.text(ifla::ALT_NAME, altname));
    match socket.request(message, &format!("naming {name} also {altname}")) {
        Ok(()) => Ok(Applied::Changed),
        Err(KernelError::Exists { .. })
            if list::present(socket, name)?
                .altnames
                .iter()
                .any(|a| a == altname) =>
        {
            Ok(Applied::AlreadySo)
        }
        Err(error) => Err(error),
    }
}

pub(crate) fn rename(
    socket: &mut NetlinkSocket,
    name: &LinkName,
    to: &LinkName,
) -> Result<Applied, KernelError> {
    let Some(link) = list::link(socket, name)? else {
        list::present(socket, to)?;
        return Ok(Applied::AlreadySo);
    };
    let message =
        Message::new(SET_LINK, 0, &header(link.index.0, 0, 0)).text(ifla::NAME, to.as_str());
    socket.request(message, &format!("renaming {name} to {to}"))?;
    Ok(Applied::Changed)
}

pub(crate) fn set_port_flags(
    socket: &mut NetlinkSocket,
    name: &LinkName,
    flags: PortFlags,
) -> Result<Applied, KernelError> {
    let message = Message::new(NEW_LINK, 0, &header(0, 0, 0)).text(ifla::NAME, name.as_str());
    socket.request(
        port_flags(message, flags),
        &format!("setting port flags of {name}"),
    )?;
    Ok(Applied::Changed)
}

fn port_flags(message: Message, flags: PortFlags) -> Message {
    let PortFlags {
        isolated,
        hairpin,
        learning,
        unicast_flood,
    } = flags;
    if flags == PortFlags::default() {
        return message;
    }
    let number = |switch: Switch| u8::from(switch == Switch::On);
    message.nested(ifla::LINKINFO, |m| {
        m.text(info::PORT_KIND, "bridge")
            .nested(info::PORT_DATA, |m| {
                m.when(isolated, |m, s| m.u8(info::ISOLATED, number(s)))
                    .when(hairpin, |m, s| m.u8(info::HAIRPIN, number(s)))
                    .when(learning, |m, s| m.u8(info::LEARNING, number(s)))
                    .when(unicast_flood, |m, s| m.u8(info::UNICAST_FLOOD, number(s)))
            })
    })
}

pub(crate) fn move_to(
    socket: &mut NetlinkSocket,
    name: &LinkName,
    namespace: &Namespace,
) -> Result<Applied, KernelError> {
    let fd = u32::try_from(namespace.as_raw_fd()).unwrap_or(u32::MAX);
    let message = change(name).u32(ifla::NAMESPACE_FD, fd);
    socket.request(message, &format!("moving {name} into {namespace}"))?;
    Ok(Applied::Changed)
}
