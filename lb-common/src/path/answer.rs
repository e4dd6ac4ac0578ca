//! A packet becomes the answer to itself.

use bytemuck::{Pod, Zeroable};

use super::packet::Packet;
use crate::{
    family::Family,
    wire::{Ethernet, checksum},
};

/// Offset of the network header.
pub const NETWORK: usize = size_of::<Ethernet>();

/// A packet to come: a network header and what follows.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct Answer<F: Family, T> {
    /// The network header.
    pub ip: F::Header,
    /// What follows.
    pub then: T,
}

impl<F: Family, T> Answer<F, T> {
    /// Whether its fields leave no gap, which is what its being [`Pod`] rests on.
    pub const DENSE: bool = size_of::<Self>() == size_of::<F::Header>() + size_of::<T>();
}

// SAFETY: repr(C), every field is Pod with alignment 2 at most, and `put` asserts that there is no padding.
unsafe impl<F: Family, T: Pod> Zeroable for Answer<F, T> {}
// SAFETY: as above.
unsafe impl<F: Family, T: Pod> Pod for Answer<F, T> {}

/// Makes the packet this answer and nothing else, its link header aside.
#[inline(always)]
pub fn put<F: Family, T: Pod, P: Packet>(packet: &mut P, answer: &Answer<F, T>) -> Option<()> {
    const { assert!(Answer::<F, T>::DENSE) };
    let resized = packet.resize((NETWORK + size_of::<Answer<F, T>>()) as u32);
    (resized && packet.replace(NETWORK, answer)).then_some(())
}

/// One's complement sum of the words of a header or message, unfolded.
#[inline(always)]
pub fn sum<T: Pod>(of: &T) -> u64 {
    bytemuck::cast_slice::<u8, u16>(bytemuck::bytes_of(of)).iter().map(|word| *word as u64).sum()
}

/// The checksum field over what sums to `sum`, the field itself zero.
#[inline(always)]
pub fn complete(sum: u64) -> u16 {
    !checksum::fold16(checksum::fold32(sum))
}

/// What the field holds for a device that adds the rest.
#[inline(always)]
pub fn started(pseudo: u64) -> u16 {
    checksum::fold16(checksum::fold32(pseudo))
}
