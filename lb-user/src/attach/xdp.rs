//! Attaching the program of XDP to uplinks, by links with pins `<ifindex>-uplink-xdp-<mode>`.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use lb_sys::bpf;

/// Where the program of XDP runs (`--xdp`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// In the driver, before the kernel has made anything of a packet.
    Native,
    /// In the host's stack, on any device; what it saves is less.
    Generic,
}

impl Mode {
    const ALL: [Mode; 2] = [Mode::Native, Mode::Generic];

    /// As people and pins have it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
        }
    }

    /// `XDP_FLAGS_DRV_MODE` and `XDP_FLAGS_SKB_MODE` of linux/if_link.h.
    pub(crate) fn flags(self) -> u32 {
        match self {
            Mode::Native => 1 << 2,
            Mode::Generic => 1 << 1,
        }
    }
}

/// What the names of pins have between device and mode.
const NAME: &str = "-uplink-xdp-";

/// The name of the pin for a device and a mode, by its name.
pub(super) fn pin_name(ifindex: u32, mode: &str) -> String {
    format!("{ifindex}{NAME}{mode}")
}

fn pin(links: &Path, ifindex: u32, mode: Mode) -> PathBuf {
    links.join(pin_name(ifindex, mode.name()))
}

/// Whether an agent before us has attached it so.
pub fn is_attached(links: &Path, ifindex: u32, mode: Mode) -> bool {
    pin(links, ifindex, mode).exists()
}

/// The kernel's number for why it does not attach XDP to a device.
#[derive(Debug, thiserror::Error)]
#[error("XDP is refused: {0}")]
pub struct Refused(pub io::Error);

/// Devices that were taken for XDP and whose program is still to come. Given up, they are as before.
#[derive(Default)]
pub struct XdpReservation(HashMap<u32, OwnedFd>);

impl XdpReservation {
    /// Attaches a program that passes everything, which shows whether the device can be had; the real one
    /// replaces it in place. A driver that stops for a moment when XDP begins does so once.
    pub fn take(&mut self, ifindex: u32, mode: Mode) -> io::Result<()> {
        let program = bpf::pass_xdp()?;
        self.0.insert(ifindex, bpf::link_xdp(program.as_fd(), ifindex, mode.flags())?);
        Ok(())
    }

    /// Makes `program` the one at a device. What another agent of the instance attached there is replaced in
    /// place, unless it was in another mode: a device has one mode at a time.
    pub fn attach(&mut self, program: BorrowedFd<'_>, ifindex: u32, mode: Mode, links: &Path) -> Result<()> {
        let other = Mode::ALL.into_iter().find(|other| *other != mode && is_attached(links, ifindex, *other));
        if let Some(other) = other {
            detach(links, ifindex, other)?;
        }
        let attached = self.attach_in(program, ifindex, mode, links);
        if let (Err(_), Some(other)) = (&attached, other) {
            // What was there before comes back; why it can't be the other mode is what matters.
            let _ = self.attach_in(program, ifindex, other, links);
        }
        attached
    }

    fn attach_in(&mut self, program: BorrowedFd<'_>, ifindex: u32, mode: Mode, links: &Path) -> Result<()> {
        let pin = pin(links, ifindex, mode);
        match bpf::pinned(&pin).and_then(|link| bpf::update(link.as_fd(), program)) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The device it was of is gone, and another one has its index.
            Err(_) => fs::remove_file(&pin).with_context(|| format!("removing {}", pin.display()))?,
        }
        let link = self.link(program, ifindex, mode).map_err(Refused)?;
        bpf::pin(link.as_fd(), &pin).with_context(|| format!("pinning {}", pin.display()))
    }

    fn link(&mut self, program: BorrowedFd<'_>, ifindex: u32, mode: Mode) -> io::Result<OwnedFd> {
        let Some(taken) = self.0.remove(&ifindex) else {
            return bpf::link_xdp(program, ifindex, mode.flags());
        };
        bpf::update(taken.as_fd(), program)?;
        Ok(taken)
    }
}

/// Detaches what is attached in a mode; where nothing is that is fine.
pub fn detach(links: &Path, ifindex: u32, mode: Mode) -> Result<()> {
    let pin = pin(links, ifindex, mode);
    match bpf::pinned(&pin) {
        // At once: the last one to let go of a link does so some time later. The device may have gone.
        Ok(link) => drop(bpf::detach(link.as_fd())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    fs::remove_file(&pin).with_context(|| format!("removing {}", pin.display()))
}

/// What is attached, by the pins: devices and modes.
pub fn list(links: &Path) -> Result<Vec<(u32, Mode)>> {
    let entries = match fs::read_dir(links) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", links.display())),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let parse = |name: String| {
        let (ifindex, mode) = name.split_once(NAME)?;
        let mode = Mode::ALL.into_iter().find(|known| known.name() == mode)?;
        Some((ifindex.parse().ok()?, mode))
    };
    Ok(names.filter_map(parse).collect())
}
