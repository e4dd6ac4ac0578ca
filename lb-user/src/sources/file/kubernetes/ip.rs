//! Addresses and ranges as the API server reads those that it has let in once (`ParseIPSloppy` and `ParseCIDRSloppy` of
//! k8s.io/utils/net): numbers are decimal whatever zeros they begin with, and an IPv4 address written as IPv6 is that
//! IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::super::{
    fields::{admit, text},
    problem::Bad,
    yaml::Node,
};

/// An address that traffic may be sent to. `what` names its part with its article, like `a backend`.
pub(super) fn address(node: &Node<'_>, what: &str) -> Result<IpAddr, Bad> {
    let text = text(node, "an address")?;
    let address = parse_address(text).ok_or_else(|| {
        let advice = match text.parse::<SocketAddr>() {
            Ok(both) => format!("write {} alone", both.ip()),
            Err(_) => "write one like 10.96.0.10 or fd00::10".to_owned(),
        };
        Bad::new(node.at, format!("\"{text}\" is not an IP address; {advice}"))
    })?;
    admit(address, node, what)
}

/// A range; bits behind its prefix do not count. `text` is all of `node`, or a part.
pub(super) fn range(node: &Node<'_>, text: &str) -> Result<IpNet, Bad> {
    parse_range(text.trim()).ok_or_else(|| {
        Bad::new(node.at, format!("\"{text}\" is not a range of addresses; write one like 198.51.100.0/24"))
    })
}

fn parse_address(text: &str) -> Option<IpAddr> {
    Some(match parse_ipv4(text) {
        Some(v4) => v4.into(),
        None => IpAddr::from(parse_ipv6(text)?).to_canonical(),
    })
}

fn parse_range(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    let prefix = decimal(prefix, 128)? as u8;
    if let Some(v4) = parse_ipv4(address) {
        return Some(Ipv4Net::new(v4, prefix).ok()?.trunc().into());
    }
    let range = Ipv6Net::new(parse_ipv6(address)?, prefix).ok()?.trunc();
    match (range.network().to_ipv4_mapped(), prefix.checked_sub(96)) {
        (Some(v4), Some(prefix)) => Some(Ipv4Net::new(v4, prefix).ok()?.into()),
        _ => Some(range.into()),
    }
}

/// Four numbers, with whatever zeros before them.
fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = decimal(parts.next()?, 255)? as u8;
    }
    parts.next().is_none().then(|| octets.into())
}

/// An IPv6 address without a zone. The last 32 bits may be an IPv4 address.
fn parse_ipv6(text: &str) -> Option<Ipv6Addr> {
    let mut plain = text.to_owned();
    let tail = text.rfind(':')? + 1;
    if text[tail..].contains('.') {
        plain.replace_range(tail.., &parse_ipv4(&text[tail..])?.to_string());
    }
    // Zeros before a group are left out, where more than four digits would be too many.
    let group = |group: &str| match group.trim_start_matches('0') {
        _ if group.len() <= 4 || group.contains('.') => group.to_owned(),
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    };
    plain.split(':').map(group).collect::<Vec<_>>().join(":").parse().ok()
}

/// Digits alone, up to `most`.
fn decimal(text: &str, most: u32) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_the_api_server_reads_them() {
        for (text, expected) in [
            ("10.96.0.10", "10.96.0.10"),
            ("010.010.129.217", "10.10.129.217"),
            ("0000010.0.0.08", "10.0.0.8"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::ffff:010.001.2.3", "10.1.2.3"),
            ("::ffff:a01:203", "10.1.2.3"),
            ("fd00::10", "fd00::10"),
            ("FD00:0000:00000:0::00010", "fd00::10"),
            ("64:ff9b::010.1.2.3", "64:ff9b::a01:203"),
        ] {
            let expected = expected.parse::<IpAddr>().ok();
            assert_eq!(parse_address(text), expected, "{text}");
        }
        for text in [
            "",
            "10.0.0",
            "10.0.0.1.1",
            "10.0.0.256",
            "10.0.0.",
            "+1.0.0.1",
            "0x10.0.0.1",
            "1.2.3.4/8",
            " 1.2.3.4",
            "fe80::1%eth0",
            "1::2::3",
            "fd00::10000",
            "fd00::0fffff",
            "::ffff:10.1.2",
            "1:2:3:4:5:6:7",
            "99999999999.0.0.1",
        ] {
            assert_eq!(parse_address(text), None, "{text}");
        }
    }

    #[test]
    fn ranges_as_the_api_server_reads_them() {
        for (text, expected) in [
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("010.000.0.0/08", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/128", "10.1.2.3/32"),
            ("::ffff:0:0/90", "::ffc0:0:0/90"),
            ("fd00::1/8", "fd00::/8"),
        ] {
            let expected = expected.parse::<IpNet>().map(|range| range.trunc()).ok();
            assert_eq!(parse_range(text), expected, "{text}");
        }
        for text in
            ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "fd00::/129", "10.0.0/8", "fd00::/8/8"]
        {
            assert_eq!(parse_range(text), None, "{text}");
        }
    }
}
