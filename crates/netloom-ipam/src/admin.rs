//! Management of pools, for people and for the background.

use crate::book::{Book, bounded, infrastructural, occupied, told};
use crate::event::{Event, Slot, SlotState};
use crate::live::{Live, usable};
use crate::manager::{AddressManager, settle};
use crate::mending::Reach;
use crate::ranges::held::Part;
use crate::ranges::{Fetched, Need};
use crate::space::{PoolKey, Reference};
use crate::table::Ledger;
use async_trait::async_trait;
use netloom_alloc::AddressPool;
use netloom_core::{
    AddressKind, AddressView, Evidence, Finding, FindingKind, IpamAdmin, IpamError, PoolView,
    Repair, Reservation, ReservedFor, Timestamp, crash_point,
};
use netloom_types::{PoolId, Subnet};
use std::collections::BTreeSet;
use std::net::IpAddr;

impl AddressManager {
    /// Keeps an address out of hand-out, once this host has it.
    async fn keep_out(&self, reservation: Reservation) -> Result<(), IpamError> {
        self.ready().await?;
        let mut deadline = None;
        for _ in 0..STEPS_MAX {
            let reserved = self.book().reserve(reservation.clone());
            match reserved {
                Ok(ticket) => {
                    crash_point!("ipam.reserve.noted");
                    return settle(ticket).await;
                }
                Err(Unreserved::Absent(pool, need)) => {
                    self.follow_life(pool).await?;
                    let deadline = *deadline.get_or_insert_with(|| self.deadline());
                    if self.fetch(pool, need, deadline).await? == Fetched::Nothing {
                        break;
                    }
                }
                Err(Unreserved::Error(error)) => return Err(error),
            }
        }
        Err(crate::pools::contended())
    }
}

#[async_trait]
impl IpamAdmin for AddressManager {
    async fn pools(&self) -> Vec<PoolView> {
        let book = self.book();
        let mut views: Vec<_> = book
            .pools
            .values()
            .filter_map(|live| Some(pool_view(live, book.table.pools.get(&live.number)?)))
            .collect();
        views.sort_by_key(|view| (view.subnet, view.space));
        views
    }

    fn listed_as(&self, reference: &PoolId) -> PoolId {
        let known = self.reference(reference);
        known.map_or_else(|| reference.clone(), |known| known.id())
    }

    async fn release_endpoint(&self, pool: &PoolId, ip: IpAddr) -> Result<(), IpamError> {
        self.take_endpoint_back(pool, ip).await
    }

    async fn addresses(&self, subnet: Subnet) -> Result<Vec<AddressView>, IpamError> {
        let book = self.book();
        let mut views = Vec::new();
        let mut known = false;
        for live in book.pools.values().filter(|l| l.key.subnet == subnet) {
            known = true;
            if let Some(ledger) = book.table.pools.get(&live.number) {
                views.extend(address_views(live, ledger));
            }
        }
        if !known {
            return Err(no_pool(&format!("{subnet}")));
        }
        views.sort_by_key(|view| view.ip);
        Ok(views)
    }

    async fn reserve(&self, reservation: Reservation) -> Result<(), IpamError> {
        self.in_time(self.keep_out(reservation)).await
    }

    async fn unreserve(&self, ip: IpAddr) -> Result<(), IpamError> {
        self.in_time(self.ready()).await?;
        let ticket = {
            let mut book = self.book();
            let (pool, index) = book.reserved_at(ip)?;
            book.unreserve(pool, index)?
        };
        settle(Some(ticket)).await
    }

    async fn audit(&self, evidence: &Evidence) -> Vec<Finding> {
        match self.look(evidence, Reach::Settle).await {
            Ok(findings) => findings,
            Err(error) => vec![Finding {
                kind: FindingKind::HostProblem,
                subject: "address management".to_owned(),
                detail: match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                },
                repair: Repair::ByHand,
                next_step: "check the disk and the log of netloomd".to_owned(),
            }],
        }
    }

    async fn repair(&self, evidence: &Evidence) -> Result<Vec<Finding>, IpamError> {
        self.look(evidence, Reach::Mend).await
    }
}

impl Book {
    fn reserve(
        &mut self,
        reservation: Reservation,
    ) -> Result<Option<crate::journal::Ticket>, Unreserved> {
        let Reservation { ip, holder } = reservation;
        let holder = match holder {
            ReservedFor::Name(name) => ReservedFor::Name(bounded(&name).into()),
            other => other,
        };
        let key = self.pool_of(ip).ok_or_else(|| no_pool(&ip.to_string()))?;
        let (pool, index) = self
            .locate(key, ip)
            .ok_or_else(|| no_pool(&ip.to_string()))?;
        let live = self.pools.get_mut(&key).expect("it was found just now");
        let ledger = self
            .table
            .pools
            .get(&pool)
            .expect("a live pool has a ledger");
        match ledger.reserved.get(&index) {
            Some(known) if *known == holder => return Ok(self.journal.under_way()),
            Some(other) => {
                return Err(Unreserved::Error(IpamError::InUse(format!(
                    "{ip} is reserved for {} already; `netloom address release {ip}` ends that",
                    told(other)
                ))));
            }
            None => {}
        }
        if let Some(error) = infrastructural(live, ip) {
            return Err(Unreserved::Error(error));
        }
        if !ledger.held.owns(index) {
            return Err(Unreserved::Absent(key, Need::Exactly(index)));
        }
        match ledger.slots.get(&index) {
            Some(slot) if contradicts(slot, &holder) => {
                return Err(Unreserved::Error(IpamError::InUse(format!(
                    "{ip} is in use by another container; stop that first"
                ))));
            }
            Some(_) => {}
            None if ledger.cooling.contains(index) => {}
            None => live
                .addresses
                .allocate_at(ip)
                .map_err(|e| occupied(ip, e))?,
        }
        let noted = self.note(Event::Reserved {
            pool,
            index,
            holder,
        });
        Ok(noted.map(Some)?)
    }

    /// The pool that holds `ip`; this host's own before a shared one.
    fn pool_of(&self, ip: IpAddr) -> Option<PoolKey> {
        let holds = |key: &&PoolKey| key.subnet.contains(ip);
        self.pools.keys().find(holds).copied()
    }

    fn reserved_at(&self, ip: IpAddr) -> Result<(u32, u128), IpamError> {
        let holding = self.pools.values().filter(|l| l.key.subnet.contains(ip));
        for live in holding {
            let index = live.key.subnet.index_of(ip).unwrap_or_default();
            let ledger = self.table.pools.get(&live.number);
            if ledger.is_some_and(|l| l.reserved.contains_key(&index)) {
                return Ok((live.number, index));
            }
        }
        Err(IpamError::NotFound(format!(
            "{ip} is not reserved; see `netloom address ls`"
        )))
    }
}

/// Why an address was not reserved.
enum Unreserved {
    /// It is not this host's yet.
    Absent(PoolKey, Need),
    Error(IpamError),
}

impl From<IpamError> for Unreserved {
    fn from(error: IpamError) -> Self {
        Self::Error(error)
    }
}

/// Whether the user of an address is known to be somebody else than `holder`.
fn contradicts(slot: &Slot, holder: &ReservedFor) -> bool {
    match holder {
        ReservedFor::Explicit => false,
        ReservedFor::Mac(mac) => slot.mac.is_some_and(|m| m != *mac),
        ReservedFor::Name(name) => slot.name.as_deref().is_some_and(|n| n != name),
    }
}

fn pool_view(live: &Live, ledger: &Ledger) -> PoolView {
    let subnet = live.key.subnet;
    let range = live.references.common_range();
    let within = range.unwrap_or(subnet);
    let blank = AddressPool::new(subnet);
    let capacity = within
        .size_saturating()
        .saturating_sub(blank.allocated_in(within))
        .saturating_sub(
            blank
                .reserved()
                .filter(|(ip, _)| within.contains(*ip))
                .count() as u128,
        );
    let reference = |nonce| {
        let pool = live.key;
        Reference { pool, nonce }.id()
    };
    PoolView {
        subnet,
        space: live.key.space,
        range,
        references: live.references.nonces().map(reference).collect(),
        own: live.references.own_by_use().map(reference).collect(),
        gateway: live.gateway,
        capacity: saturate(capacity),
        used: saturate(used_in(live, ledger, within).min(capacity)),
        fill: fill(live, ledger),
    }
}

/// Addresses of a part that are in use, reserved ones and infrastructure included.
fn used_in(live: &Live, ledger: &Ledger, part: Subnet) -> u128 {
    // One that lies in an own range is taken there.
    let owned = |ip| {
        let index = live.key.subnet.index_of(ip);
        index.is_some_and(|index| ledger.held.owns(index))
    };
    let held = live.infrastructure().into_iter();
    let held = held.filter(|ip| part.contains(*ip) && !owned(*ip));
    let idle = ledger.cooling.iter().map(|(index, _)| index);
    let idle = idle.filter(|index| {
        let ip = live.key.subnet.nth(*index);
        ledger.held.owns(*index)
            && ip.is_some_and(|ip| part.contains(ip) && !live.is_infrastructure(ip))
    });
    taken_in(live, ledger, part).saturating_sub(idle.count() as u128) + held.count() as u128
}

/// Owned addresses of a part that are not fresh.
fn taken_in(live: &Live, ledger: &Ledger, part: Subnet) -> u128 {
    let index = |ip| live.key.subnet.index_of(ip).unwrap_or_default();
    let bounds = Part {
        first: index(part.first()),
        last: index(part.last()),
    };
    let Some(within) = bounds.common(usable(live.key.subnet)) else {
        return 0;
    };
    let strange = within.len() - ledger.held.owned_in(within);
    live.addresses.allocated_in(part).saturating_sub(strange)
}

/// The share in use of up to 64 equal parts, 255 for all of it.
fn fill(live: &Live, ledger: &Ledger) -> Vec<u8> {
    let subnet = live.key.subnet;
    let parts_log2 = subnet.host_bits().min(FILL_PARTS_LOG2);
    let Ok(parts) = subnet.subnets(subnet.prefix_len() + parts_log2) else {
        return Vec::new();
    };
    let parts: Vec<_> = parts.collect();
    let mut cooling = vec![0u128; parts.len()];
    let shift = u32::from(subnet.host_bits() - parts_log2);
    let idle = ledger.cooling.iter().map(|(index, _)| index);
    for index in idle.filter(|index| ledger.held.owns(*index)) {
        let part = usize::try_from(index.checked_shr(shift).unwrap_or(0)).unwrap_or(usize::MAX);
        if let Some(count) = cooling.get_mut(part) {
            *count += 1;
        }
    }
    let share = |(part, cooling): (&Subnet, u128)| {
        let used = taken_in(live, ledger, *part).saturating_sub(cooling);
        let size = part.size_saturating();
        // Wide parts are divided first: the product would not fit.
        let scaled = if size > 1 << 64 {
            used / (size / 255)
        } else {
            (used * 255).div_ceil(size)
        };
        u8::try_from(scaled).unwrap_or(u8::MAX)
    };
    parts.iter().zip(cooling).map(share).collect()
}

fn address_views(live: &Live, ledger: &Ledger) -> Vec<AddressView> {
    let subnet = live.key.subnet;
    let bare = |ip, kind| AddressView {
        ip,
        kind,
        mac: None,
        name: None,
        since: Timestamp::default(),
    };
    let mut views: Vec<_> = live
        .gateway
        .map(|ip| bare(ip, AddressKind::Gateway))
        .into_iter()
        .collect();
    let auxiliary: BTreeSet<_> = live.references.auxiliary().collect();
    let auxiliary = auxiliary.into_iter().filter(|ip| Some(*ip) != live.gateway);
    views.extend(auxiliary.map(|ip| bare(ip, AddressKind::Auxiliary)));
    views.extend(ledger.slots.iter().filter_map(|(index, slot)| {
        Some(AddressView {
            ip: subnet.nth(*index)?,
            kind: match slot.state {
                SlotState::InDoubt => AddressKind::InDoubt,
                SlotState::Endpoint => AddressKind::Endpoint,
            },
            mac: slot.mac,
            name: slot.name.as_deref().map(str::to_owned),
            since: slot.since,
        })
    }));
    let idle = ledger
        .reserved
        .iter()
        .filter(|(index, _)| !ledger.slots.contains_key(index));
    views.extend(idle.filter_map(|(index, holder)| {
        let mut view = bare(subnet.nth(*index)?, AddressKind::Reserved);
        match holder {
            ReservedFor::Explicit => {}
            ReservedFor::Mac(mac) => view.mac = Some(*mac),
            ReservedFor::Name(name) => view.name = Some(name.clone()),
        }
        Some(view)
    }));
    views
}

fn no_pool(what: &str) -> IpamError {
    IpamError::NotFound(format!(
        "no pool here holds {what}; `netloom pool ls` shows those that there are"
    ))
}

fn saturate(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// 64 parts: as many as the picture of a pool has cells.
const FILL_PARTS_LOG2: u8 = 6;
/// Tries to reserve an address that another request of this host takes and gives back.
const STEPS_MAX: u32 = 8;
