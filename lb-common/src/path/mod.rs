//! The path of a packet, written once and compiled into every kernel program and into the host tests.
//!
//! ```text
//! parse -> flow table -> service -> select backend -> rewrite -> forward     or, at any point,
//!               |  hit: straight to rewrite                         |        pass, drop, reject
//!               `---------------------------------------------------'
//! ```
//! [`run`] is its order. Nothing here knows of aya, of maps or of sockets: packets come in as [`Packet`], everything
//! that is remembered as [`Tables`].

mod answer;
mod direct;
mod dsr;
mod error;
mod established;
mod flow;
mod forward;
mod hard;
mod hook;
mod lookup;
mod message;
mod neighbour;
mod open;
mod parse;
mod reject;
mod rewrite;
mod select;
mod snat;
mod socket;
mod step;
mod stop;
mod tables;
mod translate;
mod xdp;

pub use hook::Hook;
pub use neighbour::answer_arp;
pub use parse::{Note, Parsed};
pub use select::{TRIES, client_hash, scope, slot_hash};
pub use socket::{Access, Caller, Peer, Socket, Sockets, connect, send, shown};
pub use step::{Next, Step, Verdict, Way};
pub use tables::{Common, InPlace, Insert, InsertError, Packet, SumKind, Table, Tables, interest_hash};
pub use xdp::established as established_in_place;

use core::marker::PhantomData;

pub use crate::abi::maps::PORT_CURSORS as TURNS;
use crate::family::Family;

/// Takes a packet through the steps that it needs, in their order.
#[inline(always)]
pub fn run<S: Steps>(steps: &mut S) -> Next {
    let mut next = steps.established();
    if next.is_done() {
        return next;
    }
    if next == Step::Icmp && steps.hook().has(Step::Decap) {
        next = steps.step::<Decap>(next);
        if next == Step::Established {
            next = steps.established();
            if next == Step::Lookup {
                next = next.decapped();
            }
        }
    }
    take::<SlowParse, S>(steps, &mut next);
    take::<Icmp, S>(steps, &mut next);
    take::<IcmpError, S>(steps, &mut next);
    take::<ProxyNd, S>(steps, &mut next);
    take::<Lookup, S>(steps, &mut next);
    take::<Direct, S>(steps, &mut next);
    for _ in 0..TRIES {
        take::<Select, S>(steps, &mut next);
        take::<Open, S>(steps, &mut next);
    }
    take::<SnatAllocate, S>(steps, &mut next);
    take::<Translate, S>(steps, &mut next);
    take::<SnatTrack, S>(steps, &mut next);
    take::<SnatReverse, S>(steps, &mut next);
    take::<Encap, S>(steps, &mut next);
    if let Some(why) = next.why() {
        steps.refused(why);
        take::<Reject, S>(steps, &mut next);
    }
    next
}

/// Has a packet take a step if it is the one that it needs.
#[inline(always)]
fn take<B: Body, S: Steps>(steps: &mut S, next: &mut Next) {
    if steps.hook().has(B::STEP) && *next == B::STEP {
        *next = steps.step::<B>(*next);
    }
}

/// Who carries the steps out on one packet: a kernel program, each step in a function of its own, because together
/// they exceed the 512 bytes of stack that a program has; or the host.
pub trait Steps {
    /// Where the packet is.
    fn hook(&self) -> Hook;
    /// [`Step::Established`].
    fn established(&mut self) -> Next;
    /// The step with that body, for a packet of which the step before it has left `asked`.
    fn step<B: Body>(&mut self, asked: Next) -> Next;
    /// The packet is about to be dropped or rejected, and why: a [`Stop`].
    fn refused(&mut self, why: u32);
}

/// What a step does, the same in every program and on the host.
pub trait Body {
    /// Which one it is.
    const STEP: Step;

    /// Does it, and counts the outcome if the packet ends here.
    fn run<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, hook: Hook, asked: Next) -> Next;
}

macro_rules! bodies {
    ($($step:ident = $body:path;)*) => {$(
        #[doc = concat!("The body of [`Step::", stringify!($step), "`].")]
        pub struct $step;

        impl Body for $step {
            const STEP: Step = Step::$step;

            #[inline(always)]
            fn run<F: Family, P: Packet, T: Tables<F>>(
                packet: &mut P,
                tables: &T,
                hook: Hook,
                asked: Next,
            ) -> Next {
                stop::conclude($body(packet, tables, hook, asked), tables, hook)
            }
        }
    )*};
}

bodies! {
    Established = established::established;
    Decap = dsr::decap;
    SlowParse = hard::slow_parse;
    Icmp = message::icmp;
    IcmpError = error::icmp_error;
    ProxyNd = neighbour::proxy_nd;
    Lookup = lookup::lookup;
    Direct = direct::direct;
    Select = select::select;
    Open = open::open;
    SnatAllocate = snat::allocate;
    Translate = translate::translate;
    SnatTrack = snat::track;
    SnatReverse = snat::reverse;
    Encap = dsr::encap;
    Reject = reject::reject;
}

/// What a packet gets at a hook of tc, on a host, where stack is no matter.
pub fn decide<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, hook: Hook) -> Verdict {
    struct OnHost<'a, F, P, T>(&'a mut P, &'a T, Hook, PhantomData<F>);

    impl<F: Family, P: Packet, T: Tables<F>> Steps for OnHost<'_, F, P, T> {
        fn hook(&self) -> Hook {
            self.2
        }
        fn established(&mut self) -> Next {
            Established::run(self.0, self.1, self.2, Step::Established.into())
        }
        fn step<B: Body>(&mut self, asked: Next) -> Next {
            B::run(self.0, self.1, self.2, asked)
        }
        fn refused(&mut self, _: u32) {}
    }

    run(&mut OnHost(packet, tables, hook, PhantomData)).verdict()
}

/// What a packet gets at [`Hook::UplinkXdp`], on a host.
pub fn decide_in_place<F: Family, P: InPlace, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    struct OnHost<'a, F, P, T>(&'a mut P, &'a T, PhantomData<F>);

    impl<F: Family, P: InPlace, T: Tables<F>> Steps for OnHost<'_, F, P, T> {
        fn hook(&self) -> Hook {
            Hook::UplinkXdp
        }
        fn established(&mut self) -> Next {
            established_in_place(self.0, self.1)
        }
        fn step<B: Body>(&mut self, asked: Next) -> Next {
            B::run(self.0, self.1, Hook::UplinkXdp, asked)
        }
        fn refused(&mut self, _: u32) {}
    }

    run(&mut OnHost(packet, tables, PhantomData)).verdict()
}
