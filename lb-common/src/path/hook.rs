//! Where programs are attached.

use super::step::Step;

/// Where a program is attached, seen from the traffic.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// What a pod or VM sends into its port of the bridge.
    PortIngress,
    /// What the bridge sends to a pod (stack mode only).
    PortEgress,
    /// What the bridge hands to the host.
    BridgeIngress,
    /// What the host sends into the bridge.
    BridgeEgress,
    /// What comes from outside.
    UplinkIngress,
    /// What the host sends outside.
    UplinkEgress,
    /// What comes from outside, before the host has made anything of it: see [`super::xdp`].
    UplinkXdp,
}

impl Hook {
    /// All of them.
    pub const ALL: [Hook; 7] = [
        Hook::PortIngress,
        Hook::PortEgress,
        Hook::BridgeIngress,
        Hook::BridgeEgress,
        Hook::UplinkIngress,
        Hook::UplinkEgress,
        Hook::UplinkXdp,
    ];

    /// Those whose programs are tc's.
    pub const TC: [Hook; 6] = [
        Hook::PortIngress,
        Hook::PortEgress,
        Hook::BridgeIngress,
        Hook::BridgeEgress,
        Hook::UplinkIngress,
        Hook::UplinkEgress,
    ];

    /// Name of its program in the kernel object.
    pub fn program(self) -> &'static str {
        match self {
            Hook::PortIngress => "port_ingress",
            Hook::PortEgress => "port_egress",
            Hook::BridgeIngress => "bridge_ingress",
            Hook::BridgeEgress => "bridge_egress",
            Hook::UplinkIngress => "uplink_ingress",
            Hook::UplinkEgress => "uplink_egress",
            Hook::UplinkXdp => "uplink_xdp",
        }
    }

    /// Whether it is an uplink's.
    #[inline(always)]
    pub fn is_uplink(self) -> bool {
        matches!(self, Hook::UplinkIngress | Hook::UplinkEgress | Hook::UplinkXdp)
    }

    /// Whether it is a port's of a bridge.
    #[inline(always)]
    pub fn is_port(self) -> bool {
        matches!(self, Hook::PortIngress | Hook::PortEgress)
    }

    /// Whether packets come from outside here.
    #[inline(always)]
    pub fn from_outside(self) -> bool {
        matches!(self, Hook::UplinkIngress | Hook::UplinkXdp)
    }

    /// Whether neighbours may ask here who has an address of a service.
    #[inline(always)]
    pub fn is_asked(self) -> bool {
        matches!(self, Hook::PortIngress | Hook::UplinkIngress | Hook::UplinkXdp)
    }

    /// Whether packets leave the host's stack here: only replies of its own processes are ours then.
    #[inline(always)]
    pub fn is_egress(self) -> bool {
        matches!(self, Hook::PortEgress | Hook::BridgeEgress | Hook::UplinkEgress)
    }
    /// Whether packets can need a step here. A program is compiled without the others.
    #[inline(always)]
    pub fn has(self, step: Step) -> bool {
        match step {
            Step::Established | Step::SlowParse | Step::Icmp | Step::Lookup | Step::Translate => true,
            Step::IcmpError => self != Hook::UplinkXdp,
            Step::Oversized => !self.is_egress() && self != Hook::UplinkXdp,
            Step::ProxyNd => self.is_asked(),
            Step::Direct => self == Hook::PortIngress,
            Step::Select | Step::Open | Step::Reject => !self.is_egress(),
            Step::SnatAllocate | Step::SnatTrack | Step::SnatReverse | Step::Encap => self.from_outside(),
            Step::Decap => self == Hook::UplinkIngress,
        }
    }
}
