//! Files of an instance: replaced whole, so that a reader never finds half of one.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use tracing::{error, info};

/// Whether the file is on the disk before [`replace`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// It is: it must outlive a boot.
    Now,
    /// The kernel decides.
    Later,
}

/// Replaces a file by one with these bytes, readable for its owner alone. One that has them already is left as it is.
/// Makes its directory where that is missing.
///
/// # Errors
/// The file is as it was.
pub fn replace(path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
    if fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let new = path.with_extension("new");
    let written = write(&new, bytes, sync).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // What there is of it takes room that the next try needs.
        let _ = fs::remove_file(&new);
    }
    written
}

fn write(path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    if sync == Sync::Now { file.sync_all() } else { Ok(()) }
}

/// A file that is to be written, and tried again until it is.
pub struct Retried {
    path: PathBuf,
    due: bool,
    error: u32,
}

impl Retried {
    /// To be written for the first time.
    pub fn new(path: PathBuf) -> Retried {
        Retried { path, due: true, error: 0 }
    }

    /// What it should say has changed.
    pub fn changed(&mut self) {
        self.due = true;
    }

    /// Whether it is to be written.
    pub fn is_due(&self) -> bool {
        self.due
    }

    /// The system's number for why it could not be written; 0 where it could.
    pub fn error(&self) -> u32 {
        self.error
    }

    /// Writes it if it is due. A failure is logged once, not with every try.
    pub fn write(&mut self, write: impl FnOnce(&Path) -> io::Result<()>) {
        if !self.due {
            return;
        }
        let path = self.path.display();
        match write(&self.path) {
            Ok(()) => {
                if self.error != 0 {
                    info!("{path} is written again");
                }
                (self.due, self.error) = (false, 0);
            }
            Err(error) => {
                if self.error == 0 {
                    error!("{path} can't be written: {error}; trying again every second");
                }
                self.error = error_number(&error);
            }
        }
    }
}

/// The system's number for an error, as small as a beat has it.
pub fn error_number(error: &io::Error) -> u32 {
    error.raw_os_error().unwrap_or(libc::EIO).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::sources::file::tests::Directory;

    #[test]
    fn files_are_replaced_only_where_they_differ() {
        let directory = Directory::new("files");
        let path = directory.0.join("below/state.json");
        let inode = || fs::metadata(&path).expect("a file").ino();
        replace(&path, b"one", Sync::Now).expect("a write");
        let first = inode();
        replace(&path, b"one", Sync::Now).expect("nothing to write");
        assert_eq!(inode(), first);
        replace(&path, b"two", Sync::Later).expect("a write");
        assert_eq!(fs::read(&path).expect("a file"), b"two");
        assert_ne!(inode(), first);
        // A directory in its place can't be replaced: nothing of the try is left.
        let taken = directory.0.join("below/taken");
        fs::create_dir(&taken).expect("a directory");
        replace(&taken, b"three", Sync::Now).expect_err("a directory");
        assert!(!taken.with_extension("new").exists());
    }
}
