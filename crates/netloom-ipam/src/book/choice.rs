//! The small rules of choosing, and the words for what cannot be.

use super::{Refusal, Source, Wish};
use crate::event::{Event, NAME_BYTES_MAX};
use crate::live::Live;
use crate::ranges::Need;
use crate::ranges::held::Part;
use crate::space::Reference;
use crate::table::Ledger;
use netloom_alloc::{AddressState, AllocateError, Role};
use netloom_core::{IpamError, ReservedFor};
use netloom_types::Subnet;
use std::net::IpAddr;
use std::sync::Arc;

/// What becomes of the free addresses in memory after an event.
pub(super) enum After {
    Nothing,
    /// One may have been idle for so long that its place in the order is not kept.
    CoolDown(u32),
    Open(u32, Part),
    Close(u32, Part),
}

impl After {
    pub(super) fn of(event: &Event) -> Self {
        match event {
            Event::Released { pool, .. } | Event::Unreserved { pool, .. } => Self::CoolDown(*pool),
            Event::RangeOwned { pool, part, .. } | Event::RangeKept { pool, part, .. } => {
                Self::Open(*pool, *part)
            }
            Event::RangeLeaving { pool, part } | Event::RangeLost { pool, part } => {
                Self::Close(*pool, *part)
            }
            _ => Self::Nothing,
        }
    }
}

/// An address that was named.
pub(super) fn choose_named(
    live: &mut Live,
    ledger: &Ledger,
    wish: &Wish,
    ip: IpAddr,
) -> Result<(IpAddr, Source), Refusal> {
    let index = live.key.subnet.index_of(ip).unwrap_or_default();
    if let Some(error) = infrastructural(live, ip) {
        return Err(Refusal::Error(error));
    }
    let reserved = ledger.reserved.get(&index);
    if let Some(holder) = reserved.filter(|holder| !admits(holder, wish)) {
        return Err(Refusal::Error(IpamError::InUse(format!(
            "{ip} is reserved for {}; see `netloom address ls`",
            told(holder)
        ))));
    }
    // Also of a reserved one: its range may have gone to another host while the store had lost its past.
    if !ledger.held.owns(index) {
        return Err(Refusal::Absent(Need::Exactly(index)));
    }
    if reserved.is_some() || ledger.cooling.contains(index) {
        return Ok((ip, Source::Kept));
    }
    match live.addresses.allocate_at(ip) {
        Ok(()) => Ok((ip, Source::Fresh)),
        Err(error) => Err(Refusal::Error(occupied(ip, error))),
    }
}

/// Why an address can never be an endpoint's, if that is so.
pub(crate) fn infrastructural(live: &Live, ip: IpAddr) -> Option<IpamError> {
    let role = if live.gateway == Some(ip) {
        Role::Gateway
    } else if live.is_auxiliary(ip) {
        Role::Auxiliary
    } else {
        match live.addresses.state(ip) {
            AddressState::Reserved(role) => role,
            _ => return None,
        }
    };
    Some(occupied(ip, AllocateError::Reserved { ip, role }))
}

/// Whether somebody with this wish may name the address that is kept for `holder`. Before Docker
/// 29 nobody tells a name, and a pinned container asks by address alone.
fn admits(holder: &ReservedFor, wish: &Wish) -> bool {
    match holder {
        ReservedFor::Explicit => true,
        ReservedFor::Mac(mac) => wish.mac.is_none_or(|m| m == *mac),
        ReservedFor::Name(name) => wish.name.as_ref().is_none_or(|n| n == name),
    }
}

/// Whether the address kept for `holder` is this asker's without naming it.
pub(super) fn is_for(holder: &ReservedFor, wish: &Wish) -> bool {
    match holder {
        ReservedFor::Explicit => false,
        ReservedFor::Mac(mac) => wish.mac == Some(*mac),
        ReservedFor::Name(name) => wish.name.as_ref() == Some(name),
    }
}

pub(crate) fn told(holder: &ReservedFor) -> String {
    match holder {
        ReservedFor::Explicit => "explicit requests".to_owned(),
        ReservedFor::Mac(mac) => mac.to_string(),
        ReservedFor::Name(name) => name.clone(),
    }
}

/// A name as far as it is kept.
pub(crate) fn bounded(name: &str) -> Box<str> {
    let end = (0..=NAME_BYTES_MAX.min(name.len()))
        .rev()
        .find(|at| name.is_char_boundary(*at));
    name.get(..end.unwrap_or(0)).unwrap_or_default().into()
}

pub(crate) fn occupied(ip: IpAddr, error: AllocateError) -> IpamError {
    match error {
        AllocateError::OutOfPool { .. } => IpamError::Invalid(error.to_string()),
        AllocateError::Reserved { .. } => IpamError::InUse(error.to_string()),
        _ => IpamError::InUse(format!("{ip} is in use; choose another address")),
    }
}

pub(crate) fn exhausted(subnet: Subnet, range: Option<Subnet>) -> IpamError {
    let confined = range.map(|range| format!(" (of the range {range})"));
    let confined = confined.unwrap_or_default();
    IpamError::Exhausted(format!(
        "every address of {subnet}{confined} is in use; remove containers or reservations, \
         see `netloom address ls`, or make a network with a larger subnet"
    ))
}

pub(crate) fn unknown_reference(reference: Reference) -> IpamError {
    IpamError::NotFound(format!(
        "the pool reference {} is not known here; remove the network and make it again",
        reference.id()
    ))
}

pub(crate) fn not_journalled(error: Arc<crate::journal::JournalError>) -> IpamError {
    IpamError::Unavailable {
        what: "the address journal did not take it; nothing was handed out".to_owned(),
        source: Some(Box::new(error)),
    }
}
