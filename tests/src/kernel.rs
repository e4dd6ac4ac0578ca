//! The kernel programs, run through `BPF_PROG_TEST_RUN` on the rows and the packet of a case.

pub(crate) mod maps;
pub(crate) mod test_run;

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use aya::{Ebpf, EbpfLoader};
use lb_common::{
    abi::{
        self, Settings,
        maps::{MapKind, MapSize},
    },
    path::{Egress, Hook, Verdict},
};
use maps::Maps;
use test_run::{test_run, test_run_xdp};

use crate::{
    family::{Net, socket},
    host::Outcome,
    object::object,
    packet::mac,
    state::{At, BRIDGE, DEVICES, State, mtu},
};

/// Rows of each array in a run.
pub const ROWS: u32 = 256;
/// Rows of each flow table in a run of a case.
pub const FLOWS: u32 = 4096;

/// What the kernel shows of a verdict: where a packet is redirected to can't be seen.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `TCX_NEXT`, `XDP_PASS`.
    Next,
    /// `TC_ACT_OK`.
    Continue,
    /// `TC_ACT_SHOT`, `XDP_DROP`.
    Drop,
    /// `TC_ACT_REDIRECT`, `XDP_TX`.
    Redirect,
}

impl From<Verdict> for Action {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Drop(_) => Action::Drop,
            Verdict::Forward(Egress::Continue) => Action::Continue,
            Verdict::Forward(Egress::Peer(_) | Egress::Device(_) | Egress::Neighbour(_)) => Action::Redirect,
            Verdict::Pass => Action::Next,
        }
    }
}

impl Action {
    fn returned(hook: Hook, value: i32) -> Result<Self> {
        Ok(match (hook, value) {
            // XDP_DROP, XDP_PASS, XDP_TX.
            (Hook::UplinkXdp, 1) => Action::Drop,
            (Hook::UplinkXdp, 2) => Action::Next,
            (Hook::UplinkXdp, 3) => Action::Redirect,
            (Hook::UplinkXdp, other) => bail!("the program returned {other}"),
            (_, -1) => Action::Next,
            (_, 0) => Action::Continue,
            (_, 2) => Action::Drop,
            (_, 7) => Action::Redirect,
            (_, other) => bail!("the program returned {other}"),
        })
    }
}

/// What the device is taken to know of a packet's checksum.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Summed {
    /// Nothing (CHECKSUM_NONE).
    None,
    /// The sum of all its bytes (CHECKSUM_COMPLETE, kernel 6.16). The run fails (EBADMSG) if it is no
    /// longer the packet's afterwards.
    Complete,
}

/// Loaded programs, by their settings.
pub struct Kernel {
    object: Vec<u8>,
    loaded: HashMap<Vec<u8>, Maps>,
    /// Whether `bpf_l4_csum_replace` has `BPF_F_IPV6`.
    pub has_csum_ipv6: bool,
    /// What this kernel can take a device to know.
    pub summed: &'static [Summed],
}

/// What a run in the kernel shows.
pub type Seen<F> = (Action, Outcome<F>);

/// What a packet got in the kernel, and its bytes afterwards; or that the kernel did not take it.
pub type Got = Result<(Action, Vec<u8>)>;

/// Gives this thread, and those it starts from now on, a network namespace with the cases' devices.
///
/// # Errors
/// Without root, or without `ip` from iproute2.
pub fn enter_namespace() -> Result<()> {
    // SAFETY: concerns this thread only.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    ensure!(
        unshared == 0,
        "no network namespace of one's own ({}): run as root, with `cargo xtask test`",
        std::io::Error::last_os_error()
    );
    let own = mac(socket(BRIDGE.at).ip().octets()).map(|byte| format!("{byte:02x}")).join(":");
    for index in DEVICES {
        let (name, peer) = (format!("case{index}"), format!("peer{index}"));
        let mtu = mtu(index).context("a device of the cases")?.to_string();
        let index = index.to_string();
        let link = ["link", "add", &name, "index", &index, "mtu", &mtu, "address", &own];
        let status = Command::new("ip")
            .args(link)
            .args(["type", "veth", "peer", "name", &peer])
            .status()
            .context("`ip` is missing: install iproute2")?;
        ensure!(status.success(), "`ip link add {name} index {index} type veth` failed");
    }
    Ok(())
}

impl Kernel {
    /// With the object under test; programs are loaded when they are first needed.
    ///
    /// # Errors
    /// Without an object.
    pub fn new() -> Result<Self> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let new = version >= (6, 16);
        Ok(Kernel {
            object: object()?,
            loaded: HashMap::new(),
            has_csum_ipv6: new,
            summed: if new { &[Summed::None, Summed::Complete] } else { &[Summed::None] },
        })
    }

    /// Runs the program of `hook` on one packet.
    ///
    /// # Errors
    /// When the kernel refuses a program, a row or the packet.
    pub fn run<F: Net>(
        &mut self,
        state: &State<F>,
        at: At,
        packet: &[u8],
        summed: Summed,
    ) -> Result<Seen<F>> {
        let maps = self.load(&at.settings)?;
        maps.fill(state)?;
        let ran = run_at(maps.program(at.hook)?.as_fd(), at, packet, summed);
        // Read back in any case: that leaves the counters at zero for the next run.
        let seen = maps.seen()?;
        let (action, packet) = ran?;
        Ok((action, Outcome { packet, ..seen }))
    }

    /// Runs programs on packets one after the other (hook, device, bytes, what the device knows), over rows
    /// that are written once: what each got, and what all have left.
    ///
    /// # Errors
    /// When the kernel refuses a program or a row; that it refuses a packet is that packet's error.
    pub fn run_in_a_row<F: Net>(
        &mut self,
        state: &State<F>,
        settings: Settings,
        packets: &[(Hook, u32, &[u8], Summed)],
    ) -> Result<(Vec<Got>, Outcome<F>)> {
        let maps = self.load(&settings)?;
        maps.fill(state)?;
        let mut ran = Vec::with_capacity(packets.len());
        for (hook, ifindex, bytes, summed) in packets {
            let program = maps.program(*hook)?.as_fd();
            let at = At { settings, hook: *hook, ifindex: *ifindex, tagged: false, segment: 0 };
            ran.push(run_at(program, at, bytes, *summed));
        }
        Ok((ran, maps.seen()?))
    }

    fn load(&mut self, settings: &Settings) -> Result<&mut Maps> {
        let key = bytemuck::bytes_of(settings).to_vec();
        if !self.loaded.contains_key(&key) {
            self.loaded.insert(key.clone(), Maps::new(load(&self.object, settings, FLOWS)?));
        }
        Ok(self.loaded.get_mut(&key).expect("just inserted"))
    }
}

/// Runs the program of a hook. XDP is before anybody knows a sum.
fn run_at(program: BorrowedFd<'_>, at: At, packet: &[u8], summed: Summed) -> Got {
    let (value, bytes) = match at.hook {
        Hook::UplinkXdp => test_run_xdp(program, at.ifindex, packet)?,
        _ => test_run(program, at.ifindex, packet, at.segment, summed)?,
    };
    Ok((Action::returned(at.hook, value)?, bytes))
}

/// Creates the maps, with so many rows in each flow table, and takes in the programs of an object.
///
/// # Errors
/// When the kernel refuses.
pub fn load(object: &[u8], settings: &Settings, flows: u32) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    // Without their log, as the agent loads them.
    loader.override_global("SETTINGS", settings, true).override_global("AYA_LOG_LEVEL", &0u8, true);
    for map in abi::maps::all() {
        match (map.kind, map.size) {
            (MapKind::Mapped | MapKind::PerCpu, MapSize::PerService { .. }) => {
                loader.map_max_entries(map.name, ROWS);
            }
            (MapKind::Lru, _) => {
                loader.map_max_entries(map.name, flows);
            }
            _ => {}
        }
    }
    loader.load(object).context("can't load the kernel object")
}
