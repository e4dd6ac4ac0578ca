//! What the kernel says meanwhile.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
};

use anyhow::{Context, Result};

/// Its log from some moment on.
pub struct KernelLog(File);

/// What a sick kernel says.
const ALARMS: [&str; 9] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "general protection",
    "KASAN",
    "UBSAN",
    "refcount_t:",
    "rcu: INFO",
    "soft lockup",
];

impl KernelLog {
    /// From now on.
    ///
    /// # Errors
    /// When `/dev/kmsg` can't be read: it needs root.
    pub fn from_now() -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("can't read the kernel's log, /dev/kmsg: run as root")?;
        file.seek(SeekFrom::End(0)).context("/dev/kmsg")?;
        Ok(KernelLog(file))
    }

    /// New lines that warn of a bug in the kernel.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn alarms(&mut self) -> Result<Vec<String>> {
        let mut alarms = Vec::new();
        let mut record = vec![0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(0) => return Ok(alarms),
                Ok(len) => {
                    let text = String::from_utf8_lossy(&record[..len]);
                    let line = text.lines().next().unwrap_or_default();
                    if ALARMS.iter().any(|alarm| line.contains(alarm)) {
                        alarms.push(line.to_owned());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(alarms),
                // Records were overwritten before they were read; the next read goes on behind them.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) => return Err(error).context("/dev/kmsg"),
            }
        }
    }
}
