//! Maglev's table: which slot belongs to which backend (Eisenbud et al., "Maglev", NSDI 2016,
//! section 3.4), with weights. Its input is addresses, ports, weights and a seed, so every node with
//! the same seed builds the same table.

use std::net::IpAddr;

use lb_common::abi::Scope;

use super::WantedBackend;

/// The largest table, a prime: past 10,485 backends each has fewer than 100 slots.
const LARGEST: u32 = 1_048_573;

/// For every slot the index of its backend in `backends`; empty if none takes flows of that scope.
///
/// The length is a prime over 100 times the number of active backends, so that shares are right within
/// a hundredth; one slot is enough for one backend. The number is first raised to the next of 2, 3, 4,
/// 6, 8, 12 ..., so that most changes keep the length, and with it most slots.
pub fn table(backends: &[WantedBackend], scope: Scope, seed: u64) -> Vec<u32> {
    let active = active(backends, scope);
    if active.len() < 2 {
        return active;
    }
    let len = prime_above(size_class(active.len() as u32).saturating_mul(100));
    let mut turns: Vec<Turn> =
        active.iter().map(|index| Turn::new(*index, &backends[*index as usize], len, seed)).collect();
    let heaviest = turns.iter().map(|turn| turn.weight).max().unwrap_or(1);

    const FREE: u32 = u32::MAX;
    let mut slots = vec![FREE; len as usize];
    let mut left = len;
    loop {
        for turn in &mut turns {
            // The heaviest takes a slot each round, the others their share of that.
            turn.credit += turn.weight;
            if turn.credit < heaviest {
                continue;
            }
            turn.credit -= heaviest;
            while slots[turn.next as usize] != FREE {
                turn.advance(len);
            }
            slots[turn.next as usize] = turn.index;
            turn.advance(len);
            left -= 1;
            if left == 0 {
                return slots;
            }
        }
    }
}

/// One backend's walk through the slots: a permutation, since the length is prime.
struct Turn {
    index: u32,
    weight: u32,
    credit: u32,
    next: u32,
    skip: u32,
}

impl Turn {
    fn new(index: u32, backend: &WantedBackend, len: u32, seed: u64) -> Turn {
        let hash = identity(backend, seed);
        let (low, high) = (hash as u32, (hash >> 32) as u32);
        Turn { index, weight: backend.weight as u32, credit: 0, next: low % len, skip: high % (len - 1) + 1 }
    }

    fn advance(&mut self, len: u32) {
        self.next += self.skip;
        if self.next >= len {
            self.next -= len;
        }
    }
}

/// The backends that take flows of a scope, by their indexes.
pub fn active(backends: &[WantedBackend], scope: Scope) -> Vec<u32> {
    let takes = |backend: &WantedBackend| backend.state.takes(scope) && backend.weight > 0;
    (0..).zip(backends).filter(|(_, backend)| takes(backend)).map(|(index, _)| index).collect()
}

/// A hash that stands for a backend on every node.
pub fn identity(backend: &WantedBackend, seed: u64) -> u64 {
    let hash = mix(seed, backend.port as u64);
    match backend.address {
        IpAddr::V4(address) => mix(hash, u32::from(address) as u64),
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            mix(mix(hash, bits as u64), (bits >> 64) as u64)
        }
    }
}

/// One step of a keyed hash: SplitMix64's finalizer over state and word.
pub fn mix(state: u64, word: u64) -> u64 {
    let mut z = state.rotate_left(23) ^ word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The next of 2, 3, 4, 6, 8, 12, 16, 24 ...
fn size_class(n: u32) -> u32 {
    let power = n.next_power_of_two();
    if n <= power / 4 * 3 { power / 4 * 3 } else { power }
}

/// The next prime, [`LARGEST`] at most.
fn prime_above(n: u32) -> u32 {
    if n >= LARGEST {
        return LARGEST;
    }
    let prime = |n: u32| (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    // The largest prime gap below 10 million is 154.
    (n + 1..n + 200).find(|n| prime(*n)).unwrap_or(LARGEST)
}

#[cfg(test)]
mod tests {
    use lb_common::abi::{BackendState, Scopes};
    use proptest::prelude::*;

    use super::*;

    fn backend(host: u8, weight: u16) -> WantedBackend {
        WantedBackend {
            address: [10, 244, 1, host].into(),
            port: 8080,
            weight,
            state: BackendState::Active(Scopes::Both),
            node: None,
        }
    }

    fn share(table: &[u32], index: u32) -> f64 {
        table.iter().filter(|slot| **slot == index).count() as f64 / table.len() as f64
    }

    #[test]
    fn lengths() {
        assert!(table(&[], Scope::Cluster, 0).is_empty());
        assert!(table(&[backend(1, 0)], Scope::Cluster, 0).is_empty());
        assert_eq!(table(&[backend(1, 1)], Scope::Cluster, 0), [0]);
        let three = [backend(1, 1), backend(2, 1), backend(3, 1)];
        assert_eq!(table(&three, Scope::Cluster, 0).len(), 307);
        assert_eq!([1, 2, 3, 4, 5, 9, 12, 13].map(size_class), [1, 2, 3, 4, 6, 12, 12, 16]);
    }

    #[test]
    fn losing_one_backend_moves_few_of_the_others() {
        let all: Vec<_> = (1..=10).map(|host| backend(host, 1)).collect();
        let mut fewer = all.clone();
        fewer[4].state = BackendState::Draining;
        let (before, after) = (table(&all, Scope::Cluster, 7), table(&fewer, Scope::Cluster, 7));
        assert_eq!(before.len(), after.len());
        let others = before.iter().filter(|slot| **slot != 4).count();
        let moved =
            before.iter().zip(&after).filter(|(before, after)| **before != 4 && before != after).count();
        assert!(moved * 10 < others, "{moved} of {others} slots of other backends moved");
    }

    proptest! {
        #[test]
        fn shares_follow_weights(weights in prop::collection::vec(1u16..20, 2..12), seed: u64) {
            let backends: Vec<_> = (1u8..).zip(&weights).map(|(host, weight)| backend(host, *weight)).collect();
            let table = table(&backends, Scope::Cluster, seed);
            let sum: f64 = weights.iter().map(|weight| *weight as f64).sum();
            for (index, weight) in (0u32..).zip(&weights) {
                prop_assert!((share(&table, index) - *weight as f64 / sum).abs() < 0.01);
            }
        }

        #[test]
        fn the_seed_decides(seed: u64) {
            let backends: Vec<_> = (1..6).map(|host| backend(host, 1)).collect();
            prop_assert_eq!(table(&backends, Scope::Cluster, seed), table(&backends, Scope::Cluster, seed));
            prop_assert!(table(&backends, Scope::Cluster, seed) != table(&backends, Scope::Cluster, seed.wrapping_add(1)));
        }
    }
}
