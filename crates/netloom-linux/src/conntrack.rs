//! Connection tracking entries (ctnetlink): found by address and port, and deleted.
//!
//! Translation is decided once per connection. When a published port or an address goes to
//! another container, entries of the old one would keep sending packets to it, for UDP for as
//! long as anyone sends.

use crate::rt::{family_number, ip_of};
use crate::socket::NetlinkSocket;
use crate::wire::{Attributes, Malformed, Message, Received};
use crate::{ConntrackFilter, KernelError};
use netloom_types::{Family, Protocol};
use nix::sys::socket::SockProtocol;
use std::net::IpAddr;

/// `NFNL_SUBSYS_CTNETLINK << 8`.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_NEW`.
const NEW: u16 = SUBSYSTEM;
/// `IPCTNL_MSG_CT_GET`.
const GET: u16 = SUBSYSTEM | 1;
/// `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = SUBSYSTEM | 2;
/// `CTA_TUPLE_ORIG`.
const ORIGINAL: u16 = 1;
/// `CTA_TUPLE_REPLY`.
const REPLY: u16 = 2;
/// `CTA_ID`: tells an entry from a later one with the same tuple.
const ID: u16 = 12;
/// `NLA_F_NESTED`, which the kernel wants on a tuple that is sent back to it.
const NESTED: u16 = 0x8000;
/// Bytes of `struct nfgenmsg`.
const HEADER: usize = 4;

pub(crate) fn open() -> Result<NetlinkSocket, KernelError> {
    NetlinkSocket::open(SockProtocol::NetlinkNetFilter, 0)
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: Option<Protocol>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
}

impl Tuple {
    fn parse(attributes: &Attributes<'_>) -> Option<Self> {
        let ip = attributes.inside(1)?;
        let proto = attributes.inside(2)?;
        let address = |v4, v6| ip_of(ip.get(v4).or_else(|| ip.get(v6))?).ok();
        Some(Self {
            source: address(1, 3)?,
            destination: address(2, 4)?,
            protocol: proto
                .get(1)
                .and_then(|b| b.first())
                .and_then(|number| Protocol::from_number(*number)),
            source_port: proto.be16(2),
            destination_port: proto.be16(3),
        })
    }
}

fn matches(filter: &ConntrackFilter, original: &Tuple, reply: &Tuple) -> bool {
    let ConntrackFilter {
        protocol,
        original_destination,
        original_port,
        reply_source,
        reply_port,
        original_source,
    } = filter;
    protocol.is_none_or(|p| original.protocol == Some(p))
        && original_destination.is_none_or(|ip| original.destination == ip)
        && original_port.is_none_or(|port| original.destination_port == Some(port))
        && reply_source.is_none_or(|ip| reply.source == ip)
        && reply_port.is_none_or(|port| reply.source_port == Some(port))
        && original_source.is_none_or(|ip| original.source == ip)
}

/// Deletes every entry that matches, and gives their number.
pub(crate) fn flush(
    socket: &mut NetlinkSocket,
    family: Family,
    filter: &ConntrackFilter,
) -> Result<usize, KernelError> {
    let header = [family_number(family), 0, 0, 0];
    let list = Message::new(GET, 0, &header);
    let doomed = socket.dump(&list, "listing connections", |received| {
        select(received, filter)
    })?;
    let mut flushed = 0_usize;
    for (tuple, id) in doomed {
        let mut message = Message::new(DELETE, 0, &header);
        message.put(ORIGINAL | NESTED, &tuple);
        let message = message.when(id, |m, id| m.bytes(ID, &id));
        match socket.request(message, "deleting a connection") {
            Ok(()) => flushed = flushed.saturating_add(1),
            Err(error) if error.is_not_found() => {} // it ended by itself
            Err(error) => return Err(error),
        }
    }
    Ok(flushed)
}

/// The raw original tuple and id of an entry that matches.
pub(crate) type Doomed = (Vec<u8>, Option<Vec<u8>>);

pub(crate) fn select(
    received: &Received<'_>,
    filter: &ConntrackFilter,
) -> Result<Option<Doomed>, Malformed> {
    if received.kind != NEW {
        return Ok(None);
    }
    let attributes = received.attributes(HEADER)?;
    let tuple = |kind| attributes.inside(kind).and_then(|t| Tuple::parse(&t));
    let (Some(original), Some(reply)) = (tuple(ORIGINAL), tuple(REPLY)) else {
        return Ok(None);
    };
    if !matches(filter, &original, &reply) {
        return Ok(None);
    }
    let raw = attributes.get(ORIGINAL).unwrap_or_default().to_vec();
    Ok(Some((raw, attributes.get(ID).map(<[u8]>::to_vec))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_given_field_must_match() {
        let original = Tuple {
            source: "10.0.0.9".parse().unwrap(),
            destination: "192.0.2.1".parse().unwrap(),
            protocol: Some(Protocol::Udp),
            source_port: Some(40_000),
            destination_port: Some(53),
        };
        let reply = Tuple {
            source: "172.20.0.2".parse().unwrap(),
            destination: "10.0.0.9".parse().unwrap(),
            protocol: Some(Protocol::Udp),
            source_port: Some(5353),
            destination_port: Some(40_000),
        };
        let mut filter = ConntrackFilter::default();
        assert!(matches(&filter, &original, &reply));
        filter.original_port = Some(53);
        filter.reply_source = Some("172.20.0.2".parse().unwrap());
        assert!(matches(&filter, &original, &reply));
        filter.reply_port = Some(53);
        assert!(!matches(&filter, &original, &reply));
    }
}
