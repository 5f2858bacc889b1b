//! Where records lie in the store.

use netloom_core::store::{InvalidKey, Key};
use netloom_types::{EndpointId, NetworkId};

/// The directory of all networks.
///
/// # Panics
/// Never: the literal is a key.
#[must_use]
pub fn networks_prefix() -> Key {
    Key::new("networks").expect("a word of lower-case letters is a key")
}

/// The directory of all endpoints.
///
/// # Panics
/// Never: the literal is a key.
#[must_use]
pub fn endpoints_prefix() -> Key {
    Key::new("endpoints").expect("a word of lower-case letters is a key")
}

/// `networks/<shard>/<id>`.
///
/// # Errors
/// When the id is so long, or has so many capitals, that no store could hold the key.
pub fn network_key(id: &NetworkId) -> Result<Key, InvalidKey> {
    sharded("networks", id.as_str())
}

/// `endpoints/<shard>/<id>`.
///
/// # Errors
/// When the id is so long, or has so many capitals, that no store could hold the key.
pub fn endpoint_key(id: &EndpointId) -> Result<Key, InvalidKey> {
    sharded("endpoints", id.as_str())
}

/// ZooKeeper answers a list of children in one packet of at most 1 MiB, so no directory may grow
/// with the number of objects: 256 shards keep each below a thousand children up to 256,000.
fn sharded(directory: &str, id: &str) -> Result<Key, InvalidKey> {
    Key::new(format!("{directory}/{:02x}/{}", shard(id), escaped(id)))
}

/// FNV-1a, folded to eight bits: ids are random, any stable spread will do.
fn shard(id: &str) -> u8 {
    let hash = id.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash.to_le_bytes().iter().fold(0, |folded, b| folded ^ b)
}

/// Keys have no capitals: `A` becomes `_a`, and `_` becomes `__`, which keeps ids distinct.
fn escaped(id: &str) -> String {
    let mut text = String::with_capacity(id.len());
    for c in id.chars() {
        if c.is_ascii_uppercase() || c == '_' {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_differ_only_in_case_have_different_keys() {
        let key = |id: &str| network_key(&NetworkId::new(id).unwrap()).unwrap();
        for (a, b) in [("Ab", "ab"), ("_a", "A"), ("__a", "_A"), ("a_b", "aB")] {
            assert_ne!(escaped(a), escaped(b), "{a} and {b}");
            assert_ne!(key(a), key(b));
        }
        assert!(key("Ab_.-9").is_below(&networks_prefix()));
    }

    #[test]
    fn shards_are_even_enough() {
        let mut counts = [0_u32; 256];
        for n in 0..100_000_u64 {
            // A multiplicative hash stands in for Docker's random ids.
            let id = format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            counts[usize::from(shard(&id))] += 1;
        }
        assert!(counts.iter().max() < Some(&1000), "{counts:?}");
    }

    #[test]
    fn an_id_that_no_store_could_hold_is_refused() {
        assert!(endpoint_key(&EndpointId::new("A".repeat(128)).unwrap()).is_err());
        assert!(endpoint_key(&EndpointId::new("a".repeat(128)).unwrap()).is_ok());
    }
}
