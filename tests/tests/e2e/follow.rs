//! Nothing is learned for good: devices, addresses and neighbours that change while the agent runs, or while none does.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use xtask::lab::{Lab, Pod};

use crate::{
    Test,
    bed::{Bed, CONFIG, only, service, vip},
    neighbours::{forget, mac},
    tap,
};

pub const ALL: &[Test] = &[
    ("a bridge gets its addresses late", late_addresses),
    ("a bridge gets another subnet", another_subnet),
    ("a bridge is made again", || bridge_made_again(true)),
    ("a bridge is made again while no agent runs", || bridge_made_again(false)),
    ("a bridge is renamed and comes back", renamed),
    ("a port leaves its namespace and comes back", moved_away),
    ("an uplink is made again", || uplink_made_again(&[])),
    ("an uplink is made again, by clsact filters", || uplink_made_again(&["--clsact"])),
    ("a machine comes back with another MAC", another_mac),
    ("an address moves between two containers", address_moves),
    ("the node's address stays while it is there", node_address),
];

/// By node ports, outside.
const PUBLIC: &str = r#"
  - name: public
    type: NodePort
    addresses: [10.96.0.20, "fd00:96::20"]
    ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
    backends: [{address: 10.244.1.3}, {address: "fd00:244:1::3"}]
"#;
const NODE_PORTS: [&str; 2] = ["192.168.1.11:30080", "[fd00:1::11]:30080"];

fn config() -> String {
    CONFIG.to_owned() + PUBLIC
}

/// The service is reached by pods, the host and from outside, by both families.
fn served(bed: &Bed) -> Result<()> {
    for pod in Pod::ALL {
        forget(bed.lab(), pod.name)?;
    }
    bed.wait_settled()?;
    for from in ["red", "client"] {
        bed.wait_for(&format!("{from} is answered"), || {
            Ok([false, true].iter().all(|ipv6| bed.pages(from, vip(*ipv6, service::BLUE, 80), 1).is_ok()))
        })?;
        bed.answered(from, service::WEB, &["red", "blue", "green"], 30)?;
    }
    bed.answered("node", service::BLUE, &["blue"], 3)?;
    for to in NODE_PORTS {
        only(&bed.pages("client", to.parse()?, 5)?, &["blue"]).with_context(|| to.to_owned())?;
    }
    bed.wait_for("all is well", || Ok(bed.agent.output(&["status"]).is_ok()))
}

fn give_addresses(lab: &Lab) -> Result<()> {
    lab.on("node", "addr add 10.244.1.1/24 dev v-net-0")?;
    lab.on("node", "addr add fd00:244:1::1/64 dev v-net-0 nodad")
}

fn take_addresses(lab: &Lab) -> Result<()> {
    lab.on("node", "addr del 10.244.1.1/24 dev v-net-0")?;
    lab.on("node", "addr del fd00:244:1::1/64 dev v-net-0")
}

/// As docker0 and cni0 come up at boot.
fn late_addresses() -> Result<()> {
    let mut bed = Bed::with(&config(), &[], take_addresses)?;
    give_addresses(bed.lab())?;
    served(&bed)?;
    // Once more where the agent finds the rows of one before it.
    bed.agent.signal(Signal::TERM)?;
    take_addresses(bed.lab())?;
    bed.agent.start_again()?;
    bed.agent.signal(Signal::TERM)?;
    give_addresses(bed.lab())?;
    bed.agent.start_again()?;
    served(&bed)
}

/// What was outside is on the bridge by now.
fn another_subnet() -> Result<()> {
    let more = r#"
  - name: wide
    addresses: [10.96.0.30, "fd00:96::30"]
    ports: [{port: 80, targetPort: 8080}]
    backends: [{address: 10.244.77.4}, {address: "fd00:244:77::4"}]
"#;
    let bed = Bed::with(&(config() + more), &[], |lab| {
        lab.on("green", "addr add 10.244.77.4/32 dev eth0")?;
        lab.on("green", "addr add fd00:244:77::4/128 dev eth0 nodad preferred_lft 0")
    })?;
    bed.lab().on("node", "addr add 10.244.77.1/24 dev v-net-0")?;
    bed.lab().on("node", "addr add fd00:244:77::1/64 dev v-net-0 nodad")?;
    for to in ["10.96.0.30:80", "[fd00:96::30]:80"] {
        bed.wait_for(&format!("{to} is served"), || Ok(bed.pages("red", to.parse()?, 1).is_ok()))?;
        only(&bed.pages("red", to.parse()?, 5)?, &["green"])?;
    }
    served(&bed)
}

fn make_bridge(lab: &Lab) -> Result<()> {
    lab.add_bridge(1)?;
    for pod in Pod::ALL {
        lab.on("node", &format!("link set veth-{} master v-net-0", pod.name))?;
    }
    Ok(())
}

/// `lb status` fails and says that one is missing.
fn is_missed(bed: &Bed, device: &str) -> Result<()> {
    bed.wait_for(&format!("{device} is missed"), || {
        let output = bed.agent.command(&["status"])?.output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(output.status.code() == Some(1) && said.contains(&format!("no such {device}")))
    })
}

fn bridge_made_again(by_this_agent: bool) -> Result<()> {
    let mut bed = Bed::with(&config(), &[], |_| Ok(()))?;
    served(&bed)?;
    for _ in 0..2 {
        if !by_this_agent {
            bed.agent.signal(Signal::TERM)?;
        }
        bed.lab().on("node", "link del v-net-0")?;
        if by_this_agent {
            is_missed(&bed, "bridge: v-net-0")?;
        }
        make_bridge(bed.lab())?;
        if !by_this_agent {
            bed.agent.start_again()?;
        }
        served(&bed)?;
    }
    Ok(())
}

fn renamed() -> Result<()> {
    let bed = Bed::with(&config(), &[], |_| Ok(()))?;
    let rename = |from: &str, to: &str| {
        bed.lab().on("node", &format!("link set {from} down"))?;
        bed.lab().on("node", &format!("link set {from} name {to}"))?;
        bed.lab().on("node", &format!("link set {to} up"))
    };
    rename("v-net-0", "other")?;
    is_missed(&bed, "bridge: v-net-0")?;
    rename("other", "v-net-0")?;
    // A device that is down loses its IPv6 addresses.
    bed.lab().on("node", "addr add fd00:244:1::1/64 dev v-net-0 nodad")?;
    served(&bed)?;

    // Another one has the name.
    rename("v-net-0", "other")?;
    bed.lab().on("node", "addr flush dev other scope global")?;
    make_bridge(bed.lab())?;
    served(&bed)?;
    // A port by another name is the same one.
    rename("veth-red", "port7")?;
    served(&bed)
}

/// Keeps its interface index, if nobody takes it meanwhile.
fn moved_away() -> Result<()> {
    let bed = Bed::with(&config(), &[], |_| Ok(()))?;
    served(&bed)?;
    for _ in 0..3 {
        let (node, red) = (bed.lab().namespace("node"), bed.lab().namespace("green"));
        bed.lab().on("node", &format!("link set veth-red netns {red}"))?;
        bed.lab().on("green", &format!("link set veth-red netns {node}"))?;
        bed.lab().on("node", "link set veth-red master v-net-0 up")?;
        served(&bed)?;
    }
    Ok(())
}

fn uplink_made_again(options: &[&str]) -> Result<()> {
    let mut bed = Bed::with(&config(), options, |_| Ok(()))?;
    served(&bed)?;
    for by_this_agent in [true, false] {
        if !by_this_agent {
            bed.agent.signal(Signal::TERM)?;
        }
        bed.lab().on("node", "link del eth0")?;
        if by_this_agent {
            is_missed(&bed, "device: eth0")?;
            bed.answered("red", service::BLUE, &["blue"], 3)?;
        }
        bed.lab().wire()?;
        if !by_this_agent {
            bed.agent.start_again()?;
        }
        served(&bed)?;
    }
    Ok(())
}

/// Has the kernel ask neighbours as often as it can, so that a test need not wait for half a minute.
fn ask_often(lab: &Lab) -> Result<()> {
    for family in ["ipv4", "ipv6"] {
        for (name, value) in [
            ("base_reachable_time_ms", "500"),
            ("delay_first_probe_time", "1"),
            ("interval_probe_time_ms", "1000"),
        ] {
            lab.sysctl("node", &format!("net/{family}/neigh/v-net-0/{name}"), value)?;
        }
    }
    Ok(())
}

/// A machine whose tap stays, as virtual machines that are made again from the same definition.
fn another_mac() -> Result<()> {
    let bed = Bed::with(&config(), &[], |lab| {
        lab.remove_pod(BLUE)?;
        tap::add_machine(lab, BLUE)?;
        xtask::lab::serve_pod(lab, BLUE)?;
        ask_often(lab)
    })?;
    served(&bed)?;
    for last in [7, 8] {
        let before = mac(bed.lab(), "blue", "eth0")?;
        bed.lab().on("blue", "link set eth0 down")?;
        bed.lab().on("blue", &format!("link set eth0 address 02:00:00:00:00:0{last}"))?;
        bed.lab().on("blue", "link set eth0 up")?;
        bed.lab().on("blue", "addr replace fd00:244:1::3/64 dev eth0 nodad")?;
        bed.lab().on("blue", "route replace default via 10.244.1.1")?;
        bed.lab().on("blue", "-6 route replace default via fd00:244:1::1")?;
        ensure!(mac(bed.lab(), "blue", "eth0")? != before, "the MAC is the same");
        served(&bed)?;
    }
    Ok(())
}

const BLUE: Pod = Pod::ALL[1];

/// From blue to green, both of which live on. Nobody announces it, and the kernel may have forgotten who had it.
fn address_moves() -> Result<()> {
    let bed = Bed::with(&config(), &[], ask_often)?;
    served(&bed)?;
    for (from, to, forgotten) in [("blue", "green", false), ("green", "blue", true)] {
        for (address, of) in [("10.244.1.3/24", "10.244.1.3"), ("fd00:244:1::3/64", "fd00:244:1::3")] {
            bed.lab().on(from, &format!("addr del {address} dev eth0"))?;
            bed.lab().on(to, &format!("addr add {address} dev eth0 nodad"))?;
            if forgotten {
                bed.lab().on("node", &format!("neigh del {of} dev v-net-0"))?;
            }
        }
        for ipv6 in [false, true] {
            let to_blue = vip(ipv6, service::BLUE, 80);
            bed.wait_for(&format!("{to} has the address of {to_blue}"), || {
                Ok(bed.pages("red", to_blue, 1).is_ok_and(|answers| answers.contains_key(to)))
            })?;
            only(&bed.pages("red", to_blue, 5)?, &[to])?;
        }
    }
    Ok(())
}

/// Node ports are at the node's address: another one beside it moves nothing.
fn node_address() -> Result<()> {
    let mut bed = Bed::with(&config(), &[], |_| Ok(()))?;
    let stays = |bed: &Bed| -> Result<()> {
        for to in NODE_PORTS {
            only(&bed.pages("client", to.parse()?, 3)?, &["blue"]).with_context(|| to.to_owned())?;
        }
        ensure!(!bed.agent.log()?.contains("loaded anew"), "programs were loaded anew");
        Ok(())
    };
    stays(&bed)?;
    for address in [
        "192.168.1.50/24",
        "198.51.100.1/32",
        "fd00:1::50/64 nodad",
        "fd00:1::51/64 nodad preferred_lft 0",
        "fd00:1::52/64",
        "2001:db8::9/128 nodad",
    ] {
        bed.lab().on("node", &format!("addr add {address} dev eth0"))?;
        stays(&bed)?;
    }
    // By then the agent has seen all of them.
    bed.configure(&config().replace("targetPort: 6443", "targetPort: 6444"), "config taken over")?;
    stays(&bed)?;
    // Also for the next agent, which sees them all at once.
    bed.agent.signal(Signal::TERM)?;
    bed.agent.start_again()?;
    stays(&bed)?;

    // It goes: another one is found.
    bed.lab().on("node", "addr del fd00:1::11/64 dev eth0")?;
    bed.wait_for("another address is the node's", || {
        Ok(bed.agent.log()?.contains("loaded anew, as this has changed: the node's addresses"))
    })?;
    bed.wait_for("the node port has moved", || {
        let others = ["[fd00:1::50]:30080".parse()?, "[fd00:1::52]:30080".parse()?];
        Ok(others.into_iter().any(|to| bed.pages("client", to, 1).is_ok()))
    })
}
