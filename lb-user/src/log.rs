//! The agent's log: lines on stderr, written by a thread of its own.
//!
//! Nobody waits for a line: it goes into a queue of at most [`MAX_BYTES`]. What does not fit, and what can't be
//! written (a full disk, a reader that is gone), is lost, counted, and told of by one line as soon as lines are
//! written again.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{Builder, sleep},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;

/// Bytes of lines that wait to be written.
pub const MAX_BYTES: usize = 1 << 20;
/// Until what failed to be written is tried again, or a full pipe that does not block is looked at again.
const RETRY: Duration = Duration::from_millis(200);

/// The log of this process, once [`start`] has been called.
static LOG: OnceLock<Arc<Queue>> = OnceLock::new();

/// Lines on their way from all threads to the one that writes them.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// Lines lost since the start.
    lost: u64,
    /// The writer has taken an item and is not done with it.
    writing: bool,
}

enum Item {
    Line(Vec<u8>),
    /// Here so many lines did not fit.
    Lost(u64),
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.bytes + line.len() <= MAX_BYTES {
            state.bytes += line.len();
            state.items.push_back(Item::Line(line.to_vec()));
        } else {
            state.lost += 1;
            match state.items.back_mut() {
                Some(Item::Lost(lines)) => *lines += 1,
                _ => state.items.push_back(Item::Lost(1)),
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The next item; none after [`RETRY`] if `retry`.
    fn pop(&self, retry: bool) -> Option<Item> {
        let mut state = self.lock();
        state.writing = false;
        self.changed.notify_all();
        while state.items.is_empty() {
            if !retry {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (woken, waited) =
                self.changed.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if waited.timed_out() {
                break;
            }
        }
        let item = state.items.pop_front()?;
        if let Item::Line(line) = &item {
            state.bytes -= line.len();
        }
        state.writing = true;
        Some(item)
    }
}

/// Writes the queue's lines, for ever.
fn write_all(queue: &Queue, out: &mut impl Write) {
    // Lines that are lost and not told of yet, and why.
    let mut untold = 0;
    let mut why = String::new();
    // The last line was written in part.
    let mut torn = false;
    loop {
        let item = queue.pop(untold > 0);
        let line = match item {
            Some(Item::Lost(lines)) => {
                if untold == 0 {
                    "they came faster than they were read".clone_into(&mut why);
                }
                untold += lines;
                None
            }
            Some(Item::Line(line)) => Some(line),
            None => None,
        };
        let told = if untold == 0 {
            Ok(())
        } else {
            let time = humantime::format_rfc3339_micros(SystemTime::now());
            let lines =
                if untold == 1 { "1 line of the log is" } else { &format!("{untold} lines of the log are") };
            write(out, format!("{time}  WARN {lines} lost: {why}\n").as_bytes(), &mut torn)
        };
        let written = told.and_then(|()| {
            untold = 0;
            line.as_ref().map_or(Ok(()), |line| write(out, line, &mut torn))
        });
        if let Err(error) = written {
            why = format!("they could not be written ({error})");
            if line.is_some() {
                untold += 1;
                queue.lock().lost += 1;
            }
        }
    }
}

/// Writes one line; `torn` says that what was written last does not end in a newline.
fn write(out: &mut impl Write, line: &[u8], torn: &mut bool) -> io::Result<()> {
    if *torn {
        write_part(out, b"\n", torn)?;
    }
    write_part(out, line, torn)
}

fn write_part(out: &mut impl Write, mut rest: &[u8], torn: &mut bool) -> io::Result<()> {
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                *torn = rest[written - 1] != b'\n';
                rest = &rest[written..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else has made the pipe so. This thread may wait.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What tracing writes its lines to.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        say(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs from now on: one line per event, `RUST_LOG` chooses which.
///
/// # Errors
/// The thread can't be started.
pub fn start() -> Result<()> {
    // A limit on the size of files is an error of the write, as a full disk is.
    // SAFETY: no handler of ours is replaced, and none is set.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let queue = Arc::clone(LOG.get_or_init(Arc::default));
    let writer = move || write_all(&queue, &mut io::stderr());
    Builder::new().name("log".to_owned()).spawn(writer).context("starting the thread that writes the log")?;
    let filter = EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "info".into()))
        .with_writer(|| Lines)
        .with_ansi(false)
        .with_target(false)
        .log_internal_errors(false)
        .init();
    Ok(())
}

/// Writes to stderr, by the log where there is one. Never fails: nobody could be told.
pub fn say(line: &[u8]) {
    match LOG.get() {
        Some(queue) => queue.push(line),
        None => drop(io::stderr().write_all(line)),
    }
}

/// Lines lost since the start.
pub fn lost() -> u64 {
    LOG.get().map_or(0, |queue| queue.lock().lost)
}

/// Waits until all lines are written, but not longer than `limit`.
pub fn flush(limit: Duration) {
    let Some(queue) = LOG.get() else { return };
    let end = Instant::now() + limit;
    let mut state = queue.lock();
    while !state.items.is_empty() || state.writing {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        (state, _) = queue.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    /// Takes a line at a time, or fails as it is told.
    struct Reader {
        errors: VecDeque<Option<i32>>,
        lines: mpsc::Sender<String>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(Some(error)) = self.errors.pop_front() {
                return Err(io::Error::from_raw_os_error(error));
            }
            // Half of it, so that lines come in parts.
            let part = bytes.len().div_ceil(2);
            let _ = self.lines.send(String::from_utf8_lossy(&bytes[..part]).into_owned());
            Ok(part)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What a reader that fails so gets of the lines.
    fn read(lines: &[&[u8]], errors: &[Option<i32>]) -> (String, u64) {
        let queue = Arc::new(Queue::default());
        for line in lines {
            queue.push(line);
        }
        let (sender, receiver) = mpsc::channel();
        let mut reader = Reader { errors: errors.iter().copied().collect(), lines: sender };
        let writer = Arc::clone(&queue);
        thread::spawn(move || write_all(&writer, &mut reader));
        let mut all = String::new();
        while let Ok(part) = receiver.recv_timeout(Duration::from_millis(500)) {
            all += &part;
        }
        let lost = queue.lock().lost;
        (all, lost)
    }

    #[test]
    fn lines_come_whole_and_in_order() {
        let (all, lost) = read(&[b"one\n", b"two\n"], &[]);
        assert_eq!((all.as_str(), lost), ("one\ntwo\n", 0));
    }

    #[test]
    fn a_full_disk_loses_lines_and_says_so() {
        // The first line fails halfway, the second and the first word of both fail whole.
        let errors = [None, Some(libc::ENOSPC), Some(libc::ENOSPC)];
        let (all, lost) = read(&[b"one\n", b"two\n"], &errors);
        assert_eq!(lost, 2, "{all}");
        assert!(
            all.starts_with("on\n") && all.ends_with("(No space left on device (os error 28))\n"),
            "{all}"
        );
        assert!(all.contains("WARN 2 lines of the log are lost"), "{all}");
    }

    #[test]
    fn what_does_not_fit_is_lost_in_its_place() {
        let long = vec![b'x'; MAX_BYTES - 1];
        let (all, lost) = read(&[&long, b"\n", b"no room\n", b"none either\n"], &[]);
        assert_eq!(lost, 2);
        assert!(all.starts_with('x') && !all.contains("no room"), "{} bytes", all.len());
        assert!(all.ends_with("WARN 2 lines of the log are lost: they came faster than they were read\n"));
    }
}
