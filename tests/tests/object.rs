//! What the kernel object costs and what it must not contain.

use std::{collections::BTreeMap, env, fmt::Write, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use lb_common::abi::{Counter, Ending, Stop};
use lb_tests::{
    object::{PROGRAMS, XDP, object},
    verifier::{Effort, efforts},
};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolKind};

const BUDGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/verifier-budget.txt");
const HEADER: &str = "\
# What each program may cost at most: instructions after the verifier has removed dead code, and
# instructions the verifier walks (kernel 6.18). Written with 15 % of room by
# LB_UPDATE_BUDGET=1 cargo test -p lb-tests --test object
";

#[test]
fn programs_keep_to_the_verifier_budget() -> Result<()> {
    let costs = efforts()?;
    if env::var_os("LB_UPDATE_BUDGET").is_some() {
        return write_budget(Path::new(BUDGET), &costs);
    }
    let budget = read_budget(Path::new(BUDGET))?;
    let mut over = String::new();
    for (program, cost) in &costs {
        let most =
            budget.get(program.as_str()).with_context(|| format!("no budget for {program} in {BUDGET}"))?;
        if cost.instructions > most.instructions || cost.verified > most.verified {
            writeln!(over, "{program}: {cost:?}, budget {most:?}")?;
        }
    }
    ensure!(
        over.is_empty(),
        "over the verifier budget:\n{over}If that is worth it, run \
         `LB_UPDATE_BUDGET=1 cargo test -p lb-tests --test object` as root and commit {BUDGET}."
    );
    Ok(())
}

/// An effort with 15 % of room.
fn with_room(effort: Effort) -> Effort {
    let room = |count: u32| count + count * 15 / 100;
    Effort { instructions: room(effort.instructions), verified: room(effort.verified) }
}

fn read_budget(path: &Path) -> Result<BTreeMap<String, Effort>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let [name, instructions, verified] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                bail!("not `program instructions verified`: {line}");
            };
            Ok((name.to_owned(), Effort { instructions: instructions.parse()?, verified: verified.parse()? }))
        })
        .collect()
}

fn write_budget(path: &Path, costs: &BTreeMap<String, Effort>) -> Result<()> {
    let mut text = HEADER.to_owned();
    for (program, cost) in costs {
        let Effort { instructions, verified } = with_room(*cost);
        writeln!(text, "{program:<15} {instructions:>6} {verified:>7}")?;
    }
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// Calls of a program of this object into itself: where from, and what.
fn calls(file: &object::File<'_>) -> Result<Vec<(String, String)>> {
    const CALL: u8 = 0x85;
    const PSEUDO_CALL: u8 = 1;
    let functions: BTreeMap<_, _> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text)
        .filter_map(|symbol| Some((symbol.section_index()?.0, symbol)))
        .map(|(section, symbol)| Ok(((section, symbol.address()), symbol.name()?.to_owned())))
        .collect::<Result<_>>()?;
    let mut calls = Vec::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let relocations: BTreeMap<_, _> = section.relocations().collect();
        for (index, instruction) in section.data()?.chunks_exact(8).enumerate() {
            if instruction[0] != CALL || instruction[1] >> 4 != PSEUDO_CALL {
                continue;
            }
            let at = index as u64 * 8;
            let offset = i32::from_le_bytes(instruction[4..].try_into()?) as i64 * 8 + 8;
            let (target_section, base) = match relocations.get(&at).map(|relocation| relocation.target()) {
                None => (section.index().0, at),
                Some(RelocationTarget::Symbol(symbol)) => {
                    let symbol = file.symbol_by_index(symbol)?;
                    (symbol.section_index().context("a call to nothing")?.0, symbol.address())
                }
                Some(other) => bail!("a call to {other:?}"),
            };
            let target = (target_section, base.wrapping_add_signed(offset));
            let name =
                functions.get(&target).with_context(|| format!("a call to no function: {target:?}"))?;
            let from = functions.range(..=(section.index().0, at)).next_back();
            calls.push((from.map_or(String::new(), |(_, name)| name.clone()), name.clone()));
        }
    }
    Ok(calls)
}

/// `core`'s memcpy and its kin work byte by byte on BPF.
#[test]
fn no_byte_loops_on_the_path() -> Result<()> {
    let object = object()?;
    let calls = calls(&object::File::parse(&*object)?)?;
    // Each program calls the steps of its two families' paths, at least three of each: else the calls are
    // not found.
    let is_log = |name: &str| name.contains("lb_ebpf3log");
    for program in PROGRAMS.into_iter().chain([XDP]) {
        let steps = calls.iter().filter(|(from, to)| from == program && !is_log(to)).count();
        ensure!(steps >= 6 || program.starts_with("cgroup"), "{program} makes {steps} calls: {calls:?}");
    }
    let loops: Vec<_> =
        calls.iter().filter(|(from, to)| !is_log(from) && (to.starts_with("mem") || to == "bcmp")).collect();
    ensure!(loops.is_empty(), "the path calls byte loops (copy scalars, not bytes): {loops:?}");
    Ok(())
}

/// Whoever asks for the log of drops is told of each, and why.
#[test]
fn every_exit_is_logged_with_its_reason() -> Result<()> {
    let object = object()?;
    let missing: Vec<String> = Stop::ALL
        .iter()
        .filter_map(|stop| {
            let ending = match stop.ending() {
                Ending::Pass => return None,
                Ending::Drop => "dropped",
                Ending::Reject => "rejected",
            };
            Some(format!("{ending}: {}", Counter::from(*stop).label()))
        })
        .filter(|words| !object.windows(words.len()).any(|found| found == words.as_bytes()))
        .collect();
    ensure!(missing.is_empty(), "the programs never log {missing:?}");
    Ok(())
}
