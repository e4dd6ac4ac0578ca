//! What a packet costs at the uplink, in XDP and in tc, as a table or as JSON. Needs root.

use anyhow::Result;
use clap::Parser;
use lb_tests::live::{Options, Report};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    /// Blocks of packets of each kind
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// A look, not a figure: few packets
    #[arg(long)]
    quick: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (rounds, frames) = if arguments.quick { (3, 200_000) } else { (arguments.rounds.into(), 1_000_000) };
    let report = Report::new(Options { rounds, frames }, &mut |next| eprintln!("{next}"))?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
