//! Reading one file of a config: bounded, and without waiting for anybody who might write.

use std::{
    fs::{self, File, FileType},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Bytes that all files of a config may have together.
pub const MAX_BYTES: u64 = 128 << 20;

/// The text of a regular file, of which at most `left` bytes may be read; what it has is taken off.
///
/// # Errors
/// Why it can't be read, in words.
pub fn read(path: &Path, left: &mut u64) -> Result<String, String> {
    // Looked at before it is opened: opening a device or a FIFO may do something, or wait.
    regular(fs::metadata(path).map_err(|error| unreadable(&error))?.file_type())?;
    let options = libc::O_NONBLOCK | libc::O_NOCTTY;
    let open = File::options().read(true).custom_flags(options).open(path);
    let file = open.map_err(|error| unreadable(&error))?;
    // It may be another one by now.
    regular(file.metadata().map_err(|error| unreadable(&error))?.file_type())?;
    let mut bytes = Vec::new();
    file.take(*left + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    *left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
        format!(
            "the config has more than {} MiB, the most that is read; leave out what is not used",
            MAX_BYTES >> 20
        )
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|&byte| byte == b'\n').count();
        format!("line {line} is not UTF-8 text; save the file as UTF-8")
    })
}

fn regular(kind: FileType) -> Result<(), String> {
    let kind = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(format!("{kind} is not read; name a regular file, or a directory with such files"))
}

/// What an error of the file system means for who wrote the config.
pub fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "no such file or directory; correct --config, or write the file".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "may not be read; give the user that runs lb the right to read it".to_owned()
        }
        _ => format!("cannot be read: {error}; correct that, or name another file"),
    }
}
