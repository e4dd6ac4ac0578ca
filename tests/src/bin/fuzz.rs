//! Mutated packets at the kernel programs and at the decision core on the host, both families at once. Needs
//! root. `cargo xtask fuzz` calls it.

use std::{
    fs,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use lb_common::{abi::Counter, family::V6};
use lb_tests::{
    family::Net as _,
    mutate::{self, corpus, kernel_log::KernelLog},
};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    /// So many packets
    #[arg(long)]
    packets: u64,
    /// At most so many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// The same number gives the same packets
    #[arg(long)]
    seed: u64,
}

fn main() -> ExitCode {
    match fuzz(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all was well.
fn fuzz(arguments: &Arguments) -> Result<bool> {
    let Arguments { packets, seconds, seed } = *arguments;
    println!("seed {seed}");
    let mut log = KernelLog::from_now()?;
    let begun = Instant::now();
    let end = seconds.map(Duration::from_secs);
    let (done, said) = ([AtomicU64::new(0), AtomicU64::new(0)], AtomicU64::new(0));
    let tally = mutate::run_both(seed, |family, of_family| {
        done[(family == V6::NAME) as usize].store(of_family, Ordering::Relaxed);
        let second = begun.elapsed().as_secs();
        if second >= said.load(Ordering::Relaxed) + 5 {
            said.store(second, Ordering::Relaxed);
            let all: u64 = done.iter().map(|done| done.load(Ordering::Relaxed)).sum();
            println!("{second:>5} s, {all} packets, {} a second", all / second);
        }
        of_family < packets.div_ceil(2) && end.is_none_or(|end| begun.elapsed() < end)
    })?;
    let took = begun.elapsed();
    for (file, what) in &tally.failures {
        let name = format!("found-{seed:x}-{:x}.txt", hash(file));
        let path = corpus::directory().join(&name);
        fs::write(&path, file).with_context(|| format!("writing {}", path.display()))?;
        println!("\n{what}\nkept as tests/corpus/{name}, which `cargo xtask test` replays");
    }
    let alarms = log.alarms()?;
    for line in &alarms {
        println!("the kernel says: {line}");
    }
    println!();
    for counter in Counter::ALL.iter().copied().filter(|counter| tally.counted(*counter) > 0) {
        println!("{:>12}  {}", tally.counted(counter), counter.label());
    }
    println!(
        "\n{} packets in {:.0} s, {:.0} a second; {} disagreements; kernel log: {}",
        tally.packets,
        took.as_secs_f64(),
        tally.packets as f64 / took.as_secs_f64(),
        tally.failures.len(),
        if alarms.is_empty() { "clean".to_owned() } else { format!("{} alarms", alarms.len()) }
    );
    Ok(tally.failures.is_empty() && alarms.is_empty())
}

/// Of a file: names it (FNV-1a).
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ byte as u32).wrapping_mul(0x0100_0193))
}
