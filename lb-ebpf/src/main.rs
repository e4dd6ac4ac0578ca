//! The kernel programs: thin entries around [`lb_common::path`].
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod maps;
mod packet;
mod tables;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use lb_common::{
    family::{Family, V4, V6},
    path::{self, Hook, Verdict},
};

use crate::{maps::FamilyMaps, packet::Skb, tables::Maps};

/// A program per hook. Each family's path is a function of its own, because both in one exceed the
/// 512 bytes of stack that a program has.
macro_rules! programs {
    ($($(#[doc = $doc:literal])+ $name:ident: $hook:ident;)*) => {$(
        $(#[doc = $doc])+
        #[classifier]
        pub fn $name(ctx: TcContext) -> i32 {
            #[inline(never)]
            fn ipv4(skb: *mut __sk_buff) -> i32 {
                run::<V4>(skb, Hook::$hook)
            }
            #[inline(never)]
            fn ipv6(skb: *mut __sk_buff) -> i32 {
                run::<V6>(skb, Hook::$hook)
            }
            let skb = ctx.skb.skb;
            match packet::ethertype(skb) {
                V4::ETHERTYPE => ipv4(skb),
                V6::ETHERTYPE => ipv6(skb),
                _ => TC_ACT_UNSPEC,
            }
        }
    )*};
}

programs! {
    /// What a pod or VM sends into its port.
    port_ingress: PortIngress;
    /// What the bridge sends to a pod; attached in stack mode only.
    port_egress: PortEgress;
    /// What the bridge hands to the host.
    bridge_ingress: BridgeIngress;
    /// What the host sends into the bridge.
    bridge_egress: BridgeEgress;
    /// What comes from outside.
    uplink_ingress: UplinkIngress;
    /// What the host sends outside.
    uplink_egress: UplinkEgress;
}

/// `TC_ACT_UNSPEC` is `TCX_NEXT`: what is not ours is left to the next program.
#[inline(always)]
fn run<F: FamilyMaps>(skb: *mut __sk_buff, hook: Hook) -> i32 {
    let mut packet = Skb::new(skb);
    match path::run::<F, _, _>(&mut packet, &Maps, hook) {
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Drop => TC_ACT_SHOT,
        Verdict::Forward(way) => packet.send(way).unwrap_or(TC_ACT_OK),
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: never reached; the kernel refuses programs in which it could be.
    unsafe { core::hint::unreachable_unchecked() }
}

/// For the helpers that are GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
