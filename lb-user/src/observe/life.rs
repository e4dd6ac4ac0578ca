//! Whether the agent lives and sees, by its heartbeat.

use std::{io, time::Duration};

use crate::maps::{
    Pins,
    heartbeat::{Beat, Heartbeat, now},
};

/// An agent that has not been heard of for so long hangs, is stopped, or gets no processor. It beats every second.
const HUNG: Duration = Duration::from_secs(5);
/// A change that has not been taken over after so long is worth a word.
const BEHIND: Duration = Duration::from_secs(5);

/// What the heartbeat of an instance says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    beat: Beat,
    now: u64,
    runs: bool,
}

impl Life {
    /// Of an agent that runs (somebody holds the instance), or of the last one that did.
    pub fn read(pins: &Pins) -> io::Result<Life> {
        let beat =
            Heartbeat::open(&pins.heartbeat())?.map_or_else(Beat::default, |heartbeat| heartbeat.read());
        Ok(Life { beat, now: now(), runs: pins.is_locked()? })
    }

    /// The agent's process, if one runs; `written` is what the view says, for one of another version.
    pub fn agent(&self, written: u32) -> Option<u32> {
        self.runs.then_some(if self.beat.pid == 0 { written } else { self.beat.pid })
    }

    /// Lines of the log that were lost.
    pub fn log_lost(&self) -> u64 {
        self.beat.log_lost
    }

    /// What is wrong with it, a sentence each. That none runs is not among them.
    pub fn problems(&self, pins: &Pins) -> Vec<String> {
        let Beat { at, started, blind, behind, pid, .. } = self.beat;
        let since = |time: u64| Duration::from_nanos(self.now.saturating_sub(time));
        let seconds = |time: u64| since(time).as_secs();
        let mut problems = Vec::new();
        if self.runs && started == 0 {
            let other = "the agent is of another version and gives no sign of life; start one of this version instead";
            problems.push(other.to_owned());
        } else if self.runs && at == 0 {
            problems.push(format!("the agent (process {pid}) is starting, for {} s", seconds(started)));
        } else if self.runs && since(at) > HUNG {
            problems.push(format!(
                "the agent (process {pid}) has not been heard of for {} s: it hangs, is stopped or gets no processor; \
                 changes are not taken over until it goes on or is started again",
                seconds(at)
            ));
        }
        if self.runs && blind != 0 {
            problems.push(format!(
                "the agent has been blind for {} s: it can't read devices, addresses, routes and neighbours from the \
                 kernel, and changes there are missed; its log says why",
                seconds(blind)
            ));
        }
        if self.runs && behind != 0 && since(behind) > BEHIND {
            problems.push(format!(
                "the agent is behind: a change of the config is {} s old and not taken over yet",
                seconds(behind)
            ));
        }
        let files = [
            (self.beat.view_error, pins.view(), "what is shown of services, backends and ports may be old"),
            (
                self.beat.kept_error,
                pins.kept(),
                "given addresses and the hash seed may be others after a restart",
            ),
            (self.beat.next_hops_error, pins.next_hops(), "no further neighbours are kept fresh"),
        ];
        for (error, path, meaning) in files {
            if error != 0 {
                let error = io::Error::from_raw_os_error(error as i32);
                problems
                    .push(format!("{} can't be written: {error}; until it can, {meaning}", path.display()));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// What is wrong with an agent that beats so, 100 seconds after the boot.
    fn problems(runs: bool, beat: Beat) -> String {
        Life { beat, now: 100 * SECOND, runs }.problems(&Pins::new("i")).join("\n")
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let well = Beat { at: 99 * SECOND, started: SECOND, pid: 7, ..Beat::default() };
        assert_eq!(problems(true, well), "");
        assert_eq!(problems(true, Beat { behind: 97 * SECOND, ..well }), "");
        for (beat, expected) in [
            (Beat::default(), "is of another version"),
            (Beat { at: 0, started: 98 * SECOND, ..well }, "(process 7) is starting, for 2 s"),
            (Beat { at: 90 * SECOND, ..well }, "(process 7) has not been heard of for 10 s"),
            (Beat { blind: 70 * SECOND, ..well }, "has been blind for 30 s"),
            (Beat { behind: 80 * SECOND, ..well }, "a change of the config is 20 s old"),
        ] {
            let said = problems(true, beat);
            assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
            assert_eq!(problems(false, beat), "");
        }
        let unwritten = Beat { view_error: 28, kept_error: 30, ..well };
        for runs in [true, false] {
            let said = problems(runs, unwritten);
            assert!(said.contains("/run/lb/i/view.json can't be written: No space left"), "{said}");
            assert!(
                said.contains("/var/lib/lb/i/kept.json can't be written: Read-only file system"),
                "{said}"
            );
        }
    }
}
