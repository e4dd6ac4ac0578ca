//! `lb explain`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;

use super::output::{Format, error, print};
use crate::{
    compile::Frontend,
    explain::{self, At, Explanation, Question, Verdict},
    log,
    model::Protocol,
    sources::file,
};

/// What is asked.
#[derive(Args)]
pub struct Explain {
    /// Services: a file or a directory, as for `lb run`; neither an agent nor root is needed
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The client; without a port it has 40000
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = client)]
    from: (IpAddr, Option<u16>),
    /// What it calls; without a protocol TCP
    #[arg(long, value_name = "ADDR:PORT/PROTO", value_parser = frontend)]
    to: Frontend,
    /// Where its packet is seen first; left out, where one from that address would be
    #[arg(long, value_enum)]
    at: Option<At>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl Explain {
    /// Explains; the code is 0 whatever the packet gets.
    pub fn run(&self) -> Result<ExitCode> {
        let (from, from_port) = self.from;
        let question = Question { from, from_port, to: self.to, at: self.at };
        if from.is_ipv4() != self.to.address.is_ipv4() {
            let to = self.to.address;
            error(&format!(
                "--from {from} and --to {to} are not of one address family; give two of the same"
            ));
            return Ok(ExitCode::from(2));
        }
        let loaded = match file::load(&self.config) {
            Ok(loaded) => loaded,
            Err(refused) => {
                for problem in refused.problems {
                    error(&problem.to_string());
                }
                return Ok(ExitCode::FAILURE);
            }
        };
        for problem in &loaded.problems {
            log::say(format!("warning: {problem}\n").as_bytes());
        }
        let explanation = explain::explain(loaded.model, &question)?;
        print(self.output, &explanation, || text(&explanation))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Columns of a step's number, and those beside its topic.
const NUMBER: usize = 2;
const GAPS: usize = 4;
/// Columns that a line has.
const WIDTH: usize = 100;

/// Broken into lines, all but the first indented.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut column = indent;
    for word in text.split(' ') {
        let len = word.chars().count();
        if column > indent && column + 1 + len > WIDTH {
            lines += &format!("\n{:indent$}", "");
            column = indent;
        } else if column > indent {
            lines.push(' ');
            column += 1;
        }
        lines += word;
        column += len;
    }
    lines
}

/// The answer first, then how it came to that.
fn text(explanation: &Explanation) -> String {
    let Explanation { from, to, backend, reason, .. } = explanation;
    let verdict = match (explanation.verdict, backend, reason) {
        (Verdict::Forward, Some(backend), _) => format!("forward to {backend}"),
        (Verdict::Forward, None, _) => "forward".to_owned(),
        (Verdict::Reject, _, reason) => format!("reject ({})", reason.unwrap_or_default()),
        (Verdict::Drop, _, reason) => format!("drop ({})", reason.unwrap_or_default()),
        (Verdict::Pass, ..) => "pass: not for a service".to_owned(),
    };
    let mut text = format!("{from} -> {to}\n{verdict}\n\n");
    let topics = explanation.steps.iter().map(|step| step.topic.len()).max().unwrap_or(0);
    let indent = NUMBER + topics + GAPS;
    for (number, step) in (1..).zip(&explanation.steps) {
        text += &format!("{number:>NUMBER$}  {:topics$}  {}\n", step.topic, wrapped(&step.text, indent));
        for item in &step.items {
            text += &format!("{:indent$}  {}\n", "", wrapped(item, indent + 4));
        }
    }
    text
}

/// `ADDR`, `ADDR:PORT` or, for IPv6, `[ADDR]:PORT`.
fn client(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let address = |text: &str| text.trim_start_matches('[').trim_end_matches(']').parse();
    if let Ok(address) = address(text) {
        return Ok((address, None));
    }
    match text.parse::<SocketAddr>() {
        Ok(socket) if socket.port() > 0 => Ok((socket.ip(), Some(socket.port()))),
        Ok(_) => Err("port 0 is no client's; leave it out, or give 1 to 65535".to_owned()),
        Err(_) => Err("write an address like 10.244.1.2 or fd00::2, with a port 10.244.1.2:40000 or \
                       [fd00::2]:40000"
            .to_owned()),
    }
}

/// `ADDR:PORT` or `ADDR:PORT/PROTO`.
fn frontend(text: &str) -> Result<Frontend, String> {
    let (socket, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|known| known.to_string().eq_ignore_ascii_case(protocol))
        .ok_or_else(|| format!("{protocol:?} is not balanced; write tcp, udp or sctp"))?;
    match socket.parse::<SocketAddr>() {
        Ok(socket) if socket.port() > 0 => {
            Ok(Frontend { address: socket.ip(), port: socket.port(), protocol })
        }
        Ok(_) => Err("port 0 cannot be called; give 1 to 65535".to_owned()),
        Err(_) => {
            Err("write an address, a port and a protocol like 10.96.0.10:80/tcp or [fd00:96::10]:80/tcp"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_with_and_without_a_port() {
        let address = |text: &str| text.parse().expect("an address");
        for (text, ip, port) in [
            ("10.244.1.2", "10.244.1.2", None),
            ("10.244.1.2:1", "10.244.1.2", Some(1)),
            ("fd00::2", "fd00::2", None),
            ("[fd00::2]", "fd00::2", None),
            ("[fd00::2]:65535", "fd00::2", Some(65_535)),
        ] {
            assert_eq!(client(text), Ok((address(ip), port)), "{text}");
        }
        for text in ["", "pod", "10.244.1", "10.244.1.2:0", "10.244.1.2:65536", "10.244.1.2/tcp"] {
            assert!(client(text).is_err(), "{text}");
        }
    }

    #[test]
    fn frontends_have_a_port() {
        let expected = |text: &str, protocol| {
            let socket: SocketAddr = text.parse().expect("a socket");
            Ok(Frontend { address: socket.ip(), port: socket.port(), protocol })
        };
        assert_eq!(frontend("10.96.0.10:80"), expected("10.96.0.10:80", Protocol::Tcp));
        assert_eq!(frontend("10.96.0.10:53/UDP"), expected("10.96.0.10:53", Protocol::Udp));
        assert_eq!(frontend("[fd00::1]:80/sctp"), expected("[fd00::1]:80", Protocol::Sctp));
        for text in ["10.96.0.10", "10.96.0.10/tcp", "10.96.0.10:0", "10.96.0.10:80/icmp", "fd00::1/tcp"] {
            assert!(frontend(text).is_err(), "{text}");
        }
    }
}
