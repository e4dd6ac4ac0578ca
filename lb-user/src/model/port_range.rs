//! Ranges of ports.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Ports from the first to the last, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// Its first port, never 0.
    pub first: u16,
    /// Its last, not before the first.
    pub last: u16,
}

impl PortRange {
    /// `snatPorts` where the config says nothing: below node ports (30000) and ephemeral ones (32768).
    pub const SNAT: PortRange = PortRange { first: 10_000, last: 29_999 };

    /// `nodePortRange` where the config says nothing: the default of kube-apiserver's `--service-node-port-range`.
    pub const NODE: PortRange = PortRange { first: 30_000, last: 32_767 };

    /// How many ports it has.
    pub fn count(&self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    /// Whether it has this port.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// The ports of both.
    pub fn overlap(&self, other: &PortRange) -> Option<PortRange> {
        let both = PortRange { first: self.first.max(other.first), last: self.last.min(other.last) };
        (both.first <= both.last).then_some(both)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_both() {
        let range = |first, last| PortRange { first, last };
        let ours = range(10, 20);
        for (other, expected) in [
            (range(1, 9), None),
            (range(1, 10), Some(range(10, 10))),
            (range(12, 13), Some(range(12, 13))),
            (range(1, 30), Some(ours)),
            (range(20, 30), Some(range(20, 20))),
            (range(21, 30), None),
        ] {
            assert_eq!(ours.overlap(&other), expected, "{other}");
            assert_eq!(other.overlap(&ours), expected, "{other}");
        }
        assert_eq!((range(1, u16::MAX).count(), range(7, 7).count()), (65_535, 1));
        assert_eq!([9, 10, 20, 21].map(|port| ours.contains(port)), [false, true, true, false]);
    }
}
