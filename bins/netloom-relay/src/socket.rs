//! The sockets that reserve ports.

use netloom_drivers::relay::{Refusal, Reservation};
use netloom_types::Protocol;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen,
    setsockopt, socket, sockopt,
};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// Connections that wait for the relay; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A socket that keeps a port.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Listening.
    Tcp(tokio::net::TcpListener),
    /// Bound.
    Udp(tokio::net::UdpSocket),
    /// Listening; nobody accepts, as loopback is not carried for this protocol.
    Sctp(#[allow(dead_code, reason = "it is held for its port alone")] OwnedFd),
    /// The kernel has no such protocol.
    Unsupported,
}

/// Why a port could not be taken.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) reason: String,
}

/// Takes the port.
pub(crate) fn keep(port: &Reservation) -> Result<Kept, Refused> {
    take(port).map_err(|errno| Refused {
        refusal: match errno {
            nix::Error::EADDRINUSE => Refusal::InUse,
            nix::Error::EADDRNOTAVAIL => Refusal::NoSuchAddress,
            _ => Refusal::Other,
        },
        reason: errno.desc().to_owned(),
    })
}

fn take(port: &Reservation) -> Result<Kept, nix::Error> {
    let (kind, protocol) = match port.protocol {
        Protocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        Protocol::Sctp => return take_sctp(port.host),
    };
    let family = family_of(port.host);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, kind, flags, protocol)?;
    prepare(&fd, port.host)?;
    if port.protocol == Protocol::Udp {
        let socket = tokio::net::UdpSocket::from_std(fd.into()).map_err(errno_of)?;
        return Ok(Kept::Udp(socket));
    }
    listen(&fd, Backlog::new(BACKLOG)?)?;
    let listener = tokio::net::TcpListener::from_std(fd.into()).map_err(errno_of)?;
    Ok(Kept::Tcp(listener))
}

fn take_sctp(host: SocketAddr) -> Result<Kept, nix::Error> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let made = socket(family_of(host), SockType::Stream, flags, SockProtocol::Sctp);
    let fd = match made {
        Ok(fd) => fd,
        Err(
            nix::Error::EPROTONOSUPPORT | nix::Error::ESOCKTNOSUPPORT | nix::Error::EAFNOSUPPORT,
        ) => return Ok(Kept::Unsupported),
        Err(errno) => return Err(errno),
    };
    prepare(&fd, host)?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(Kept::Sctp(fd))
}

fn family_of(host: SocketAddr) -> AddressFamily {
    match host {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn prepare(fd: &OwnedFd, host: SocketAddr) -> Result<(), nix::Error> {
    if host.is_ipv6() {
        // Else `[::]:80` would take 0.0.0.0:80 as well, which may be another container's.
        setsockopt(fd, sockopt::Ipv6V6Only, &true)?;
    }
    // Connections that are closing must not keep the port from being taken again.
    setsockopt(fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(host))
}

fn errno_of(error: std::io::Error) -> nix::Error {
    nix::Error::try_from(error).unwrap_or(nix::Error::EIO)
}
