//! Addresses that are neither served nor balanced over, and why.
//!
//! A service on such an address would take over traffic that is the host's own (CVE-2020-8554), a backend on
//! one would open the host's or the link's private services to every pod (CVE-2020-8558).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

/// Why an address is refused. Its `Display` completes the sentence "ADDRESS is ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 0.0.0.0/8 and ::.
    Unspecified,
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// 169.254.0.0/16 and fe80::/10.
    LinkLocal,
    /// 224.0.0.0/4 and ff00::/8.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// ::ffff:0:0/96, with the address it stands for.
    Mapped(Ipv4Addr),
}

impl Refusal {
    /// The reason to refuse `address`, as a frontend and as a backend alike.
    pub fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(v4) if v4.octets()[0] == 0 => Some(Refusal::Unspecified),
            IpAddr::V4(v4) if v4.is_loopback() => Some(Refusal::Loopback),
            IpAddr::V4(v4) if v4.is_link_local() => Some(Refusal::LinkLocal),
            IpAddr::V4(v4) if v4.is_multicast() => Some(Refusal::Multicast),
            IpAddr::V4(v4) if v4.is_broadcast() => Some(Refusal::Broadcast),
            IpAddr::V6(v6) if v6.is_unspecified() => Some(Refusal::Unspecified),
            IpAddr::V6(v6) if v6.is_loopback() => Some(Refusal::Loopback),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(Refusal::LinkLocal),
            IpAddr::V6(v6) if v6.is_multicast() => Some(Refusal::Multicast),
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map(Refusal::Mapped),
            IpAddr::V4(_) => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unspecified => f.write_str("an unspecified address and names no host"),
            Refusal::Loopback => f.write_str("a loopback address, the host's own (CVE-2020-8558)"),
            Refusal::LinkLocal => {
                f.write_str("a link-local address, such as of metadata services (CVE-2020-8554)")
            }
            Refusal::Multicast => f.write_str("a multicast address and names no single host"),
            Refusal::Broadcast => f.write_str("the broadcast address and names no single host"),
            Refusal::Mapped(v4) => write!(f, "the IPv4 address {v4} written as IPv6"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_of_every_refused_range() {
        use Refusal::*;
        let cases = [
            ("0.0.0.0", Some(Unspecified)),
            ("0.255.255.255", Some(Unspecified)),
            ("1.0.0.0", None),
            ("126.255.255.255", None),
            ("127.0.0.0", Some(Loopback)),
            ("127.255.255.255", Some(Loopback)),
            ("128.0.0.0", None),
            ("169.253.255.255", None),
            ("169.254.169.254", Some(LinkLocal)),
            ("169.255.0.0", None),
            ("223.255.255.255", None),
            ("224.0.0.0", Some(Multicast)),
            ("239.255.255.255", Some(Multicast)),
            ("240.0.0.0", None),
            ("255.255.255.254", None),
            ("255.255.255.255", Some(Broadcast)),
            ("::", Some(Unspecified)),
            ("::1", Some(Loopback)),
            ("::2", None),
            ("fe7f::1", None),
            ("fe80::1", Some(LinkLocal)),
            ("febf::1", Some(LinkLocal)),
            ("fec0::1", None),
            ("ff02::1", Some(Multicast)),
            ("::ffff:10.0.0.1", Some(Mapped(Ipv4Addr::new(10, 0, 0, 1)))),
            ("fd00::1", None),
        ];
        for (text, expected) in cases {
            let address: IpAddr = text.parse().expect("a case is an address");
            assert_eq!(Refusal::of(address), expected, "{text}");
        }
    }
}
