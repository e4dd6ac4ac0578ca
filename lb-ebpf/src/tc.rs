//! The programs of tc: thin entries around [`lb_common::path`].

use core::marker::PhantomData;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use lb_common::{
    family::{Family as _, V4, V6},
    path::{self, Body, Established, Hook, Next, Step, Steps, Verdict},
    wire::ethernet,
};

use crate::{
    log,
    maps::FamilyMaps,
    packet::{self, Skb},
    tables::Maps,
};

/// Where a program is attached.
pub trait At {
    /// There.
    const HOOK: Hook;
}

/// What the program of a hook does with a packet. `TC_ACT_UNSPEC` is `TCX_NEXT`: what is not ours is left to the next
/// program.
#[inline(always)]
pub fn program<A: At>(skb: *mut __sk_buff) -> i32 {
    if path::is_flooded(&Skb::new(skb), A::HOOK) {
        return TC_ACT_UNSPEC;
    }
    let next = match packet::ethertype(skb) {
        V4::ETHERTYPE => path::run(&mut Tc::<A, V4>::new(skb)),
        V6::ETHERTYPE => path::run(&mut Tc::<A, V6>::new(skb)),
        ethernet::ARP if A::HOOK.is_asked() => answer_arp::<A>(skb),
        _ => return TC_ACT_UNSPEC,
    };
    match next.verdict() {
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Drop(_) => TC_ACT_SHOT,
        Verdict::Forward(way) => Skb::new(skb).send(way).unwrap_or(TC_ACT_OK),
    }
}

/// A packet of one family at a hook.
struct Tc<A, F> {
    skb: *mut __sk_buff,
    at: PhantomData<(A, F)>,
}

impl<A: At, F: FamilyMaps> Tc<A, F> {
    #[inline(always)]
    fn new(skb: *mut __sk_buff) -> Self {
        Tc { skb, at: PhantomData }
    }
}

impl<A: At, F: FamilyMaps> Steps for Tc<A, F> {
    #[inline(always)]
    fn hook(&self) -> Hook {
        A::HOOK
    }

    #[inline(always)]
    fn established(&mut self) -> Next {
        self.step::<Established>(Step::Established.into())
    }

    #[inline(always)]
    fn step<B: Body>(&mut self, asked: Next) -> Next {
        step::<A, F, B>(self.skb, asked)
    }

    #[inline(always)]
    fn refused(&mut self, why: u32) {
        log::refused::<F, _>(&Skb::new(self.skb), why);
    }
}

/// A step as a function of its own.
#[inline(never)]
fn step<A: At, F: FamilyMaps, B: Body>(skb: *mut __sk_buff, asked: Next) -> Next {
    B::run::<F, _, _>(&mut Skb::new(skb), &Maps, A::HOOK, asked)
}

#[inline(never)]
fn answer_arp<A: At>(skb: *mut __sk_buff) -> Next {
    path::answer_arp(&mut Skb::new(skb), &Maps, A::HOOK)
}
