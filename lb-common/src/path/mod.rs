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
mod egress;
mod established;
mod flow_table;
mod fragments;
mod hook;
mod icmp;
mod icmp_error;
mod leave;
mod lookup;
mod nat;
mod open;
mod oversized;
mod packet;
mod parse;
mod prefilter;
mod proxy_neigh;
mod reject;
mod rewrite;
mod select;
mod slow_parse;
mod socket;
mod source_guard;
mod state;
mod step;
mod stop;
mod tables;
mod translate;
mod xdp;
mod zone;

pub use hook::Hook;
pub use packet::{InPlace, Packet, SumKind};
pub use prefilter::is_flooded;
pub use proxy_neigh::answer_arp;
pub use select::{TRIES, client_hash, scope, slot_hash};
pub use socket::{Access, Caller, Peer, Socket, Sockets, connect, send, shown};
pub use state::{PacketState, Parsed};
pub use step::{Egress, Next, Step, Verdict};
pub use tables::{Common, Insert, InsertError, Table, Tables, prefilter_hash};
pub use xdp::established as established_in_place;

use core::marker::PhantomData;

pub use crate::abi::maps::PORT_CURSOR_COUNT;
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
    take::<Oversized, S>(steps, &mut next);
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
    Decap = nat::dsr::decap;
    SlowParse = slow_parse::slow_parse;
    Icmp = icmp::icmp;
    IcmpError = icmp_error::icmp_error;
    ProxyNd = proxy_neigh::proxy_nd;
    Lookup = lookup::lookup;
    Direct = direct::direct;
    Select = select::select;
    Open = open::open;
    SnatAllocate = nat::ports::allocate;
    Translate = translate::translate;
    SnatTrack = nat::snat::track;
    SnatReverse = nat::snat::reverse;
    Oversized = oversized::oversized;
    Encap = nat::dsr::encap;
    Reject = reject::reject;
}

/// What a packet gets at a hook of tc, on a host, where stack is no matter.
pub fn decide<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, hook: Hook) -> Verdict {
    let asked = Step::Established.into();
    let established = |packet: &mut P, tables: &T| Established::run(packet, tables, hook, asked);
    run(&mut OnHost { packet, tables, hook, established, family: PhantomData }).verdict()
}

/// What a packet gets at [`Hook::UplinkXdp`], on a host.
pub fn decide_in_place<F: Family, P: InPlace, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    let (hook, established) = (Hook::UplinkXdp, established_in_place::<F, P, T>);
    run(&mut OnHost { packet, tables, hook, established, family: PhantomData }).verdict()
}

/// A packet on a host, which has the steps' bodies carried out.
struct OnHost<'a, F, P, T, E> {
    packet: &'a mut P,
    tables: &'a T,
    hook: Hook,
    established: E,
    family: PhantomData<F>,
}

impl<F: Family, P: Packet, T: Tables<F>, E: Fn(&mut P, &T) -> Next> Steps for OnHost<'_, F, P, T, E> {
    fn hook(&self) -> Hook {
        self.hook
    }
    fn established(&mut self) -> Next {
        (self.established)(self.packet, self.tables)
    }
    fn step<B: Body>(&mut self, asked: Next) -> Next {
        B::run(self.packet, self.tables, self.hook, asked)
    }
    fn refused(&mut self, _: u32) {}
}
