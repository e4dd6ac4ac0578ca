//! Following a config: watched, and read again by a thread of its own whenever it may have changed.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};

use super::{
    file::{self, Loaded},
    problem::LoadError,
    watch::watch,
};

/// A config, and what is known of it.
pub struct Follower {
    /// As it was given: what people are told.
    name: PathBuf,
    /// From the root: the directory that the process is in may be made again, too.
    path: PathBuf,
    changed: mpsc::Receiver<()>,
    reading: Option<JoinHandle<Read>>,
    /// Since when there is something that [`Self::next`] has not given.
    due: Option<Instant>,
    /// Since when there is something that the present reading may have missed.
    missed: Option<Instant>,
}

/// One reading of the whole config.
pub struct Read {
    /// What it came to.
    pub loaded: Result<Loaded, LoadError>,
    /// How long it took.
    pub took: Duration,
}

impl Follower {
    /// Follows the config from now on. [`Self::next`] reads it for the first time.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(name: &Path) -> Result<Follower> {
        let path = std::path::absolute(name).unwrap_or_else(|_| name.to_owned());
        // Watched before it is read, so that no change between is missed.
        let changed = watch(&path)?;
        let due = Some(Instant::now());
        Ok(Follower { name: name.to_owned(), path, changed, reading: None, due, missed: None })
    }

    /// Has it read again, changed or not.
    pub fn reload(&mut self) {
        let due = if self.reading.is_some() { &mut self.missed } else { &mut self.due };
        due.get_or_insert_with(Instant::now);
    }

    /// How long it has known of a change that [`Self::next`] has not given yet.
    pub fn behind(&self) -> Option<Duration> {
        self.due.map(|due| due.elapsed())
    }

    /// The config, when it has been read anew. May be dropped and called again: nothing is lost by that.
    pub async fn next(&mut self) -> Read {
        loop {
            if self.due.is_some() && self.reading.is_none() {
                let (path, name) = (self.path.clone(), self.name.clone());
                self.reading = Some(spawn_blocking(move || {
                    let start = Instant::now();
                    Read { loaded: file::load_as(&path, &name), took: start.elapsed() }
                }));
            }
            tokio::select! {
                Some(()) = self.changed.recv() => self.reload(),
                read = finished(&mut self.reading) => {
                    self.reading = None;
                    self.due = self.missed.take();
                    return read.unwrap_or_else(|fault| Read {
                        loaded: Err(file::whole(&self.name, format!("reading it has failed: {fault}"))),
                        took: Duration::ZERO,
                    });
                }
            }
        }
    }
}

/// What the reading has come to; waits for ever if there is none.
async fn finished(reading: &mut Option<JoinHandle<Read>>) -> Result<Read, tokio::task::JoinError> {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}
