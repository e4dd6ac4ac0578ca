//! A packet in a vector, on a device.

use bytemuck::Pod;
use lb_common::{
    family::Family,
    path::{self, InPlace, SumKind},
    wire::{Ethernet, Protocol, checksum::fold16},
};

/// Offset of the network header.
const NETWORK: usize = size_of::<Ethernet>();

/// See the module. Its checksums are finished; no device has a part in them.
#[derive(Clone, Debug)]
pub struct Packet {
    /// From its Ethernet header on.
    pub bytes: Vec<u8>,
    /// How many of them can be read until more is asked for.
    pub readable: usize,
    /// The device.
    pub ifindex: u32,
    /// It has a VLAN tag, which is none of its bytes.
    pub tagged: bool,
    /// It is addressed to the MAC of another device.
    pub for_another: bool,
    /// How many bytes of what it carries each part has into which a device is to segment it; 0: it is none of those.
    pub segment: u32,
    /// What devices take, in bytes from the network header on; `None`: there is no such device.
    pub mtu: fn(u32) -> Option<u32>,
}

impl Packet {
    /// All of it can be read. Devices take packets of any size.
    pub fn new(bytes: Vec<u8>, ifindex: u32) -> Self {
        Packet {
            readable: bytes.len(),
            bytes,
            ifindex,
            tagged: false,
            for_another: false,
            segment: 0,
            mtu: |_| None,
        }
    }
}

impl InPlace for Packet {
    fn at<T: Pod>(&mut self, offset: usize) -> Option<&mut T> {
        bytemuck::try_from_bytes_mut(self.bytes.get_mut(offset..offset + size_of::<T>())?).ok()
    }
}

impl path::Packet for Packet {
    fn size(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn tagged(&self) -> bool {
        self.tagged
    }

    fn is_for_another(&self) -> bool {
        self.for_another
    }

    fn pull(&mut self, len: u32) {
        if len as usize <= self.bytes.len() {
            self.readable = self.readable.max(len as usize);
        }
    }

    fn load<T: Pod>(&self, offset: usize) -> Option<T> {
        Some(bytemuck::pod_read_unaligned(self.bytes[..self.readable].get(offset..offset + size_of::<T>())?))
    }

    fn store<T: Pod>(&mut self, offset: usize, value: &T) -> bool {
        let Some(place) = self.bytes.get_mut(offset..offset + size_of::<T>()) else { return false };
        place.copy_from_slice(bytemuck::bytes_of(value));
        self.readable = self.readable.max(offset + size_of::<T>());
        true
    }

    fn resize(&mut self, len: u32) -> bool {
        self.bytes.resize(len as usize, 0);
        self.readable = self.bytes.len();
        true
    }

    fn make_room(&mut self, len: u32) -> bool {
        self.bytes.splice(NETWORK..NETWORK, std::iter::repeat_n(0, len as usize));
        self.readable += len as usize;
        true
    }

    fn fits(&self, ifindex: u32) -> bool {
        (self.mtu)(ifindex).is_none_or(|mtu| self.bytes.len() <= mtu as usize + NETWORK)
    }

    fn mtu(&self, ifindex: u32) -> u32 {
        (self.mtu)(ifindex).unwrap_or(0)
    }

    fn segment(&self) -> u32 {
        self.segment
    }

    fn wrap<F: Family>(&mut self, outer: &F::Header) -> bool {
        self.make_room(size_of::<F::Header>() as u32) && self.store(NETWORK, outer)
    }

    fn unwrap<F: Family>(&mut self) -> bool {
        let end = NETWORK + size_of::<F::Header>();
        if self.bytes.len() < end {
            return false;
        }
        self.bytes.drain(NETWORK..end);
        self.readable = self.readable.saturating_sub(end - NETWORK).max(NETWORK);
        true
    }

    fn replace<T: Pod>(&mut self, offset: usize, value: &T) -> bool {
        self.store(offset, value)
    }

    fn unfinished(&mut self, _offset: usize) -> bool {
        false
    }

    /// Nobody knows the sum of a packet in a vector.
    fn update_sum(&mut self, _difference: u32) {}

    /// As the kernel's `bpf_l4_csum_replace` with a difference, on a packet whose checksum is complete
    /// in its bytes: `csum_fold(csum_add(diff, ~csum_unfold(*sum)))`, and `BPF_F_MARK_MANGLED_0` for UDP.
    fn update_checksum(&mut self, offset: usize, difference: u32, kind: SumKind) -> bool {
        self.pull((offset + size_of::<u16>()) as u32);
        let Some(check) = self.load::<u16>(offset) else { return false };
        let udp = kind.protocol == Protocol::Udp;
        if udp && check == 0 {
            return true;
        }
        let (sum, carry) = difference.overflowing_add(!u32::from(check));
        let check = !fold16(sum + u32::from(carry));
        self.store(offset, &if udp && check == 0 { 0xffff } else { check })
    }
}
