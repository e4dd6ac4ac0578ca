//! The table in `docs/networks.md`, as what is stated has it. `LB_UPDATE_GOLDEN=1` writes it.

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use lb_tests::golden::difference;

use super::{
    cell::{Backend, Cell, Client},
    stated::{Gives, REFUSED, stated},
    topology::Topology,
};

const BEGIN: &str = "<!-- The table is made by a test: LB_UPDATE_GOLDEN=1 cargo xtask test networks -->\n";
const END: &str = "<!-- The end of the table -->\n";

/// The longest line of it.
const WIDTH: usize = 110;

/// All rows, the head first.
fn rows() -> Vec<[String; 5]> {
    let mut rows = vec![["network", "backend", "pod", "host", "outside"].map(str::to_owned)];
    for topology in Topology::ALL {
        for backend in Backend::ALL {
            let [pod, host, outside] = Client::ALL.map(|client| word(topology, client, backend));
            rows.push([topology.name().to_owned(), backend.name().to_owned(), pod, host, outside]);
        }
    }
    for refused in REFUSED {
        let why = format!("refused: {}", refused.why);
        rows.push([refused.name, "any", &why, "refused", "refused"].map(str::to_owned));
    }
    rows
}

/// What the calls of a client to a backend give.
fn word(topology: Topology, client: Client, backend: Backend) -> String {
    let all: Vec<(Cell, Gives)> =
        Cell::of(client, backend).map(|cell| (cell, stated(topology, cell))).collect();
    let Some((_, other)) = all.iter().find(|(_, gives)| *gives != Gives::Answer) else {
        return "yes".to_owned();
    };
    let mut which: Vec<&str> = Vec::new();
    for (cell, _) in all.iter().filter(|(_, gives)| gives == other) {
        if !which.contains(&cell.traffic.name()) {
            which.push(cell.traffic.name());
        }
    }
    let which = match &which[..] {
        _ if all.iter().all(|(_, gives)| gives == other) => String::new(),
        ["UDP", "large UDP"] => "UDP ".to_owned(),
        some => some.join(", ") + " ",
    };
    match other {
        Gives::Answer => "yes".to_owned(),
        Gives::AsWithout(why) => format!("{which}as without lb: {why}"),
        Gives::Absent(why) => format!("{which}n/a: {why}"),
    }
}

/// The table, with columns that can be read as they are.
fn table() -> String {
    let rows = rows();
    let widths: [usize; 5] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    let line = |row: &[String; 5]| -> String {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("| {cell:width$} "));
        cells.collect::<String>() + "|\n"
    };
    let rule = widths.map(|width| "-".repeat(width));
    let (head, body) = rows.split_first().expect("a head");
    line(head) + &line(&rule) + &body.iter().map(line).collect::<String>()
}

/// The page has the table.
pub fn compare() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/networks.md");
    let found = fs::read_to_string(&path).context("reading docs/networks.md")?;
    let (before, rest) = found.split_once(BEGIN).context("docs/networks.md has no place for the table")?;
    let (_, after) = rest.split_once(END).context("the table in docs/networks.md has no end")?;
    let table = table();
    ensure!(table.lines().all(|line| line.len() <= WIDTH), "wider than {WIDTH}:\n{table}");
    let page = format!("{before}{BEGIN}\n{table}\n{END}{after}");
    if env::var_os("LB_UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        return fs::write(path, page).context("writing the page");
    }
    ensure!(
        found == page,
        "docs/networks.md is not (-) as is stated (+); write it with LB_UPDATE_GOLDEN=1:\n{}",
        difference(&found, &page)
    );
    Ok(())
}
