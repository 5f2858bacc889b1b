//! Notices when someone else changes what we rely on.
//!
//! A notification is a hint: it says that something may have changed, and the listener compares
//! the kernel with what it wants. What is lost when the queue overruns is a hint, too.

use crate::KernelError;
use crate::nft::TABLE;
use crate::nft::batch::{HEADER, Kind};
use crate::rt::link::OUR_GROUP;
use crate::socket::{NetlinkSocket, ReceiveError, malformed};
use crate::wire::{Malformed, Received, array, messages};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::SockProtocol;
use std::os::fd::AsFd;
use std::time::Duration;

/// `1 << (NFNLGRP_NFTABLES - 1)`.
const NFTABLES_GROUP: u32 = 1 << 6;
/// `1 << (RTNLGRP_LINK - 1)`.
const LINK_GROUP: u32 = 1;
/// `RTM_NEWLINK`.
const NEW_LINK: u16 = 16;
/// `RTM_DELLINK`.
const DELETE_LINK: u16 = 17;
/// Bytes of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// `IFF_UP`.
const UP: u32 = 1;
/// `IFLA_GROUP`.
const GROUP: u16 = 27;
/// The chain of iptables that our accepts stand in.
const DOCKER_USER: &str = "DOCKER-USER";

/// What may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// Someone else changed our tables or DOCKER-USER, or notifications were lost.
    Ruleset,
    /// A link of ours went away or was set down, or notifications were lost.
    Links,
}

/// Listens for changes by others; made by [`crate::LinuxKernel::monitor`].
///
/// Of the ruleset, changes through that kernel are not told; of links, our own are told, too.
#[derive(Debug)]
pub struct Monitor {
    ruleset: NetlinkSocket,
    links: NetlinkSocket,
    /// The port of our own changes.
    own_port: u32,
    /// The transaction that is being read touches something of ours.
    touched: Touched,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touched {
    Yes,
    No,
}

impl Monitor {
    /// Subscribes; changes of the ruleset through the socket with `own_port` are not told.
    pub(crate) fn open(own_port: u32) -> Result<Self, KernelError> {
        Ok(Self {
            ruleset: NetlinkSocket::open(SockProtocol::NetlinkNetFilter, NFTABLES_GROUP)?,
            links: NetlinkSocket::open(SockProtocol::NetlinkRoute, LINK_GROUP)?,
            own_port,
            touched: Touched::No,
        })
    }

    /// Waits until something may have changed, at most `timeout`; none when nothing did.
    ///
    /// Notifications that concern others are read and skipped, so a call may return before the
    /// time is over with none; callers call again.
    ///
    /// # Errors
    /// When the sockets fail.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<Change>, KernelError> {
        let what = "waiting for changes of the kernel";
        let mut fds = [
            PollFd::new(self.ruleset.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.links.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(KernelError::io(what, errno)),
        }
        let [ruleset, links] = fds.map(|fd| fd.any().unwrap_or(false));
        if ruleset && self.read_ruleset(what)? == Touched::Yes {
            return Ok(Some(Change::Ruleset));
        }
        if links && self.read_links(what)? == Touched::Yes {
            return Ok(Some(Change::Links));
        }
        Ok(None)
    }

    fn read_ruleset(&mut self, what: &str) -> Result<Touched, KernelError> {
        let datagram = match self.ruleset.receive(what) {
            Ok(datagram) => datagram,
            Err(ReceiveError::Overrun) => return Ok(Touched::Yes),
            Err(ReceiveError::TimedOut) => return Ok(Touched::No),
            Err(ReceiveError::Other(error)) => return Err(error),
        };
        let mut result = Touched::No;
        for received in messages(datagram).map_err(|error| malformed(what, error))? {
            // A transaction ends with the new generation.
            if Kind::NewGeneration.is(&received) {
                if self.touched == Touched::Yes && received.port != self.own_port {
                    result = Touched::Yes;
                }
                self.touched = Touched::No;
            } else if concerns_us(&received).map_err(|error| malformed(what, error))?
                == Touched::Yes
            {
                self.touched = Touched::Yes;
            }
        }
        Ok(result)
    }

    fn read_links(&mut self, what: &str) -> Result<Touched, KernelError> {
        let datagram = match self.links.receive(what) {
            Ok(datagram) => datagram,
            Err(ReceiveError::Overrun) => return Ok(Touched::Yes),
            Err(ReceiveError::TimedOut) => return Ok(Touched::No),
            Err(ReceiveError::Other(error)) => return Err(error),
        };
        for received in messages(datagram).map_err(|error| malformed(what, error))? {
            if link_lost(&received).map_err(|error| malformed(what, error))? == Touched::Yes {
                return Ok(Touched::Yes);
            }
        }
        Ok(Touched::No)
    }
}

/// Whether an object of a transaction is in our tables, or is DOCKER-USER or in it.
pub(crate) fn concerns_us(received: &Received<'_>) -> Result<Touched, Malformed> {
    let attributes = received.attributes(HEADER)?;
    // Every object names its table first; a chain its name third, a rule its chain second.
    let ours = attributes.text(1).as_deref() == Some(TABLE)
        || [2, 3]
            .iter()
            .any(|kind| attributes.text(*kind).as_deref() == Some(DOCKER_USER));
    Ok(if ours { Touched::Yes } else { Touched::No })
}

/// Whether a link of ours was removed or set down.
pub(crate) fn link_lost(received: &Received<'_>) -> Result<Touched, Malformed> {
    let attributes = received.attributes(LINK_HEADER)?;
    if attributes.u32(GROUP) != Some(OUR_GROUP) {
        return Ok(Touched::No);
    }
    let flags = array(received.payload, 8)
        .map(u32::from_ne_bytes)
        .ok_or(Malformed("the link header is cut off"))?;
    Ok(match received.kind {
        DELETE_LINK => Touched::Yes,
        NEW_LINK if flags & UP == 0 => Touched::Yes,
        _ => Touched::No,
    })
}
