//! A history: rows, then packets in a row at programs of changing settings, which both sides are given.

use std::{
    any::Any,
    collections::BTreeMap,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
};

use anyhow::{Context, Result, ensure};
use bumpalo::Bump;
use lb_common::{abi::Settings, path::Hook};

use super::{
    fields::is_v4,
    packets::{Mutator, few},
    rng::Rng,
    source::{Origin, Source, Sources},
};
use crate::{
    check,
    family::Net,
    host::{Outcome, Running},
    kernel::{Action, FLOWS, Kernel, Summed},
    state::{At, State},
};

/// Rows and what happens on them.
#[derive(Clone, Debug)]
pub struct History<F: Net> {
    /// The rows at its beginning.
    pub origin: Origin,
    /// What is seen, one after the other.
    pub segments: Vec<Segment>,
    family: PhantomData<F>,
}

/// Packets in a row at programs with the same settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Ticks that pass before.
    pub wait: u32,
    /// Name of the programs' settings; see [`Source::settings`].
    pub programs: String,
    /// `Settings::has_csum_ipv6`, where the kernel has it.
    pub has_csum_ipv6: bool,
    /// The packets.
    pub packets: Vec<Seen>,
}

/// A packet at a hook of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The hook.
    pub hook: Hook,
    /// The device.
    pub ifindex: u32,
    /// The device knows the sum of its bytes, as far as that can be kept right.
    pub summed: bool,
    /// The packet.
    pub bytes: Vec<u8>,
}

/// What disagreed, in words.
#[derive(Debug)]
pub struct Failure(pub String);

/// What a history without a disagreement came to.
#[derive(Debug, Default)]
pub struct Ran {
    /// Packets that both sides were given.
    pub packets: u64,
    /// How far each counter moved.
    pub counters: BTreeMap<u32, u64>,
}

/// Packets of a segment.
const PACKETS: usize = 200;

impl<F: Net> History<F> {
    /// Of these rows and packets.
    pub fn new(origin: Origin, segments: Vec<Segment>) -> Self {
        History { origin, segments, family: PhantomData }
    }

    /// Any one.
    pub fn random(rng: &mut Rng, sources: &Sources<F>) -> Self {
        let origin = sources.origin(rng);
        let source = sources.source(&origin).expect("an origin of these sources");
        let count = 1 + rng.below(4);
        let mut segments: Vec<Segment> = (0..count).map(|_| segment(rng, &source)).collect();
        // Rows are as new as they come.
        segments[0].wait = 0;
        History::new(origin, segments)
    }

    /// Gives its packets to both sides, a segment at a time, and compares them and what they leave.
    ///
    /// # Errors
    /// When the kernel refuses programs or rows; a disagreement is the inner error.
    pub fn run(&self, sources: &Sources<F>, kernel: &mut Kernel) -> Result<Result<Ran, Failure>> {
        self.play(sources, kernel, PACKETS)
    }

    /// As [`History::run`], but packet by packet, with all rows compared after each.
    ///
    /// # Errors
    /// As those of [`History::run`].
    pub fn run_slowly(&self, sources: &Sources<F>, kernel: &mut Kernel) -> Result<Result<Ran, Failure>> {
        self.play(sources, kernel, 1)
    }

    fn play(
        &self,
        sources: &Sources<F>,
        kernel: &mut Kernel,
        at_once: usize,
    ) -> Result<Result<Ran, Failure>> {
        let source = sources.source(&self.origin)?;
        let mut state = source.state;
        let mut ran = Ran::default();
        for segment in &self.segments {
            let name = &segment.programs;
            let settings = source.settings.iter().find(|(known, _)| known == name);
            let (_, settings) = settings.with_context(|| format!("no programs `{name}` with these rows"))?;
            let has_csum_ipv6 = (segment.has_csum_ipv6 && kernel.has_csum_ipv6) as u32;
            let settings = Settings { has_csum_ipv6, ..*settings };
            state.age(segment.wait);
            for packets in segment.packets.chunks(at_once) {
                match run_in_a_row(&state, settings, packets, kernel)? {
                    Ok(outcome) => {
                        ran.packets += packets.len() as u64;
                        for (counter, count) in &outcome.counters {
                            *ran.counters.entry(*counter).or_default() += count;
                        }
                        state.learned = outcome.learned;
                    }
                    Err(failure) => return Ok(Err(failure)),
                }
            }
            ensure!(state.learned.flows.len() < FLOWS as usize / 2, "so many flows that rows may be evicted");
        }
        Ok(Ok(ran))
    }
}

fn segment<F: Net>(rng: &mut Rng, source: &Source<F>) -> Segment {
    let mutator = Mutator::<F>::new(source);
    // Half of them meet the programs that some packet of the source meets.
    let (at, _) = rng.pick(&source.packets);
    let meets =
        |(_, known): &&(String, Settings)| bytemuck::bytes_of(known) == bytemuck::bytes_of(&at.settings);
    let programs = source.settings.iter().find(meets).filter(|_| rng.one_in(2));
    let (programs, _) = programs.unwrap_or_else(|| rng.pick(&source.settings));
    Segment {
        wait: few(rng, &[0, 0, 0, 1, 5, 100, 1_000, 100_000]),
        programs: programs.clone(),
        has_csum_ipv6: !is_v4::<F>() && rng.one_in(2),
        packets: mutator.packets(rng, PACKETS),
    }
}

/// Gives packets to both sides; what they leave, or what disagrees.
fn run_in_a_row<F: Net>(
    state: &State<F>,
    settings: Settings,
    packets: &[Seen],
    kernel: &mut Kernel,
) -> Result<Result<Outcome<F>, Failure>> {
    let on_host = match on_host(state, settings, packets) {
        Ok(on_host) => on_host,
        Err(failure) => return Ok(Err(failure)),
    };
    let (expected, left) = on_host;
    let given: Vec<_> = packets
        .iter()
        .zip(&expected)
        .map(|(seen, (_, becomes))| {
            let summed = seen.summed && can_be_summed::<F>(&seen.bytes, becomes);
            let summed = if summed { Summed::Complete } else { Summed::None };
            (seen.hook, seen.ifindex, seen.bytes.as_slice(), summed)
        })
        .collect();
    let (in_kernel, mut seen) = kernel.run_in_a_row(state, settings, &given)?;
    for (index, (expected, found)) in expected.iter().zip(&in_kernel).enumerate() {
        let place = || {
            let Seen { hook, ifindex, bytes, .. } = &packets[index];
            let known = given[index].3;
            format!(
                "packet {} of {}, at {hook:?} of device {ifindex}, checksum {known:?}, {}",
                index + 1,
                packets.len(),
                check::hex(bytes)
            )
        };
        match found {
            Err(error) => return Ok(Err(Failure(format!("{}: the kernel fails: {error:#}", place())))),
            Ok((action, bytes)) if (*action, bytes) != (expected.0, &expected.1) => {
                let words = check::differing("the host's", &expected.1, bytes);
                return Ok(Err(Failure(format!(
                    "{}: {action:?}, on the host {:?}; {words}",
                    place(),
                    expected.0
                ))));
            }
            Ok(_) => {}
        }
    }
    seen.packet.clear();
    if seen != left {
        let action = Action::Next;
        let words = check::disagreement((action, &left), (action, &seen));
        return Ok(Err(Failure(format!("after {} packets: {words}", packets.len()))));
    }
    Ok(Ok(left))
}

type OnHost<F> = (Vec<(Action, Vec<u8>)>, Outcome<F>);

/// What the host makes of packets in a row; it must not panic, and each outcome must make sense.
fn on_host<F: Net>(state: &State<F>, settings: Settings, packets: &[Seen]) -> Result<OnHost<F>, Failure> {
    // What is true of any packet need not be asked of every one.
    let checked = &packets[..packets.len().min(4)];
    for seen in checked {
        let at = At { settings, hook: seen.hook, ifindex: seen.ifindex, tagged: false, segment: 0 };
        let sane = quietly(|| check::is_sane(state, at, &seen.bytes));
        let words = match sane {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => panic,
        };
        return Err(Failure(format!(
            "host, at {:?} of device {}, {}: {words}",
            seen.hook,
            seen.ifindex,
            check::hex(&seen.bytes)
        )));
    }
    let arena = Bump::new();
    let mut running = Running::new(&arena, state, settings);
    let mut expected = Vec::with_capacity(packets.len());
    for (index, seen) in packets.iter().enumerate() {
        let ran = quietly(|| running.run(seen.hook, seen.ifindex, &seen.bytes));
        let (verdict, bytes) = ran.map_err(|panic| {
            Failure(format!(
                "packet {} of {}, {}: {panic}",
                index + 1,
                packets.len(),
                check::hex(&seen.bytes)
            ))
        })?;
        expected.push((Action::from(verdict), bytes));
    }
    Ok((expected, running.outcome()))
}

fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        format!("the host panics: {}", text.unwrap_or_default())
    })
}

/// Whether what a device knows of a packet's sum can be kept right: not over a change that no checksum of
/// the packet covers, and the kernel gives it up where the length changes.
fn can_be_summed<F: Net>(before: &[u8], after: &[u8]) -> bool {
    if before == after {
        return true;
    }
    // An answer was made longer and shorter on its way, for which the kernel gives the sum up.
    let (source, destination) = if is_v4::<F>() { (26..30, 30..34) } else { (22..38, 38..54) };
    if after.get(source).is_some_and(|source| before.get(destination) == Some(source)) {
        return false;
    }
    let (protocol, transport) = if is_v4::<F>() {
        (before[23], 14 + (before[14] & 0xf) as usize * 4)
    } else {
        (before[20], F::TRANSPORT)
    };
    let check = |offset: usize| before.get(transport + offset..transport + offset + 2);
    let covered = match protocol {
        6 => check(16).is_some(),
        17 => check(6).is_some_and(|check| check != [0, 0]),
        _ => false,
    };
    covered && before.len() == after.len()
}
