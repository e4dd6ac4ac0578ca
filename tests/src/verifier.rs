//! What the kernel programs are to the verifier.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::programs::{CgroupSockAddr, ProgramInfo, SchedClassifier, Xdp};
use lb_common::abi::{NextHopKind, Settings};
use lb_user::attach::cgroup;
use serde::Serialize;

use crate::{
    kernel,
    object::{PROGRAMS, XDP, object},
    state::{BRIDGE, among_several, on, on_uplink},
};

/// Instructions of a program after the verifier has removed dead code, and how many it walked.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Effort {
    /// Instructions, translated.
    pub instructions: u32,
    /// Instructions the verifier walked.
    pub verified: u32,
}

/// The dearest load of each program.
///
/// # Errors
/// Without root, or when the verifier refuses a program.
pub fn efforts() -> Result<BTreeMap<String, Effort>> {
    let object = object()?;
    let peer = on(BRIDGE, NextHopKind::Peer);
    let variants = [
        Settings { has_csum_ipv6: 1, peer_scrubs: 1, ..peer },
        peer,
        on(BRIDGE, NextHopKind::Stack),
        on_uplink(),
        among_several(peer),
        among_several(on(BRIDGE, NextHopKind::Stack)),
        Settings { several_uplinks: 1, ..peer },
        Settings { several_uplinks: 1, ..on_uplink() },
    ];
    let mut efforts = BTreeMap::<String, Effort>::new();
    for settings in &variants {
        let mut ebpf =
            kernel::load(&object, settings, kernel::FLOWS).context("run as root, with `cargo xtask test`")?;
        for name in PROGRAMS {
            let program: &mut SchedClassifier =
                ebpf.program_mut(name).context("no such program")?.try_into()?;
            program.load().with_context(|| format!("the verifier refuses {name} with {settings:?}"))?;
            add(&mut efforts, name, &program.info()?)?;
        }
        let program: &mut Xdp = ebpf.program_mut(XDP).context("no such program")?.try_into()?;
        program.load().with_context(|| format!("the verifier refuses {XDP} with {settings:?}"))?;
        add(&mut efforts, XDP, &program.info()?)?;
    }
    let settings = on(BRIDGE, NextHopKind::Host);
    let mut ebpf = kernel::load(&object, &settings, kernel::FLOWS)?;
    for name in cgroup::PROGRAMS {
        let program: &mut CgroupSockAddr = ebpf.program_mut(name).context("no such program")?.try_into()?;
        program.load().with_context(|| format!("the verifier refuses {name}"))?;
        add(&mut efforts, name, &program.info()?)?;
    }
    Ok(efforts)
}

fn add(efforts: &mut BTreeMap<String, Effort>, name: &str, info: &ProgramInfo) -> Result<()> {
    let effort = efforts.entry(name.to_owned()).or_default();
    let bytes = info.size_translated().context("the kernel hides instructions")?;
    let verified = info.verified_instruction_count().context("the kernel does not count")?;
    effort.instructions = effort.instructions.max(bytes / 8);
    effort.verified = effort.verified.max(verified);
    Ok(())
}
