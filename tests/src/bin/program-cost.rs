//! What a packet costs in the program at a bridge's port, as a table or as JSON. Needs root.

use std::env;

use anyhow::{Result, ensure};
use clap::Parser;
use lb_tests::cost::{Options, RECORD, Report};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    /// Blocks of packets of each kind [default: 10]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// A look, not a figure: few packets, small tables
    #[arg(long)]
    quick: bool,
    /// Write tests/program-cost.txt too, as with LB_UPDATE_COST=1
    #[arg(long)]
    record: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let record = arguments.record || env::var_os("LB_UPDATE_COST").is_some();
    ensure!(!(record && arguments.quick), "a quick look is not recorded");
    let mut options = if arguments.quick { Options::quick() } else { Options::default() };
    if let Some(rounds) = arguments.rounds {
        options.rounds = rounds.into();
    }
    let report = Report::new(&options, &mut |next| eprintln!("{next}"))?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    if record {
        report.record()?;
        eprintln!("recorded in {RECORD}");
    }
    Ok(())
}
