//! Signs of life of the agent, in one row of memory that is pinned beside the maps: writing it needs no disk and
//! can't fail, reading it needs no agent.

use std::{io, os::fd::AsFd as _, path::Path};

use aya::maps::MapData;
use bytemuck::{Pod, Zeroable};
use lb_sys::bpf;
use rustix::time::{ClockId, clock_gettime};

use super::Mapped;

/// What the agent writes every second. Times are nanoseconds of `CLOCK_MONOTONIC`; 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Beat {
    /// When its loop last came round; never: it has not started yet.
    pub at: u64,
    /// When it started.
    pub started: u64,
    /// Since when it can't read devices, addresses, routes or neighbours.
    pub blind: u64,
    /// Since when it knows of a change of the config that it has not taken over.
    pub behind: u64,
    /// Lines of its log that were lost.
    pub log_lost: u64,
    /// Its process.
    pub pid: u32,
    /// The system's number for why `view.json` could not be written; 0: it could.
    pub view_error: u32,
    /// The same for `kept.json`.
    pub kept_error: u32,
    /// The same for `next-hops.json`.
    pub next_hops_error: u32,
}

/// The pinned row.
pub struct Heartbeat(Mapped<Beat>);

impl Heartbeat {
    /// That of an instance, made if there is none or one of another version.
    pub fn create(path: &Path) -> io::Result<Heartbeat> {
        if let Some(found) = Heartbeat::open(path)? {
            return Ok(found);
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let map = bpf::one_row(size_of::<Beat>() as u32)?;
        bpf::pin(map.as_fd(), path)?;
        Heartbeat::open(path)?.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// That of an instance; `None` if there is none, or one of another version.
    pub fn open(path: &Path) -> io::Result<Option<Heartbeat>> {
        let map = match bpf::pinned(path) {
            Ok(map) => MapData::from_fd(map).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = map.info().map_err(io::Error::other)?.value_size();
        if bytes as usize != size_of::<Beat>() {
            return Ok(None);
        }
        Ok(Some(Heartbeat(Mapped::new(map.fd().as_fd(), 1)?)))
    }

    /// What it says.
    pub fn read(&self) -> Beat {
        self.0.get(0)
    }

    /// Says it.
    pub fn write(&mut self, beat: Beat) {
        self.0.set(0, beat);
    }
}

/// The present time, as beats have it.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
