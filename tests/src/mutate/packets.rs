//! Packets to be seen: those of a source, mutated in one way or in several.

use lb_common::path::Hook;

use super::{chains, errors, fields, history::Seen, rng::Rng, source::Source};
use crate::{
    family::Net,
    state::{At, DEVICES},
};

/// Makes packets out of a source's.
pub struct Mutator<'a, F: Net>(&'a Source<F>);

/// One of some numbers.
pub fn few<T: Copy>(rng: &mut Rng, some: &[T]) -> T {
    *rng.pick(some)
}

/// Longer ones are not made: a page holds them in the kernel's test runs.
const LONGEST: usize = 1_600;

impl<'a, F: Net> Mutator<'a, F> {
    /// Out of this source's.
    pub fn new(source: &'a Source<F>) -> Self {
        Mutator(source)
    }

    /// At most so many packets that are seen in a row.
    pub fn packets(&self, rng: &mut Rng, count: usize) -> Vec<Seen> {
        let packets = match rng.below(12) {
            0 => self.every_length(rng),
            1 => self.every_byte(rng),
            _ => (0..count).map(|_| self.mutated(rng)).collect(),
        };
        packets.into_iter().take(count).filter(|seen| is_run::<F>(&seen.bytes)).collect()
    }

    /// One packet, cut off at every length.
    fn every_length(&self, rng: &mut Rng) -> Vec<Seen> {
        let whole = self.mutated(rng);
        let repaired = rng.one_in(2);
        let cut = |len| {
            let mut bytes = whole.bytes[..len].to_vec();
            if repaired {
                fields::repair::<F>(&mut bytes);
            }
            Seen { bytes, ..whole.clone() }
        };
        (F::TRANSPORT..=whole.bytes.len()).map(cut).collect()
    }

    /// One packet with every value of a byte of its headers.
    fn every_byte(&self, rng: &mut Rng) -> Vec<Seen> {
        let whole = self.mutated(rng);
        if whole.bytes.len() < F::TRANSPORT {
            return Vec::new();
        }
        let at = 12 + rng.below(whole.bytes.len().min(F::TRANSPORT + 28) - 12);
        let with = |value| {
            let mut bytes = whole.bytes.clone();
            bytes[at] = value;
            Seen { bytes, ..whole.clone() }
        };
        (0..=u8::MAX).map(with).collect()
    }

    fn mutated(&self, rng: &mut Rng) -> Seen {
        let (At { mut hook, mut ifindex, .. }, mut bytes) = rng.pick(&self.0.packets).clone();
        if rng.one_in(8) {
            hook = few(rng, &Hook::ALL);
        }
        if rng.one_in(8) {
            ifindex = few(rng, &DEVICES);
        }
        if !rng.one_in(8) {
            for _ in 0..few(rng, &[1, 1, 1, 1, 2, 2, 3, 5]) {
                self.mutate(rng, &mut bytes);
            }
            if rng.one_in(2) {
                fields::repair::<F>(&mut bytes);
            }
        }
        bytes.truncate(LONGEST);
        Seen { hook, ifindex, summed: rng.one_in(4), bytes }
    }

    fn mutate(&self, rng: &mut Rng, bytes: &mut Vec<u8>) {
        let (_, other) = rng.pick(&self.0.packets);
        match rng.below(22) {
            0 => bytes.truncate(rng.below(bytes.len() + 1)),
            1 => fields::grow(rng, bytes),
            2 => fields::version::<F>(rng, bytes),
            3 => fields::length::<F>(rng, bytes),
            4 => fields::fragment::<F>(rng, bytes),
            5 => fields::protocol::<F>(rng, bytes),
            6 => fields::hops::<F>(rng, bytes),
            7 | 8 => fields::tcp::<F>(rng, bytes),
            9 => fields::udp_length::<F>(rng, bytes),
            10 => fields::checksum::<F>(rng, bytes),
            11 | 12 => chains::insert::<F>(rng, bytes),
            13 | 14 => fields::endpoints::<F>(rng, bytes, other),
            15 => fields::turn::<F>(bytes),
            16 | 17 => errors::about::<F>(rng, bytes, other),
            18 => fields::link(rng, bytes),
            19 => fields::noise::<F>(rng, bytes),
            20 => fields::splice(rng, bytes, other),
            _ => fields::port::<F>(rng, bytes),
        }
    }
}

/// Whether both sides can be given a packet: newer kernels refuse to run a program on what is too short for
/// a network header, and the host has rows of one family only.
fn is_run<F: Net>(bytes: &[u8]) -> bool {
    let other = if F::TRANSPORT == 34 { [0x86, 0xdd] } else { [0x08, 0x00] };
    bytes.len() >= F::TRANSPORT && bytes[12..14] != other
}
