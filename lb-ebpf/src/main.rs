//! The kernel programs: thin entries around [`lb_common::path`].
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod frame;
mod log;
mod maps;
mod packet;
mod sock_addr;
mod sockets;
mod tables;
mod tc;
mod wide;
mod xdp;

use aya_ebpf::{macros::classifier, programs::TcContext};
use lb_common::path::Hook;
use tc::At;

/// The programs of tc: one per hook.
macro_rules! programs {
    ($($(#[doc = $doc:literal])+ $name:ident: $hook:ident;)*) => {$(
        struct $hook;

        impl At for $hook {
            const HOOK: Hook = Hook::$hook;
        }

        $(#[doc = $doc])+
        #[classifier]
        pub fn $name(ctx: TcContext) -> i32 {
            tc::program::<$hook>(ctx.skb.skb)
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
