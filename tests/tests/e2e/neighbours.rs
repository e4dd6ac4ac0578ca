//! Services whose addresses lie in the bridge's own subnet.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use xtask::lab::{self, Lab, Pod};

use crate::{
    Test,
    bed::{Bed, CONFIG, only},
};

pub const ALL: &[Test] = &[
    ("an address in the bridge's subnet", inside),
    ("an address in the bridge's subnet that a pod has", taken),
];

/// The service's addresses, as they are written in both families.
const ADDRESSES: [&str; 2] = ["10.244.1.200", "fd00:244:1::200"];

/// `CONFIG` and a service inside the subnet.
fn config() -> String {
    let [v4, v6] = ADDRESSES;
    format!(
        r#"{CONFIG}
  - name: inside
    addresses: [{v4}, "{v6}"]
    ports: [{{port: 80, targetPort: 8080}}]
    backends: [{{address: 10.244.1.3}}, {{address: "fd00:244:1::3"}}]
"#
    )
}

fn page_of(address: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse()?, 80))
}

fn inside() -> Result<()> {
    let mut bed = Bed::with(&config(), &[], |_| Ok(()))?;
    let bridge = mac(bed.lab(), "node", "v-net-0")?;
    for address in ADDRESSES {
        only(&bed.pages("red", page_of(address)?, 5)?, &["blue"])?;
        ensure!(neighbour(bed.lab(), "red", address)?.contains(&bridge), "{address} is not at {bridge}");
    }
    ensure!(bed.json(&["status"])?["outcomes"]["neighbour-answered"].as_u64() >= Some(2), "nothing counted");

    // Another MAC: who asks from now on is told so.
    bed.lab().on("node", "link set v-net-0 address 02:00:00:00:00:77")?;
    bed.wait_for("the new MAC is told", || {
        forget(bed.lab(), "green")?;
        for address in ADDRESSES {
            bed.pages("green", page_of(address)?, 1)?;
            if !neighbour(bed.lab(), "green", address)?.contains("02:00:00:00:00:77") {
                return Ok(false);
            }
        }
        Ok(true)
    })?;

    // The kernel looks before it takes an address for itself.
    bed.lab().on("green", &format!("addr add {}/64 dev eth0", ADDRESSES[1]))?;
    bed.wait_for("the address is refused as a duplicate", || {
        Ok(bed.lab().output("green", "ip -6 addr show dev eth0")?.contains("dadfailed"))
    })?;

    // Another agent takes over what is answered for; when the service goes, nobody answers.
    bed.agent.signal(Signal::TERM)?;
    bed.agent.start_again()?;
    bed.configure(CONFIG, "config taken over")?;
    forget(bed.lab(), "red")?;
    for address in ADDRESSES {
        ensure!(bed.pages("red", page_of(address)?, 1).is_err(), "{address} is still served");
        let found = neighbour(bed.lab(), "red", address)?;
        ensure!(!found.contains("lladdr"), "{address} is still answered for: {found}");
    }
    Ok(())
}

/// The pod's own answer is heard, and the agent says what is wrong.
fn taken() -> Result<()> {
    const PINK: Pod = Pod { name: "pink", network: 1, host: 200 };
    let bed = Bed::with(&config(), &[], |lab| {
        lab.add_pod(PINK)?;
        lab::serve_pod(lab, PINK)
    })?;
    let pink = mac(bed.lab(), "pink", "eth0")?;
    // The host hears where it is.
    let node: SocketAddr = "10.244.1.1:6443".parse()?;
    only(&bed.pages("pink", node, 1)?, &["node"])?;
    bed.wait_for("the agent says whose address it is", || {
        Ok(bed.agent.log()?.contains(&format!(
            "address 10.244.1.200 of service default/inside is used by {pink} on bridge v-net-0"
        )))
    })?;
    forget(bed.lab(), "red")?;
    only(&bed.pages("red", page_of(ADDRESSES[0])?, 1)?, &["blue"])?;
    let found = neighbour(bed.lab(), "red", ADDRESSES[0])?;
    ensure!(found.contains(&pink), "the pod is at {pink}, not as told: {found}");
    Ok(())
}

pub fn mac(lab: &Lab, host: &str, device: &str) -> Result<String> {
    let text = lab.output(host, &format!("ip link show {device}"))?;
    let mac = text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    Ok(mac.context("a device without a MAC")?.to_owned())
}

/// Who a host takes for the neighbour with an address.
pub fn neighbour(lab: &Lab, host: &str, address: &str) -> Result<String> {
    lab.output(host, &format!("ip neigh show {address}"))
}

/// Makes a host ask for its neighbours anew.
pub fn forget(lab: &Lab, host: &str) -> Result<()> {
    lab.on(host, "neigh flush dev eth0")
}
