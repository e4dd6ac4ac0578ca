//! Nothing is left behind.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::{
    Test,
    bed::{Bed, NAME, only, service, vip},
};

pub const ALL: &[Test] = &[
    ("uninstall leaves nothing", || leaves_nothing(&[])),
    ("uninstall leaves no filter and no clsact", || leaves_nothing(&["--forward", "stack", "--clsact"])),
    ("uninstall leaves the filters of others", leaves_others),
];

fn leaves_nothing(options: &[&str]) -> Result<()> {
    let mut bed = Bed::new(options)?;
    bed.answered("red", service::BLUE, &["blue"], 3)?;
    let refused = bed.agent.output(&["uninstall"]);
    let refused = format!("{:#}", refused.err().context("uninstalled under a running agent")?);
    ensure!(refused.contains(&format!("runs instance {NAME}")), "{refused}");
    bed.agent.signal(Signal::TERM)?;
    bed.answered("red", service::BLUE, &["blue"], 3)?;
    let said = bed.agent.output(&["uninstall", "--all"])?;
    ensure!(said.contains("port-ingress on veth-red removed"), "{said}");
    for command in ["bpftool net show", "tc qdisc show"] {
        let text = bed.lab().output("node", command)?;
        ensure!(!text.contains("ingress") && !text.contains("clsact"), "{command} shows:\n{text}");
    }
    for dir in ["/sys/fs/bpf/lb", "/run/lb", "/var/lib/lb"] {
        let path = Path::new(dir).join(NAME);
        ensure!(!path.exists(), "{} is left", path.display());
    }
    ensure!(bed.pages("red", vip(false, service::BLUE, 80), 1).is_err(), "still served");
    only(&bed.pages("red", "10.244.1.3:8080".parse()?, 3)?, &["blue"])?;
    // A second time there is nothing to do, and that is fine.
    bed.agent.output(&["uninstall"]).map(drop)
}

fn leaves_others() -> Result<()> {
    let mut bed = Bed::new(&["--clsact"])?;
    bed.agent.signal(Signal::TERM)?;
    let links = Path::new("/sys/fs/bpf/lb").join(NAME).join("links");
    let pins = links.read_dir()?.filter_map(|entry| Some(entry.ok()?.path()));
    let pin = pins.into_iter().find(|path| path.to_string_lossy().ends_with("-filter"));
    let pin = pin.context("no filter has a pin")?;
    let tc = |arguments: &str| bed.lab().output("node", &format!("tc {arguments}"));
    // Any program does as somebody else's.
    tc(&format!("filter add dev veth-blue egress prio 7 bpf da pinned {}", pin.display()))?;
    tc("qdisc show")?.matches("clsact").nth(1).context("only one clsact before")?;
    let told = bed.agent.output(&["uninstall", "--all"]).err().context("nothing is said of what stays")?;
    ensure!(format!("{told:#}").contains("error: not removed: the program "), "{told:#}");
    let left = tc("qdisc show")?;
    let clsact: Vec<&str> = left.lines().filter(|line| line.contains("clsact")).collect();
    ensure!(clsact.len() == 1 && clsact[0].contains("veth-blue"), "left: {clsact:?}");
    let filters = tc("filter show dev veth-blue egress")?;
    ensure!(filters.contains("pref 7"), "the filter is gone: {filters:?}");
    ensure!(!tc("filter show dev veth-blue ingress")?.contains("bpf"), "ours is left");
    Ok(())
}
