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
];

fn leaves_nothing(options: &[&str]) -> Result<()> {
    let mut bed = Bed::new(options)?;
    bed.answered("red", service::BLUE, &["blue"], 3)?;
    let refused = bed.agent.output(&["uninstall"]);
    let refused = format!("{:#}", refused.err().context("uninstalled under a running agent")?);
    ensure!(refused.contains("runs instance lbtest"), "{refused}");
    bed.agent.signal(Signal::TERM)?;
    bed.answered("red", service::BLUE, &["blue"], 3)?;
    let said = bed.agent.output(&["uninstall", "--all"])?;
    ensure!(said.contains("port-ingress on veth-red removed"), "{said}");
    for (tool, arguments) in [("bpftool", &["net", "show"][..]), ("tc", &["qdisc", "show"])] {
        let output = bed.lab().command("node", tool)?.args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{tool}: {output:?}");
        ensure!(!text.contains("ingress") && !text.contains("clsact"), "{tool} shows:\n{text}");
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
