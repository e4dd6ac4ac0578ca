//! Rendezvous hashing (Thaler and Ravishankar, "A name-based mapping scheme for rendezvous", 1996): each slot is
//! its highest bidder's. A backend that leaves gives its own slots away and no other moves, whatever the table's
//! length would be by [`super::maglev`]. So a flow that comes in by another node than before, which knows nothing of
//! it, is passed on to the backend that it has (DSR). Shares are less even: within a tenth of what they should be for
//! most backends.

use lb_common::abi::Scope;

use super::{
    WantedBackend,
    maglev::{active, identity, mix},
};

/// For so many backends at most a table has so many slots. Far apart: where one length follows the other, flows do
/// move.
const LENGTHS: [(usize, u32); 3] = [(32, 1 << 13), (256, 1 << 16), (usize::MAX, 1 << 20)];

/// For every slot the index of its backend in `backends`; empty if none takes flows of that scope. One slot is enough
/// for one backend.
pub fn table(backends: &[WantedBackend], scope: Scope, seed: u64) -> Vec<u32> {
    let active = active(backends, scope);
    if active.len() < 2 {
        return active;
    }
    let len = LENGTHS.iter().find(|(most, _)| active.len() <= *most).map_or(1, |(_, len)| *len);
    let bidders: Vec<(u32, u64, u64)> = active
        .iter()
        .map(|index| {
            let backend = &backends[*index as usize];
            (*index, identity(backend, seed), backend.weight.into())
        })
        .collect();
    // A slot is called by where it begins among all hashes, which choose slots by their high bits.
    let first = |slot: u32| u64::from(slot) * (1 << 32) / u64::from(len);
    (0..len).map(|slot| winner(&bidders, first(slot))).collect()
}

/// The backend of a slot: the one with the least -log(u) / weight, where u is evenly distributed. Of bidders with
/// weights w each wins w / sum of all.
fn winner(bidders: &[(u32, u64, u64)], slot: u64) -> u32 {
    let bids = bidders.iter().map(|(index, identity, weight)| {
        let hash = mix(*identity, slot);
        (minus_log2(hash), *weight, hash, *index)
    });
    // a / v < b / w without fractions; among equals the hash decides.
    bids.min_by(|(a, v, x, _), (b, w, y, _)| (a * w).cmp(&(b * v)).then(y.cmp(x)))
        .map_or(0, |(.., index)| index)
}

/// -log2(hash / 2^64), with 26 bits behind the point: the same on every machine. Of the mantissa's logarithm a
/// parabola is taken, which is off by 0.008 at most.
fn minus_log2(hash: u64) -> u64 {
    const ONE: u64 = 1 << 26;
    let zeros = (hash | 1).leading_zeros();
    let mantissa = ((hash | 1) << zeros << 1) >> 38;
    let log = mantissa + ((((mantissa * (ONE - mantissa)) >> 26) * 352) >> 10);
    u64::from(zeros + 1) * ONE - log
}

#[cfg(test)]
mod tests {
    use lb_common::abi::{BackendState, Scopes};
    use proptest::prelude::*;

    use super::*;

    fn backends(weights: &[u16]) -> Vec<WantedBackend> {
        (1u8..)
            .zip(weights)
            .map(|(host, weight)| WantedBackend {
                address: [10, 244, 1, host].into(),
                port: 8080,
                weight: *weight,
                state: BackendState::Active(Scopes::Both),
                node: None,
            })
            .collect()
    }

    #[test]
    fn lengths() {
        let len = |count: usize| table(&backends(&vec![1; count]), Scope::Cluster, 0).len();
        assert_eq!([0, 1, 2, 32, 33].map(len), [0, 1, 8192, 8192, 65_536]);
    }

    #[test]
    fn the_logarithm() {
        for (hash, expected) in
            [(u64::MAX, 0.0), (1 << 63, 1.0), (3 << 62, 0.415), (1 << 40, 24.0), (0, 64.0)]
        {
            let found = minus_log2(hash) as f64 / f64::from(1 << 26);
            assert!((found - expected).abs() < 0.009, "{hash:x}: {found}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn who_leaves_moves_no_other(weights in prop::collection::vec(1u16..20, 3..12), gone: prop::sample::Index, seed: u64) {
            let all = backends(&weights);
            let gone = gone.index(all.len());
            let mut fewer = all.clone();
            fewer[gone].state = BackendState::Draining;
            let (before, after) = (table(&all, Scope::Cluster, seed), table(&fewer, Scope::Cluster, seed));
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(before == after || *before == gone as u32);
            }
            // Out of the list is as good: indexes of those behind it are one less.
            let mut without = all.clone();
            without.remove(gone);
            let moved = table(&without, Scope::Cluster, seed);
            let index = |index: u32| index + (index >= gone as u32) as u32;
            prop_assert!(after.iter().zip(&moved).all(|(after, moved)| *after == index(*moved)));
        }

        #[test]
        fn shares_follow_weights(weights in prop::collection::vec(1u16..20, 2..12), seed: u64) {
            let table = table(&backends(&weights), Scope::Cluster, seed);
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (index, weight) in (0u32..).zip(&weights) {
                let share = table.iter().filter(|slot| **slot == index).count() as f64 / table.len() as f64;
                prop_assert!((share - f64::from(*weight) / sum).abs() < 0.03, "{weight} of {sum}: {share}");
            }
        }
    }
}
