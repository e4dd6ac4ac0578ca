//! A node with two uplinks, `eth0` and `eth1`, to one client; and one whose uplink has services' addresses.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use xtask::lab::{self, Lab, Pod};

use crate::{
    Test,
    bed::{Bed, CONFIG, only},
    neighbours::{forget, mac, neighbour},
};

pub const ALL: &[Test] = &[("two uplinks", two), ("addresses in the uplink's subnet", announced)];

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

/// In the subnet of `eth0`, which the client is in, too: nobody has a route to them.
const LAN: &str = r#"
  - name: lan
    type: LoadBalancer
    addresses: [10.96.0.22, "fd00:96::22"]
    loadBalancerIPs: [192.168.1.200, "fd00:1::200"]
    externalIPs: [192.168.1.201, "fd00:1::201"]
    ports: [{port: 80, targetPort: 8080}]
    backends: [{address: 10.244.1.3}, {address: "fd00:244:1::3"}]
"#;
const IN_LAN: [&str; 4] = ["192.168.1.200", "192.168.1.201", "fd00:1::200", "fd00:1::201"];

/// Whether the client finds the services at the uplink, or nobody answers it.
fn in_lan(bed: &Bed, found: bool) -> Result<()> {
    let own = mac(bed.lab(), "node", "eth0")?;
    forget(bed.lab(), "client")?;
    for address in IN_LAN {
        let page = SocketAddr::new(address.parse::<IpAddr>()?, 80);
        if found {
            only(&bed.pages("client", page, 3)?, &["blue"])?;
        } else {
            ensure!(bed.pages("client", page, 1).is_err(), "{address} is served");
        }
        let at = neighbour(bed.lab(), "client", address)?;
        ensure!(at.contains(&own) == found && at.contains("lladdr") == found, "{address} at {own}: {at}");
    }
    Ok(())
}

fn announced() -> Result<()> {
    let mut bed = Bed::with(&(CONFIG.to_owned() + LAN), &["--announce"], |_| Ok(()))?;
    in_lan(&bed, true)?;
    let groups = bed.lab().output("node", "ip maddr show dev eth0")?;
    ensure!(groups.contains("ff02::1:ff00:200"), "a NIC would not hear who asks: {groups}");
    let answered = |bed: &Bed| -> Result<Option<u64>> {
        Ok(bed.json(&["status"])?["outcomes"]["neighbour-answered"].as_u64())
    };
    ensure!(answered(&bed)? >= Some(4), "nothing counted");

    // The service goes, and comes back.
    bed.configure(CONFIG, "config taken over")?;
    in_lan(&bed, false).context("without the service")?;
    bed.configure(&(CONFIG.to_owned() + LAN), "config taken over")?;
    in_lan(&bed, true).context("with the service again")?;

    for (options, found) in
        [(&["--announce", "--xdp=generic"][..], true), (&[], false), (&["--announce"], true)]
    {
        bed.agent.signal(Signal::TERM)?;
        bed.agent.start_with(options)?;
        in_lan(&bed, found).with_context(|| format!("{options:?}"))?;
    }
    // Somebody else has one of them.
    bed.lab().on("node", "neigh replace 192.168.1.200 dev eth0 lladdr 02:00:00:00:00:77 nud stale")?;
    bed.wait_for("the agent says whose address it is", || {
        Ok(bed
            .agent
            .log()?
            .contains("192.168.1.200 of service default/lan is used by 02:00:00:00:00:77 at uplink eth0"))
    })
}
