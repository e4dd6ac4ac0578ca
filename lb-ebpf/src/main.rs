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
mod wide;
mod xdp;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use lb_common::{
    abi::Counter,
    family::{Family as _, V4, V6},
    path::{self, Hook, Packet as _, Verdict},
    wire::ethernet,
};

use crate::{maps::FamilyMaps, packet::Skb, tables::Maps};

/// A program per hook. The steps of each family's path are functions of their own, called one after the other,
/// because together they exceed the 512 bytes of stack that a program has.
macro_rules! programs {
    ($($(#[doc = $doc:literal])+ $name:ident: $hook:ident;)*) => {$(
        $(#[doc = $doc])+
        #[classifier]
        pub fn $name(ctx: TcContext) -> i32 {
            const HOOK: Hook = Hook::$hook;
            #[inline(never)]
            fn run<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
                answer(path::run::<F, _, _>(&mut Skb::new(skb), &Maps, HOOK), skb)
            }
            #[inline(never)]
            fn hard<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
                answer(path::hard::<F, _, _>(&mut Skb::new(skb), &Maps, HOOK), skb)
            }
            #[inline(never)]
            fn resume<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
                answer(path::resume::<F, _, _>(&mut Skb::new(skb), &Maps, HOOK), skb)
            }
            #[inline(never)]
            fn record<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
                answer(path::record::<F, _, _>(&Skb::new(skb), &Maps, HOOK), skb)
            }
            #[inline(never)]
            fn deliver<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
                answer(path::deliver::<F, _, _>(&mut Skb::new(skb), &Maps, HOOK), skb)
            }
            #[inline(never)]
            fn finish<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
                answer(path::finish::<F, _, _>(&mut Skb::new(skb), &Maps, HOOK), skb)
            }
            #[inline(never)]
            fn message<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
                answer(path::message::<F, _, _>(&mut Skb::new(skb), &Maps, HOOK), skb)
            }
            #[inline(never)]
            fn error<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
                answer(path::error::<F, _, _>(&mut Skb::new(skb), &Maps, HOOK), skb)
            }
            let skb = ctx.skb.skb;
            let ethertype = packet::ethertype(skb);
            let is_ipv4 = ethertype == V4::ETHERTYPE;
            let tagged = Skb::new(skb).tagged();
            if HOOK.is_uplink() && tagged {
                // For the device of that VLAN, which may have a program of its own.
                return TC_ACT_UNSPEC;
            }
            if !is_ipv4 && ethertype != V6::ETHERTYPE {
                if HOOK.is_asked() && ethertype == ethernet::ARP && !tagged {
                    return answer_arp(skb);
                }
                return TC_ACT_UNSPEC;
            }
            let mut answer = match (tagged, is_ipv4) {
                (true, _) => HARD as u64,
                (false, true) => run::<V4>(skb),
                (false, false) => run::<V6>(skb),
            };
            // One comparison for packets that are done with.
            if (answer as u32).wrapping_sub(STEPS) <= LAST_STEP - STEPS {
                let mut unwrapped = false;
                if HOOK == Hook::UplinkIngress && answer as u32 == MESSAGE {
                    unwrapped = if is_ipv4 { unwrap::<V4>(skb) } else { unwrap::<V6>(skb) } != 0;
                    if unwrapped {
                        answer = if is_ipv4 { run::<V4>(skb) } else { run::<V6>(skb) };
                    }
                }
                if answer as u32 == HARD {
                    answer = if is_ipv4 { hard::<V4>(skb) } else { hard::<V6>(skb) };
                }
                if answer as u32 == MESSAGE {
                    answer = if is_ipv4 { message::<V4>(skb) } else { message::<V6>(skb) };
                    if HOOK.is_asked() && answer as u32 == SOLICITATION {
                        return answer_solicitation(skb);
                    }
                    if answer as u32 == ERROR {
                        answer = if is_ipv4 { error::<V4>(skb) } else { error::<V6>(skb) };
                    }
                }
                if answer as u32 == RESUME {
                    if HOOK == Hook::UplinkIngress {
                        if is_ipv4 {
                            path::note_unwrapped::<V4, _>(&Maps, unwrapped);
                        } else {
                            path::note_unwrapped::<V6, _>(&Maps, unwrapped);
                        }
                    }
                    answer = if is_ipv4 { resume::<V4>(skb) } else { resume::<V6>(skb) };
                    // Requests are left alone where packets leave the host.
                    if HOOK == Hook::PortIngress && answer as u32 == DIRECT {
                        answer = if is_ipv4 { direct::<V4>(skb) } else { direct::<V6>(skb) };
                    }
                    if !HOOK.is_egress() {
                        for _ in 0..path::TRIES {
                            if answer as u32 == OPEN {
                                answer = if is_ipv4 { open::<V4>(skb) } else { open::<V6>(skb) };
                            }
                            if answer as u32 == RECORD {
                                answer = if is_ipv4 { record::<V4>(skb) } else { record::<V6>(skb) };
                            }
                        }
                    }
                }
                if HOOK == Hook::UplinkIngress && answer as u32 == LEND {
                    answer = if is_ipv4 { lend::<V4>(skb) } else { lend::<V6>(skb) };
                }
                if answer as u32 == FINISH {
                    answer = if is_ipv4 { finish::<V4>(skb) } else { finish::<V6>(skb) };
                }
                if HOOK == Hook::UplinkIngress && answer as u32 == HEARD {
                    answer = if is_ipv4 { heard::<V4>(skb) } else { heard::<V6>(skb) };
                }
                if HOOK == Hook::UplinkIngress && answer as u32 == DELIVER {
                    answer = if is_ipv4 { deliver::<V4>(skb) } else { deliver::<V6>(skb) };
                }
                if HOOK == Hook::UplinkIngress && answer as u32 == TUNNEL {
                    answer = if is_ipv4 { tunnel::<V4>(skb) } else { tunnel::<V6>(skb) };
                }
                if !HOOK.is_egress() && answer as u32 == REJECT {
                    let why = (answer >> 32) as u32;
                    let done = if is_ipv4 { reject::<V4>(skb, why) } else { reject::<V6>(skb, why) };
                    answer = answer & !(u32::MAX as u64) | done;
                }
            }
            let why = (answer >> 32) as u32;
            if why != 0 {
                log::refused(&ctx, &Skb::new(skb), ethertype, why);
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

/// What a path has decided, packed into a register: what the kernel is told in the low half, why in the
/// high half where that is worth a line in the log.
type Answer = u64;

/// In the low half: the verdicts that are no actions of the kernel's, from here to [`LAST_STEP`].
const STEPS: u32 = OPEN;
const OPEN: u32 = 0x100;
const REJECT: u32 = 0x101;
const MESSAGE: u32 = 0x102;
const RESUME: u32 = 0x103;
const DIRECT: u32 = 0x104;
const FINISH: u32 = 0x105;
const RECORD: u32 = 0x106;
const ERROR: u32 = 0x107;
const SOLICITATION: u32 = 0x108;
const LEND: u32 = 0x109;
const HEARD: u32 = 0x10a;
const HARD: u32 = 0x10b;
const DELIVER: u32 = 0x10c;
const TUNNEL: u32 = 0x10d;
const LAST_STEP: u32 = TUNNEL;

/// `TC_ACT_UNSPEC` is `TCX_NEXT`: what is not ours is left to the next program.
#[inline(always)]
fn answer(verdict: Verdict, skb: *mut __sk_buff) -> Answer {
    match verdict {
        Verdict::Pass => TC_ACT_UNSPEC as u32 as u64,
        Verdict::Hard => HARD as u64,
        Verdict::Resume => RESUME as u64,
        Verdict::Open => OPEN as u64,
        Verdict::Direct => DIRECT as u64,
        Verdict::Record => RECORD as u64,
        Verdict::Lend => LEND as u64,
        Verdict::Heard => HEARD as u64,
        Verdict::Deliver => DELIVER as u64,
        Verdict::Finish => FINISH as u64,
        Verdict::Tunnel => TUNNEL as u64,
        Verdict::Drop(why) => TC_ACT_SHOT as u64 | (why as u64) << 32,
        Verdict::Reject(why) => REJECT as u64 | (why as u64) << 32,
        Verdict::Message => MESSAGE as u64,
        Verdict::Error => ERROR as u64,
        Verdict::Solicitation => SOLICITATION as u64,
        Verdict::Forward(way) => Skb::new(skb).send(way).unwrap_or(TC_ACT_OK) as u32 as u64,
    }
}

#[inline(never)]
fn open<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
    answer(path::open::<F, _>(&Maps), skb)
}

#[inline(never)]
fn lend<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
    answer(path::lend::<F, _, _>(&Skb::new(skb), &Maps), skb)
}

#[inline(never)]
fn heard<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
    answer(path::heard::<F, _, _>(&mut Skb::new(skb), &Maps), skb)
}

#[inline(never)]
fn tunnel<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
    answer(path::tunnel::<F, _, _>(&mut Skb::new(skb), &Maps, Hook::UplinkIngress), skb)
}

/// Whether there was something to unwrap: a number, as functions return 64 bits to the verifier.
#[inline(never)]
fn unwrap<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
    path::unwrap::<F, _, _>(&mut Skb::new(skb), &Maps) as u64
}

#[inline(never)]
fn direct<F: FamilyMaps>(skb: *mut __sk_buff) -> Answer {
    answer(path::direct::<F, _, _>(&Skb::new(skb), &Maps), skb)
}

#[inline(never)]
fn reject<F: FamilyMaps>(skb: *mut __sk_buff, why: u32) -> Answer {
    const TTL_EXCEEDED: u32 = Counter::TtlExceeded as u32;
    const TOO_BIG: u32 = Counter::TooBig as u32;
    let why = match why {
        TTL_EXCEEDED => Counter::TtlExceeded,
        TOO_BIG => Counter::TooBig,
        // What nobody takes is refused in one way.
        _ => Counter::NoBackend,
    };
    let way = path::reject::<F, _, _>(&mut Skb::new(skb), &Maps, why);
    way.and_then(|way| Skb::new(skb).send(way)).unwrap_or(TC_ACT_SHOT) as u32 as u64
}

#[inline(never)]
fn answer_arp(skb: *mut __sk_buff) -> i32 {
    answered(path::answer_arp(&mut Skb::new(skb), &Maps), skb)
}

#[inline(never)]
fn answer_solicitation(skb: *mut __sk_buff) -> i32 {
    answered(path::answer_solicitation(&mut Skb::new(skb), &Maps), skb)
}

/// As [`answer`], without the reason: copied along here, LLVM also copies the register of the verdicts that have
/// none (`R1 !read_ok`, kernel 6.18).
#[inline(always)]
fn answered(verdict: Verdict, skb: *mut __sk_buff) -> i32 {
    match verdict {
        Verdict::Forward(way) => Skb::new(skb).send(way).unwrap_or(TC_ACT_OK),
        Verdict::Drop(_) | Verdict::Reject(_) => TC_ACT_SHOT,
        _ => TC_ACT_UNSPEC,
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
