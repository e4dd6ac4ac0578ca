//! Attaching programs so that they stay when the agent ends: tcx links, pinned (kernel 6.6), or clsact
//! filters, which stay by themselves.
//!
//! For each there is a pin in the instance's directory: `<ifindex>-<hook>` is the link itself,
//! `<ifindex>-<hook>-filter` the program of a filter. The names tell what is attached where. A directory
//! `<ifindex>-clsact` notes that we added the clsact queueing discipline: it goes with our last filter.

pub mod cgroup;
mod found;
mod left;
pub mod others;
mod qdisc;
pub mod xdp;

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
};
pub use found::{Finder, Found};
use lb_common::path::Hook;
use lb_sys::bpf;
pub use left::{Left, programs_with};

use crate::system::io_kind;

/// Priority of our filters among a device's: after none that others are known to set.
const PRIORITY: u16 = 1;
/// Handle of our filters, so that they can be replaced in place.
const HANDLE: u32 = 0x6c62;

/// How the pin of a filter's program ends. The bpf file system refuses names with dots.
const FILTER: &str = "-filter";

fn direction(hook: Hook) -> TcAttachType {
    if hook.is_egress() { TcAttachType::Egress } else { TcAttachType::Ingress }
}

/// A hook's name as people and pins have it: its program's, with dashes.
pub fn label(hook: Hook) -> String {
    hook.program().replace('_', "-")
}

/// A program on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The device.
    pub ifindex: u32,
    /// The hook.
    pub hook: Hook,
    /// By a clsact filter, not by a tcx link.
    pub filter: bool,
}

/// Attaches, adopts and detaches the programs of one instance.
pub struct Attacher {
    dir: PathBuf,
    tcx: bool,
}

impl Attacher {
    /// With pins in `dir`; by tcx links if `tcx`, else by clsact filters.
    pub fn new(dir: PathBuf, tcx: bool) -> Attacher {
        Attacher { dir, tcx }
    }

    /// Where the pins are.
    pub fn links(&self) -> &Path {
        &self.dir
    }

    /// Whether it attaches by tcx links.
    pub fn uses_tcx(&self) -> bool {
        self.tcx
    }

    fn pin(&self, attached: &Attached) -> PathBuf {
        let Attached { ifindex, hook, filter } = attached;
        self.dir.join(format!("{ifindex}-{}{}", label(*hook), if *filter { FILTER } else { "" }))
    }

    /// Makes `program` the one on a device's hook. What another agent of the instance attached there
    /// is replaced in place: no packet passes in between.
    pub fn attach(&self, program: &mut SchedClassifier, ifindex: u32, hook: Hook) -> Result<()> {
        let attached = Attached { ifindex, hook, filter: !self.tcx };
        let pin = self.pin(&attached);
        if self.tcx {
            link(program, ifindex, hook, &pin)?
        } else {
            self.add_clsact(ifindex)?;
            filter(program, ifindex, hook, &pin)?
        }
        // After a change of the way of attaching, only one stays.
        self.detach(&Attached { filter: self.tcx, ..attached })
    }

    /// Detaches; where nothing is attached that is fine.
    pub fn detach(&self, attached: &Attached) -> Result<()> {
        let pin = self.pin(attached);
        if !pin.exists() {
            return Ok(());
        }
        let Attached { ifindex, hook, filter } = *attached;
        // In another network namespace that device is none, or another one.
        if filter
            && qdisc::has_filter(ifindex, direction(hook), PRIORITY, HANDLE)?
            && let Ok(name) = name_of(ifindex)
        {
            match tc::qdisc_detach_program(&name, direction(hook), hook.program()) {
                Err(error) if io_kind(&error) != Some(io::ErrorKind::NotFound) => {
                    return Err(error).with_context(|| format!("detaching {} from {name}", label(hook)));
                }
                _ => {}
            }
        }
        if !attached.filter {
            // At once, and whoever else holds it. The device may have gone.
            let _ = bpf::pinned(&pin).and_then(|link| bpf::detach(link.as_fd()));
        }
        fs::remove_file(&pin).with_context(|| format!("removing {}", pin.display()))?;
        if attached.filter { self.remove_clsact(attached.ifindex) } else { Ok(()) }
    }

    fn clsact_note(&self, ifindex: u32) -> PathBuf {
        self.dir.join(format!("{ifindex}-clsact"))
    }

    /// Adds what filters need, and notes that it was us.
    fn add_clsact(&self, ifindex: u32) -> Result<()> {
        match tc::qdisc_add_clsact(&name_of(ifindex)?) {
            Ok(()) => {
                let note = self.clsact_note(ifindex);
                fs::create_dir_all(&note).with_context(|| format!("making {}", note.display()))
            }
            Err(error) if io_kind(&error) == Some(io::ErrorKind::AlreadyExists) => Ok(()),
            Err(error) => Err(error).context("adding the clsact queueing discipline"),
        }
    }

    /// Removes what we added once our last filter is gone, but not from under filters of others.
    fn remove_clsact(&self, ifindex: u32) -> Result<()> {
        let note = self.clsact_note(ifindex);
        let used = self.list()?.iter().any(|other| other.filter && other.ifindex == ifindex);
        if used || !note.exists() {
            return Ok(());
        }
        if let Ok(name) = name_of(ifindex) {
            qdisc::remove_unused(ifindex)
                .with_context(|| format!("removing the clsact queueing discipline of {name}"))?;
        }
        fs::remove_dir(&note).with_context(|| format!("removing {}", note.display()))
    }

    /// What is attached, by the pins. A device may have gone since.
    pub fn list(&self) -> Result<Vec<Attached>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("reading {}", self.dir.display())),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let parse = |name: String| {
            let (name, filter) = match name.strip_suffix(FILTER) {
                Some(name) => (name, true),
                None => (name.as_str(), false),
            };
            let (ifindex, hook) = name.split_once('-')?;
            let hook = Hook::TC.into_iter().find(|known| label(*known) == hook)?;
            Some(Attached { ifindex: ifindex.parse().ok()?, hook, filter })
        };
        Ok(names.filter_map(parse).collect())
    }
}

/// A pinned tcx link, made or updated.
fn link(program: &mut SchedClassifier, ifindex: u32, hook: Hook, pin: &Path) -> Result<()> {
    if let Ok(pinned) = PinnedLink::from_pin(pin) {
        let adopted = SchedClassifierLink::try_from(FdLink::from(pinned))
            .map_err(anyhow::Error::from)
            .and_then(|link| Ok(program.attach_to_link(link)?));
        match adopted {
            Ok(id) => {
                // Taken so that the program does not keep it open; the pin does.
                let _link: FdLink = program.take_link(id)?.try_into()?;
                return Ok(());
            }
            // The device the link was of is gone, and another one has its index.
            Err(_) => fs::remove_file(pin).with_context(|| format!("removing {}", pin.display()))?,
        }
    }
    let name = name_of(ifindex)?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(&name, direction(hook), options)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(pin).with_context(|| format!("pinning {}", pin.display()))?;
    Ok(())
}

/// A clsact filter, made or replaced, and its program's pin.
fn filter(program: &mut SchedClassifier, ifindex: u32, hook: Hook, pin: &Path) -> Result<()> {
    let name = name_of(ifindex)?;
    let handle = TcHandle::from(HANDLE);
    let options = NlOptions { priority: PRIORITY, handle, classid: None };
    let attached = program.attach_with_options(&name, direction(hook), TcAttachOptions::Netlink(options));
    let id = match attached {
        Err(error) if io_kind(&error) == Some(io::ErrorKind::AlreadyExists) => {
            let old = SchedClassifierLink::attached(&name, direction(hook), PRIORITY, handle, None)?;
            program.attach_to_link(old)?
        }
        other => other?,
    };
    // aya would take the filter away with the link.
    std::mem::forget(program.take_link(id)?);
    let _ = fs::remove_file(pin);
    program.pin(pin).with_context(|| format!("pinning {}", pin.display()))
}

fn name_of(ifindex: u32) -> Result<String> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
    rustix::net::netdevice::index_to_name(&socket, ifindex)
        .with_context(|| format!("no device has index {ifindex}"))
}
