//! A bridge that filters VLANs.

use anyhow::{Context as _, Result, ensure};
use xtask::lab::{Lab, Pod};

use crate::{
    Test,
    bed::{Bed, CONFIG, service},
};

pub const ALL: &[Test] = &[("a tagged client, a backend at an access port", tagged_client)];

const PINK: Pod = Pod { name: "pink", network: 1, host: 5 };

/// Pink tags its packets, blue's port is of the same VLAN, and so is the bridge itself.
fn filter(lab: &Lab) -> Result<()> {
    lab.add_pod(PINK)?;
    for arguments in [
        "addr flush dev eth0".to_owned(),
        "link add link eth0 name eth0.10 type vlan id 10".to_owned(),
        format!("addr add {}/24 dev eth0.10", PINK.ipv4()),
        format!("addr add {}/64 dev eth0.10 nodad", PINK.ipv6()),
        "link set eth0.10 up".to_owned(),
        "route add default via 10.244.1.1".to_owned(),
        "-6 route add default via fd00:244:1::1".to_owned(),
    ] {
        lab.on(PINK.name, &arguments)?;
    }
    lab.on("node", "link set v-net-0 type bridge vlan_filtering 1")?;
    for port in ["veth-pink vid 10", "veth-blue vid 10 pvid untagged", "v-net-0 vid 10 pvid untagged self"] {
        let arguments = format!("vlan add dev {port}");
        let output =
            lab.command("node", "bridge")?.args(arguments.split(' ')).output().context("running bridge")?;
        ensure!(output.status.success(), "bridge {arguments}: {output:?}");
    }
    Ok(())
}

fn tagged_client() -> Result<()> {
    let bed = Bed::with(CONFIG, &[], filter)?;
    bed.answered("pink", service::BLUE, &["blue"], 20)
}
