//! Histories as text: `tests/corpus/*.txt`, replayed by every test run.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use lb_common::path::Hook;

use super::{
    history::{History, Seen, Segment},
    source::Origin,
};
use crate::{check::hex, family::Net};

/// Where the files are.
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The files: name and text, sorted.
///
/// # Errors
/// When they can't be read.
pub fn files() -> Result<Vec<(String, String)>> {
    let directory = directory();
    let mut files = Vec::new();
    let entries = fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "txt") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, fs::read_to_string(&path).with_context(|| path.display().to_string())?));
        }
    }
    files.sort();
    Ok(files)
}

/// A history as a file, with what was seen as its comment.
pub fn write<F: Net>(history: &History<F>, why: &str) -> String {
    // The rows that follow are shown again when it is replayed.
    let why = why.lines().take_while(|line| !line.starts_with("left "));
    let mut text: String = why.map(|line| format!("# {line}\n")).collect();
    let mut say = |line: String| text.extend([line.as_str(), "\n"]);
    say(format!("family {}", F::NAME));
    say(format!("rows {}", history.origin));
    for Segment { wait, programs, has_csum_ipv6, packets } in &history.segments {
        say(format!("wait {wait}"));
        say(format!("programs {programs} {}", if *has_csum_ipv6 { "csum-ipv6" } else { "csum-any" }));
        for Seen { hook, ifindex, summed, bytes } in packets {
            let summed = if *summed { "summed" } else { "plain" };
            say(format!("packet {} {ifindex} {summed} {}", hook.program(), hex(bytes)));
        }
    }
    text
}

/// Whether a file's packets are of that family.
pub fn is_of<F: Net>(text: &str) -> bool {
    text.lines().any(|line| line.strip_prefix("family ") == Some(F::NAME))
}

/// A file's history.
///
/// # Errors
/// With the line that is none of [`write()`]'s.
pub fn read<F: Net>(text: &str) -> Result<History<F>> {
    let (mut origin, mut segments) = (None, Vec::<Segment>::new());
    for (number, line) in text.lines().enumerate() {
        let place = || format!("line {}: {line}", number + 1);
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" | "#" | "family" => {}
            "rows" => origin = Some(Origin::parse(rest).with_context(place)?),
            "wait" => segments.push(Segment {
                wait: rest.parse().with_context(place)?,
                programs: String::new(),
                has_csum_ipv6: false,
                packets: Vec::new(),
            }),
            "programs" => {
                let segment = segments.last_mut().context("`wait` comes first").with_context(place)?;
                let (name, csum) = rest.split_once(' ').unwrap_or((rest, ""));
                (segment.programs, segment.has_csum_ipv6) = (name.to_owned(), csum == "csum-ipv6");
            }
            "packet" => {
                let segment = segments.last_mut().context("`wait` comes first").with_context(place)?;
                segment.packets.push(packet(rest).with_context(place)?);
            }
            _ => bail!("{}: `rows`, `wait`, `programs` or `packet`", place()),
        }
    }
    Ok(History::new(origin.context("no line `rows`")?, segments))
}

fn packet(text: &str) -> Result<Seen> {
    let words: Vec<&str> = text.split(' ').collect();
    let &[hook, ifindex, summed, bytes] = words.as_slice() else {
        bail!("a packet is HOOK IFINDEX summed|plain HEX");
    };
    let hook = Hook::ALL.into_iter().find(|known| known.program() == hook).context("no such hook")?;
    let digits = (0..bytes.len() / 2).map(|at| bytes.get(2 * at..2 * at + 2));
    let bytes = digits
        .map(|digits| u8::from_str_radix(digits.unwrap_or("?"), 16))
        .collect::<Result<_, _>>()
        .context("bytes are two hexadecimal digits each")?;
    Ok(Seen { hook, ifindex: ifindex.parse()?, summed: summed == "summed", bytes })
}

#[cfg(test)]
mod tests {
    use lb_common::family::V6;

    use super::*;
    use crate::mutate::{rng::Rng, source::Sources};

    #[test]
    fn what_is_written_is_read() {
        let sources = Sources::<V6>::new();
        for stream in 0..20 {
            let history = History::random(&mut Rng::new(7, stream), &sources);
            let again = read::<V6>(&write(&history, "why\nindeed")).unwrap();
            assert_eq!((again.origin, again.segments), (history.origin, history.segments));
        }
    }
}
