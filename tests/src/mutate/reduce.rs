//! From a history that disagrees to the smallest that does.

use anyhow::Result;

use super::{
    history::{Failure, History, Ran},
    source::Sources,
};
use crate::{family::Net, kernel::Kernel};

type Run<F> = fn(&History<F>, &Sources<F>, &mut Kernel) -> Result<Result<Ran, Failure>>;

/// Leaves out packets, segments and time for as long as it still disagrees. Packet by packet if that shows
/// it, too; else as it was found.
///
/// # Errors
/// When the kernel refuses programs or rows.
pub fn reduce<F: Net>(
    mut history: History<F>,
    mut failure: Failure,
    sources: &Sources<F>,
    kernel: &mut Kernel,
) -> Result<(History<F>, Failure)> {
    let mut run: Run<F> = History::run;
    if let Err(slowly) = history.run_slowly(sources, kernel)? {
        (failure, run) = (slowly, History::run_slowly);
    }
    let mut fails = |history: &History<F>| Ok::<_, anyhow::Error>(run(history, sources, kernel)?.err());
    // Half, a quarter, ... of all packets at a time.
    let count = |history: &History<F>| history.segments.iter().map(|segment| segment.packets.len()).sum();
    let mut size: usize = count(&history);
    while size > 0 {
        let mut start = 0;
        while start < count(&history) {
            let without = without(&history, start, size);
            match fails(&without)? {
                Some(still) => (history, failure) = (without, still),
                None => start += size,
            }
        }
        size /= 2;
    }
    for index in 0..history.segments.len() {
        let mut sooner = history.clone();
        sooner.segments[index].wait = 0;
        if let Some(still) = fails(&sooner)? {
            (history, failure) = (sooner, still);
        }
    }
    history.segments.retain(|segment| !segment.packets.is_empty() || segment.wait > 0);
    Ok((history, failure))
}

fn without<F: Net>(history: &History<F>, start: usize, size: usize) -> History<F> {
    let mut rest = history.clone();
    let mut index = 0;
    for segment in &mut rest.segments {
        segment.packets.retain(|_| {
            index += 1;
            !(start..start + size).contains(&(index - 1))
        });
    }
    rest
}
