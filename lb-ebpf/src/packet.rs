//! The bytes of a packet on tc. All unsafe access to them is in this file.

use core::{ffi::c_void, mem::offset_of, ptr};

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO,
        BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
        bpf_check_mtu_flags::BPF_MTU_CHK_SEGS,
    },
    helpers::generated::{
        bpf_check_mtu, bpf_csum_update, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh,
        bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_change_type, bpf_skb_pull_data,
        bpf_skb_store_bytes,
    },
};
use bytemuck::Pod;
use lb_common::{
    family::{Family, V6},
    path::{Egress, Packet, SumKind},
    wire::{Ethernet, Protocol},
};

use crate::{
    maps::SETTINGS,
    wide::{bounds, read},
};

/// `BPF_F_IPV6` of linux/bpf.h (6.16): an IPv6 address change is not made up for in a header checksum.
const BPF_F_IPV6: u64 = 1 << 7;
/// `PACKET_HOST` of linux/if_packet.h.
const PACKET_HOST: u32 = 0;
/// `PACKET_OTHERHOST` of linux/if_packet.h.
const PACKET_OTHERHOST: u32 = 3;

/// A socket buffer, seen from its Ethernet header on.
pub struct Skb {
    skb: *mut __sk_buff,
}

/// EtherType behind a VLAN tag, if there is one, network byte order; of a packet with two tags, a tag's.
#[inline(always)]
pub fn ethertype(skb: *mut __sk_buff) -> u16 {
    // SAFETY: a field of the live context.
    unsafe { (*skb).protocol as u16 }
}

impl Skb {
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        Skb { skb }
    }

    /// First byte and end of the readable part.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the live context, which has `data_end` behind `data`.
        unsafe { bounds::<_, { offset_of!(__sk_buff, data) }>(self.skb) }
    }

    /// Sends a rewritten packet on its way: the hook's return value.
    #[inline(always)]
    pub fn send(&self, way: Egress) -> Option<i32> {
        // SAFETY: helpers that only note where the packet goes.
        let action = unsafe {
            match way {
                Egress::Continue => return None,
                Egress::Peer(ifindex) => {
                    if SETTINGS.get().peer_scrubs == 0 && (*self.skb).pkt_type != PACKET_HOST {
                        bpf_skb_change_type(self.skb, PACKET_HOST);
                    }
                    bpf_redirect_peer(ifindex, 0)
                }
                Egress::Device(ifindex) => bpf_redirect(ifindex, 0),
                Egress::Neighbour(ifindex) => bpf_redirect_neigh(ifindex, ptr::null_mut(), 0, 0),
            }
        };
        Some(action as i32)
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn size(&self) -> u32 {
        // SAFETY: a field of the live context.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: a field of the live context.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    fn tagged(&self) -> bool {
        // SAFETY: a field of the live context.
        unsafe { (*self.skb).vlan_present != 0 }
    }

    #[inline(always)]
    fn is_for_another(&self) -> bool {
        // SAFETY: a field of the live context.
        unsafe { (*self.skb).pkt_type == PACKET_OTHERHOST }
    }

    #[inline(always)]
    fn pull(&mut self, len: u32) {
        // SAFETY: no pointer into the packet is held over this call. What could not be pulled stays
        // unreadable, which the next load says.
        unsafe { bpf_skb_pull_data(self.skb, len) };
    }

    #[inline(always)]
    fn load<T: Pod>(&self, offset: usize) -> Option<T> {
        const { assert!(align_of::<T>() <= 2) };
        let (data, end) = self.bounds();
        if data + offset + size_of::<T>() > end {
            return None;
        }
        // SAFETY: inside the readable part, as just compared; headers start at even addresses.
        Some(unsafe { read(data + offset) })
    }

    #[inline(always)]
    fn store<T: Pod>(&mut self, offset: usize, value: &T) -> bool {
        // By helper and not in place: a program that writes in place makes every packet it sees
        // writable first, also those that it leaves alone.
        // SAFETY: reads `value` whole; no pointer into the packet is held over this call.
        unsafe {
            bpf_skb_store_bytes(
                self.skb,
                offset as u32,
                ptr::from_ref(value).cast::<c_void>(),
                size_of::<T>() as u32,
                0,
            ) == 0
        }
    }

    #[inline(always)]
    fn update_checksum(&mut self, offset: usize, difference: u32, kind: SumKind) -> bool {
        let mut flags = 0;
        if kind.protocol == Protocol::Udp {
            flags |= BPF_F_MARK_MANGLED_0 as u64;
        }
        if kind.pseudo_header {
            flags |= BPF_F_PSEUDO_HDR as u64;
        }
        let ipv6_addresses = kind.pseudo_header && kind.ipv6;
        if ipv6_addresses && SETTINGS.get().has_csum_ipv6 != 0 {
            flags |= BPF_F_IPV6;
        }
        // SAFETY: no pointer into the packet is held over this call.
        let done = unsafe { bpf_l4_csum_replace(self.skb, offset as u32, 0, difference as u64, flags) == 0 };
        if ipv6_addresses && SETTINGS.get().has_csum_ipv6 == 0 {
            // The helper has taken the addresses for covered by a header checksum and moved a complete
            // sum (CHECKSUM_COMPLETE) by the difference, which must not move: bring it back.
            // SAFETY: only the context is touched; without a complete sum it does nothing.
            unsafe { bpf_csum_update(self.skb, difference) };
        }
        done
    }

    #[inline(always)]
    fn resize(&mut self, len: u32) -> bool {
        // SAFETY: no pointer into the packet is held over this call.
        unsafe { bpf_skb_change_tail(self.skb, len, 0) == 0 }
    }

    #[inline(always)]
    fn make_room(&mut self, len: u32) -> bool {
        // SAFETY: no pointer into the packet is held over this call.
        unsafe { bpf_skb_adjust_room(self.skb, len as i32, BPF_ADJ_ROOM_MAC, 0) == 0 }
    }

    #[inline(always)]
    fn fits(&self, ifindex: u32) -> bool {
        // Zero: the packet's own length.
        let mut len = 0;
        // SAFETY: `len` outlives the call, which changes nothing else. Above zero: too big. Below: no such device,
        // which sending it will say.
        unsafe { bpf_check_mtu(self.skb.cast(), ifindex, &raw mut len, 0, BPF_MTU_CHK_SEGS.into()) <= 0 }
    }

    #[inline(always)]
    fn mtu(&self, ifindex: u32) -> u32 {
        // Zero: the packet's own length.
        let mut mtu = 0;
        // SAFETY: `mtu` outlives the call, which changes nothing else. Not for its answer: of parts it tells only
        // whether they fit as they are (EINVAL with a difference, kernel 6.18).
        unsafe { bpf_check_mtu(self.skb.cast(), ifindex, &raw mut mtu, 0, 0) };
        mtu
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        // SAFETY: a field of the live context.
        unsafe { (*self.skb).gso_size }
    }

    #[inline(always)]
    fn wrap<F: Family>(&mut self, outer: &F::Header) -> bool {
        let encap = if F::ETHERTYPE == V6::ETHERTYPE {
            BPF_F_ADJ_ROOM_ENCAP_L3_IPV6
        } else {
            BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
        };
        // Parts stay as large as they are: they fit, and a datagram must not be cut otherwise.
        let fixed = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
        let len = size_of::<F::Header>() as i32;
        // SAFETY: no pointer into the packet is held over this call.
        let grow = |flags| unsafe { bpf_skb_adjust_room(self.skb, len, BPF_ADJ_ROOM_MAC, flags) == 0 };
        // What has just been decapsulated is to the kernel still inside another (EALREADY, kernel 6.18).
        let grown = grow(encap as u64 | fixed) || grow(fixed);
        grown && self.replace(size_of::<Ethernet>(), outer)
    }

    #[inline(always)]
    fn unwrap<F: Family>(&mut self) -> bool {
        let len = size_of::<F::Header>() as i32;
        let flags = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
        // SAFETY: no pointer into the packet is held over this call.
        unsafe { bpf_skb_adjust_room(self.skb, -len, BPF_ADJ_ROOM_MAC, flags) == 0 }
    }

    #[inline(always)]
    fn replace<T: Pod>(&mut self, offset: usize, value: &T) -> bool {
        let from = ptr::from_ref(value).cast::<c_void>();
        // SAFETY: as in `store`.
        unsafe {
            bpf_skb_store_bytes(
                self.skb,
                offset as u32,
                from,
                size_of::<T>() as u32,
                BPF_F_RECOMPUTE_CSUM as u64,
            ) == 0
        }
    }

    #[inline(always)]
    fn unfinished(&mut self, offset: usize) -> bool {
        // No program can see it. But a difference that is none of the pseudo header's is left to the
        // device where it has yet to sum up, and applied at once where it has not.
        let before = self.load::<u16>(offset);
        // SAFETY: no pointer into the packet is held over these calls.
        unsafe { bpf_l4_csum_replace(self.skb, offset as u32, 0, 1, 0) };
        let after = self.load::<u16>(offset);
        // SAFETY: as above. Back again, -1 in one's complement.
        unsafe { bpf_l4_csum_replace(self.skb, offset as u32, 0, !1u32 as u64, 0) };
        let Some(before) = before else { return false };
        // Ones have become zeros, which are as much in a sum, but not to UDP.
        if before == u16::MAX {
            self.store(offset, &before);
        }
        after == Some(before)
    }

    #[inline(always)]
    fn update_sum(&mut self, difference: u32) {
        // SAFETY: only the context is touched; without a complete sum it does nothing.
        unsafe { bpf_csum_update(self.skb, difference) };
    }
}
