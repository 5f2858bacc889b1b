//! Whatever bytes arrive, reading them ends in a value or an error, never in a panic.

use crate::nft::{forward, inspect};
use crate::rt::{addr, list, neigh, route};
use crate::wire::{Attributes, Message, Received, messages};
use crate::{ConntrackFilter, conntrack, monitor};
use proptest::prelude::*;

/// Gives a payload to every reader, as a message of the kind that it is looking for.
fn read_everywhere(payload: &[u8]) {
    let received = |kind| Received {
        kind,
        flags: 0,
        sequence: 1,
        port: 0,
        payload,
    };
    let _ = list::parse(&received(16));
    let _ = monitor::link_lost(&received(17));
    let _ = addr::parse(&received(20));
    let _ = route::parse(&received(24));
    let _ = neigh::parse(&received(28));
    let _ = conntrack::select(&received(0x100), &ConntrackFilter::default());
    let _ = forward::parse(&received(0xa06));
    let _ = monitor::concerns_us(&received(0xa06));
    let _ = inspect::comment(payload);
    if let Ok(attributes) = Attributes::parse(payload) {
        let _ = inspect::parse_elements(&attributes);
    }
}

/// Attributes of random kinds in random attributes, which get further than random bytes.
fn nested(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let leaf = proptest::collection::vec(any::<u8>(), 0..40);
    if depth == 0 {
        return leaf.boxed();
    }
    let list = proptest::collection::vec((0_u16..30, nested(depth - 1)), 0..5);
    let tree = list.prop_map(|list| {
        let mut message = Message::new(0, 0, &[]);
        for (kind, value) in list {
            message.put(kind, &value);
        }
        let bytes = message.finish(0).expect("a few hundred bytes fit");
        bytes
            .get(crate::wire::HEADER..)
            .unwrap_or_default()
            .to_vec()
    });
    prop_oneof![1 => leaf, 4 => tree].boxed()
}

proptest! {
    #[test]
    fn random_payloads_are_read_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        read_everywhere(&bytes);
    }

    #[test]
    fn random_attributes_are_read_without_panic(
        header in proptest::collection::vec(any::<u8>(), 0..20),
        body in nested(4),
    ) {
        let mut payload = header;
        payload.resize(payload.len().next_multiple_of(4), 0);
        payload.extend(body);
        read_everywhere(&payload);
    }

    #[test]
    fn datagrams_cut_anywhere_are_refused_or_read(body in nested(3), cut in 0_usize..200) {
        let bytes = Message::new(16, 0, &[0; 16]).bytes(3, &body).finish(1);
        let bytes = bytes.expect("a few hundred bytes fit");
        if let Ok(all) = messages(bytes.get(..cut).unwrap_or(&bytes)) {
            for message in all {
                read_everywhere(message.payload);
            }
        }
    }
}
