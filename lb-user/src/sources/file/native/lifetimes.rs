//! `lifetimes`: how long flows are kept without a packet.

use std::time::Duration;

use lb_common::abi::Lifetimes;

use super::super::super::{
    fields::{fields, text},
    problem::{Bad, Report},
    yaml::Node,
};

/// The longest: 365 days, where the 32 bits of the flows' clock hold 136 years.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// `lifetimes`, in seconds; what it leaves out is as long as with the kernel's connection tracking.
pub(super) fn lifetimes(node: &Node<'_>, report: &mut Report<'_>) -> Option<Lifetimes> {
    let known = ["tcpEstablished", "tcpClosing", "tcpUnanswered", "udpAnswered", "udpUnanswered", "sctp"];
    let nodes = fields(node, "lifetimes", known, report)?;
    let mut lifetimes = Lifetimes::SECONDS;
    let Lifetimes { tcp_established, tcp_closing, tcp_unanswered, udp_answered, udp_unanswered, sctp } =
        &mut lifetimes;
    let seconds = [tcp_established, tcp_closing, tcp_unanswered, udp_answered, udp_unanswered, sctp];
    for (node, seconds) in nodes.into_iter().zip(seconds) {
        if let Some(read) = node.and_then(|node| report.take(lifetime(node))) {
            *seconds = read;
        }
    }
    Some(lifetimes)
}

fn lifetime(node: &Node<'_>) -> Result<u32, Bad> {
    let text = text(node, "a lifetime")?;
    let read = humantime::parse_duration(text).ok();
    let read = read.filter(|read| read.subsec_nanos() == 0 && !read.is_zero() && *read <= LONGEST);
    read.and_then(|read| read.as_secs().try_into().ok()).ok_or_else(|| {
        let advice = "write whole seconds or more, up to 365d, with the unit, like 90s, 3min or 5d";
        Bad::new(node.at, format!("\"{text}\" is not a lifetime; {advice}"))
    })
}
