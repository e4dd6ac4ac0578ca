//! `docs/counters.md` has every counter, as the list in `lb-common/src/abi/counter.rs` has it.
//! `LB_UPDATE_GOLDEN=1` writes the page.

use std::{env, fs, path::Path};

use lb_common::abi::{Counter, Ending, Stop};
use lb_tests::golden::difference;

const HEAD: &str = "\
# Counters

`lb status` counts what becomes of packets, by these names. `lb status -o json` has all of them in `outcomes`, those at
zero too. `lb explain` says which one a packet would get, and `RUST_LOG=info,lb_ebpf=debug` has each packet that is
dropped or rejected logged with its name.

A test writes this page from the list in the code and compares: `LB_UPDATE_GOLDEN=1 cargo xtask test counters` writes it
anew.
";

/// Under which heading who is counted so, and what becomes of that.
fn sections() -> [(&'static str, &'static str, Option<Ending>); 4] {
    [
        (
            "Rejected",
            "The client is told: TCP by RST, UDP and SCTP by port unreachable, or by the ICMP error that is named.\n\
             A call of a process of the host fails with ECONNREFUSED.",
            Some(Ending::Reject),
        ),
        (
            "Dropped",
            "The packet is gone. A call of a process of the host fails with EHOSTUNREACH.",
            Some(Ending::Drop),
        ),
        (
            "Passed on",
            "The packet goes on as it came: to the bridge, the host or the next program.",
            Some(Ending::Pass),
        ),
        ("Events", "They end nothing: what happens to a packet on its way, or to a call of a socket.", None),
    ]
}

/// The page, from the list.
fn page() -> String {
    let mut page = HEAD.to_owned();
    for (heading, becomes, ending) in sections() {
        page += &format!("\n## {heading}\n\n{becomes}\n\n| counter | what it means |\n|---|---|\n");
        for counter in Counter::ALL.iter().filter(|counter| counter.stop().map(Stop::ending) == ending) {
            page += &format!("| `{}` | {} |\n", counter.label(), meaning(*counter));
        }
    }
    page
}

/// Without what the heading says.
fn meaning(counter: Counter) -> String {
    let whole = counter.meaning();
    let ends = ["; passed on.", "; dropped.", "; rejected."];
    match ends.iter().find_map(|end| whole.strip_suffix(end)) {
        Some(meaning) => format!("{meaning}."),
        None => whole.to_owned(),
    }
}

#[test]
fn every_counter_is_in_the_page() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/counters.md");
    let page = page();
    if env::var_os("LB_UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        return fs::write(path, page).expect("writing the page");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/counters.md is not (-) as the list is (+); write it with LB_UPDATE_GOLDEN=1:\n{}",
        difference(&found, &page)
    );
}
