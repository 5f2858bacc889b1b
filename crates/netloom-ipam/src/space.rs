//! How pools are named: in the journal, in the store, and towards callers.

use netloom_core::store::Key;
use netloom_core::{AddressSpace, IpamError};
use netloom_types::{HostId, PoolId, Subnet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which pool: in one space, subnets never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PoolKey {
    pub(crate) space: AddressSpace,
    pub(crate) subnet: Subnet,
}

/// One grant of a pool, as its [`PoolId`] carries it: `local-10.9.0.0-16-0123456789abcdef`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    pub(crate) pool: PoolKey,
    /// Random: a retried request and a second one must get different references.
    pub(crate) nonce: u64,
}

impl Reference {
    pub(crate) fn id(&self) -> PoolId {
        let text = format!(
            "{}-{}-{:016x}",
            space_name(self.pool.space),
            subnet_part(self.pool.subnet),
            self.nonce
        );
        PoolId::new(text).expect("the parts hold only letters, digits, '.', '_' and '-'")
    }

    /// Reads a reference back; none when it was never one of ours. Only the one spelling: two texts for
    /// one reference would be two references elsewhere. Every request comes by here, and makes no text.
    pub(crate) fn parse(id: &PoolId) -> Option<Self> {
        let mut parts = id.as_str().split('-');
        let space = match parts.next()? {
            "local" => AddressSpace::Local,
            "global" => AddressSpace::Global,
            _ => return None,
        };
        let first = parse_first(parts.next()?)?;
        let subnet = Subnet::new(first, parse_prefix_len(parts.next()?)?).ok()?;
        let nonce = parse_nonce(parts.next()?)?;
        let is_ours = parts.next().is_none() && subnet.first() == first;
        is_ours.then_some(Self {
            pool: PoolKey { space, subnet },
            nonce,
        })
    }
}

fn parse_first(text: &str) -> Option<IpAddr> {
    // Of the four numbers of an IPv4 address there is one spelling alone.
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Some(ip.into());
    }
    let ip: Ipv6Addr = text.replace('_', ":").parse().ok()?;
    (first_part(ip.into()) == text).then_some(ip.into())
}

fn parse_prefix_len(text: &str) -> Option<u8> {
    let is_plain = text.starts_with(|first: char| ('1'..='9').contains(&first)) || text == "0";
    text.parse().ok().filter(|_| is_plain)
}

fn parse_nonce(text: &str) -> Option<u64> {
    let is_plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_ours = text.len() == 16 && text.bytes().all(is_plain);
    u64::from_str_radix(text, 16).ok().filter(|_| is_ours)
}

/// Where records are kept in the store.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// Pools of one host are its own business, even in a store that all share.
    local: String,
    host: String,
}

impl Keys {
    pub(crate) fn new(host: &HostId) -> Result<Self, IpamError> {
        let host = escape(host.as_str());
        let keys = Self {
            local: format!("local.{host}"),
            host,
        };
        // The longest key there can be shows whether all fit.
        let longest: Subnet = "ff00:ff00:ff00:ff00:ff00:ff00:ff00:ff00/128"
            .parse()
            .map_err(|e| IpamError::Invalid(format!("{e}")))?;
        let pool = PoolKey {
            space: AddressSpace::Local,
            subnet: longest,
        };
        let longest = [
            format!("references/{}/{:016x}", keys.part(pool), 0),
            format!("chunks/{}/{:028x}/00", keys.part(pool), 0),
            format!("answers/{}/{}/{:016x}", keys.host, subnet_part(longest), 0),
        ];
        for key in longest {
            keys.build(&key).map_err(|_| {
                IpamError::Invalid("the host id is too long for keys of the store".to_owned())
            })?;
        }
        Ok(keys)
    }

    pub(crate) fn epoch() -> Key {
        fixed("epoch")
    }

    /// In a store that another one is being copied to, until that is done.
    pub(crate) fn copy() -> Key {
        fixed("copy")
    }

    pub(crate) fn heal() -> Key {
        fixed("heal")
    }

    pub(crate) fn hosts() -> Key {
        fixed("hosts")
    }

    pub(crate) fn statuses() -> Key {
        fixed("status")
    }

    pub(crate) fn all_pools() -> Key {
        fixed("pools")
    }

    pub(crate) fn all_references() -> Key {
        fixed("references")
    }

    /// References of this host whose gateway it began to give back: in its mirror alone.
    pub(crate) fn all_let_go() -> Key {
        fixed("let-go")
    }

    pub(crate) fn let_go(nonce: u64) -> Key {
        fixed(&format!("let-go/{nonce:016x}"))
    }

    pub(crate) fn host(&self) -> Key {
        self.known(&format!("hosts/{}", self.host))
    }

    pub(crate) fn status(&self) -> Key {
        self.known(&format!("status/{}", self.host))
    }

    /// Another host's record; none for an id that is too long for a key.
    pub(crate) fn host_of(&self, host: &str) -> Option<Key> {
        self.build(&format!("hosts/{}", escape(host))).ok()
    }

    pub(crate) fn space(&self, space: AddressSpace) -> Key {
        self.known(&format!("spaces/{}", self.space_part(space)))
    }

    pub(crate) fn pools(&self, space: AddressSpace) -> Key {
        self.known(&format!("pools/{}", self.space_part(space)))
    }

    pub(crate) fn pool(&self, pool: PoolKey) -> Key {
        self.known(&format!("pools/{}", self.part(pool)))
    }

    pub(crate) fn references(&self, pool: PoolKey) -> Key {
        self.known(&format!("references/{}", self.part(pool)))
    }

    pub(crate) fn reference(&self, reference: Reference) -> Key {
        let Reference { pool, nonce } = reference;
        self.known(&format!("references/{}/{nonce:016x}", self.part(pool)))
    }

    pub(crate) fn chunks(&self, pool: PoolKey) -> Key {
        self.known(&format!("chunks/{}", self.part(pool)))
    }

    /// In directories of 256, which every store lists quickly.
    pub(crate) fn chunk(&self, pool: PoolKey, chunk: u128) -> Key {
        let (high, low) = (chunk >> 8, chunk & 0xff);
        self.known(&format!("chunks/{}/{high:x}/{low:02x}", self.part(pool)))
    }

    /// The number that the last two parts of a chunk's key name.
    pub(crate) fn chunk_of(key: &Key) -> Option<u128> {
        let mut parts = key.as_str().rsplit('/');
        let low = u128::from_str_radix(parts.next()?, 16).ok()?;
        let high = u128::from_str_radix(parts.next()?, 16).ok()?;
        (low < 0x100).then_some(high.checked_mul(0x100)? + low)
    }

    /// What hosts ask for.
    pub(crate) fn wants(&self) -> Key {
        self.known("wants")
    }

    pub(crate) fn want(&self, subnet: Subnet, host: &str) -> Key {
        self.known(&format!("wants/{}/{}", subnet_part(subnet), escape(host)))
    }

    /// What a host was answered, in all pools or in one.
    pub(crate) fn answers(&self, asker: &str, subnet: Option<Subnet>) -> Key {
        let asker = escape(asker);
        match subnet {
            None => self.known(&format!("answers/{asker}")),
            Some(subnet) => self.known(&format!("answers/{asker}/{}", subnet_part(subnet))),
        }
    }

    /// What one holder answered. The holder is a number here, because two ids may be too long for
    /// one key; the record has its id. None for an asker whose own keys would be too long.
    pub(crate) fn answer(&self, asker: &str, subnet: Subnet, holder: &str) -> Option<Key> {
        let number = holder.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| {
            (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
        let asker = escape(asker);
        let subnet = subnet_part(subnet);
        self.build(&format!("answers/{asker}/{subnet}/{number:016x}"))
            .ok()
    }

    /// The subnet that the last part but one of a want's key names.
    pub(crate) fn wanted_subnet(key: &Key) -> Option<Subnet> {
        let (head, _) = key.as_str().rsplit_once('/')?;
        Self::subnet_of(&Key::new(head).ok()?)
    }

    /// Another host's record.
    pub(crate) fn host_key(host: &str) -> Option<Key> {
        Key::new(format!("hosts/{}", escape(host))).ok()
    }

    /// Another host's status.
    pub(crate) fn status_key(host: &str) -> Option<Key> {
        Key::new(format!("status/{}", escape(host))).ok()
    }

    /// The host that the last part of its record's key names.
    pub(crate) fn host_in(key: &Key) -> Option<String> {
        let (_, last) = key.as_str().rsplit_once('/')?;
        let mut host = String::with_capacity(last.len());
        let mut rest = last.chars();
        while let Some(c) = rest.next() {
            host.push(match c {
                '_' => match rest.next()? {
                    '_' => '_',
                    small => small.to_ascii_uppercase(),
                },
                c => c,
            });
        }
        Some(host)
    }

    /// The subnet that the last part of a pool's key names.
    pub(crate) fn subnet_of(key: &Key) -> Option<Subnet> {
        let (_, last) = key.as_str().rsplit_once('/')?;
        let (ip, prefix_len) = last.rsplit_once('-')?;
        let ip: IpAddr = ip.replace('_', ":").parse().ok()?;
        Subnet::new(ip, prefix_len.parse().ok()?).ok()
    }

    /// The nonce that the last part of a reference's key names.
    pub(crate) fn nonce_of(key: &Key) -> Option<u64> {
        let (_, last) = key.as_str().rsplit_once('/')?;
        u64::from_str_radix(last, 16).ok()
    }

    fn space_part(&self, space: AddressSpace) -> &str {
        match space {
            AddressSpace::Local => &self.local,
            AddressSpace::Global => "global",
        }
    }

    fn part(&self, pool: PoolKey) -> String {
        format!(
            "{}/{}",
            self.space_part(pool.space),
            subnet_part(pool.subnet)
        )
    }

    fn build(&self, text: &str) -> Result<Key, netloom_core::store::InvalidKey> {
        Key::new(text)
    }

    fn known(&self, text: &str) -> Key {
        self.build(text)
            .expect("the longest key was tried when this was made")
    }
}

/// A key without parts that could be too long.
fn fixed(text: &str) -> Key {
    Key::new(text).expect("it consists of small letters and digits")
}

/// `10.9.0.0-16`, `fd00__-64`: what both a key and a pool id may hold.
fn subnet_part(subnet: Subnet) -> String {
    format!("{}-{}", first_part(subnet.first()), subnet.prefix_len())
}

fn first_part(first: IpAddr) -> String {
    first.to_string().replace(':', "_")
}

/// Keys know no capitals: `_` becomes `__`, `A` becomes `_a`; two hosts never get one key.
fn escape(host: &str) -> String {
    let mut out = String::with_capacity(host.len());
    for c in host.chars() {
        match c {
            '_' => out.push_str("__"),
            c if c.is_ascii_uppercase() => {
                out.push('_');
                out.push(c.to_ascii_lowercase());
            }
            c => out.push(c),
        }
    }
    out
}

pub(crate) fn space_name(space: AddressSpace) -> &'static str {
    match space {
        AddressSpace::Local => "local",
        AddressSpace::Global => "global",
    }
}

pub(crate) fn space_code(space: AddressSpace) -> u8 {
    match space {
        AddressSpace::Local => 0,
        AddressSpace::Global => 1,
    }
}

pub(crate) fn space_of_code(code: u8) -> Option<AddressSpace> {
    match code {
        0 => Some(AddressSpace::Local),
        1 => Some(AddressSpace::Global),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(text: &str) -> PoolKey {
        PoolKey {
            space: AddressSpace::Local,
            subnet: text.parse().unwrap(),
        }
    }

    #[test]
    fn references_round_trip_for_both_families() {
        for subnet in [
            "10.9.0.0/16",
            "0.0.0.0/0",
            "fd00:1::/64",
            "::/0",
            "::1/128",
            "::ffff:10.9.0.0/112",
        ] {
            let reference = Reference {
                pool: pool(subnet),
                nonce: 0x0123_4567_89ab_cdef,
            };
            assert_eq!(Reference::parse(&reference.id()), Some(reference));
        }
    }

    #[test]
    fn texts_that_were_never_a_reference_are_none() {
        for odd in [
            "x",
            "local-10.9.0.0-16",
            "local-10.9.0.1-16-0123456789abcdef",
            "local-10.9.0.0-16-123456789abcdef",
            "local-10.9.0.0-016-0123456789abcdef",
            "local-10.9.0.0-00-0123456789abcdef",
            "local-10.9.0.0--0123456789abcdef",
            "local-10.9.0.0-33-0123456789abcdef",
            "local-010.9.0.0-16-0123456789abcdef",
            "local-10.9.0.0-16-0123456789ABCDEF",
            "local-10.9.0.0-16-00123456789abcdef",
            "local-fd00_0001__-64-0123456789abcdef",
            "local-FD00_1__-64-0123456789abcdef",
            "local-__ffff_10.9.0.0-128-0123456789abcde",
            "Local-10.9.0.0-16-0123456789abcdef",
            "mars-10.9.0.0-16-0123456789abcdef",
            "local-10.9.0.0-16-0123456789abcdef-x",
        ] {
            assert_eq!(Reference::parse(&PoolId::new(odd).unwrap()), None, "{odd}");
        }
    }

    #[test]
    fn hosts_that_differ_in_case_have_different_keys() {
        let key = |host: &str| Keys::new(&HostId::new(host).unwrap()).unwrap().host();
        for host in ["Ab", "ab", "_ab", "aB", "a__B"] {
            assert_eq!(Keys::host_in(&key(host)).as_deref(), Some(host));
        }
        let all = ["Ab", "ab", "_ab", "aB", "__ab"].map(key);
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn subnets_come_back_from_their_keys() {
        let keys = Keys::new(&HostId::new("h").unwrap()).unwrap();
        for subnet in ["10.9.0.0/16", "fd00:1::/64"] {
            let pool = pool(subnet);
            assert_eq!(Keys::subnet_of(&keys.pool(pool)), Some(pool.subnet));
        }
    }
}
