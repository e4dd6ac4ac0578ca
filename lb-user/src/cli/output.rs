//! Tables in kubectl's style and JSON.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use crate::log;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table
    Table,
    /// JSON
    Json,
}

/// Prints `value` as JSON, or what `text` makes of it.
pub fn print(format: Format, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    match format {
        Format::Json => {
            let mut json = serde_json::to_vec_pretty(value)?;
            json.push(b'\n');
            write(&json)
        }
        Format::Table => write(text().as_bytes()),
    }
}

/// Writes to stdout. A reader who reads only the head is no error.
pub fn write(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("writing to stdout"),
        _ => Ok(()),
    }
}

/// Prints an error to stderr, where it can be.
pub fn error(text: &str) {
    log::say(format!("error: {text}\n").as_bytes());
}

/// Columns without borders; what a table without rows says instead.
pub fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>, none: &str) -> String {
    if rows.is_empty() {
        return format!("{none}\n");
    }
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_look_like_kubectl() {
        let rows =
            vec![["default".to_owned(), "web".to_owned()], ["kube-system".to_owned(), "dns".to_owned()]];
        let expected = "NAMESPACE     NAME\ndefault       web\nkube-system   dns\n";
        assert_eq!(table(["NAMESPACE", "NAME"], rows, "none"), expected);
        assert_eq!(table(["NAME"], vec![], "No services found."), "No services found.\n");
    }
}
