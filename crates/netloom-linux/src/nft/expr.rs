//! The expressions of nftables' virtual machine that our rules use (`linux/netfilter/nf_tables.h`).
//!
//! A register is counted in words of four bytes, as concatenated set keys are laid out: a field
//! takes as many whole words as it needs.

use crate::wire::Message;

/// `NFTA_LIST_ELEM`.
pub(crate) const LIST_ELEMENT: u16 = 1;

/// `NFT_REG32_00`: word 0.
const FIRST_WORD: u32 = 8;
/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;

/// What a packet is known by besides its bytes (`enum nft_meta_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meta {
    Protocol = 1,
    Mark = 3,
    InputName = 6,
    OutputName = 7,
    NetworkFamily = 15,
    TransportProtocol = 16,
}

/// Where a packet's bytes are counted from (`enum nft_payload_bases`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Ethernet = 0,
    Network = 1,
    Transport = 2,
}

/// What connection tracking knows (`enum nft_ct_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conntrack {
    State = 0,
    Status = 2,
}

/// How a rule ends (`enum nft_verdicts`, `NF_ACCEPT`, `NF_DROP`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Jump(&'static str),
}

impl Verdict {
    fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
        }
    }
}

/// Which address of a connection is translated (`enum nft_nat_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nat {
    Source = 0,
    Destination = 1,
}

/// Equal or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal = 0,
    Differs = 1,
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expr {
    Meta {
        key: Meta,
        word: u32,
    },
    Payload {
        base: Base,
        offset: u32,
        len: u32,
        word: u32,
    },
    Conntrack {
        key: Conntrack,
        word: u32,
    },
    /// The type of the destination address (`fib daddr type`) as a number of `RTN_*`.
    DestinationType {
        word: u32,
    },
    /// `word = word & mask`, four bytes.
    Mask {
        word: u32,
        mask: [u8; 4],
    },
    Compare {
        how: Compare,
        word: u32,
        value: Vec<u8>,
    },
    /// Whether the key at `word` is in the set (or is not).
    Lookup {
        set: &'static str,
        word: u32,
        how: Compare,
    },
    /// Replaces the key at `word` by the map's value, from word 0 on.
    Map {
        map: &'static str,
        word: u32,
    },
    /// Translation to the address in word 0 and, where `port` says so, the port in that word.
    Nat {
        which: Nat,
        family: u8,
        port: Option<u32>,
    },
    Masquerade,
    /// Loads four bytes.
    Load {
        word: u32,
        value: u32,
    },
    /// Marks the packet with what the word holds.
    SetMark {
        word: u32,
    },
    Counter,
    Verdict(Verdict),
}

impl Expr {
    /// The name by which the kernel finds the expression's code.
    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } | Self::SetMark { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::Conntrack { .. } => "ct",
            Self::DestinationType { .. } => "fib",
            Self::Mask { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Lookup { .. } | Self::Map { .. } => "lookup",
            Self::Nat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Counter => "counter",
            Self::Load { .. } | Self::Verdict(_) => "immediate",
        }
    }

    /// Appends the expression as one element of a list.
    pub(crate) fn write(&self, message: Message) -> Message {
        message.nested(LIST_ELEMENT, |m| {
            m.text(1, self.name()).nested(2, |m| self.write_data(m))
        })
    }

    fn write_data(&self, m: Message) -> Message {
        match self {
            Self::Meta { key, word } => m.be32(2, *key as u32).be32(1, register(*word)),
            Self::Payload {
                base,
                offset,
                len,
                word,
            } => m
                .be32(1, register(*word))
                .be32(2, *base as u32)
                .be32(3, *offset)
                .be32(4, *len),
            Self::Conntrack { key, word } => m.be32(1, register(*word)).be32(2, *key as u32),
            Self::DestinationType { word } => m
                .be32(1, register(*word))
                .be32(2, FIB_ADDRESS_TYPE)
                .be32(3, FIB_DESTINATION),
            Self::Mask { word, mask } => m
                .be32(1, register(*word))
                .be32(2, register(*word))
                .be32(3, 4)
                .nested(4, |m| m.bytes(1, mask))
                .nested(5, |m| m.bytes(1, &[0; 4])),
            Self::Compare { how, word, value } => m
                .be32(1, register(*word))
                .be32(2, *how as u32)
                .nested(3, |m| m.bytes(1, value)),
            Self::Lookup { set, word, how } => {
                let m = m.text(1, set).be32(2, register(*word));
                match how {
                    Compare::Equal => m,
                    Compare::Differs => m.be32(5, LOOKUP_INVERTED),
                }
            }
            Self::Map { map, word } => m.text(1, map).be32(2, register(*word)).be32(3, register(0)),
            Self::Nat {
                which,
                family,
                port,
            } => m
                .be32(1, *which as u32)
                .be32(2, u32::from(*family))
                .be32(3, register(0))
                .when(*port, |m, word| m.be32(5, register(word))),
            Self::Masquerade => m,
            Self::Load { word, value } => m
                .be32(1, register(*word))
                .nested(2, |m| m.bytes(1, &value.to_ne_bytes())),
            Self::SetMark { word } => m.be32(2, Meta::Mark as u32).be32(3, register(*word)),
            Self::Counter => m.be64(1, 0).be64(2, 0),
            Self::Verdict(verdict) => m.be32(1, VERDICT_REGISTER).nested(2, |m| {
                m.nested(2, |m| {
                    let m = m.bytes(1, &verdict.code().to_be_bytes());
                    match verdict {
                        Verdict::Jump(chain) => m.text(2, chain),
                        _ => m,
                    }
                })
            }),
        }
    }
}

/// `NFT_FIB_RESULT_ADDRTYPE`.
const FIB_ADDRESS_TYPE: u32 = 3;
/// `NFTA_FIB_F_DADDR`.
const FIB_DESTINATION: u32 = 2;
/// `NFT_LOOKUP_F_INV`.
const LOOKUP_INVERTED: u32 = 1;

fn register(word: u32) -> u32 {
    FIRST_WORD.saturating_add(word)
}
