//! Tells when the config may have changed on disk.
//!
//! Directories are watched, not files: editors replace a file by renaming another over it, and a mounted
//! ConfigMap changes by renaming the symbolic link `..data`. Neither touches the file that was opened before.
//! What no event tells of (a directory that is made again, a file system mounted over it, one of another machine)
//! is found by looking once a second.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread::{Builder, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::mpsc;

use super::file::config_files;

/// A change counts as finished when nothing has happened for so long.
const QUIET: Duration = Duration::from_millis(50);
/// Directories in which something always happens are looked at after so long all the same.
const LONGEST: Duration = Duration::from_secs(1);
/// Between two looks without any event.
const LOOK: Duration = Duration::from_secs(1);
/// Symbolic links in a row that are followed, as many as the kernel does.
const MAX_LINKS: usize = 40;

/// Sends a message after each change of the config at `path`, a file or a directory as
/// [`load`](super::file::load) takes it, within a second. Changes that follow each other closely are one; messages
/// that are not taken do not pile up. Ends when the receiver is dropped.
///
/// To miss nothing, watch first and load then. A thread of its own looks: a file system may take its time.
///
/// # Errors
/// There is no thread to be had.
pub fn watch(path: &Path) -> Result<mpsc::Receiver<()>> {
    let (event, events) = sync_channel(1);
    // Without events (a limit of inotify's is reached) there are still the looks.
    let mut watcher = notify::recommended_watcher(move |found: notify::Result<notify::Event>| {
        if found.map_or(true, |found| is_change(found.kind)) {
            // A full channel already says that there is something to look at.
            let _ = event.try_send(());
        }
    });
    let path = path.to_owned();
    attach(&mut watcher, &path);
    let mut seen = fingerprint(&path);
    let (changed, receiver) = mpsc::channel(1);
    let look = move || {
        while !changed.is_closed() {
            wait(&events);
            attach(&mut watcher, &path);
            let now = fingerprint(&path);
            if now != seen {
                seen = now;
                let _ = changed.try_send(());
            }
        }
    };
    Builder::new()
        .name("config".to_owned())
        .spawn(look)
        .context("starting the thread that watches the config")?;
    Ok(receiver)
}

/// Reading a file is none, or the reload itself would be one.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// Waits for an event, and then until events stop, but not for ever.
fn wait(events: &Receiver<()>) {
    match events.recv_timeout(LOOK) {
        Ok(()) => {}
        Err(RecvTimeoutError::Timeout) => return,
        Err(RecvTimeoutError::Disconnected) => return sleep(LOOK),
    }
    let end = Instant::now() + LONGEST;
    while Instant::now() < end && events.recv_timeout(QUIET).is_ok() {}
}

/// Watches every directory through which the config is reached now. One that is missing is watched when it is
/// back.
fn attach(watcher: &mut notify::Result<RecommendedWatcher>, path: &Path) {
    let Ok(watcher) = watcher else { return };
    let mut directories = BTreeSet::new();
    add_directories(path, &mut directories);
    for file in config_files(path).unwrap_or_default() {
        add_directories(&file, &mut directories);
    }
    for directory in directories {
        let _ = watcher.watch(&directory, RecursiveMode::NonRecursive);
    }
}

/// Adds the directory of `path`, those of the links it leads through, and `path` itself if it is one.
fn add_directories(path: &Path, directories: &mut BTreeSet<PathBuf>) {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let directory = directory_of(&path);
        let target = fs::read_link(&path).map(|target| directory.join(target));
        directories.insert(directory);
        match target {
            Ok(target) => path = target,
            Err(_) => break,
        }
    }
    if path.is_dir() {
        directories.insert(path);
    }
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    }
}

/// A file's device, inode, size, and times of change.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// The files of the config as they are now; equal while nothing of them has changed.
fn fingerprint(path: &Path) -> Vec<(PathBuf, Option<Stamp>)> {
    let stamp = |file: &Path| {
        let data = fs::metadata(file).ok()?;
        let times = ((data.mtime(), data.mtime_nsec()), (data.ctime(), data.ctime_nsec()));
        Some((data.dev(), data.ino(), data.size(), times.0, times.1))
    };
    let files = config_files(path).unwrap_or_default();
    files.into_iter().map(|file| (file.clone(), stamp(&file))).collect()
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
