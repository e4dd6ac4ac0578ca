//! The bytes of a frame in XDP. All unsafe access to them is in this file.
//!
//! Nobody can tell here whether a device still has to finish a frame's transport checksum (CHECKSUM_PARTIAL): then the
//! field holds the sum of the pseudo header alone, not complemented, and after XDP_TX nobody ever finishes it. Frames
//! from a wire are complete, and drivers switch off what could leave them unfinished while a program is attached
//! (virtio-net); over a veth it takes `ethtool -K DEVICE tx off` at the other end. Cilium and Katran rest on
//! the same.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_check_mtu, bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
};
use bytemuck::Pod;
use lb_common::{
    family::Family,
    path::{InPlace, Packet, SumKind},
    wire::{Ethernet, Protocol, checksum},
};

use crate::wide::{bounds, read};

/// A frame in the buffer of its device, all of it in one piece: the program takes no others.
pub struct Frame {
    md: *mut xdp_md,
}

impl Frame {
    #[inline(always)]
    pub fn new(md: *mut xdp_md) -> Self {
        Frame { md }
    }

    /// First byte and end.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the live context, which has `data_end` behind `data`.
        unsafe { bounds::<_, { offset_of!(xdp_md, data) }>(self.md) }
    }
}

impl InPlace for Frame {
    #[inline(always)]
    fn at<T: Pod>(&mut self, offset: usize) -> Option<&mut T> {
        const { assert!(align_of::<T>() <= 2) };
        let (data, end) = self.bounds();
        if data + offset + size_of::<T>() > end {
            return None;
        }
        // SAFETY: inside the frame, as just compared; headers start at even addresses. It is borrowed until what is
        // returned is gone, so that nothing moves the frame meanwhile.
        Some(unsafe { &mut *((data + offset) as *mut T) })
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn size(&self) -> u32 {
        let (data, end) = self.bounds();
        (end - data) as u32
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: a field of the live context.
        unsafe { (*self.md).ingress_ifindex }
    }

    /// Tags are bytes here: such a frame is of another EtherType.
    #[inline(always)]
    fn tagged(&self) -> bool {
        false
    }

    /// What is sent on from here is compared with the MAC that its rows name.
    #[inline(always)]
    fn is_for_another(&self) -> bool {
        false
    }

    /// All of it is readable.
    #[inline(always)]
    fn pull(&mut self, _len: u32) {}

    #[inline(always)]
    fn load<T: Pod>(&self, offset: usize) -> Option<T> {
        const { assert!(align_of::<T>() <= 2) };
        let (data, end) = self.bounds();
        if data + offset + size_of::<T>() > end {
            return None;
        }
        // SAFETY: inside the frame, as just compared; headers start at even addresses.
        Some(unsafe { read(data + offset) })
    }

    #[inline(always)]
    fn store<T: Pod>(&mut self, offset: usize, value: &T) -> bool {
        self.at(offset).map(|place| *place = *value).is_some()
    }

    #[inline(always)]
    fn update_checksum(&mut self, offset: usize, difference: u32, kind: SumKind) -> bool {
        let Some(check) = self.load::<u16>(offset) else { return false };
        let udp = kind.protocol == Protocol::Udp;
        if udp && check == 0 {
            return true;
        }
        let check = checksum::update(check, difference);
        // Zero would say that there is none.
        self.store(offset, &if udp && check == 0 { u16::MAX } else { check })
    }

    #[inline(always)]
    fn resize(&mut self, len: u32) -> bool {
        let by = len as i32 - self.size() as i32;
        // SAFETY: no pointer into the frame is held over this call.
        unsafe { bpf_xdp_adjust_tail(self.md, by) == 0 }
    }

    #[inline(always)]
    fn make_room(&mut self, len: u32) -> bool {
        let Some(ethernet) = self.load::<Ethernet>(0) else { return false };
        // SAFETY: no pointer into the frame is held over this call.
        let made = unsafe { bpf_xdp_adjust_head(self.md, -(len as i32)) == 0 };
        made && self.store(0, &ethernet)
    }

    #[inline(always)]
    fn fits(&self, ifindex: u32) -> bool {
        // Zero: the frame's own length.
        let mut len = 0;
        // SAFETY: as in `packet`.
        unsafe { bpf_check_mtu(self.md.cast(), ifindex, &raw mut len, 0, 0) <= 0 }
    }

    #[inline(always)]
    fn mtu(&self, ifindex: u32) -> u32 {
        // Zero: the frame's own length.
        let mut mtu = 0;
        // SAFETY: as in `packet`.
        unsafe { bpf_check_mtu(self.md.cast(), ifindex, &raw mut mtu, 0, 0) };
        mtu
    }

    /// Frames come as they are on the wire.
    #[inline(always)]
    fn segment(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn wrap<F: Family>(&mut self, outer: &F::Header) -> bool {
        self.make_room(size_of::<F::Header>() as u32) && self.store(size_of::<Ethernet>(), outer)
    }

    /// Left to tc, as all that is for this node.
    #[inline(always)]
    fn unwrap<F: Family>(&mut self) -> bool {
        false
    }

    #[inline(always)]
    fn replace<T: Pod>(&mut self, offset: usize, value: &T) -> bool {
        self.store(offset, value)
    }

    #[inline(always)]
    fn unfinished(&mut self, _offset: usize) -> bool {
        false
    }

    /// What a device knows of a frame's sum does not outlive the program.
    #[inline(always)]
    fn update_sum(&mut self, _difference: u32) {}
}
