//! A netlink socket with time-outs: one request, one dump, or one batch at a time.

use crate::KernelError;
use crate::wire::{
    ACK, Acknowledgement, DUMP, DUMP_INTERRUPTED, MESSAGE_DONE, MESSAGE_ERROR, Malformed, Message,
    REQUEST, Received, messages,
};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    recvfrom, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The kernel answers in microseconds; only a host whose network lock is held for seconds (large
/// namespaces being torn down) comes near this.
const ANSWER_SECONDS: i64 = 10;
/// Larger than any datagram of the kernel: dumps are cut at 32 KiB (`NLMSG_GOODSIZE` and the
/// cap in `netlink_dump`), single answers at one page for what we ask.
const RECEIVE_BYTES: usize = 65_536;
/// Room for the acknowledgements of a batch whose every message was refused.
const RECEIVE_QUEUE_BYTES: usize = 4 << 20;
/// A dump is repeated that often when others change the same tables meanwhile.
const DUMP_TRIES: u32 = 8;

mod options {
    use super::libc;
    // Acknowledgements carry the kernel's words.
    nix::setsockopt_impl!(
        ExtendedAck,
        libc::SOL_NETLINK,
        libc::NETLINK_EXT_ACK,
        bool,
        nix::sys::socket::sockopt::SetBool
    );
    // Acknowledgements do not repeat the request.
    nix::setsockopt_impl!(
        CapAck,
        libc::SOL_NETLINK,
        libc::NETLINK_CAP_ACK,
        bool,
        nix::sys::socket::sockopt::SetBool
    );
    #[derive(Clone, Copy, Debug)]
    pub(super) struct ExtendedAck;
    #[derive(Clone, Copy, Debug)]
    pub(super) struct CapAck;
}

/// A netlink socket of the namespace in which the opening thread was.
#[derive(Debug)]
pub(crate) struct NetlinkSocket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl NetlinkSocket {
    /// Opens a socket; `groups` is a mask of multicast groups to join.
    pub(crate) fn open(protocol: SockProtocol, groups: u32) -> Result<Self, KernelError> {
        let what = "opening a netlink socket";
        let io = |errno: nix::Error| KernelError::io(what, errno);
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )
        .map_err(io)?;
        setsockopt(&fd, options::ExtendedAck, &true).map_err(io)?;
        setsockopt(&fd, options::CapAck, &true).map_err(io)?;
        // Without CAP_NET_ADMIN in the first user namespace the queue stays at its default; then
        // a large refused batch may end in ENOBUFS, which is handled.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_QUEUE_BYTES);
        let socket = Self {
            fd,
            sequence: 0,
            buffer: vec![0; RECEIVE_BYTES],
        };
        socket.set_timeout(TimeVal::new(ANSWER_SECONDS, 0))?;
        bind(socket.fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(io)?;
        Ok(socket)
    }

    /// The port that the kernel knows this socket by.
    pub(crate) fn port(&self) -> Result<u32, KernelError> {
        getsockname::<NetlinkAddr>(self.fd.as_raw_fd())
            .map(|address| address.pid())
            .map_err(|errno| KernelError::io("reading a socket's port", errno))
    }

    pub(crate) fn set_timeout(&self, timeout: TimeVal) -> Result<(), KernelError> {
        setsockopt(&self.fd, sockopt::ReceiveTimeout, &timeout)
            .map_err(|errno| KernelError::io("setting a netlink time-out", errno))
    }

    /// Takes `count` sequence numbers and gives the first.
    fn next_sequence(&mut self, count: u32) -> u32 {
        // Zero marks notifications, so numbers begin at one again before they could wrap.
        let first = match self.sequence.checked_add(count) {
            Some(_) => self.sequence.saturating_add(1),
            None => 1,
        };
        self.sequence = first.saturating_add(count).saturating_sub(1);
        first
    }

    fn send(&self, bytes: &[u8], what: &str) -> Result<(), KernelError> {
        let kernel = NetlinkAddr::new(0, 0);
        match sendto(self.fd.as_raw_fd(), bytes, &kernel, MsgFlags::empty()) {
            Ok(_) => Ok(()),
            Err(errno) => Err(KernelError::io(format!("sending a request: {what}"), errno)),
        }
    }

    /// Receives one datagram from the kernel itself.
    pub(crate) fn receive(&mut self, what: &str) -> Result<&[u8], ReceiveError> {
        loop {
            let received = recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut self.buffer);
            match received {
                // Another process may send to our port; only port 0 is the kernel.
                Ok((_, Some(from))) if from.pid() != 0 => {}
                Ok((len, _)) if len >= self.buffer.len() => {
                    return Err(ReceiveError::Other(malformed(
                        what,
                        Malformed("it is longer than the buffer"),
                    )));
                }
                Ok((len, _)) => return Ok(self.buffer.get(..len).unwrap_or_default()),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::ENOBUFS) => return Err(ReceiveError::Overrun),
                Err(nix::Error::EAGAIN) => return Err(ReceiveError::TimedOut),
                Err(errno) => {
                    return Err(ReceiveError::Other(KernelError::io(
                        format!("receiving the answer to {what}"),
                        errno,
                    )));
                }
            }
        }
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn request(&mut self, message: Message, what: &str) -> Result<(), KernelError> {
        self.exchange(message, what, |_| Ok(None::<()>)).map(|_| ())
    }

    /// Sends one request, waits for its acknowledgement, and gives what `parse` made of the
    /// answer before it.
    pub(crate) fn exchange<T>(
        &mut self,
        mut message: Message,
        what: &str,
        mut parse: impl FnMut(&Received<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Option<T>, KernelError> {
        message.add_flags(REQUEST | ACK);
        let sequence = self.next_sequence(1);
        let bytes = message
            .finish(sequence)
            .map_err(|error| malformed(what, error))?;
        self.send(&bytes, what)?;
        let mut answer = None;
        loop {
            let datagram = self
                .receive(what)
                .map_err(|error| error.into_kernel(what))?;
            for message in messages(datagram).map_err(|error| malformed(what, error))? {
                if message.sequence != sequence {
                    continue; // the late answer to a request that timed out
                }
                if message.kind != MESSAGE_ERROR {
                    let parsed = parse(&message).map_err(|error| malformed(what, error))?;
                    answer = parsed.or(answer);
                    continue;
                }
                check(&message, what)?;
                return Ok(answer);
            }
        }
    }

    /// Asks for a whole table; repeats when the answer was not consistent.
    pub(crate) fn dump<T>(
        &mut self,
        message: &Message,
        what: &str,
        mut parse: impl FnMut(&Received<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, KernelError> {
        for _ in 0..DUMP_TRIES {
            let mut all = Vec::new();
            match self.dump_once(message, what, &mut |received| {
                all.extend(parse(received)?);
                Ok(())
            })? {
                Dump::Consistent => return Ok(all),
                Dump::Disturbed => {}
            }
        }
        Err(KernelError::Disturbed {
            what: what.to_owned(),
        })
    }

    fn dump_once(
        &mut self,
        message: &Message,
        what: &str,
        take: &mut dyn FnMut(&Received<'_>) -> Result<(), Malformed>,
    ) -> Result<Dump, KernelError> {
        let mut message = message.clone();
        message.add_flags(REQUEST | DUMP);
        let sequence = self.next_sequence(1);
        let bytes = message
            .finish(sequence)
            .map_err(|error| malformed(what, error))?;
        self.send(&bytes, what)?;
        let mut disturbed = false;
        loop {
            let datagram = match self.receive(what) {
                Ok(datagram) => datagram,
                // What was lost is not known, so the whole dump is asked for again; the next one
                // has a new sequence number, which skips the rest of this one.
                Err(ReceiveError::Overrun) => return Ok(Dump::Disturbed),
                Err(error) => return Err(error.into_kernel(what)),
            };
            for received in messages(datagram).map_err(|error| malformed(what, error))? {
                if received.sequence != sequence {
                    continue;
                }
                disturbed |= received.flags & DUMP_INTERRUPTED != 0;
                match received.kind {
                    MESSAGE_DONE | MESSAGE_ERROR => {
                        return match check(&received, what) {
                            Err(KernelError::Disturbed { .. }) => Ok(Dump::Disturbed),
                            Err(error) => Err(error),
                            Ok(()) if disturbed => Ok(Dump::Disturbed),
                            Ok(()) => Ok(Dump::Consistent),
                        };
                    }
                    _ => take(&received).map_err(|error| malformed(what, error))?,
                }
            }
        }
    }

    /// Sends messages as one datagram and gives the acknowledgements that came, by their place in
    /// `batch`, until that of the last message, or any of the first, is there.
    ///
    /// Only the last message should ask for an acknowledgement: the kernel reports errors of the
    /// others by itself, and a success each would overrun the receive queue.
    pub(crate) fn batch(
        &mut self,
        batch: Vec<Message>,
        last: usize,
        what: &str,
    ) -> Result<Vec<(usize, Acknowledgement)>, KernelError> {
        let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let first = self.next_sequence(count);
        let mut bytes = Vec::new();
        for (at, message) in (first..).zip(batch) {
            let message = message.finish(at).map_err(|error| malformed(what, error))?;
            bytes.extend(message);
        }
        self.send(&bytes, what)?;
        let mut all = Vec::new();
        loop {
            let datagram = self
                .receive(what)
                .map_err(|error| error.into_kernel(what))?;
            for received in messages(datagram).map_err(|error| malformed(what, error))? {
                let at = received
                    .sequence
                    .checked_sub(first)
                    .filter(|at| *at < count)
                    .and_then(|at| usize::try_from(at).ok());
                let (Some(at), MESSAGE_ERROR) = (at, received.kind) else {
                    continue;
                };
                let acknowledgement = received
                    .acknowledgement()
                    .map_err(|error| malformed(what, error))?;
                all.push((at, acknowledgement));
                if at == last || at == 0 {
                    return Ok(all);
                }
            }
        }
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a dump saw one state of the table.
enum Dump {
    Consistent,
    Disturbed,
}

/// Why nothing was received.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    /// The receive queue overran; messages were lost.
    Overrun,
    /// Nothing came in time.
    TimedOut,
    /// Anything else.
    Other(KernelError),
}

impl ReceiveError {
    pub(crate) fn into_kernel(self, what: &str) -> KernelError {
        let what = what.to_owned();
        match self {
            // Either way the answer did not come, and what was done must be read again.
            Self::Overrun | Self::TimedOut => KernelError::TimedOut { what },
            Self::Other(error) => error,
        }
    }
}

pub(crate) fn malformed(what: &str, error: Malformed) -> KernelError {
    KernelError::Malformed {
        what: what.to_owned(),
        reason: error.0,
    }
}

fn check(received: &Received<'_>, what: &str) -> Result<(), KernelError> {
    let acknowledgement = received
        .acknowledgement()
        .map_err(|error| malformed(what, error))?;
    refused(acknowledgement, what)
}

/// An acknowledgement as a result.
pub(crate) fn refused(acknowledgement: Acknowledgement, what: &str) -> Result<(), KernelError> {
    match acknowledgement.errno {
        0 => Ok(()),
        errno => Err(KernelError::from_errno(
            what,
            nix::Error::from_raw(errno),
            acknowledgement.text,
        )),
    }
}
