//! The XDP program of uplinks: a thin entry around [`lb_common::path::turn`].

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    macros::xdp,
    programs::XdpContext,
};
use lb_common::{
    abi::Counter,
    family::{Family as _, V4, V6},
    path::{self, Packet as _, Verdict, turn},
    wire::ethernet,
};

use crate::{
    Answer, DELIVER, FINISH, HARD, HEARD, LAST_STEP, LEND, MESSAGE, OPEN, RECORD, REJECT, RESUME,
    SOLICITATION, STEPS, frame::Frame, log, maps::FamilyMaps, tables::Maps,
};

/// What comes from outside, before the host has made anything of it.
#[xdp]
pub fn uplink_xdp(ctx: XdpContext) -> u32 {
    let md = ctx.ctx;
    let Some(ethertype) = Frame::new(md).load::<u16>(ETHERTYPE) else { return XDP_PASS };
    let answer = match ethertype {
        V4::ETHERTYPE => steps::<V4>(md),
        V6::ETHERTYPE => steps::<V6>(md),
        ethernet::ARP => return answer_arp(md),
        _ => return XDP_PASS,
    };
    let why = (answer >> 32) as u32;
    if why != 0 {
        log::refused(&ctx, &Frame::new(md), ethertype, why);
    }
    answer as u32
}

/// Offset of the EtherType in a frame.
const ETHERTYPE: usize = 12;

/// The steps are functions of their own for the same reason as those of tc's programs.
#[inline(always)]
fn steps<F: FamilyMaps>(md: *mut xdp_md) -> Answer {
    let mut answer = run::<F>(md);
    // One comparison for frames that are done with.
    if (answer as u32).wrapping_sub(STEPS) > LAST_STEP - STEPS {
        return answer;
    }
    if answer as u32 == HARD {
        answer = read::<F>(md);
    }
    if answer as u32 == MESSAGE {
        answer = message::<F>(md);
        if answer as u32 == SOLICITATION {
            return answer_solicitation(md) as Answer;
        }
    }
    if answer as u32 == RESUME {
        answer = resume::<F>(md);
        for _ in 0..path::TRIES {
            if answer as u32 == OPEN {
                answer = open::<F>();
            }
            if answer as u32 == RECORD {
                answer = record::<F>(md);
            }
        }
    }
    if answer as u32 == LEND {
        answer = lend::<F>(md);
    }
    if answer as u32 == FINISH {
        answer = finish::<F>(md);
    }
    if answer as u32 == HEARD {
        answer = heard::<F>(md);
    }
    if answer as u32 == DELIVER {
        answer = deliver::<F>(md);
    }
    if answer as u32 == REJECT {
        answer = answer & !(u32::MAX as Answer) | reject::<F>(md);
    }
    answer
}

#[inline(always)]
fn answer(verdict: Verdict) -> Answer {
    match verdict {
        Verdict::Hard => HARD as Answer,
        Verdict::Resume => RESUME as Answer,
        Verdict::Open => OPEN as Answer,
        Verdict::Record => RECORD as Answer,
        Verdict::Lend => LEND as Answer,
        Verdict::Heard => HEARD as Answer,
        Verdict::Deliver => DELIVER as Answer,
        Verdict::Finish => FINISH as Answer,
        Verdict::Message => MESSAGE as Answer,
        Verdict::Solicitation => SOLICITATION as Answer,
        Verdict::Drop(why) => XDP_DROP as Answer | (why as Answer) << 32,
        Verdict::Reject(why) => REJECT as Answer | (why as Answer) << 32,
        Verdict::Forward(_) => XDP_TX as Answer,
        // The last three are steps of tc's programs.
        Verdict::Pass | Verdict::Direct | Verdict::Error | Verdict::Tunnel => XDP_PASS as Answer,
    }
}

#[inline(never)]
fn run<F: FamilyMaps>(md: *mut xdp_md) -> Answer {
    answer(turn::run::<F, _, _>(&mut Frame::new(md), &Maps))
}

#[inline(never)]
fn read<F: FamilyMaps>(md: *mut xdp_md) -> Answer {
    answer(turn::read::<F, _, _>(&mut Frame::new(md), &Maps))
}

#[inline(never)]
fn resume<F: FamilyMaps>(md: *mut xdp_md) -> Answer {
    answer(turn::resume::<F, _, _>(&mut Frame::new(md), &Maps))
}

#[inline(never)]
fn open<F: FamilyMaps>() -> Answer {
    answer(turn::open::<F, _>(&Maps))
}

#[inline(never)]
fn record<F: FamilyMaps>(md: *mut xdp_md) -> Answer {
    answer(turn::record::<F, _, _>(&Frame::new(md), &Maps))
}

#[inline(never)]
fn lend<F: FamilyMaps>(md: *mut xdp_md) -> Answer {
    answer(turn::lend::<F, _, _>(&Frame::new(md), &Maps))
}

#[inline(never)]
fn heard<F: FamilyMaps>(md: *mut xdp_md) -> Answer {
    answer(turn::heard::<F, _, _>(&mut Frame::new(md), &Maps))
}

#[inline(never)]
fn deliver<F: FamilyMaps>(md: *mut xdp_md) -> Answer {
    answer(turn::deliver::<F, _, _>(&mut Frame::new(md), &Maps))
}

#[inline(never)]
fn finish<F: FamilyMaps>(md: *mut xdp_md) -> Answer {
    answer(turn::finish::<F, _, _>(&mut Frame::new(md), &Maps))
}

#[inline(never)]
fn message<F: FamilyMaps>(md: *mut xdp_md) -> Answer {
    answer(turn::message::<F, _, _>(&mut Frame::new(md), &Maps))
}

/// What nobody takes is refused in one way; other refusals are left to tc.
#[inline(never)]
fn reject<F: FamilyMaps>(md: *mut xdp_md) -> Answer {
    let way = path::reject::<F, _, _>(&mut Frame::new(md), &Maps, Counter::NoBackend);
    if way.is_some() { XDP_TX as Answer } else { XDP_DROP as Answer }
}

#[inline(never)]
fn answer_arp(md: *mut xdp_md) -> u32 {
    answered(turn::answer_arp(&mut Frame::new(md), &Maps))
}

#[inline(never)]
fn answer_solicitation(md: *mut xdp_md) -> u32 {
    answered(turn::answer_solicitation(&mut Frame::new(md), &Maps))
}

/// As [`answer`], without the reason.
#[inline(always)]
fn answered(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Forward(_) => XDP_TX,
        Verdict::Drop(_) => XDP_DROP,
        _ => XDP_PASS,
    }
}
