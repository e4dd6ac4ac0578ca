//! Whose the directories and pins of an instance are. Who can change them decides what packets get, so they are used
//! only where nobody but root and us can.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Write permission of group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Only the owner of an entry may rename or remove it.
const STICKY: u32 = 0o1000;

/// Somebody else has, or can change, what an instance would use.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// Its owner is another user.
    #[error(
        "{path} belongs to user {owner}, who can change what packets get: it is not used; find out what it is, then \
         `rm -r {path}` or `chown -R root {path}`"
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// The user.
        owner: u32,
    },
    /// Its mode lets others write.
    #[error(
        "{path} can be written by others (mode {mode:04o}), who can change what packets get: it is not used; find out \
         what is in it, then `chmod go-w {path}`"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is something else.
    #[error("{0} is not a directory: it is not used; remove it")]
    Kind(PathBuf),
    /// It can't be looked at.
    #[error("looking at {path}: {source}")]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What was said.
        source: io::Error,
    },
}

/// A directory in which others may make entries, if they can't touch ours.
pub fn check_shared(path: &Path) -> Result<(), Untrusted> {
    let Some(data) = look(path)? else { return Ok(()) };
    if data.mode() & STICKY != 0 { check_owner(path, &data) } else { check(path, &data) }
}

/// A directory of ours; one that is missing is fine.
pub fn check_directory(path: &Path) -> Result<(), Untrusted> {
    let Some(data) = look(path)? else { return Ok(()) };
    if !data.is_dir() {
        return Err(Untrusted::Kind(path.to_owned()));
    }
    check(path, &data)
}

/// As [`check_directory`], with what is in it.
pub fn check_entries(path: &Path) -> Result<(), Untrusted> {
    check_directory(path)?;
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if let Some(data) = look(&entry.path())? {
            check(&entry.path(), &data)?;
        }
    }
    Ok(())
}

fn look(path: &Path) -> Result<Option<Metadata>, Untrusted> {
    match fs::symlink_metadata(path) {
        Ok(data) => Ok(Some(data)),
        // Whoever may not look may not use it either, and is told so then.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            Ok(None)
        }
        Err(source) => Err(Untrusted::Unknown { path: path.to_owned(), source }),
    }
}

fn check(path: &Path, data: &Metadata) -> Result<(), Untrusted> {
    check_owner(path, data)?;
    if data.mode() & OTHERS_WRITE != 0 && !data.is_symlink() {
        return Err(Untrusted::Mode { path: path.to_owned(), mode: data.mode() & 0o7777 });
    }
    Ok(())
}

fn check_owner(path: &Path, data: &Metadata) -> Result<(), Untrusted> {
    let owner = data.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(Untrusted::Owner { path: path.to_owned(), owner });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;
    use crate::sources::file::tests::Directory;

    #[test]
    fn what_others_can_change_is_refused() {
        let directory = Directory::new("owned");
        let ours = directory.0.join("lb");
        let chmod = |mode| fs::set_permissions(&ours, fs::Permissions::from_mode(mode)).expect("a mode");
        assert!(check_directory(&ours).is_ok(), "nothing there yet");
        fs::create_dir(&ours).expect("a directory");
        for (mode, directory, shared) in [(0o700, true, true), (0o770, false, false), (0o1777, false, true)] {
            chmod(mode);
            assert_eq!(check_directory(&ours).is_ok(), directory, "{mode:o}");
            assert_eq!(check_shared(&ours).is_ok(), shared, "{mode:o}");
        }
        chmod(0o755);
        fs::write(ours.join("pin"), "").expect("a file");
        assert!(check_entries(&ours).is_ok());
        fs::set_permissions(ours.join("pin"), fs::Permissions::from_mode(0o666)).expect("a mode");
        assert!(matches!(check_entries(&ours), Err(Untrusted::Mode { mode: 0o666, .. })));
        let link = directory.0.join("link");
        symlink(&ours, &link).expect("a link");
        assert!(matches!(check_directory(&link), Err(Untrusted::Kind(_))));
        // Only root can give a file away.
        if rustix::process::geteuid().is_root() {
            chown(&ours, Some(65534), None).expect("another owner");
            assert!(matches!(check_shared(&ours), Err(Untrusted::Owner { owner: 65534, .. })));
            assert!(matches!(check_entries(&ours), Err(Untrusted::Owner { owner: 65534, .. })));
        }
    }
}
