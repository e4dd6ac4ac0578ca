//! The kernel programs: thin entries around [`lb_common::path`].
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod log;
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
            fn ipv4(skb: *mut __sk_buff) -> u64 {
                run::<V4>(skb, Hook::$hook)
            }
            #[inline(never)]
            fn ipv6(skb: *mut __sk_buff) -> u64 {
                run::<V6>(skb, Hook::$hook)
            }
            let skb = ctx.skb.skb;
            let ethertype = packet::ethertype(skb);
            let answer = match ethertype {
                V4::ETHERTYPE => ipv4(skb),
                V6::ETHERTYPE => ipv6(skb),
                _ => return TC_ACT_UNSPEC,
            };
            if answer as i32 == TC_ACT_SHOT {
                log::dropped(&ctx, ethertype, (answer >> 32) as u32);
            }
            answer as i32
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

/// What the kernel is told; above, if that is to drop the packet, why. `TC_ACT_UNSPEC` is `TCX_NEXT`:
/// what is not ours is left to the next program.
#[inline(always)]
fn run<F: FamilyMaps>(skb: *mut __sk_buff, hook: Hook) -> u64 {
    let mut packet = Skb::new(skb);
    match path::run::<F, _, _>(&mut packet, &Maps, hook) {
        Verdict::Pass => TC_ACT_UNSPEC as u32 as u64,
        Verdict::Drop(why) => TC_ACT_SHOT as u64 | (why as u64) << 32,
        Verdict::Forward(way) => packet.send(way).unwrap_or(TC_ACT_OK) as u32 as u64,
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
