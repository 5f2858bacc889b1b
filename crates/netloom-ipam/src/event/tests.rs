use super::*;
use proptest::prelude::*;

fn samples() -> Vec<Event> {
    let mac = MacAddr::new([2, 0x42, 1, 2, 3, 4]);
    let slot = |name: Option<&str>| Slot {
        operation: 7,
        reference: u64::MAX,
        since: Timestamp(5),
        state: SlotState::InDoubt,
        mac: Some(mac),
        name: name.map(Into::into),
    };
    let (pool, index) = (3, 0x0102_0304);
    vec![
        Event::PoolOpened {
            pool,
            space: AddressSpace::Global,
            subnet: "10.9.0.0/16".parse().unwrap(),
            generation: 2,
        },
        Event::PoolOpened {
            pool,
            space: AddressSpace::Local,
            subnet: "fd00::/64".parse().unwrap(),
            generation: 2,
        },
        Event::PoolClosed { pool },
        Event::Taken {
            pool,
            index,
            slot: slot(Some("web")),
        },
        Event::Taken {
            pool,
            index: u128::MAX,
            slot: slot(None),
        },
        Event::Confirmed {
            pool,
            index: 0,
            operation: 9,
            mac: None,
        },
        Event::Released {
            pool,
            index,
            operation: 9,
            at: Timestamp(11),
        },
        Event::Reserved {
            pool,
            index,
            holder: ReservedFor::Mac(mac),
        },
        Event::Reserved {
            pool,
            index,
            holder: ReservedFor::Name("db".to_owned()),
        },
        Event::Reserved {
            pool,
            index,
            holder: ReservedFor::Explicit,
        },
        Event::Unreserved {
            pool,
            index,
            at: Timestamp(12),
        },
    ]
}

fn more_samples() -> Vec<Event> {
    let pool = 3;
    vec![
        Event::Cooling {
            pool,
            index: 7,
            at: Timestamp(13),
        },
        Event::Counters { operation: 1, pool },
        Event::PoolShared {
            pool,
            generation: 3,
        },
        Event::HostCounter(Memory {
            counter: 1,
            starts: 2,
            epoch: 3,
            mark: u64::MAX,
            alone: true,
            store: "etcd-0a".into(),
        }),
    ]
}

fn range_samples() -> Vec<Event> {
    let pool = 3;
    let part = Part {
        first: 0,
        last: u128::MAX,
    };
    vec![
        Event::RangeOwned {
            pool,
            part,
            generation: 5,
            idle: Timestamp(14),
        },
        Event::RangeLeaving { pool, part },
        Event::RangeKept {
            pool,
            part,
            generation: 6,
        },
        Event::RangeLost { pool, part },
        Event::RangeLeft { pool, part },
    ]
}

#[test]
fn every_kind_round_trips_and_no_prefix_of_one_passes() {
    for event in samples()
        .into_iter()
        .chain(range_samples())
        .chain(more_samples())
    {
        let bytes = event.encode();
        assert_eq!(Event::decode(&bytes), Ok(event.clone()));
        for len in 0..bytes.len() {
            let cut = Event::decode(&bytes[..len]);
            assert!(cut.is_err(), "{len} bytes of {event:?}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Event::decode(&longer).is_err(), "{event:?} with a tail");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = Event::decode(&bytes);
    }
}
