//! The Internet checksum by difference (RFC 1071, RFC 1624), in memory byte order as the kernel keeps
//! `__wsum` and `__sum16`.

/// Folds a sum of 16- and 32-bit words into 32 bits, carries added back.
#[inline(always)]
pub fn fold32(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

/// Folds 32 bits into 16, carries added back.
#[inline(always)]
pub fn fold16(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The difference to apply where words that summed to `old` become words that sum to `new`.
/// Both are sums of at most 2^29 words of 32 bits.
#[inline(always)]
pub fn difference(old: u64, new: u64) -> u32 {
    /// Nothing in one's complement, and more than `old`.
    const ZERO: u64 = 0xffff_ffff << 30;
    fold32(ZERO + new - old)
}

/// The checksum field after `difference` (RFC 1624, equation 3).
#[inline(always)]
pub fn update(check: u16, difference: u32) -> u16 {
    // The first fold leaves 0x1fffe at most.
    let sum = !check as u64 + difference as u64;
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word by word.
    fn full(words: &[u16]) -> u16 {
        !words.iter().fold(0u32, |sum, word| {
            let sum = sum + *word as u32;
            (sum & 0xffff) + (sum >> 16)
        }) as u16
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: HC = 0xdd2f, m = 0x5555, m' = 0x3285 gives 0x0000.
        assert_eq!(update(0xdd2f, difference(0x5555, 0x3285)), 0x0000);
    }

    proptest! {
        #[test]
        fn a_difference_is_a_full_sum(mut words in prop::collection::vec(any::<u16>(), 8..40), new in any::<[u16; 4]>()) {
            // A header with a version field never sums to zero.
            words[7] |= 1;
            let before = full(&words);
            let sum = |words: &[u16]| words.iter().map(|word| *word as u64).sum::<u64>();
            let diff = difference(sum(&words[..4]), sum(&new));
            words[..4].copy_from_slice(&new);
            prop_assert_eq!(update(before, diff), full(&words));
        }
    }
}
