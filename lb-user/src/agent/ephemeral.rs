//! The ports that the host gives to its own connections.

use std::fs;

use crate::model::PortRange;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Ephemeral {
    /// `net.ipv4.ip_local_port_range`, which is IPv6's, too.
    pub range: PortRange,
    /// `net.ipv4.ip_local_reserved_ports`: never given.
    pub reserved: Vec<PortRange>,
}

impl Ephemeral {
    /// Those of this network namespace, as they are now; `None` where they can't be read.
    pub fn now() -> Option<Ephemeral> {
        let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        Self::parse(&read("ip_local_port_range").ok()?, &read("ip_local_reserved_ports").unwrap_or_default())
    }

    /// From the words of the kernel, like `32768 60999` and `8080,9000-9010`.
    fn parse(range: &str, reserved: &str) -> Option<Ephemeral> {
        let mut ends = range.split_whitespace().map_while(|port| port.parse().ok());
        let range = PortRange { first: ends.next()?, last: ends.next()? };
        let reserved = reserved.trim().split(',').filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(PortRange { first: first.parse().ok()?, last: last.parse().ok()? })
        });
        Some(Ephemeral { range, reserved: reserved.collect() })
    }

    /// The part of `ports` that the host may give.
    pub fn overlap(&self, ports: PortRange) -> Option<PortRange> {
        let both = ports.overlap(&self.range)?;
        let is_given = |port| !self.reserved.iter().any(|reserved| reserved.contains(port));
        (both.first..=both.last).any(is_given).then_some(both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_may_give() {
        let range = |first, last| PortRange { first, last };
        for (given, reserved, expected) in [
            ("32768\t60999\n", "\n", None),
            ("1024\t65535\n", "\n", Some(range(10_000, 29_999))),
            ("20000\t65535\n", "8080,9000-9010\n", Some(range(20_000, 29_999))),
            ("20000\t65535\n", "8080,20000-29998\n", Some(range(20_000, 29_999))),
            ("20000\t65535\n", "8080,20000-29998,29999\n", None),
        ] {
            let ephemeral = Ephemeral::parse(given, reserved).expect("a range");
            assert_eq!(ephemeral.overlap(PortRange::SNAT), expected, "{given:?} {reserved:?}");
        }
        assert_eq!(Ephemeral::parse("", ""), None);
        assert!(Ephemeral::now().is_some(), "this host has a range");
    }
}
