//! What a packet costs at the uplink, measured with live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`).
//!
//! A program that the kernel runs over and over writes a frame and puts it into the wire; it comes in at the uplink,
//! whose program sends it back, and the wire's end drops it. All of that is done on one CPU, in batches as a NIC's
//! driver has them, so the time is that of all steps together. What a program costs by itself is its time without that
//! of one that only says XDP_TX. The tc program of the uplink is measured behind an XDP program that only passes.
//!
//! A round is a block of every contestant, one after the other, and compares within itself. After each block all
//! frames must have come out of the uplink, and the counters must say that each was forwarded; before the first one a
//! frame is looked at whole.

mod programs;
mod report;
mod traffic;
mod wire;

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::path::Hook;
use lb_sys::bpf::{self, Kind as Program};
use programs::{DROP, PASS, TX, Traffic};
pub use report::Report;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
pub use traffic::Kind;
use wire::Wire;

use crate::{
    kernel::{self, maps::Maps},
    state::UPLINK,
};

/// The node, with a port that does not matter.
const NODE: &str = "192.168.1.11:0";
/// The backend, on another node.
const REMOTE: &str = "10.244.9.9:8080";

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Blocks of each contestant and kind.
    pub rounds: usize,
    /// Frames of a block.
    pub frames: u32,
}

/// What is at the uplink.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Contestant {
    /// A program that only says XDP_TX.
    SentBack,
    /// `uplink_xdp`.
    Xdp,
    /// `uplink_ingress`.
    Tc,
}

impl Contestant {
    /// In the order in which they are measured.
    pub const ALL: [Contestant; 3] = [Contestant::SentBack, Contestant::Xdp, Contestant::Tc];
}

/// Nanoseconds per packet of one kind, by contestant and round.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What the frames were.
    pub kind: Kind,
    /// As in [`Contestant::ALL`].
    pub rounds: Vec<[f64; 3]>,
}

/// Measures every kind, and gives this thread a network namespace of its own and one CPU. `progress` is told
/// what is next.
///
/// # Errors
/// Without root or the kernel object, or when a frame does not get what it is meant to get.
pub fn measure(options: Options, progress: &mut dyn FnMut(&str)) -> Result<Vec<Measured>> {
    stay_on_one_cpu()?;
    kernel::enter_namespace()?;
    let mut wire = Wire::new()?;
    [Kind::Established(1), Kind::Established(512), Kind::New]
        .into_iter()
        .map(|kind| {
            progress(&kind.name());
            let mut bed = Bed::new(kind, &wire)?;
            bed.look(&mut wire)?;
            let rounds = (0..options.rounds).map(|_| bed.round(&wire, options.frames));
            Ok(Measured { kind, rounds: rounds.collect::<Result<_>>()? })
        })
        .collect()
}

fn stay_on_one_cpu() -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).context("no CPU")?;
    let mut one = CpuSet::new();
    one.set(last);
    Ok(sched_setaffinity(None, &one)?)
}

/// Puts an XDP program on a device, in its driver. It goes when the value is dropped.
fn in_driver(program: BorrowedFd<'_>, ifindex: u32) -> Result<OwnedFd> {
    const DRIVER: u32 = 1 << 2;
    bpf::link_xdp(program, ifindex, DRIVER).context("attaching an XDP program")
}

/// One that drops every frame.
fn drops(ifindex: u32) -> Result<OwnedFd> {
    in_driver(bpf::constant(Program::Xdp, DROP)?.as_fd(), ifindex)
}

/// The programs over the rows of one kind of frames.
struct Bed {
    kind: Kind,
    maps: Maps,
    traffic: Traffic,
    alone: OwnedFd,
    passes: OwnedFd,
}

impl Bed {
    fn new(kind: Kind, wire: &Wire) -> Result<Bed> {
        Ok(Bed {
            kind,
            maps: kind.prepare()?,
            traffic: Traffic::new(&kind.frames()?, wire.ifindex())?,
            alone: bpf::constant(Program::Xdp, TX)?,
            passes: bpf::constant(Program::Xdp, PASS)?,
        })
    }

    /// Puts a contestant's programs on the uplink.
    fn attach(&mut self, contestant: Contestant) -> Result<Vec<OwnedFd>> {
        Ok(match contestant {
            Contestant::SentBack => vec![in_driver(self.alone.as_fd(), UPLINK)?],
            Contestant::Xdp => vec![in_driver(self.maps.program(Hook::UplinkXdp)?.as_fd(), UPLINK)?],
            Contestant::Tc => vec![
                in_driver(self.passes.as_fd(), UPLINK)?,
                bpf::link_tcx(self.maps.program(Hook::UplinkIngress)?.as_fd(), UPLINK)?,
            ],
        })
    }

    /// Looks at a frame of each contestant's whole.
    fn look(&mut self, wire: &mut Wire) -> Result<()> {
        const FRAMES: u32 = 100;
        for contestant in Contestant::ALL {
            let _attached = self.attach(contestant)?;
            let frame = wire.last(&self.traffic, || {
                self.traffic.send(FRAMES)?;
                std::thread::sleep(Duration::from_millis(20));
                Ok(())
            })?;
            if contestant == Contestant::SentBack {
                ensure!(self.kind.frames()?.contains(&frame), "sent back, but not as it was: {frame:x?}");
            } else {
                let right = self.kind.forwarded(&frame);
                right.with_context(|| format!("{contestant:?}, {}: {frame:x?}", self.kind.name()))?;
                self.kind.counted(&mut self.maps, FRAMES.into())?;
            }
        }
        Ok(())
    }

    fn round(&mut self, wire: &Wire, frames: u32) -> Result<[f64; 3]> {
        let mut found = [0.0; 3];
        for (contestant, ns) in Contestant::ALL.into_iter().zip(&mut found) {
            let _attached = self.attach(contestant)?;
            let before = wire.ended()?;
            let start = Instant::now();
            self.traffic.send(frames)?;
            *ns = start.elapsed().as_nanos() as f64 / f64::from(frames);
            let ended = wire.ended()? - before;
            ensure!(ended == u64::from(frames), "{contestant:?}: {ended} of {frames} frames have come out");
            if contestant != Contestant::SentBack {
                self.kind.counted(&mut self.maps, frames.into())?;
            }
        }
        Ok(found)
    }
}
