//! Mutated packets: the kernel programs and the decision core on the host get the same ones in a row, over
//! the rows of a case or over random ones, and must agree on each. Rows are written once per row of packets
//! ([`history`]), so that millions of packets take minutes. What disagrees is reduced to the smallest history
//! that still does ([`reduce`]) and becomes a file of the corpus ([`corpus`]).

mod chains;
pub mod corpus;
mod errors;
pub(crate) mod fields;
pub mod history;
pub mod kernel_log;
mod packets;
pub mod reduce;
pub mod rng;
pub mod source;

use std::{collections::BTreeMap, panic::resume_unwind, thread};

use anyhow::{Context, Result};
use lb_common::{
    abi::Counter,
    family::{V4, V6},
};

use crate::{
    family::Net,
    kernel::{self, Kernel},
};
use history::{Failure, History};
use rng::Rng;
use source::Sources;

/// What a run came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Packets that both sides were given.
    pub packets: u64,
    /// How far each counter moved.
    pub counters: BTreeMap<u32, u64>,
    /// Reduced disagreements, as files of the corpus, with what was seen.
    pub failures: Vec<(String, String)>,
}

impl Tally {
    /// With another's.
    pub fn add(&mut self, other: Tally) {
        self.packets += other.packets;
        for (counter, count) in other.counters {
            *self.counters.entry(counter).or_default() += count;
        }
        self.failures.extend(other.failures);
    }

    /// How often a counter moved.
    pub fn counted(&self, counter: Counter) -> u64 {
        self.counters.get(&(counter as u32)).copied().unwrap_or(0)
    }
}

/// Disagreements after which a run ends: more hardly say more.
const ENOUGH: usize = 5;

/// Runs histories of a family from this seed on until `more` (asked with the packets so far) says no.
///
/// # Errors
/// When the kernel refuses programs or rows; a disagreement is none.
pub fn run<F: Net>(kernel: &mut Kernel, seed: u64, mut more: impl FnMut(u64) -> bool) -> Result<Tally> {
    let sources = Sources::<F>::new();
    let mut tally = Tally::default();
    for index in 0.. {
        if tally.failures.len() == ENOUGH || !more(tally.packets) {
            break;
        }
        let mut rng = Rng::new(seed, index);
        let history = History::<F>::random(&mut rng, &sources);
        let failure = match history.run(&sources, kernel)? {
            Ok(ran) => {
                tally.packets += ran.packets;
                for (counter, count) in ran.counters {
                    *tally.counters.entry(counter).or_default() += count;
                }
                continue;
            }
            Err(failure) => failure,
        };
        let place = format!("{}, seed {seed}, history {index}", F::NAME);
        let (history, Failure(what)) =
            reduce::reduce(history, failure, &sources, kernel).with_context(|| place.clone())?;
        let what = format!("{place}: {what}");
        tally.failures.push((corpus::write(&history, &what), what));
    }
    Ok(tally)
}

/// Both families at once, each in a thread, a network namespace and programs of its own. `more` is asked
/// with a family's name and the number of its packets so far.
///
/// # Errors
/// Those of [`run`].
pub fn run_both(seed: u64, more: impl Fn(&str, u64) -> bool + Sync) -> Result<Tally> {
    fn family<F: Net>(seed: u64, more: impl Fn(&str, u64) -> bool) -> Result<Tally> {
        kernel::enter_namespace()?;
        run::<F>(&mut Kernel::new()?, seed, |packets| more(F::NAME, packets))
    }
    let (v4, v6) = thread::scope(|scope| {
        let v4 = scope.spawn(|| family::<V4>(seed, &more));
        let v6 = scope.spawn(|| family::<V6>(seed, &more));
        (v4.join(), v6.join())
    });
    let mut tally = v4.unwrap_or_else(|panic| resume_unwind(panic))?;
    tally.add(v6.unwrap_or_else(|panic| resume_unwind(panic))?);
    Ok(tally)
}
