//! What a packet costs in the program at a bridge's port: nanoseconds by kind of packet.
//!
//! Every packet is run once (`BPF_PROG_TEST_RUN`, `repeat` 1) on a fresh copy, because the program rewrites
//! it. The time is the kernel's own count for the program (`bpf_stats`, clock in steps of a nanosecond): the
//! system call around it is not in it, as it partly is in the `duration` that the call reports, whose
//! figures are the same once the empty program's are subtracted but scatter more. Caches are as they are
//! after a system call, not as in a burst of packets. Before each block of calls comes a block of the empty
//! program on the same packets; the median of those is subtracted. After every block the program's counters must say
//! that each packet got
//! what it was meant to get.

mod program;
mod report;
mod traffic;

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::sys::{Stats, enable_stats};
use lb_common::{
    abi::{Counter, FlowKey, FlowRow, NextHopKind, Settings},
    family::{V4, V6},
    path::Hook,
    wire::Protocol,
};
use program::{Spent, empty, run};
pub use report::{RECORD, Report};
use serde::Serialize;
pub use traffic::Kind;
use traffic::{FRESH, keys, over};

use crate::{
    family::Net,
    kernel::{self, Kernel, maps::Maps},
    object::object,
    state::{BRIDGE, on},
    world::web,
};

/// Rows of the flow tables: two for each of 131,072 flows.
const ROWS: u32 = 262_144;

/// Rounds after which the tables are filled anew.
const ROUNDS_AT_ONCE: usize = 2;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Blocks of each kind of packet.
    pub rounds: usize,
    /// Packets in a block.
    pub calls: u32,
    /// Flows in the table.
    pub flows: Vec<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options { rounds: 10, calls: 4_000, flows: vec![1, 512, 100_000] }
    }
}

impl Options {
    /// A look, not a figure.
    pub fn quick() -> Self {
        Options { rounds: 3, calls: 500, flows: vec![1, 512] }
    }
}

/// Nanoseconds per packet of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// What happens to the packet.
    pub kind: Kind,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// Flows in the table.
    pub flows: u32,
    /// The median of the blocks' means, over the empty program's; for the empty program itself, its own.
    pub ns: f64,
    /// The lower quartile.
    pub low: f64,
    /// The upper quartile.
    pub high: f64,
}

/// Measures with the default options.
///
/// # Errors
/// As [`measure_with`].
pub fn measure(progress: &mut dyn FnMut(&str)) -> Result<Vec<Cost>> {
    measure_with(&Options::default(), progress)
}

/// Measures every kind of packet, and gives this thread a network namespace of its own. `progress` is told
/// what is next.
///
/// # Errors
/// Without root or the kernel object, or when a packet does not get what it is meant to get.
pub fn measure_with(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Vec<Cost>> {
    kernel::enter_namespace()?;
    // The kernel keeps statistics until this is closed.
    let _stats = enable_stats(Stats::RunTime).context("no bpf_stats: run as root")?;
    let (v4, v6) = (&mut Loaded::new()?, &mut Loaded::new()?);
    let (mut means, mut quiet) = (Means::new(), Quiet::new());
    let mut left = options.rounds;
    while left > 0 {
        // All over again every few rounds, so that a slow moment of the machine does not meet all blocks of
        // one kind.
        let options = Options { rounds: left.min(ROUNDS_AT_ONCE), ..options.clone() };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for &flows in &options.flows {
                progress(&format!("{protocol:?}, flows: {flows}, rounds left: {left}"));
                v4.measure::<V4>(protocol, flows, &options, &mut quiet, &mut means)?;
                v6.measure::<V6>(protocol, flows, &options, &mut quiet, &mut means)?;
            }
        }
        left -= options.rounds;
    }
    progress(&format!("done; the machine was busy during {} of {} blocks", quiet.busy, quiet.blocks));
    Ok(means
        .iter()
        .map(|(&(kind, family, protocol, flows), own)| {
            let quartiles = [0.25, 0.5, 0.75].map(|part| quantile(own, part));
            let nothing = match kind {
                Kind::Empty => 0.0,
                _ => quantile(&means[&(Kind::Empty, family, protocol, flows)], 0.5),
            };
            let [low, ns, high] = quartiles.map(|quartile| quartile - nothing);
            Cost { kind, protocol, family, flows, ns, low, high }
        })
        .collect())
}

/// The means of blocks, by kind, family, protocol and flows.
type Means = BTreeMap<(Kind, &'static str, &'static str, u32), Vec<f64>>;

/// A program with maps of its own, and an empty one.
struct Loaded {
    maps: Maps,
    program: OwnedFd,
    empty: OwnedFd,
}

impl Loaded {
    fn new() -> Result<Self> {
        let new = Kernel::new()?.has_csum_ipv6 as u32;
        let settings = Settings { has_csum_ipv6: new, peer_scrubs: new, ..on(BRIDGE, NextHopKind::Peer) };
        let mut maps = Maps::new(kernel::load(&object()?, &settings, ROWS)?);
        let program = maps.program(Hook::PortIngress)?.as_fd().try_clone_to_owned()?;
        Ok(Loaded { maps, program, empty: empty()? })
    }

    fn measure<F: Net>(
        &mut self,
        protocol: Protocol,
        flows: u32,
        options: &Options,
        quiet: &mut Quiet,
        means: &mut Means,
    ) -> Result<()> {
        self.maps.fill(&web::<F>())?;
        let mut bench = Bench::<F> {
            maps: &mut self.maps,
            program: self.program.as_fd(),
            empty: self.empty.as_fd(),
            quiet,
            protocol,
            flows,
            fresh: FRESH,
            next: 0,
            finished: Vec::new(),
        };
        let name = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        bench.measure(options, &mut |kind, mean| {
            means.entry((kind, F::NAME, name, flows)).or_default().push(mean);
        })
    }
}

/// Waits for the machine to be quiet, as the empty program's blocks show it: beside a neighbour on the same
/// core, everything takes up to twice as long.
struct Quiet {
    /// The empty program's best block so far, in nanoseconds per packet.
    best: f64,
    /// How much longer all blocks together may wait.
    patience: Duration,
    /// Blocks so far, and those that would not wait any longer.
    blocks: u32,
    busy: u32,
}

impl Quiet {
    fn new() -> Self {
        Quiet { best: f64::INFINITY, patience: Duration::from_secs(30), blocks: 0, busy: 0 }
    }

    /// Whether to go on after an empty block of this mean; else a while has passed and it is run again.
    fn now(&mut self, mean: f64) -> bool {
        const PAUSE: Duration = Duration::from_millis(20);
        self.best = self.best.min(mean);
        let busy = mean > self.best * 1.25;
        if busy && self.patience >= PAUSE {
            self.patience -= PAUSE;
            thread::sleep(PAUSE);
            return false;
        }
        self.blocks += 1;
        self.busy += busy as u32;
        true
    }
}

/// One table of flows, and what is run on it.
struct Bench<'a, F: Net> {
    maps: &'a mut Maps,
    program: BorrowedFd<'a>,
    empty: BorrowedFd<'a>,
    quiet: &'a mut Quiet,
    protocol: Protocol,
    flows: u32,
    /// The next client that has no flow.
    fresh: u32,
    /// The next turn.
    next: u32,
    /// Every row as it is when its flow is over.
    finished: Vec<(FlowKey<F>, FlowRow<F>)>,
}

impl<F: Net> Bench<'_, F> {
    /// Tells the mean of each block.
    fn measure(&mut self, options: &Options, note: &mut dyn FnMut(Kind, f64)) -> Result<()> {
        self.open()?;
        self.rounds(&Kind::ON_LIVE, options, note)?;
        self.read_finished()?;
        self.rounds(&[Kind::PortAgain], options, note)
    }

    fn rounds(&mut self, kinds: &[Kind], options: &Options, note: &mut dyn FnMut(Kind, f64)) -> Result<()> {
        for kind in kinds {
            // Not noted: the first packets find everything cold.
            self.block(*kind, options.calls / 4)?;
        }
        for _ in 0..options.rounds {
            for kind in kinds {
                let (mean, nothing) = self.block(*kind, options.calls)?;
                note(*kind, mean);
                note(Kind::Empty, nothing);
            }
        }
        Ok(())
    }

    /// Whose packet is sent at a turn: not in the order of the rows in memory, which is that of the clients.
    fn client(&self, turn: u32) -> u32 {
        const STRIDE: u64 = 7919; // a prime, so that every client has a turn
        (turn as u64 * STRIDE % self.flows as u64) as u32
    }

    /// Lets every flow begin, be answered and be assured.
    fn open(&mut self) -> Result<()> {
        for client in 0..self.flows {
            for kind in [Kind::NewFlow, Kind::Reply, Kind::Established] {
                let packet = kind.packet(self.protocol, client).bytes::<F>();
                run(self.program, kind.ifindex(), &packet)?;
            }
        }
        let counters = self.maps.counters()?;
        for counter in [Counter::NewFlow, Counter::Assured] {
            let count = counters.get(&(counter as u32)).copied().unwrap_or(0);
            ensure!(count == self.flows as u64, "{count} of {} flows: {counters:?}", self.flows);
        }
        Ok(())
    }

    /// Remembers every row as it is when its flow is over.
    fn read_finished(&mut self) -> Result<()> {
        self.next = 0;
        let table = self.maps.flows::<F>()?;
        for client in 0..self.flows {
            for key in keys::<F>(self.protocol, client) {
                let row = table.get(&key, 0).context("a flow is lost")?;
                self.finished.push((key, over(self.protocol, row)));
            }
        }
        Ok(())
    }

    /// Nanoseconds per packet of a block, and of the empty program on the same packets.
    fn block(&mut self, kind: Kind, calls: u32) -> Result<(f64, f64)> {
        let clients: Vec<u32> = match kind {
            Kind::NewFlow => (self.fresh..self.fresh + calls).collect(),
            _ => (self.next..self.next + calls).map(|turn| self.client(turn)).collect(),
        };
        let packets: Vec<Vec<u8>> =
            clients.iter().map(|client| kind.packet(self.protocol, *client).bytes::<F>()).collect();

        let nothing = loop {
            let before = Spent::of(self.empty)?;
            for packet in &packets {
                run(self.empty, kind.ifindex(), packet)?;
            }
            let nothing = mean(before, Spent::of(self.empty)?, calls)?;
            if self.quiet.now(nothing) {
                break nothing;
            }
        };

        let before = Spent::of(self.program)?;
        for (client, packet) in clients.iter().zip(&packets) {
            if kind == Kind::PortAgain && *client == 0 {
                self.finish()?;
            }
            run(self.program, kind.ifindex(), packet)?;
        }
        let mean = mean(before, Spent::of(self.program)?, calls)?;

        let expected: BTreeMap<u32, u64> =
            kind.counters().iter().map(|counter| (*counter as u32, calls as u64)).collect();
        let counters = self.maps.counters()?;
        ensure!(counters == expected, "{kind}: the counters moved by {counters:?}, not by {expected:?}");
        if kind == Kind::NewFlow {
            let mut table = self.maps.unassured::<F>()?;
            for client in clients {
                for key in keys::<F>(self.protocol, client) {
                    table.remove(&key)?;
                }
            }
            self.fresh += calls;
        } else {
            self.next = (self.next + calls) % self.flows;
        }
        Ok((mean, nothing))
    }

    /// Ends every flow, before the first one's port is used again: the others' rows are met as cold as the
    /// table is large.
    fn finish(&mut self) -> Result<()> {
        let mut table = self.maps.flows::<F>()?;
        for (key, row) in &self.finished {
            table.insert(key, row, 0)?;
        }
        Ok(())
    }
}

fn mean(before: Spent, after: Spent, calls: u32) -> Result<f64> {
    let runs = after.runs - before.runs;
    ensure!(runs == calls as u64, "the kernel counted {runs} runs instead of {calls}");
    Ok((after.ns - before.ns) as f64 / runs as f64)
}

fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let index = values.len().saturating_sub(1) as f64 * part;
    values.get(index.round() as usize).copied().unwrap_or(f64::NAN)
}
