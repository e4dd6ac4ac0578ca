//! A node with two uplinks, `eth0` and `eth1`, to one client.

use anyhow::{Context as _, Result};
use xtask::lab::{self, Lab, Pod};

use crate::{
    Test,
    bed::{Bed, CONFIG, only},
};

pub const ALL: &[Test] = &[("two uplinks", two)];

/// `front`: pods, at an address that is routed to the node. `far`: a process of the client's host, behind `eth1`.
const MORE: &str = r#"
  - name: front
    type: LoadBalancer
    addresses: [10.96.0.20, "fd00:96::20"]
    loadBalancerIPs: [198.51.100.10, "2001:db8:100::10"]
    ports: [{name: page, port: 80, targetPort: 8080}, {name: echo, port: 90, targetPort: 9090, protocol: UDP}]
    backends: [{address: 10.244.1.3}, {address: "fd00:244:1::3"}]
  - name: far
    type: NodePort
    addresses: [10.96.0.21, "fd00:96::21"]
    ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
    backends: [{address: 192.168.3.200}, {address: "fd00:3::200"}]
"#;

/// The client as a host with servers.
const SERVER: Pod = Pod { name: "client", network: 1, host: 100 };

fn prepare(lab: &Lab) -> Result<()> {
    lab.add_wire(("node", "eth1"), ("client", "eth1"))?;
    for (host, last) in [("node", 11), ("client", 100)] {
        lab.on(host, &format!("addr add 192.168.2.{last}/24 dev eth1"))?;
        lab.on(host, &format!("addr add fd00:2::{last}/64 dev eth1 nodad"))?;
        lab.on(host, "link set eth1 up")?;
    }
    lab.on("client", "addr add 192.168.3.200/32 dev lo")?;
    lab.on("client", "addr add fd00:3::200/128 dev lo")?;
    lab.on("node", "route add 192.168.3.0/24 via 192.168.2.100")?;
    lab.on("node", "-6 route add fd00:3::/64 via fd00:2::100")?;
    lab::serve_pod(lab, SERVER)
}

fn two() -> Result<()> {
    let bed = Bed::with(&(CONFIG.to_owned() + MORE), &["--uplink", "eth1"], prepare)?;
    let answered = |to: &str, by: &str| -> Result<()> {
        let answers = match to.ends_with("90") {
            true => bed.echoes("client", to.parse()?, 20),
            false => bed.pages("client", to.parse()?, 20),
        };
        only(&answers?, &[by]).with_context(|| to.to_owned())
    };
    // The way back is that of the request, whichever it is.
    for (device, [v4, v6]) in
        [("eth0", ["192.168.1.11", "fd00:1::11"]), ("eth1", ["192.168.2.11", "fd00:2::11"])]
    {
        bed.lab().on("client", &format!("route replace 198.51.100.10 via {v4} dev {device}"))?;
        bed.lab().on("client", &format!("-6 route replace 2001:db8:100::10 via {v6} dev {device}"))?;
        for to in ["198.51.100.10:80", "198.51.100.10:90", "[2001:db8:100::10]:80", "[2001:db8:100::10]:90"] {
            answered(to, "blue").with_context(|| format!("by {device}"))?;
        }
    }
    // The host itself would send by eth0 to the client's other address, and knows no other way there. What came by
    // eth1 goes back there.
    bed.lab().on("client", "route replace 198.51.100.10 via 192.168.2.11 dev eth1 src 192.168.1.100")?;
    bed.lab().on("client", "-6 route replace 2001:db8:100::10 via fd00:2::11 dev eth1 src fd00:1::100")?;
    for to in ["198.51.100.10:80", "198.51.100.10:90", "[2001:db8:100::10]:80", "[2001:db8:100::10]:90"] {
        answered(to, "blue").context("asymmetric")?;
    }
    // Requests come by eth0 and leave by eth1; replies to the node's address come back by eth0.
    for to in ["192.168.1.11:30080", "[fd00:1::11]:30080"] {
        answered(to, "client").context("a backend behind the other uplink")?;
    }
    Ok(())
}
