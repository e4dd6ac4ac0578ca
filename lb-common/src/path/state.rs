//! What one step of the path leaves to the next of a packet.

use core::cell::Cell;

use crate::{
    abi::{BackendRef, FlowKey, Mac},
    family::{Family, V4, V6},
    wire::{FragmentKind, Protocol, TcpFlags},
};

/// What the path has read of a packet of a protocol we balance. In such an order that fields which are zero at first
/// lie apart: four of them side by side LLVM would write by a byte loop.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed<F: Family> {
    /// Its flow, as it arrived.
    pub key: FlowKey<F>,
    /// Its link destination.
    pub destination: Mac,
    /// Its link source.
    pub source: Mac,
    /// What all fragments of its packet have in common, see [`Fragment`].
    pub id: u32,
    /// Offset of its transport header.
    pub transport: u16,
    /// TCP's flags, none for others.
    pub flags: TcpFlags,
    /// Which part of a packet it is.
    pub fragment: FragmentKind,
    /// How many bytes of the packet it carries, see [`Fragment`]. That fits where it is one.
    pub length: u16,
    /// It has a VLAN tag.
    pub tagged: bool,
    pub(super) reserved: u8,
}

const _: () = assert!(size_of::<Parsed<V4>>() == 40 && size_of::<Parsed<V6>>() == 64);

/// What one step of the path leaves to the next of a packet. In this order for the same reason.
#[repr(C)]
#[derive(Debug, Default)]
pub struct PacketState<F: Family> {
    /// What was read.
    pub parsed: Parsed<F>,
    /// There is a row of its flow among the assured ones.
    pub assured: Cell<bool>,
    /// There are rows of its flow which are no guide.
    pub stale: Cell<bool>,
    /// A new flow's client is to get the same backend again.
    pub keep: Cell<bool>,
    /// It has come from another node, which has balanced it, inside another packet.
    pub decapsulated: Cell<bool>,
    /// Which port a new flow is to have on the backend's side, see [`crate::abi::FlowRow::port_mask`].
    pub port: Cell<u32>,
    /// How often a backend has been tried for a new flow.
    pub attempts: Cell<u8>,
    /// A later fragment of a packet whose first one has gone to the host's stack.
    pub to_stack: Cell<bool>,
    /// The backend that a new flow is to have; of a later fragment, the one that the first went to; of a packet
    /// that is to be put into another, its own.
    pub backend: Cell<BackendRef>,
    /// What the device takes that it is too big for, in bytes from its network header on; 0: as
    /// [`crate::abi::Settings::mtu_floor`] says.
    pub mtu: Cell<u32>,
}

impl<F: Family> PacketState<F> {
    /// Makes it that of a packet that has just been read.
    #[inline(always)]
    pub fn begin(&mut self, parsed: &Parsed<F>, assured: bool) {
        // Field by field, and what lies side by side in the packet, too, by volatile writes: at once it would be
        // by memmove, which works byte by byte in the kernel.
        let (to, from) = (&mut self.parsed.key, &parsed.key);
        (to.src, to.dst) = (from.src, from.dst);
        (to.src_port, to.dst_port) = (from.src_port, from.dst_port);
        (to.zone, to.protocol) = (from.zone, from.protocol);
        let (to, from) = (&mut self.parsed, parsed);
        for (to, from) in [(&mut to.destination, from.destination), (&mut to.source, from.source)] {
            for (to, from) in to.iter_mut().zip(from) {
                // SAFETY: a live field.
                unsafe { core::ptr::from_mut(to).write_volatile(from) };
            }
        }
        (to.id, to.transport, to.flags) = (from.id, from.transport, from.flags);
        (to.fragment, to.length, to.tagged) = (from.fragment, from.length, from.tagged);
        self.stale.set(false);
        self.keep.set(false);
        self.attempts.set(0);
        self.to_stack.set(false);
        // SAFETY: a live field. Volatile, as what lies beside it is zero, too.
        unsafe { self.port.as_ptr().write_volatile(0) };
        self.backend.set(BackendRef::default());
        self.assured.set(assured);
        // SAFETY: live fields. Volatile, as what lies beside them is zero, too.
        unsafe {
            self.decapsulated.as_ptr().write_volatile(false);
            self.mtu.as_ptr().write_volatile(0);
        }
    }
}

impl<F: Family> Parsed<F> {
    /// Its protocol; nothing else is ever parsed.
    #[inline(always)]
    pub fn protocol(&self) -> Protocol {
        match self.key.protocol {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            _ => Protocol::Sctp,
        }
    }

    /// Offset of its transport header, within the bound that the verifier wants to see.
    #[inline(always)]
    pub fn transport(&self) -> usize {
        self.transport as usize & FARTHEST
    }
}

/// The largest offset of a transport header; a mask.
pub const FARTHEST: usize = 0x3ff;
