//! rtnetlink (RFC 3549; `linux/rtnetlink.h`): links, addresses, routes, neighbours.
//!
//! The functions take a socket, so that the same code serves the host and, on a thread that
//! entered it, a container's namespace.

pub(crate) mod addr;
pub(crate) mod link;
pub(crate) mod list;
pub(crate) mod neigh;
pub(crate) mod route;

use crate::KernelError;
use crate::socket::NetlinkSocket;
use crate::wire::Malformed;
use netloom_types::Family;
use nix::sys::socket::SockProtocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `AF_INET`.
const INET: u8 = 2;
/// `AF_INET6`.
const INET6: u8 = 10;

/// A socket for links, addresses and routes of the calling thread's namespace.
pub(crate) fn open() -> Result<NetlinkSocket, KernelError> {
    NetlinkSocket::open(SockProtocol::NetlinkRoute, 0)
}

pub(crate) fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => INET,
        Family::V6 => INET6,
    }
}

pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Four bytes are IPv4, sixteen IPv6, others are not an address.
pub(crate) fn ip_of(bytes: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    <[u8; 16]>::try_from(bytes)
        .map(|v6| IpAddr::V6(Ipv6Addr::from(v6)))
        .map_err(|_| Malformed("an address has neither 4 nor 16 bytes"))
}
