//! nfnetlink transactions: all messages between a begin and an end take effect together, or none.

use super::Layer;
use crate::KernelError;
use crate::socket::{NetlinkSocket, refused};
use crate::wire::{ACK, Acknowledgement, CREATE, Message, REQUEST, Received, array};
use nix::sys::socket::SockProtocol;

/// `NFNL_SUBSYS_NFTABLES << 8`.
const SUBSYSTEM: u16 = 10 << 8;
/// `NFNL_MSG_BATCH_BEGIN`.
const BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
const END: u16 = 0x11;
/// `NFNL_BATCH_GENID`.
const GENERATION: u16 = 1;
/// `NFTA_GEN_ID`.
const GENERATION_ID: u16 = 1;
/// Bytes of `struct nfgenmsg`.
pub(crate) const HEADER: usize = 4;

/// Messages of nftables (`enum nf_tables_msg_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NewTable = 0,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    DeleteRule = 8,
    NewSet = 9,
    GetSet = 10,
    NewElement = 12,
    GetElement = 13,
    DeleteElement = 14,
    NewGeneration = 15,
    GetGeneration = 16,
}

impl Kind {
    pub(crate) fn number(self) -> u16 {
        SUBSYSTEM | self as u16
    }

    /// Whether a received message is of this kind.
    pub(crate) fn is(self, received: &Received<'_>) -> bool {
        received.kind == self.number()
    }
}

/// A message of nftables for a table family.
pub(crate) fn message(kind: Kind, flags: u16, family: Layer) -> Message {
    Message::new(kind.number(), flags | REQUEST, &[family as u8, 0, 0, 0])
}

pub(crate) fn open() -> Result<NetlinkSocket, KernelError> {
    NetlinkSocket::open(SockProtocol::NetlinkNetFilter, 0)
}

/// The family byte of a received message.
pub(crate) fn family_of(received: &Received<'_>) -> u8 {
    array::<1>(received.payload, 0).map_or(0, |[family]| family)
}

/// The number of the ruleset's present state; every transaction of anyone makes a new one.
pub(crate) fn generation(socket: &mut NetlinkSocket) -> Result<u32, KernelError> {
    let message = Message::new(Kind::GetGeneration.number(), 0, &[0; HEADER]);
    let found = socket.exchange(message, "reading the ruleset generation", |received| {
        Ok(received.attributes(HEADER)?.be32(GENERATION_ID))
    })?;
    found.ok_or_else(|| KernelError::Malformed {
        what: "reading the ruleset generation".into(),
        reason: "it has no number",
    })
}

/// A transaction under construction.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    messages: Vec<Message>,
}

impl Batch {
    pub(crate) fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Commits; when the ruleset is not of the given generation any more,
    /// [`KernelError::Disturbed`].
    pub(crate) fn commit(
        self,
        socket: &mut NetlinkSocket,
        generation: Option<u32>,
        what: &str,
    ) -> Result<(), KernelError> {
        for (_, acknowledgement) in self.send(socket, generation, what)? {
            refused(acknowledgement, what)?;
        }
        Ok(())
    }

    /// Sends the transaction and gives what the kernel said to single messages, counted from
    /// zero. It was committed when nothing in the list is an error.
    pub(crate) fn send(
        mut self,
        socket: &mut NetlinkSocket,
        generation: Option<u32>,
        what: &str,
    ) -> Result<Vec<(usize, Acknowledgement)>, KernelError> {
        let Some(last) = self.messages.last_mut() else {
            return Ok(Vec::new());
        };
        last.add_flags(ACK);
        let subsystem = [0, 0, 0, 10];
        let begin = Message::new(BEGIN, REQUEST, &subsystem)
            .when(generation, |m, number| m.be32(GENERATION, number));
        let last = self.messages.len();
        let mut all = Vec::with_capacity(last.saturating_add(2));
        all.push(begin);
        all.append(&mut self.messages);
        all.push(Message::new(END, REQUEST, &subsystem));
        let answers = socket.batch(all, last, what)?;
        let mut single = Vec::with_capacity(answers.len());
        for (at, acknowledgement) in answers {
            match at.checked_sub(1) {
                Some(at) => single.push((at, acknowledgement)),
                // An answer to the begin concerns the whole transaction.
                None => refused(acknowledgement, what)?,
            }
        }
        Ok(single)
    }
}

/// Flags of a message that makes something.
pub(crate) const MAKE: u16 = CREATE;
