//! Routes.

use super::{INET, INET6, family_number, ip_of, link::gone_or, list, octets};
use crate::socket::NetlinkSocket;
use crate::wire::{CREATE, EXCLUSIVE, Malformed, Message, Received, array};
use crate::{Applied, KernelError, LinkIndex, NextHop, Route, RouteSpec};
use netloom_types::Subnet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `RTM_NEWROUTE`.
const NEW_ROUTE: u16 = 24;
/// `RTM_DELROUTE`.
const DELETE_ROUTE: u16 = 25;
/// `RTM_GETROUTE`.
const GET_ROUTE: u16 = 26;
/// `RTA_DST`.
const DESTINATION: u16 = 1;
/// `RTA_OIF`.
const LINK: u16 = 4;
/// `RTA_GATEWAY`.
const GATEWAY: u16 = 5;
/// `RTA_PRIORITY`.
const METRIC: u16 = 6;
/// `RTA_PREFSRC`.
const SOURCE: u16 = 7;
/// `RTA_TABLE`.
const TABLE: u16 = 15;
/// `RT_TABLE_MAIN`.
const MAIN: u8 = 254;
/// `RT_TABLE_LOCAL`: addresses of the host itself, no routes in the sense of this crate.
const LOCAL: u32 = 255;
/// `RTPROT_BOOT`, as `ip route` and Docker's own driver say, so that a container's routes look the
/// same whoever made them.
const BOOT: u8 = 3;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;
/// `RT_SCOPE_UNIVERSE`.
const SCOPE_UNIVERSE: u8 = 0;
/// `RT_SCOPE_LINK`.
const SCOPE_LINK: u8 = 253;
/// `RTNH_F_ONLINK`.
const ONLINK: u32 = 4;
/// `RTM_F_CLONED`: an entry of the route cache.
const CLONED: u32 = 0x200;
/// Bytes of `struct rtmsg`.
const HEADER: usize = 12;

fn message(kind: u16, flags: u16, index: u32, spec: &RouteSpec) -> Message {
    let family = family_number(spec.destination.family());
    let scope = match (&spec.gateway, family) {
        (None, INET) => SCOPE_LINK,
        _ => SCOPE_UNIVERSE,
    };
    let onlink = match spec.gateway {
        Some(NextHop::Onlink(_)) => ONLINK,
        _ => 0,
    };
    let [a, b, c, d] = onlink.to_ne_bytes();
    let len = spec.destination.prefix_len();
    let header = [family, len, 0, 0, MAIN, BOOT, scope, UNICAST, a, b, c, d];
    let mut message = Message::new(kind, flags, &header);
    if len > 0 {
        message.put(DESTINATION, &octets(spec.destination.first()));
    }
    message
        .u32(LINK, index)
        .when(spec.gateway, |m, hop| {
            m.bytes(GATEWAY, &octets(hop.address()))
        })
        .when(spec.source, |m, ip| m.bytes(SOURCE, &octets(ip)))
        .when(Some(spec.metric).filter(|m| *m != 0), |m, metric| {
            m.u32(METRIC, metric)
        })
}

pub(crate) fn add(socket: &mut NetlinkSocket, spec: &RouteSpec) -> Result<Applied, KernelError> {
    let index = list::index(socket, &spec.link)?;
    let what = format!("adding route {} on {}", spec.destination, spec.link);
    match socket.request(message(NEW_ROUTE, CREATE | EXCLUSIVE, index, spec), &what) {
        Ok(()) => Ok(Applied::Changed),
        Err(KernelError::Exists { .. }) => {
            // The kernel compares prefix and metric only; the same route elsewhere is a conflict.
            let gateway = spec.gateway.map(NextHop::address);
            let same = routes(socket)?.into_iter().any(|have| {
                have.destination == spec.destination
                    && have.link == Some(LinkIndex(index))
                    && have.gateway == gateway
            });
            if same {
                return Ok(Applied::AlreadySo);
            }
            Err(KernelError::Conflict {
                what: format!("route {}", spec.destination),
                difference: "it leads elsewhere".into(),
            })
        }
        Err(error) => Err(error),
    }
}

pub(crate) fn delete(socket: &mut NetlinkSocket, spec: &RouteSpec) -> Result<Applied, KernelError> {
    let Some(link) = list::link(socket, &spec.link)? else {
        return Ok(Applied::AlreadySo);
    };
    let what = format!("deleting route {} on {}", spec.destination, spec.link);
    gone_or(socket.request(message(DELETE_ROUTE, 0, link.index.0, spec), &what))
}

pub(crate) fn routes(socket: &mut NetlinkSocket) -> Result<Vec<Route>, KernelError> {
    let mut all = Vec::new();
    for family in [INET, INET6] {
        let mut header = [0; HEADER];
        if let Some(first) = header.first_mut() {
            *first = family;
        }
        let message = Message::new(GET_ROUTE, 0, &header);
        all.extend(socket.dump(&message, "listing routes", parse)?);
    }
    Ok(all)
}

pub(crate) fn parse(received: &Received<'_>) -> Result<Option<Route>, Malformed> {
    if received.kind != NEW_ROUTE {
        return Ok(None);
    }
    let cut = Malformed("the route header is cut off");
    let [family, len, _, _, table, _, _, kind] = array::<8>(received.payload, 0).ok_or(cut)?;
    let flags = array(received.payload, 8)
        .map(u32::from_ne_bytes)
        .ok_or(cut)?;
    if kind != UNICAST || flags & CLONED != 0 {
        return Ok(None);
    }
    let attributes = received.attributes(HEADER)?;
    let table = attributes.u32(TABLE).unwrap_or_else(|| u32::from(table));
    let destination = match (attributes.get(DESTINATION), family) {
        (Some(bytes), _) => ip_of(bytes)?,
        (None, INET) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (None, INET6) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        (None, _) => return Ok(None),
    };
    if table == LOCAL {
        return Ok(None);
    }
    Ok(Some(Route {
        destination: Subnet::new(destination, len)
            .map_err(|_| Malformed("a route's destination has host bits"))?,
        gateway: attributes.get(GATEWAY).map(ip_of).transpose()?,
        link: attributes.u32(LINK).map(LinkIndex),
        table,
        metric: attributes.u32(METRIC).unwrap_or(0),
    }))
}
