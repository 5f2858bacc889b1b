//! Neighbours: the table, and announcements to those on a link.

use super::{INET, INET6, ip_of, list};
use crate::socket::NetlinkSocket;
use crate::wire::{Malformed, Message, Received, array};
use crate::{KernelError, LinkIndex, Neighbour};
use netloom_types::{LinkName, MacAddr};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket as open_socket,
};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

/// `RTM_NEWNEIGH`.
const NEW_NEIGHBOUR: u16 = 28;
/// `RTM_GETNEIGH`.
const GET_NEIGHBOUR: u16 = 30;
/// `NDA_DST`.
const DESTINATION: u16 = 1;
/// `NDA_LLADDR`.
const LINK_ADDRESS: u16 = 2;
/// Bytes of `struct ndmsg`.
const HEADER: usize = 12;

pub(crate) fn neighbours(socket: &mut NetlinkSocket) -> Result<Vec<Neighbour>, KernelError> {
    let message = Message::new(GET_NEIGHBOUR, 0, &[0; HEADER]);
    socket.dump(&message, "listing neighbours", parse)
}

pub(crate) fn parse(received: &Received<'_>) -> Result<Option<Neighbour>, Malformed> {
    if received.kind != NEW_NEIGHBOUR {
        return Ok(None);
    }
    let cut = Malformed("the neighbour header is cut off");
    let [family] = array::<1>(received.payload, 0).ok_or(cut)?;
    let link = array(received.payload, 4)
        .map(u32::from_ne_bytes)
        .ok_or(cut)?;
    let state = array(received.payload, 8)
        .map(u16::from_ne_bytes)
        .ok_or(cut)?;
    let attributes = received.attributes(HEADER)?;
    let Some(address) = attributes.get(DESTINATION) else {
        return Ok(None);
    };
    if family != INET && family != INET6 {
        return Ok(None);
    }
    Ok(Some(Neighbour {
        link: LinkIndex(link),
        address: ip_of(address)?,
        mac: attributes.get(LINK_ADDRESS).and_then(list::mac_of),
        state,
    }))
}

/// Sends announcements. Packet-socket addresses are kept, because the only safe way to get one
/// lists every link of the host, and an attach must not cost more where there are more links.
#[derive(Debug)]
pub(crate) struct Announcer {
    fd: OwnedFd,
    known: HashMap<u32, LinkAddr>,
}

impl Announcer {
    pub(crate) fn open() -> Result<Self, KernelError> {
        // Protocol 0: the socket sends only, and receives nothing.
        let fd = open_socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .map_err(|errno| KernelError::io("opening a packet socket", errno))?;
        Ok(Self {
            fd,
            known: HashMap::new(),
        })
    }

    /// Tells everyone on `link` that `address` is at `mac`.
    pub(crate) fn announce(
        &mut self,
        link: &LinkName,
        index: u32,
        mac: MacAddr,
        address: IpAddr,
    ) -> Result<(), KernelError> {
        let frame = match address {
            IpAddr::V4(ip) => gratuitous_arp(mac, ip),
            IpAddr::V6(ip) => unsolicited_advertisement(mac, ip),
        };
        let what = || format!("announcing {address} on {link}");
        if !self.known.contains_key(&index) {
            self.learn(link, index)?;
        }
        let to = self
            .known
            .get(&index)
            .ok_or_else(|| KernelError::NotFound {
                what: format!("link {link}"),
            })?;
        match sendto(self.fd.as_raw_fd(), &frame, to, MsgFlags::empty()) {
            Ok(_) => Ok(()),
            // A bridge without any port that is up has nobody to tell.
            Err(nix::Error::ENETDOWN) => Ok(()),
            Err(errno) => Err(KernelError::io(what(), errno)),
        }
    }

    fn learn(&mut self, link: &LinkName, index: u32) -> Result<(), KernelError> {
        let all = getifaddrs().map_err(|e| KernelError::io("listing packet addresses", e))?;
        for entry in all {
            let Some(address) = entry.address else {
                continue;
            };
            if entry.interface_name != link.as_str() {
                continue;
            }
            if let Some(packet) = address.as_link_addr()
                && u32::try_from(packet.ifindex()) == Ok(index)
            {
                self.known.insert(index, *packet);
            }
        }
        Ok(())
    }
}

/// A gratuitous ARP request (RFC 5227 section 3, "ARP announcement").
fn gratuitous_arp(mac: MacAddr, ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(mac.octets());
    // EtherType ARP; hardware Ethernet, protocol IPv4, lengths 6 and 4, operation request.
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac.octets());
    frame.extend(ip.octets());
    frame.extend([0; 6]);
    frame.extend(ip.octets());
    frame
}

/// An unsolicited neighbour advertisement with the override flag (RFC 4861 section 7.2.6).
fn unsolicited_advertisement(mac: MacAddr, ip: Ipv6Addr) -> Vec<u8> {
    // ff02::1, all nodes, and its Ethernet group address (RFC 2464 section 7).
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut body = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    body.extend(ip.octets());
    body.extend([2, 1]); // target link-layer address, one unit of 8 bytes
    body.extend(mac.octets());
    let sum = checksum(ip, all_nodes, &body);
    if let Some(field) = body.get_mut(2..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    let mut frame = Vec::with_capacity(86);
    frame.extend([0x33, 0x33, 0, 0, 0, 1]);
    frame.extend(mac.octets());
    // EtherType IPv6; version 6; 32 bytes of ICMPv6 (58); hop limit 255, as receivers demand.
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(ip.octets());
    frame.extend(all_nodes.octets());
    frame.extend(body);
    frame
}

/// The checksum of an ICMPv6 message with its pseudo header (RFC 8200 section 8.1).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(u32::try_from(body.len()).unwrap_or(0).to_be_bytes());
    bytes.extend([0, 0, 0, 58]);
    bytes.extend(body);
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            [high] => u32::from(u16::from_be_bytes([high, 0])),
            _ => 0,
        })
        .fold(0, u32::wrapping_add);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gratuitous_arp_names_the_address_as_sender_and_target() {
        let frame = gratuitous_arp(MacAddr::new([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[28..32], [10, 0, 0, 5]);
        assert_eq!(frame[38..42], [10, 0, 0, 5]);
    }

    #[test]
    fn the_advertisements_checksum_makes_the_sum_zero() {
        let ip: Ipv6Addr = "fd00::5".parse().unwrap();
        let frame = unsolicited_advertisement(MacAddr::new([2, 0, 0, 0, 0, 1]), ip);
        assert_eq!(frame.len(), 86);
        let all_nodes = "ff02::1".parse().unwrap();
        assert_eq!(checksum(ip, all_nodes, &frame[54..]), 0);
    }
}
