//! The kernel programs: thin entries around [`lb_common::path`].
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod log;
mod maps;
mod packet;
mod sock_addr;
mod sockets;
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

/// A program per hook. Each family's path, and its refusals, are functions of their own, because together
/// they exceed the 512 bytes of stack that a program has.
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
            if Hook::$hook.is_egress() {
                return enter(&ctx, ipv4, ipv6, |_| 0, |_| 0);
            }
            enter(&ctx, ipv4, ipv6, reject_ipv4, reject_ipv6)
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

/// What a path has decided, packed into a register: what the kernel is told in the low half, why in the
/// high half where that is worth a line in the log.
type Answer = u64;

/// In the low half: to be answered by a refusal. No action of the kernel's.
const REJECT: u32 = 0x100;

/// Finds the family's path, and carries out what that can't for want of stack.
#[inline(always)]
fn enter(
    ctx: &TcContext,
    ipv4: impl Fn(*mut __sk_buff) -> Answer,
    ipv6: impl Fn(*mut __sk_buff) -> Answer,
    reject_ipv4: impl Fn(*mut __sk_buff) -> i32,
    reject_ipv6: impl Fn(*mut __sk_buff) -> i32,
) -> i32 {
    let skb = ctx.skb.skb;
    let ethertype = packet::ethertype(skb);
    let answer = match ethertype {
        V4::ETHERTYPE => ipv4(skb),
        V6::ETHERTYPE => ipv6(skb),
        _ => return TC_ACT_UNSPEC,
    };
    let why = (answer >> 32) as u32;
    if why != 0 {
        log::refused(ctx, ethertype, why);
    }
    match answer as u32 {
        REJECT if ethertype == V4::ETHERTYPE => reject_ipv4(skb),
        REJECT => reject_ipv6(skb),
        action => action as i32,
    }
}

/// `TC_ACT_UNSPEC` is `TCX_NEXT`: what is not ours is left to the next program.
#[inline(always)]
fn run<F: FamilyMaps>(skb: *mut __sk_buff, hook: Hook) -> Answer {
    let mut packet = Skb::new(skb);
    match path::run::<F, _, _>(&mut packet, &Maps, hook) {
        Verdict::Pass => TC_ACT_UNSPEC as u32 as u64,
        Verdict::Drop(why) => TC_ACT_SHOT as u64 | (why as u64) << 32,
        Verdict::Reject(why) => REJECT as u64 | (why as u64) << 32,
        Verdict::Forward(way) => packet.send(way).unwrap_or(TC_ACT_OK) as u32 as u64,
    }
}

#[inline(never)]
fn reject_ipv4(skb: *mut __sk_buff) -> i32 {
    reject::<V4>(skb)
}

#[inline(never)]
fn reject_ipv6(skb: *mut __sk_buff) -> i32 {
    reject::<V6>(skb)
}

#[inline(always)]
fn reject<F: Family>(skb: *mut __sk_buff) -> i32 {
    let mut packet = Skb::new(skb);
    let way = path::reject::<F, _>(&mut packet);
    way.and_then(|way| packet.send(way)).unwrap_or(TC_ACT_SHOT)
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
