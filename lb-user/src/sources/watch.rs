//! Tells when the config may have changed on disk.
//!
//! Directories are watched, not files: editors replace a file by renaming another over it, and a mounted
//! ConfigMap changes by renaming the symbolic link `..data`. Neither touches the file that was opened before.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::file::config_files;

/// A change counts as finished when nothing has happened for so long.
const QUIET: Duration = Duration::from_millis(50);
/// Directories in which something always happens are looked at after so long all the same.
const LONGEST: Duration = Duration::from_secs(1);
/// Symbolic links in a row that are followed, as many as the kernel does.
const MAX_LINKS: usize = 40;

/// Sends a message after each change of the config at `path`, a file or a directory as
/// [`load`](super::file::load) takes it. Changes that follow each other closely are one; messages that are not
/// taken do not pile up. Ends when the receiver is dropped.
///
/// To miss nothing, watch first and load then. Must be called within a tokio runtime.
///
/// # Errors
/// The directory that `path` is in cannot be watched.
pub fn watch(path: &Path) -> Result<mpsc::Receiver<()>> {
    let (event, mut events) = mpsc::channel(1);
    let on_event = move |found: notify::Result<notify::Event>| {
        if found.map_or(true, |found| is_change(found.kind)) {
            // A full channel already says that there is something to look at.
            let _ = event.try_send(());
        }
    };
    let advice = || {
        format!("cannot watch {} for changes; see that its directory exists and is readable", path.display())
    };
    let mut watcher = notify::recommended_watcher(on_event).with_context(advice)?;
    watcher.watch(&directory_of(path), RecursiveMode::NonRecursive).with_context(advice)?;
    attach(&mut watcher, path);

    let path = path.to_owned();
    let mut seen = fingerprint(&path);
    let (changed, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = changed.closed() => return,
                event = events.recv() => if event.is_none() { return },
            }
            settle(&mut events).await;
            attach(&mut watcher, &path);
            let now = fingerprint(&path);
            if now != seen {
                seen = now;
                let _ = changed.try_send(());
            }
        }
    });
    Ok(receiver)
}

/// Reading a file is none, or the reload itself would be one.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// Waits until events stop, but not for ever.
async fn settle(events: &mut mpsc::Receiver<()>) {
    let end = Instant::now() + LONGEST;
    while Instant::now() < end {
        let quiet = (Instant::now() + QUIET).min(end);
        if !matches!(timeout_at(quiet, events.recv()).await, Ok(Some(()))) {
            return;
        }
    }
}

/// Watches every directory through which the config is reached now. One that is missing is watched when it is
/// back, which the directory above tells.
fn attach(watcher: &mut RecommendedWatcher, path: &Path) {
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
