//! Links as the kernel lists them.

use crate::socket::NetlinkSocket;
use crate::wire::{Attributes, Malformed, Message, Received, array, text};
use crate::{AdminState, Carrier, KernelError, Link, LinkIndex};
use netloom_types::{LinkName, MacAddr};

/// `RTM_NEWLINK`.
const NEW_LINK: u16 = 16;
/// `RTM_GETLINK`.
const GET_LINK: u16 = 18;
/// `RTEXT_FILTER_SKIP_STATS`: counters are half of an answer, and nobody here reads them.
const SKIP_STATISTICS: u32 = 8;
/// `IFF_UP`.
pub(super) const UP: u32 = 1;
/// `IFF_LOWER_UP`.
const LOWER_UP: u32 = 1 << 16;

/// Numbers of `linux/if_link.h` (`IFLA_*`).
pub(super) mod ifla {
    pub(in crate::rt) const ADDRESS: u16 = 1;
    pub(in crate::rt) const NAME: u16 = 3;
    pub(in crate::rt) const MTU: u16 = 4;
    pub(in crate::rt) const LINK: u16 = 5;
    pub(in crate::rt) const MASTER: u16 = 10;
    pub(in crate::rt) const LINKINFO: u16 = 18;
    pub(in crate::rt) const ALIAS: u16 = 20;
    pub(in crate::rt) const GROUP: u16 = 27;
    pub(in crate::rt) const NAMESPACE_FD: u16 = 28;
    pub(in crate::rt) const EXT_MASK: u16 = 29;
    pub(in crate::rt) const LINK_NAMESPACE: u16 = 37;
    pub(in crate::rt) const PROP_LIST: u16 = 52;
    pub(in crate::rt) const ALT_NAME: u16 = 53;
    /// `IFLA_INFO_KIND`.
    pub(in crate::rt) const INFO_KIND: u16 = 1;
}

/// Bytes of `struct ifinfomsg`.
const HEADER: usize = 16;

/// `struct ifinfomsg`: the link by number (0 means by name), and the flags to change.
pub(super) fn header(index: u32, flags: u32, change: u32) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    let parts = [index, flags, change];
    for (chunk, part) in bytes.chunks_exact_mut(4).skip(1).zip(parts) {
        chunk.copy_from_slice(&part.to_ne_bytes());
    }
    bytes
}

pub(crate) fn links(socket: &mut NetlinkSocket) -> Result<Vec<Link>, KernelError> {
    let message = Message::new(GET_LINK, 0, &header(0, 0, 0)).u32(ifla::EXT_MASK, SKIP_STATISTICS);
    socket.dump(&message, "listing links", parse)
}

pub(crate) fn link(
    socket: &mut NetlinkSocket,
    name: &LinkName,
) -> Result<Option<Link>, KernelError> {
    let message = Message::new(GET_LINK, 0, &header(0, 0, 0))
        .u32(ifla::EXT_MASK, SKIP_STATISTICS)
        .text(ifla::NAME, name.as_str());
    match socket.exchange(message, &format!("reading link {name}"), parse) {
        Err(error) if error.is_not_found() => Ok(None),
        other => other,
    }
}

/// The number of a link that must be there.
pub(crate) fn index(socket: &mut NetlinkSocket, name: &LinkName) -> Result<u32, KernelError> {
    present(socket, name).map(|link| link.index.0)
}

/// A link that must be there.
pub(crate) fn present(socket: &mut NetlinkSocket, name: &LinkName) -> Result<Link, KernelError> {
    link(socket, name)?.ok_or_else(|| KernelError::NotFound {
        what: format!("link {name}"),
    })
}

pub(crate) fn parse(received: &Received<'_>) -> Result<Option<Link>, Malformed> {
    if received.kind != NEW_LINK {
        return Ok(None);
    }
    let cut = Malformed("the link header is cut off");
    let word = |at| {
        array(received.payload, at)
            .map(u32::from_ne_bytes)
            .ok_or(cut)
    };
    let (index, flags) = (word(4)?, word(8)?);
    let attributes = received.attributes(HEADER)?;
    let info = attributes.inside(ifla::LINKINFO).unwrap_or_default();
    Ok(Some(Link {
        index: LinkIndex(index),
        name: attributes
            .text(ifla::NAME)
            .ok_or(Malformed("a link has no name"))?,
        kind: info.text(ifla::INFO_KIND),
        state: if flags & UP == 0 {
            AdminState::Down
        } else {
            AdminState::Up
        },
        carrier: if flags & LOWER_UP == 0 {
            Carrier::Off
        } else {
            Carrier::On
        },
        mac: attributes.get(ifla::ADDRESS).and_then(mac_of),
        mtu: attributes.u32(ifla::MTU).unwrap_or(0),
        master: attributes.u32(ifla::MASTER).map(LinkIndex),
        peer: attributes
            .u32(ifla::LINK)
            .filter(|i| *i != 0)
            .map(LinkIndex),
        peer_namespace: attributes.i32(ifla::LINK_NAMESPACE),
        alias: attributes.text(ifla::ALIAS).filter(|a| !a.is_empty()),
        altnames: altnames(&attributes),
        group: attributes.u32(ifla::GROUP).unwrap_or(0),
    }))
}

pub(super) fn mac_of(bytes: &[u8]) -> Option<MacAddr> {
    <[u8; 6]>::try_from(bytes).ok().map(MacAddr::new)
}

fn altnames(attributes: &Attributes<'_>) -> Vec<String> {
    let list = attributes.inside(ifla::PROP_LIST).unwrap_or_default();
    list.iter()
        .filter(|(kind, _)| *kind == ifla::ALT_NAME)
        .map(|(_, name)| text(name))
        .collect()
}
