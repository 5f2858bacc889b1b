//! Any bytes as a snapshot: refused, or the one encoding of what they restore to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netloom_alloc::{AddressPool, Bitmap, SparseBitmap};

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (kind, mut bytes) = input;
    // Three times in four the head and the checksum are right, so that the rest is reached.
    if let Some(magic) = [b"NLB", b"NLS", b"NLP"].get(usize::from(kind % 4)) {
        bytes.splice(0..0, [magic.as_slice(), &[1]].concat());
        let check = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        bytes.extend(check.to_le_bytes());
    }
    for capacity in [64, 1_000, 1 << 16] {
        if let Ok(map) = Bitmap::restore(&bytes, capacity) {
            assert_eq!(map.snapshot(), bytes);
        }
    }
    for last in [99, 1 << 20, u128::MAX] {
        if let Ok(mut map) = SparseBitmap::restore(&bytes, last) {
            assert_eq!(map.snapshot(), bytes);
            map.allocate();
        }
    }
    for subnet in ["10.9.0.0/24", "fd00::/48"] {
        let subnet = subnet.parse().unwrap();
        if let Ok(mut pool) = AddressPool::restore(&bytes, subnet) {
            assert_eq!(pool.snapshot(), bytes);
            let _ = pool.allocate();
        }
    }
});
