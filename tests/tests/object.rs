//! What the kernel object costs and what it must not contain.

use std::{collections::BTreeMap, env, fmt::Write, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::SchedClassifier;
use lb_common::abi::{ReachKind, Settings};
use lb_tests::{
    kernel,
    object::{PROGRAMS, object},
    state::{BRIDGE, on, on_uplink},
};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolKind};

const BUDGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/verifier-budget.txt");
const HEADER: &str = "\
# What each program may cost at most: instructions after the verifier has removed dead code, and
# instructions the verifier walks (kernel 6.18). Written with 15 % of room by
# LB_UPDATE_BUDGET=1 cargo test -p lb-tests --test object
";

/// Instructions of a program, and how many the verifier walked.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Cost {
    instructions: u32,
    verified: u32,
}

impl Cost {
    fn with_room(self) -> Cost {
        let room = |count: u32| count + count * 15 / 100;
        Cost { instructions: room(self.instructions), verified: room(self.verified) }
    }
}

#[test]
fn programs_keep_to_the_verifier_budget() -> Result<()> {
    let costs = costs()?;
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

/// The dearest load of each program.
fn costs() -> Result<BTreeMap<String, Cost>> {
    let object = object()?;
    let peer = on(BRIDGE, ReachKind::Peer);
    let variants = [
        Settings { has_csum_ipv6: 1, peer_scrubs: 1, ..peer },
        peer,
        on(BRIDGE, ReachKind::Stack),
        on_uplink(),
    ];
    let mut costs = BTreeMap::<String, Cost>::new();
    for settings in &variants {
        let mut ebpf = kernel::load(&object, settings).context("run as root, with `cargo xtask test`")?;
        for name in PROGRAMS {
            let program: &mut SchedClassifier =
                ebpf.program_mut(name).context("no such program")?.try_into()?;
            program.load().with_context(|| format!("the verifier refuses {name} with {settings:?}"))?;
            let info = program.info()?;
            let cost = costs.entry(name.to_owned()).or_default();
            let bytes = info.size_translated().context("the kernel hides instructions")?;
            let verified = info.verified_instruction_count().context("the kernel does not count")?;
            cost.instructions = cost.instructions.max(bytes / 8);
            cost.verified = cost.verified.max(verified);
        }
    }
    Ok(costs)
}

fn read_budget(path: &Path) -> Result<BTreeMap<String, Cost>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let [name, instructions, verified] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                bail!("not `program instructions verified`: {line}");
            };
            Ok((name.to_owned(), Cost { instructions: instructions.parse()?, verified: verified.parse()? }))
        })
        .collect()
}

fn write_budget(path: &Path, costs: &BTreeMap<String, Cost>) -> Result<()> {
    let mut text = HEADER.to_owned();
    for (program, cost) in costs {
        let Cost { instructions, verified } = cost.with_room();
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
    // Each program calls its two families' paths and the log: else the calls are not found at all.
    let is_log = |name: &str| name.contains("lb_ebpf3log");
    for program in PROGRAMS {
        let paths = calls.iter().filter(|(from, to)| from == program && !is_log(to)).count();
        ensure!(paths == 2, "{program} makes {paths} calls, not one per family: {calls:?}");
    }
    let loops: Vec<_> =
        calls.iter().filter(|(from, to)| !is_log(from) && (to.starts_with("mem") || to == "bcmp")).collect();
    ensure!(loops.is_empty(), "the path calls byte loops (copy scalars, not bytes): {loops:?}");
    Ok(())
}
