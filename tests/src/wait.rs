//! Waiting for a state, however long a busy machine takes.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

/// Only a hang takes as long.
const MOST: Duration = Duration::from_secs(60);

/// Looks again and again until there is something.
///
/// # Errors
/// Those of `look`, and a minute without anything.
pub fn until<T>(mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let (start, mut pause) = (Instant::now(), Duration::from_micros(200));
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(start.elapsed() < MOST, "not within {MOST:?}");
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
