//! The netlink wire form (RFC 3549 section 2): messages, attributes, acknowledgements.
//!
//! Building never fails half way: a length that does not fit is remembered and refused when the
//! message is finished. Reading treats every byte as hostile: lengths are checked against what is
//! there, and nothing panics.

/// `NLM_F_REQUEST`.
pub(crate) const REQUEST: u16 = 0x01;
/// `NLM_F_ACK`.
pub(crate) const ACK: u16 = 0x04;
/// `NLM_F_DUMP_INTR`: the dump is not consistent.
pub(crate) const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_DUMP` (`NLM_F_ROOT | NLM_F_MATCH`).
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_EXCL`.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(crate) const APPEND: u16 = 0x800;

/// `NLMSG_ERROR`.
pub(crate) const MESSAGE_ERROR: u16 = 2;
/// `NLMSG_DONE`.
pub(crate) const MESSAGE_DONE: u16 = 3;

/// `NLM_F_CAPPED`: the refused request is not repeated in the acknowledgement.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow in the acknowledgement.
const ACK_ATTRIBUTES: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`.
const ERROR_TEXT: u16 = 1;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// Clears `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const ATTRIBUTE_MASK: u16 = 0x3fff;
/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// Bytes of `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;

/// What a message from the kernel violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// A request under construction.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Message {
    /// A message of `kind` with `flags`, and the family's own fixed header.
    pub(crate) fn new(kind: u16, flags: u16, family_header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(family_header);
        let mut message = Self {
            bytes,
            too_long: false,
        };
        message.pad();
        message
    }

    fn pad(&mut self) {
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }

    /// Sets more header flags.
    pub(crate) fn add_flags(&mut self, flags: u16) {
        if let Some([a, b]) = self.bytes.get_mut(6..8) {
            let [low, high] = flags.to_ne_bytes();
            *a |= low;
            *b |= high;
        }
    }

    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.put(kind, value);
        self
    }

    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        let len = ATTRIBUTE_HEADER.saturating_add(value.len());
        let Ok(len) = u16::try_from(len) else {
            self.too_long = true;
            return;
        };
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    pub(crate) fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn be64(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A string with its closing NUL.
    pub(crate) fn text(mut self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes);
        self
    }

    /// An attribute that holds attributes.
    pub(crate) fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; ATTRIBUTE_HEADER]);
        let mut message = fill(self);
        let len = message.bytes.len().saturating_sub(start);
        let Ok(len) = u16::try_from(len) else {
            message.too_long = true;
            return message;
        };
        let kind = kind | NESTED;
        if let Some(header) = message
            .bytes
            .get_mut(start..start.saturating_add(ATTRIBUTE_HEADER))
        {
            let (low, high) = header.split_at_mut(2);
            low.copy_from_slice(&len.to_ne_bytes());
            high.copy_from_slice(&kind.to_ne_bytes());
        }
        message
    }

    /// Raw bytes inside a nested attribute (a family header), padded.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(crate) fn when<T>(self, value: Option<T>, fill: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => fill(self, value),
            None => self,
        }
    }

    /// The finished bytes with their sequence number.
    pub(crate) fn finish(mut self, sequence: u32) -> Result<Vec<u8>, Malformed> {
        let len = u32::try_from(self.bytes.len());
        let (Ok(len), false) = (len, self.too_long) else {
            return Err(Malformed("the request does not fit into a netlink message"));
        };
        if let Some(header) = self.bytes.get_mut(..HEADER) {
            let (front, back) = header.split_at_mut(8);
            let (size, _) = front.split_at_mut(4);
            size.copy_from_slice(&len.to_ne_bytes());
            let (seq, _) = back.split_at_mut(4);
            seq.copy_from_slice(&sequence.to_ne_bytes());
        }
        Ok(self.bytes)
    }
}

/// Reads `N` bytes at `at`.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A message that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The port that caused the message: of a notification, that of whoever made the change.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// An acknowledgement: the error number (0 is success) and the kernel's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    pub(crate) errno: i32,
    pub(crate) text: Option<String>,
}

impl<'a> Received<'a> {
    /// The attributes behind a family header of `skip` bytes.
    pub(crate) fn attributes(&self, skip: usize) -> Result<Attributes<'a>, Malformed> {
        let rest = self.payload.get(aligned(skip)..);
        Attributes::parse(rest.ok_or(Malformed("the family header is cut off"))?)
    }

    /// The message as an acknowledgement (`NLMSG_ERROR`, or `NLMSG_DONE`, which carries an error
    /// number, too).
    pub(crate) fn acknowledgement(&self) -> Result<Acknowledgement, Malformed> {
        let Some(code) = array::<4>(self.payload, 0).map(i32::from_ne_bytes) else {
            // An old NLMSG_DONE has no payload.
            return match self.kind {
                MESSAGE_DONE => Ok(Acknowledgement {
                    errno: 0,
                    text: None,
                }),
                _ => Err(Malformed("the acknowledgement is cut off")),
            };
        };
        let errno = code
            .checked_neg()
            .filter(|e| *e >= 0)
            .ok_or(Malformed("the acknowledgement's error number is positive"))?;
        let mut text = None;
        if self.kind == MESSAGE_ERROR && self.flags & ACK_ATTRIBUTES != 0 {
            let request = array::<4>(self.payload, 4).map(u32::from_ne_bytes);
            let request = request.and_then(|len| usize::try_from(len).ok());
            let skip = match self.flags & CAPPED {
                0 => request.map(aligned),
                _ => Some(HEADER),
            };
            text = skip
                .and_then(|skip| self.payload.get(skip.checked_add(4)?..))
                .and_then(|rest| Attributes::parse(rest).ok())
                .and_then(|attributes| attributes.text(ERROR_TEXT));
        }
        Ok(Acknowledgement { errno, text })
    }
}

/// Splits a datagram into messages.
pub(crate) fn messages(mut bytes: &[u8]) -> Result<Vec<Received<'_>>, Malformed> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let cut = Malformed("a message is cut off");
        let len = array::<4>(bytes, 0).map(u32::from_ne_bytes).ok_or(cut)?;
        let len = usize::try_from(len).map_err(|_| cut)?;
        let payload = bytes.get(HEADER..len).ok_or(cut)?;
        all.push(Received {
            kind: array(bytes, 4).map(u16::from_ne_bytes).ok_or(cut)?,
            flags: array(bytes, 6).map(u16::from_ne_bytes).ok_or(cut)?,
            sequence: array(bytes, 8).map(u32::from_ne_bytes).ok_or(cut)?,
            port: array(bytes, 12).map(u32::from_ne_bytes).ok_or(cut)?,
            payload,
        });
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
    }
    Ok(all)
}

/// The attributes of one level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes<'a> {
    list: Vec<(u16, &'a [u8])>,
}

impl<'a> Attributes<'a> {
    pub(crate) fn parse(mut bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut list = Vec::new();
        // Fewer bytes than a header are padding.
        while bytes.len() >= ATTRIBUTE_HEADER {
            let cut = Malformed("an attribute is cut off");
            let len = array::<2>(bytes, 0).map(u16::from_ne_bytes).ok_or(cut)?;
            let kind = array::<2>(bytes, 2).map(u16::from_ne_bytes).ok_or(cut)?;
            let len = usize::from(len);
            let value = bytes.get(ATTRIBUTE_HEADER..len).ok_or(cut)?;
            list.push((kind & ATTRIBUTE_MASK, value));
            bytes = bytes.get(aligned(len)..).unwrap_or_default();
        }
        Ok(Self { list })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &'a [u8])> + '_ {
        self.list.iter().copied()
    }

    pub(crate) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(k, _)| *k == kind).map(|(_, v)| v)
    }

    pub(crate) fn u32(&self, kind: u16) -> Option<u32> {
        array(self.get(kind)?, 0).map(u32::from_ne_bytes)
    }

    pub(crate) fn i32(&self, kind: u16) -> Option<i32> {
        array(self.get(kind)?, 0).map(i32::from_ne_bytes)
    }

    pub(crate) fn be16(&self, kind: u16) -> Option<u16> {
        array(self.get(kind)?, 0).map(u16::from_be_bytes)
    }

    pub(crate) fn be32(&self, kind: u16) -> Option<u32> {
        array(self.get(kind)?, 0).map(u32::from_be_bytes)
    }

    pub(crate) fn be64(&self, kind: u16) -> Option<u64> {
        array(self.get(kind)?, 0).map(u64::from_be_bytes)
    }

    /// A string up to its closing NUL; what is not UTF-8 is replaced.
    pub(crate) fn text(&self, kind: u16) -> Option<String> {
        self.get(kind).map(text)
    }

    /// The attributes inside `kind`; none when it is missing or malformed.
    pub(crate) fn inside(&self, kind: u16) -> Option<Self> {
        Self::parse(self.get(kind)?).ok()
    }
}

/// A string up to its closing NUL; what is not UTF-8 is replaced.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_has_the_bytes_of_the_specification() {
        let bytes = Message::new(16, REQUEST | ACK, &[7, 0])
            .text(3, "ab")
            .nested(18, |m| m.u32(1, 5))
            .finish(9)
            .unwrap();
        let mut golden = Vec::new();
        golden.extend(40_u32.to_ne_bytes());
        golden.extend(16_u16.to_ne_bytes());
        golden.extend(5_u16.to_ne_bytes());
        golden.extend(9_u32.to_ne_bytes());
        golden.extend([0, 0, 0, 0, 7, 0, 0, 0]);
        golden.extend(7_u16.to_ne_bytes());
        golden.extend(3_u16.to_ne_bytes());
        golden.extend(*b"ab\0\0");
        golden.extend(12_u16.to_ne_bytes());
        golden.extend(0x8012_u16.to_ne_bytes());
        golden.extend(8_u16.to_ne_bytes());
        golden.extend(1_u16.to_ne_bytes());
        golden.extend(5_u32.to_ne_bytes());
        assert_eq!(bytes, golden);
    }

    #[test]
    fn what_is_built_is_read_back() {
        let bytes = Message::new(20, REQUEST, &[0; 8])
            .be32(1, 0xc0a8_0001)
            .nested(2, |m| m.text(1, "x").be64(2, 7))
            .finish(3)
            .unwrap();
        let all = messages(&bytes).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].kind, all[0].sequence), (20, 3));
        let attributes = all[0].attributes(8).unwrap();
        assert_eq!(attributes.be32(1), Some(0xc0a8_0001));
        let inner = attributes.inside(2).unwrap();
        assert_eq!(inner.text(1).as_deref(), Some("x"));
        assert_eq!(inner.be64(2), Some(7));
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_and_not_cut() {
        let long = vec![0; 70_000];
        assert!(Message::new(1, 0, &[]).bytes(1, &long).finish(1).is_err());
    }

    #[test]
    fn the_kernels_words_are_found_behind_a_capped_acknowledgement() {
        let mut payload = (-17_i32).to_ne_bytes().to_vec();
        payload.extend([0; HEADER]);
        payload.extend(7_u16.to_ne_bytes());
        payload.extend(1_u16.to_ne_bytes());
        payload.extend(*b"no\0\0");
        let received = Received {
            kind: MESSAGE_ERROR,
            flags: CAPPED | ACK_ATTRIBUTES,
            sequence: 1,
            port: 0,
            payload: &payload,
        };
        let acknowledgement = received.acknowledgement().unwrap();
        assert_eq!(acknowledgement.errno, 17);
        assert_eq!(acknowledgement.text.as_deref(), Some("no"));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(all) = messages(&bytes) {
                for message in all {
                    let _ = message.acknowledgement();
                    let _ = message.attributes(16);
                }
            }
            let _ = Attributes::parse(&bytes);
        }

        #[test]
        fn cut_messages_never_panic(cut in 0_usize..64) {
            let bytes = Message::new(20, 0, &[0; 8]).text(1, "abcdef").u32(2, 3).finish(1).unwrap();
            let short = &bytes[..cut.min(bytes.len())];
            if cut < bytes.len() && cut > 0 {
                prop_assert!(messages(short).is_err());
            }
        }
    }
}
