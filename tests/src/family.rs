//! Cases are written with IPv4 addresses and read as either family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

use lb_common::{
    abi::{FrontendKey, Settings},
    family::{Family, V4, V6},
    wire::{Ethernet, Protocol},
};

/// What a case needs of a family beyond what the path needs.
pub trait Net: Family {
    /// FragmentKind of the test's name.
    const NAME: &str;
    /// Offset of the transport header of a packet without options.
    const TRANSPORT: usize = size_of::<Ethernet>() + size_of::<Self::Header>();

    /// The address that `written` stands for.
    fn ip(written: Ipv4Addr) -> IpAddr;
    /// The same as a row holds it.
    fn addr(written: Ipv4Addr) -> Self::Addr {
        Self::from_ip(Self::ip(written)).expect("an address of the family")
    }

    /// The prefix that stands for one of IPv4.
    fn prefix(written: u32) -> u32;

    /// Gives the node this address.
    fn set_host(settings: &mut Settings, written: Ipv4Addr);

    /// The frontend that `written` (`address:port`) stands for.
    fn frontend(protocol: Protocol, written: &str) -> FrontendKey<Self> {
        let at = socket(written);
        FrontendKey {
            addr: Self::addr(*at.ip()),
            port: at.port().to_be(),
            zone: 0,
            protocol: protocol as u32,
        }
    }
}

impl Net for V4 {
    const NAME: &str = "ipv4";

    fn ip(written: Ipv4Addr) -> IpAddr {
        written.into()
    }

    fn prefix(written: u32) -> u32 {
        written
    }

    fn set_host(settings: &mut Settings, written: Ipv4Addr) {
        settings.host4 = Self::addr(written);
    }
}

impl Net for V6 {
    const NAME: &str = "ipv6";

    fn ip(written: Ipv4Addr) -> IpAddr {
        v6(written).into()
    }

    fn set_host(settings: &mut Settings, written: Ipv4Addr) {
        settings.host6 = Self::addr(written);
    }

    fn prefix(written: u32) -> u32 {
        // 10.a.b.0/24 reads as fd00:a:b::/48, a host as a host.
        if written == 32 { 128 } else { written * 2 }
    }
}

/// `10.a.b.c` reads as `fd00:a:b::c`, other addresses as `2001:db8:a:b::c`: the same digits.
fn v6(written: Ipv4Addr) -> Ipv6Addr {
    // The digits of a byte fit a group.
    let [first, a, b, c] = written.octets().map(|byte| u16::from_str_radix(&byte.to_string(), 16).unwrap());
    match first {
        0x10 => Ipv6Addr::new(0xfd00, a, b, 0, 0, 0, 0, c),
        _ => Ipv6Addr::new(0x2001, 0xdb8, a, b, 0, 0, first, c),
    }
}

/// `address:port`.
///
/// # Panics
/// When it is none: cases are constants.
pub fn socket(written: &str) -> SocketAddrV4 {
    written.parse().unwrap_or_else(|_| panic!("not an address:port: {written}"))
}
