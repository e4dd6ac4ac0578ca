//! A bridge that has the host's address and leads to its LAN. That port is a veth here, which is taken for a pod's,
//! so the
//! config says what the node is known by.

use anyhow::Result;
use xtask::lab::{self, Lab, Pod};

use crate::{
    Test,
    bed::{Bed, CONFIG, only},
};

pub const ALL: &[Test] = &[("a bridge that leads to the LAN", lan)];

/// `front`: a pod; `own`: a process of the host; `far`: a process of the client's host.
const MORE: &str = r#"
  - name: front
    type: LoadBalancer
    addresses: [10.96.0.20, "fd00:96::20"]
    loadBalancerIPs: [10.244.1.200, "fd00:244:1::200"]
    ports: [{name: page, port: 80, targetPort: 8080, nodePort: 30080}, {name: echo, port: 90, targetPort: 9090, nodePort: 30090, protocol: UDP}]
    backends: [{address: 10.244.1.3}, {address: "fd00:244:1::3"}]
  - name: own
    type: NodePort
    addresses: [10.96.0.21, "fd00:96::21"]
    ports: [{port: 80, targetPort: 6443, nodePort: 30081}]
    backends: [{address: 10.244.1.1}, {address: "fd00:244:1::1"}]
  - name: far
    type: NodePort
    addresses: [10.96.0.22, "fd00:96::22"]
    ports: [{port: 80, targetPort: 8080, nodePort: 30082}]
    backends: [{address: 10.244.1.100}, {address: "fd00:244:1::64"}]
"#;

/// The client as a host with servers.
const SERVER: Pod = Pod { name: "client", network: 1, host: 100 };

/// The client's wire into the bridge.
fn prepare(lab: &Lab) -> Result<()> {
    lab.add_wire(("node", "lan"), ("client", "lan"))?;
    lab.on("node", "link set lan master v-net-0 up")?;
    lab.on("client", "link set lan up")?;
    lab.on("client", "addr add 10.244.1.100/24 dev lan")?;
    lab.on("client", "addr add fd00:244:1::64/64 dev lan nodad")?;
    lab::serve_pod(lab, SERVER)
}

fn lan() -> Result<()> {
    let lab = Lab::new(crate::bed::NAME);
    let config = format!("node: {{addresses: [10.244.1.1, \"fd00:244:1::1\"]}}{CONFIG}{MORE}");
    let bed = Bed::at(lab, "node", &["--bridge", "v-net-0"], &config, &[], prepare)?;
    for (to, by) in [
        ("10.244.1.1:30080", "blue"),
        ("10.244.1.200:80", "blue"),
        ("10.244.1.1:30081", "node"),
        ("[fd00:244:1::1]:30080", "blue"),
        ("[fd00:244:1::200]:80", "blue"),
        ("[fd00:244:1::1]:30081", "node"),
    ] {
        only(&bed.pages("client", to.parse()?, 10)?, &[by])?;
    }
    for to in ["10.244.1.1:30090", "10.244.1.200:90", "[fd00:244:1::1]:30090", "[fd00:244:1::200]:90"] {
        only(&bed.echoes("client", to.parse()?, 10)?, &["blue"])?;
    }
    // A backend in the LAN.
    for to in ["10.96.0.22:80", "[fd00:96::22]:80", "10.244.1.1:30082"] {
        only(&bed.pages("red", to.parse()?, 5)?, &["client"])?;
    }
    Ok(())
}
