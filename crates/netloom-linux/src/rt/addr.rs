//! Addresses of links.

use super::{INET, family_number, ip_of, link::gone_or, list, octets};
use crate::socket::NetlinkSocket;
use crate::wire::{CREATE, EXCLUSIVE, Malformed, Message, Received, array};
use crate::{Applied, KernelError, LinkAddress, LinkIndex};
use netloom_types::{Family, InterfaceAddr, LinkName};

/// `RTM_NEWADDR`.
const NEW_ADDRESS: u16 = 20;
/// `RTM_DELADDR`.
const DELETE_ADDRESS: u16 = 21;
/// `RTM_GETADDR`.
const GET_ADDRESS: u16 = 22;
/// `IFA_ADDRESS`.
const ADDRESS: u16 = 1;
/// `IFA_LOCAL`.
const LOCAL: u16 = 2;
/// `IFA_BROADCAST`.
const BROADCAST: u16 = 4;
/// `IFA_F_NODAD`: an address of ours is unique because an allocator gave it; duplicate address
/// detection would only keep it from being used for a second.
const NO_DUPLICATE_DETECTION: u8 = 2;
/// Bytes of `struct ifaddrmsg`.
const HEADER: usize = 8;

fn message(kind: u16, flags: u16, index: u32, address: InterfaceAddr) -> Message {
    let no_detection = match address.family() {
        Family::V4 => 0,
        Family::V6 => NO_DUPLICATE_DETECTION,
    };
    let [a, b, c, d] = index.to_ne_bytes();
    let family = family_number(address.family());
    let header = [family, address.prefix_len(), no_detection, 0, a, b, c, d];
    let ip = octets(address.ip());
    // As Docker's own driver does; a /31 (RFC 3021) and a /32 have no broadcast address.
    let broadcast = (address.family() == Family::V4 && address.prefix_len() < 31)
        .then(|| octets(address.subnet().last()));
    Message::new(kind, flags, &header)
        .bytes(LOCAL, &ip)
        .bytes(ADDRESS, &ip)
        .when(broadcast, |m, last| m.bytes(BROADCAST, &last))
}

pub(crate) fn add(
    socket: &mut NetlinkSocket,
    link: &LinkName,
    address: InterfaceAddr,
) -> Result<Applied, KernelError> {
    let index = list::index(socket, link)?;
    let message = message(NEW_ADDRESS, CREATE | EXCLUSIVE, index, address);
    match socket.request(message, &format!("adding {address} to {link}")) {
        Ok(()) => Ok(Applied::Changed),
        Err(KernelError::Exists { .. }) => Ok(Applied::AlreadySo),
        Err(error) => Err(error),
    }
}

pub(crate) fn delete(
    socket: &mut NetlinkSocket,
    link: &LinkName,
    address: InterfaceAddr,
) -> Result<Applied, KernelError> {
    let Some(link) = list::link(socket, link)? else {
        return Ok(Applied::AlreadySo);
    };
    let message = message(DELETE_ADDRESS, 0, link.index.0, address);
    gone_or(socket.request(message, &format!("deleting {address} from {}", link.name)))
}

pub(crate) fn addresses(socket: &mut NetlinkSocket) -> Result<Vec<LinkAddress>, KernelError> {
    let message = Message::new(GET_ADDRESS, 0, &[0; HEADER]);
    socket.dump(&message, "listing addresses", parse)
}

pub(crate) fn parse(received: &Received<'_>) -> Result<Option<LinkAddress>, Malformed> {
    if received.kind != NEW_ADDRESS {
        return Ok(None);
    }
    let cut = Malformed("the address header is cut off");
    let [family, prefix_len] = array::<2>(received.payload, 0).ok_or(cut)?;
    let link = array(received.payload, 4)
        .map(u32::from_ne_bytes)
        .ok_or(cut)?;
    if family != INET && family != super::INET6 {
        return Ok(None);
    }
    let attributes = received.attributes(HEADER)?;
    // On a point-to-point link IFA_ADDRESS is the other side; IFA_LOCAL is always ours.
    let bytes = attributes.get(LOCAL).or_else(|| attributes.get(ADDRESS));
    let ip = ip_of(bytes.ok_or(Malformed("an address message has no address"))?)?;
    let address = InterfaceAddr::new(ip, prefix_len)
        .map_err(|_| Malformed("a prefix is longer than its address"))?;
    Ok(Some(LinkAddress {
        link: LinkIndex(link),
        address,
    }))
}
