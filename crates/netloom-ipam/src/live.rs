//! One pool in memory: its references, and the addresses that this host can hand out.

use crate::ranges::held::{Part, RangeState};
use crate::records::{GatewayHold, ReferenceRecord};
use crate::references::{LetGo, References};
use crate::registry::StoredPool;
use crate::space::PoolKey;
use crate::table::Ledger;
use netloom_alloc::AddressPool;
use netloom_core::Timestamp;
use netloom_types::{Family, Subnet};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A pool that is in use.
///
/// Invariant: an address is free in `addresses` exactly if this host owns it, and it is neither in
/// the ledger's slots, nor kept for somebody, nor cooling down, nor the pool's own. The last two may
/// meet: after a store lost its past, its gateway may lie in a range that this host owns.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) key: PoolKey,
    /// Its ledger's number in the table.
    pub(crate) number: u32,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) references: References,
    pub(crate) addresses: AddressPool,
    /// Parts of the pool in which nothing was left to claim when it was looked at last.
    pub(crate) claimed_out: BTreeSet<Part>,
    came_in: CameIn,
}

/// How fast this host uses up what it claims.
#[derive(Debug, Clone, Copy, Default)]
struct CameIn {
    /// When addresses came in last.
    at: Option<Timestamp>,
    /// They were needed soon after those before: below so many free ones, more is to be claimed.
    ahead_below: u128,
}

/// The host that a pool in memory is kept for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'a> {
    pub(crate) host: &'a str,
    /// References of this host whose gateway it began to give back: they count as not holding it,
    /// whatever the store shows.
    pub(crate) let_go: &'a LetGo,
}

impl Live {
    /// The pool as the store has it, with the addresses that its ledger knows, for `me`.
    pub(crate) fn new(number: u32, stored: &StoredPool, ledger: &Ledger, me: Own<'_>) -> Self {
        let subnet = stored.key.subnet;
        let mut live = Self {
            key: stored.key,
            number,
            gateway: None,
            references: References::default(),
            addresses: nothing_taken(subnet),
            claimed_out: BTreeSet::new(),
            came_in: CameIn::default(),
        };
        for block in blocks(subnet, usable(subnet)) {
            // A new pool has nothing taken but what is not usable.
            let _ = live.addresses.allocate_block_at(block);
        }
        live.follow(stored, ledger, me);
        for range in ledger.held.iter() {
            if range.state == RangeState::Owned {
                live.open(range.part, ledger);
            }
        }
        live
    }

    /// Takes over what the store says: references, gateway, auxiliary addresses.
    pub(crate) fn follow(&mut self, stored: &StoredPool, ledger: &Ledger, me: Own<'_>) {
        let before = self.infrastructure();
        self.gateway = stored.pool.record.gateway;
        let references = stored.references.iter();
        let references = references.map(|(nonce, r)| (*nonce, &r.record));
        self.references = References::of(me.host, references);
        self.references.let_gateways_go(me.let_go);
        self.claimed_out.clear();
        let now = self.infrastructure();
        for ip in now.difference(&before) {
            // What is nobody's here is taken in any case.
            let _ = self.addresses.allocate_at(*ip);
        }
        for ip in before.difference(&now) {
            let index = self.key.subnet.index_of(*ip);
            if let Some(index) = index.filter(|index| !ledger.is_kept(*index)) {
                self.free(index, ledger);
            }
        }
    }

    /// The gateway that this host is to say again: the one that it holds, or that others hold and it
    /// never had.
    pub(crate) fn gateway_to_say(&self, let_go: &LetGo) -> Option<IpAddr> {
        let own = self.references.own();
        let holds = |r: &ReferenceRecord| r.gateway == GatewayHold::Held;
        let went = own.keys().any(|nonce| let_go.contains_key(nonce));
        self.gateway.filter(|_| !went || own.values().any(holds))
    }

    /// The gateway and the auxiliary addresses.
    pub(crate) fn infrastructure(&self) -> BTreeSet<IpAddr> {
        self.references.auxiliary().chain(self.gateway).collect()
    }

    /// An owned range: what is free of it can be handed out.
    pub(crate) fn open(&mut self, part: Part, ledger: &Ledger) {
        let subnet = self.key.subnet;
        let Some(part) = part.common(usable(subnet)) else {
            return;
        };
        self.claimed_out.clear();
        for block in blocks(subnet, part) {
            let _ = self.addresses.release_block(block);
        }
        let infrastructure = self.infrastructure();
        for index in part.first..=part.last {
            if let Some(ip) = subnet.nth(index)
                && (ledger.is_kept(index) || infrastructure.contains(&ip))
            {
                let _ = self.addresses.allocate_at(ip);
            }
        }
    }

    /// So many addresses came in.
    pub(crate) fn note_come_in(&mut self, count: u128, now: Timestamp) {
        let soon = self.came_in.is_soon(now);
        self.came_in = CameIn {
            at: Some(now),
            ahead_below: if soon { count } else { 0 },
        };
    }

    /// Whether more is to be claimed before it is needed; said once for all that came in at once.
    pub(crate) fn claims_ahead(&mut self, ledger: &Ledger, now: Timestamp) -> bool {
        let CameIn { ahead_below, .. } = self.came_in;
        if ahead_below == 0 || !self.came_in.is_soon(now) || ledger.free() >= ahead_below {
            return false;
        }
        self.came_in.ahead_below = 0;
        true
    }

    /// A range that is given away: nothing of it can be handed out.
    pub(crate) fn close(&mut self, part: Part) {
        for index in part.first..=part.last {
            if let Some(ip) = self.key.subnet.nth(index) {
                let _ = self.addresses.allocate_at(ip);
            }
        }
    }

    /// An address that is kept no more can be handed out, if this host owns it.
    pub(crate) fn free(&mut self, index: u128, ledger: &Ledger) {
        if ledger.held.owns(index)
            && let Some(ip) = self.key.subnet.nth(index)
            && !self.is_infrastructure(ip)
        {
            let _ = self.addresses.release(ip);
        }
    }

    /// Whether an address of a part was never used here, and can be handed out.
    pub(crate) fn has_fresh(&self, part: Part) -> bool {
        let blocks = blocks(self.key.subnet, part).into_iter();
        let mut full =
            blocks.map(|block| self.addresses.allocated_in(block) == block.size_saturating());
        full.any(|full| !full)
    }

    /// Addresses of a part that came back here and can be handed out again, oldest first.
    pub(crate) fn idle_in(&self, part: Part, ledger: &Ledger) -> impl Iterator<Item = IpAddr> {
        let idle = ledger.cooling.iter().map(|(index, _)| index);
        idle.filter(move |index| part.contains(*index) && ledger.held.owns(*index))
            .filter_map(|index| self.key.subnet.nth(index))
            .filter(|ip| !self.is_infrastructure(*ip))
    }

    /// A range of the pool, or all of it, without what is never handed out.
    pub(crate) fn part(&self, range: Option<Subnet>) -> Part {
        let all = usable(self.key.subnet);
        let index = |ip| self.key.subnet.index_of(ip);
        let bounds = range.and_then(|r| Some((index(r.first())?, index(r.last())?)));
        bounds
            .and_then(|(first, last)| Part { first, last }.common(all))
            .unwrap_or(all)
    }

    pub(crate) fn is_infrastructure(&self, ip: IpAddr) -> bool {
        self.gateway == Some(ip) || self.is_auxiliary(ip)
    }

    pub(crate) fn is_infrastructure_at(&self, index: u128) -> bool {
        let ip = self.key.subnet.nth(index);
        ip.is_some_and(|ip| self.is_infrastructure(ip))
    }

    pub(crate) fn is_auxiliary(&self, ip: IpAddr) -> bool {
        self.references.is_auxiliary(ip)
    }
}

impl CameIn {
    fn is_soon(self, now: Timestamp) -> bool {
        let soon = |at: Timestamp| now.0.saturating_sub(at.0) < SOON_MS;
        self.at.is_some_and(soon)
    }
}

/// A pool of which nothing was handed out. A wide one that hosts share is mostly others': bits for
/// what this host owns are enough.
fn nothing_taken(subnet: Subnet) -> AddressPool {
    if subnet.host_bits() <= DENSE_HOST_BITS_MAX {
        return AddressPool::new(subnet);
    }
    let sparse = AddressPool::builder(subnet).sparse();
    let sparse = sparse.build();
    sparse.expect("only ranges and reservations can be refused")
}

/// The addresses of a subnet that can be handed out at all, by index.
pub(crate) fn usable(subnet: Subnet) -> Part {
    let last = subnet.size_saturating() - 1;
    if subnet.host_bits() < 2 {
        return Part { first: 0, last };
    }
    let broadcast = u128::from(subnet.family() == Family::V4);
    Part {
        first: 1,
        last: last - broadcast,
    }
}

/// A host that needs the next addresses within so many milliseconds claims ahead: a claim takes some
/// milliseconds, in which all its callers would wait.
const SOON_MS: u64 = 1000;

/// Wider pools keep bits only where something is free: here 8 KiB are the most for one.
const DENSE_HOST_BITS_MAX: u8 = 16;

/// A part as aligned blocks.
fn blocks(subnet: Subnet, part: Part) -> Vec<Subnet> {
    let mut blocks = Vec::new();
    let mut next = Some(part.first);
    while let Some(first) = next.filter(|first| *first <= part.last) {
        let fitting = (part.last - first).saturating_add(1).ilog2();
        let order = first.trailing_zeros().min(fitting);
        let Some(ip) = subnet.nth(first) else {
            break;
        };
        let bits = subnet.family().bits();
        let prefix_len = bits - u8::try_from(order).unwrap_or(bits).min(bits);
        blocks.push(Subnet::truncating(ip, prefix_len));
        next = 1u128
            .checked_shl(order)
            .and_then(|size| first.checked_add(size));
    }
    blocks
}

/// Whether anybody but `nonce` holds the pool's gateway.
pub(crate) fn gateway_held_by_others(stored: &StoredPool, nonce: u64) -> bool {
    stored
        .references
        .iter()
        .any(|(other, r)| *other != nonce && r.record.gateway == GatewayHold::Held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::records::{PoolRecord, PoolState, VERSION};
    use crate::registry::Stored;
    use crate::table::Table;
    use netloom_core::store::Version;
    use netloom_core::{AddressSpace, Timestamp};
    use std::collections::BTreeMap;

    #[test]
    fn blocks_cover_a_part_exactly() {
        for (subnet, first, last) in [
            ("10.0.0.0/24", 1, 254),
            ("10.0.0.0/16", 1023, 3000),
            ("10.0.0.0/30", 1, 2),
            ("10.0.0.0/31", 0, 1),
            ("10.0.0.7/32", 0, 0),
            ("fd00::/64", 1, u128::from(u64::MAX)),
            ("::/0", 1, u128::MAX - 1),
        ] {
            let subnet: Subnet = subnet.parse().unwrap();
            let blocks = blocks(subnet, Part { first, last });
            let mut next = first;
            for block in &blocks {
                assert_eq!(subnet.index_of(block.first()), Some(next), "{subnet}");
                next = subnet.index_of(block.last()).unwrap() + 1;
            }
            assert_eq!(next, last + 1, "{subnet}");
        }
    }

    #[test]
    fn what_is_usable_is_what_a_pool_would_hand_out() {
        for subnet in [
            "10.0.0.0/29",
            "10.0.0.0/31",
            "10.0.0.7/32",
            "fd00::/125",
            "fd00::/127",
        ] {
            let subnet: Subnet = subnet.parse().unwrap();
            let mut pool = AddressPool::new(subnet);
            let all = std::iter::from_fn(|| pool.allocate().ok());
            let handed: BTreeSet<_> = all.filter_map(|ip| subnet.index_of(ip)).collect();
            let Part { first, last } = usable(subnet);
            assert_eq!(handed, (first..=last).collect(), "{subnet}");
        }
    }

    fn stored(key: PoolKey, gateway: Option<IpAddr>) -> StoredPool {
        let record = PoolRecord {
            version: VERSION,
            operation: String::new(),
            generation: 1,
            state: PoolState::Active,
            gateway,
        };
        let version = Version::from_bytes([1]);
        StoredPool {
            key,
            pool: Stored { record, version },
            references: BTreeMap::new(),
        }
    }

    /// After a store lost its past, another host's gateway was written again into what this host had
    /// claimed meanwhile.
    #[test]
    fn a_gateway_in_an_own_range_is_handed_out_by_nobody() {
        let subnet: Subnet = "10.0.0.0/24".parse().unwrap();
        let space = AddressSpace::Global;
        let key = PoolKey { space, subnet };
        let mut table = Table::default();
        let opened = Event::PoolOpened {
            pool: 1,
            space,
            subnet,
            generation: 1,
        };
        let part = Part { first: 0, last: 3 };
        let owned = Event::RangeOwned {
            pool: 1,
            part,
            generation: 1,
            idle: Timestamp(0),
        };
        for event in [opened, owned] {
            table.apply(event).unwrap();
        }
        let ledger = &table.pools[&1];
        let handed_out = |mut live: Live| -> Vec<u128> {
            let all = std::iter::from_fn(|| live.addresses.allocate().ok());
            all.filter_map(|ip| subnet.index_of(ip)).collect()
        };
        let me = Own {
            host: "h1",
            let_go: &LetGo::new(),
        };
        let mut live = Live::new(1, &stored(key, None), ledger, me);
        live.follow(&stored(key, subnet.nth(2)), ledger, me);
        assert_eq!(handed_out(live), [1, 3]);
        let mut live = Live::new(1, &stored(key, subnet.nth(2)), ledger, me);
        live.follow(&stored(key, None), ledger, me);
        assert_eq!(handed_out(live), [1, 2, 3]);
    }
}
