//! The XDP program of uplinks: a thin entry around [`lb_common::path`].

use core::marker::PhantomData;

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    macros::xdp,
    programs::XdpContext,
};
use lb_common::{
    family::{Family as _, V4, V6},
    path::{self, Body, Hook, Next, Packet as _, Steps, Verdict},
    wire::ethernet,
};

use crate::{frame::Frame, log, maps::FamilyMaps, tables::Maps};

/// Offset of the EtherType in a frame.
const ETHERTYPE: usize = 12;

/// What comes from outside, before the host has made anything of it.
#[xdp]
pub fn uplink_xdp(ctx: XdpContext) -> u32 {
    let md = ctx.ctx;
    let Some(ethertype) = Frame::new(md).load::<u16>(ETHERTYPE) else { return XDP_PASS };
    let next = match ethertype {
        V4::ETHERTYPE => path::run(&mut Xdp::<V4>::new(md)),
        V6::ETHERTYPE => path::run(&mut Xdp::<V6>::new(md)),
        ethernet::ARP => answer_arp(md),
        _ => return XDP_PASS,
    };
    match next.verdict() {
        Verdict::Pass => XDP_PASS,
        Verdict::Drop(_) => XDP_DROP,
        // By no other device: see [`Hook::UplinkXdp`].
        Verdict::Forward(_) => XDP_TX,
    }
}

/// A frame of one family.
struct Xdp<F> {
    md: *mut xdp_md,
    family: PhantomData<F>,
}

impl<F: FamilyMaps> Xdp<F> {
    #[inline(always)]
    fn new(md: *mut xdp_md) -> Self {
        Xdp { md, family: PhantomData }
    }
}

impl<F: FamilyMaps> Steps for Xdp<F> {
    #[inline(always)]
    fn hook(&self) -> Hook {
        Hook::UplinkXdp
    }

    #[inline(always)]
    fn established(&mut self) -> Next {
        established::<F>(self.md)
    }

    #[inline(always)]
    fn step<B: Body>(&mut self, asked: Next) -> Next {
        step::<F, B>(self.md, asked)
    }

    #[inline(always)]
    fn refused(&mut self, why: u32) {
        log::refused::<F, _>(&Frame::new(self.md), why);
    }
}

#[inline(never)]
fn established<F: FamilyMaps>(md: *mut xdp_md) -> Next {
    path::established_in_place::<F, _, _>(&mut Frame::new(md), &Maps)
}

/// A step as a function of its own.
#[inline(never)]
fn step<F: FamilyMaps, B: Body>(md: *mut xdp_md, asked: Next) -> Next {
    B::run::<F, _, _>(&mut Frame::new(md), &Maps, Hook::UplinkXdp, asked)
}

#[inline(never)]
fn answer_arp(md: *mut xdp_md) -> Next {
    path::answer_arp(&mut Frame::new(md), &Maps, Hook::UplinkXdp)
}
