//! Neighbours: who asks on a bridge for the address of a service that lies in the bridge's own subnet is
//! told the bridge's MAC; who asks at an uplink for one in the uplink's, the uplink's. Only for addresses that the
//! agent has noted: what a pod owns, it answers for.
//!
//! The request itself becomes the answer and leaves where it came from.

use super::answer::{Answer, NETWORK, complete, put, started, sum};
use super::step::{Egress, Next};
use super::tables::{Common, Tables};
use super::{hook::Hook, leave::is_for_another, packet::Packet, parse::readable, stop, zone::zone};
use crate::{
    abi::{Event, Mac, NeighKey, Stop},
    family::{Addr6, Address as _, Family, V6},
    wire::{Arp, Ethernet, Ipv6, NetworkHeader as _, Solicitation, ndp},
};

/// A frame with an ARP message.
#[repr(C)]
#[derive(Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
struct ArpFrame {
    ethernet: Ethernet,
    arp: Arp,
}

/// A frame with a neighbour solicitation, as far as its options.
#[repr(C)]
#[derive(Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
struct SolicitationFrame {
    ethernet: Ethernet,
    ip: Ipv6,
    message: Solicitation,
}

/// What a frame of ARP gets, and counts the outcome.
#[inline(always)]
pub fn answer_arp<P: Packet, T: Common>(packet: &mut P, tables: &T, hook: Hook) -> Next {
    if packet.tagged() || hook == Hook::UplinkXdp && is_for_another(packet, tables) {
        return Next::PASS;
    }
    let answered = arp(packet, tables, hook).map(|()| back(packet, tables));
    stop::conclude(answered, tables, hook)
}

/// Answers a neighbour solicitation.
#[inline(always)]
pub fn proxy_nd<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    _: Next,
) -> Result<Next, Stop> {
    solicitation(packet, tables, hook)?;
    Ok(back(packet, tables))
}

/// The answer leaves where the question came from.
#[inline(always)]
fn back<P: Packet, T: Common>(packet: &P, tables: &T) -> Next {
    tables.count(Event::Answered.into());
    Egress::Device(packet.ifindex()).into()
}

/// Answers a request of ARP, or says why not.
#[inline(always)]
fn arp<P: Packet, T: Common>(packet: &mut P, tables: &T, hook: Hook) -> Result<(), Stop> {
    let ArpFrame { arp, .. } = readable(packet, 0)?;
    let target = arp.asks_for().ok_or(Stop::NotOurs)?;
    let key = NeighKey::v4(target, zone(packet, tables, hook)?.into());
    let mac = tables.proxy_neigh(&key).ok_or(Stop::NotOurs)?;
    let replaced = packet.replace(NETWORK, &arp.reply(mac));
    (replaced && turn(packet, arp.sender(), mac)).then_some(()).ok_or(Stop::RewriteFailed)
}

/// Answers a neighbour solicitation, or says why not.
#[inline(always)]
fn solicitation<P: Packet, T: Common>(packet: &mut P, tables: &T, hook: Hook) -> Result<(), Stop> {
    let asked: SolicitationFrame = readable(packet, 0).map_err(|_| Stop::Protocol)?;
    let target = asked.asks_for(packet.size()).ok_or(Stop::Protocol)?;
    let key = NeighKey::v6(target, zone(packet, tables, hook)?.into());
    let mac = tables.proxy_neigh(&key).ok_or(Stop::Protocol)?;
    // Who has no address yet (it looks whether this one is taken, RFC 4862 section 5.4.3) hears it as all do.
    let asker = asked.ip.source();
    let solicited = asker != Addr6::ZERO;
    let (to, link) =
        if solicited { (asker, asked.ethernet.source) } else { (ndp::ALL_NODES, ndp::ALL_NODES_MAC) };
    advertise(packet, &asked.message, target, to, mac, solicited).ok_or(Stop::RewriteFailed)?;
    turn(packet, link, mac).then_some(()).ok_or(Stop::RewriteFailed)
}

impl SolicitationFrame {
    /// The address asked for, if it is a valid solicitation (RFC 4861 section 7.1.1) of a packet that the
    /// path has parsed. Two of its rules are left out: the checksum may still be unfinished here, and a
    /// wrong answer to a damaged packet does no harm; and options are of no use, since the answer goes to
    /// whom the frame is from.
    #[inline(always)]
    fn asks_for(&self, size: u32) -> Option<Addr6> {
        let ip = &self.ip;
        let whole = ip.payload(size - NETWORK as u32) >= size_of::<Solicitation>() as u32;
        let allowed = ip.source() != Addr6::ZERO || ndp::is_solicited_node(ip.destination());
        if ip.protocol() != Ipv6::ICMP || ip.hop_limit() != ndp::HOP_LIMIT || !whole || !allowed {
            return None;
        }
        self.message.asks_for()
    }
}

/// Makes the packet the advertisement that `mac` has an address.
#[inline(always)]
fn advertise<P: Packet>(
    packet: &mut P,
    asked: &Solicitation,
    target: Addr6,
    to: Addr6,
    mac: Mac,
    solicited: bool,
) -> Option<()> {
    let mut then = asked.advertisement(mac, solicited);
    let ip = Ipv6::new(target, to, Ipv6::ICMP, size_of_val(&then) as u16, ndp::HOP_LIMIT);
    let pseudo = ip.pseudo_sum();
    // The checksum lies where the solicitation's was: where a device finishes it.
    let unfinished = packet.unfinished(CHECK);
    then.icmp.check = if unfinished { started(pseudo) } else { complete(pseudo + sum(&then)) };
    put(packet, &Answer::<V6, _> { ip, then })
}

/// Offset of ICMPv6's checksum.
const CHECK: usize = NETWORK + size_of::<Ipv6>() + 2;

/// Addresses the answer.
#[inline(always)]
fn turn<P: Packet>(packet: &mut P, destination: Mac, source: Mac) -> bool {
    packet.store(0, &[destination, source])
}
