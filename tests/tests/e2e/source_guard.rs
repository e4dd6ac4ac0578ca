//! At which port of a bridge neighbours are known, and what all programs know of the host's devices.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use lb_common::abi::{NeighKey, SourceGuardRow};
use lb_user::maps::{Maps, Pins};
use rustix::process::Signal;
use xtask::lab::Lab;

use crate::{
    Test,
    bed::{Bed, CONFIG, NAME, only, service},
};

pub const ALL: &[Test] = &[
    ("homes of neighbours", homes),
    ("homes when the bridge has another MAC", another_mac),
    ("another MTU", another_mtu),
];

const RED: [&str; 2] = ["10.244.1.2", "fd00:244:1::2"];
/// Red's, too, and no backend's: the kernel is not asked to keep it.
const CALLER: &str = "10.244.1.77";

/// The port at which an address is known, whatever the bridge.
fn home(address: &str) -> Result<Option<u32>> {
    let address: IpAddr = address.parse()?;
    let addr = match address {
        IpAddr::V4(address) => NeighKey::v4(address.into(), 0).addr,
        IpAddr::V6(address) => address.into(),
    };
    let maps = Maps::open(&Pins::new(NAME).maps())?;
    let rows: Vec<(NeighKey, SourceGuardRow)> = maps.source_guard.iter().collect::<Result<_, _>>()?;
    Ok(rows.iter().find(|(key, _)| key.addr == addr).map(|(_, row)| row.ifindex))
}

pub fn port(bed: &Bed, name: &str) -> Result<u32> {
    let ports = bed.json(&["get", "ports"])?;
    let port = ports.as_array().into_iter().flatten().find(|row| row["name"] == name);
    let ifindex = port.and_then(|port| port["ifindex"].as_u64());
    Ok(ifindex.with_context(|| format!("no port {name} in {ports}"))?.try_into()?)
}

pub fn wait_home(bed: &Bed, address: &str, expected: Option<u32>) -> Result<()> {
    bed.wait_for(&format!("{address} is at home at {expected:?}"), || Ok(home(address)? == expected))
}

/// Gives the bridge a MAC that stays. It has its ports' smallest otherwise, and when that port leaves and the
/// bridge gets another MAC the kernel forgets every neighbour there.
fn set_mac(lab: &Lab, last: u8) -> Result<()> {
    lab.on("node", &format!("link set v-net-0 address 02:00:00:00:00:{last:02x}"))
}

fn homes() -> Result<()> {
    let mut bed = Bed::with(CONFIG, &[], |lab| {
        lab.on("red", &format!("addr add {CALLER}/24 dev eth0"))?;
        lab.on("red", &format!("route add 10.244.1.1 dev eth0 src {CALLER}"))?;
        set_mac(lab, 1)
    })?;
    let (red, blue) = (port(&bed, "veth-red")?, port(&bed, "veth-blue")?);
    bed.answered("red", service::BLUE, &["blue"], 3)?;
    for address in RED {
        wait_home(&bed, address, Some(red))?;
    }
    wait_home(&bed, "10.244.1.3", Some(blue))?;
    ensure!(home("10.244.1.78")?.is_none(), "a home of nobody");

    // The kernel forgets the neighbour, then hears of it again.
    let call = || only(&bed.pages("red", "10.244.1.1:6443".parse()?, 1)?, &["node"]);
    call()?;
    wait_home(&bed, CALLER, Some(red))?;
    bed.lab().on("node", &format!("neigh del {CALLER} dev v-net-0"))?;
    wait_home(&bed, CALLER, None)?;
    for address in RED {
        ensure!(home(address)? == Some(red), "{address} is there still");
    }
    call()?;
    wait_home(&bed, CALLER, Some(red))?;
    // A backend is looked for.
    bed.lab().on("node", "neigh flush dev v-net-0")?;
    wait_home(&bed, CALLER, None)?;
    for address in RED {
        wait_home(&bed, address, Some(red))?;
    }

    // What changes while no agent runs is put right by the next one.
    bed.agent.signal(Signal::TERM)?;
    bed.lab().on("node", "link set veth-red nomaster")?;
    ensure!(home(RED[0])? == Some(red), "nobody should have written");
    bed.agent.start_again()?;
    for address in RED {
        wait_home(&bed, address, None)?;
    }
    ensure!(home("10.244.1.3")? == Some(blue), "what is still right stays");

    // And at once with the port.
    bed.lab().on("node", "link set veth-blue nomaster")?;
    wait_home(&bed, "10.244.1.3", None)
}

/// The kernel forgets all neighbours of the bridge then; backends are looked for.
fn another_mac() -> Result<()> {
    let bed = Bed::with(CONFIG, &[], |lab| {
        lab.on("red", &format!("addr add {CALLER}/24 dev eth0"))?;
        lab.on("red", &format!("route add 10.244.1.1 dev eth0 src {CALLER}"))?;
        set_mac(lab, 1)
    })?;
    let red = port(&bed, "veth-red")?;
    bed.answered("red", service::BLUE, &["blue"], 3)?;
    let call = || only(&bed.pages("red", "10.244.1.1:6443".parse()?, 1)?, &["node"]);
    call()?;
    for last in [2, 3] {
        wait_home(&bed, CALLER, Some(red))?;
        set_mac(bed.lab(), last)?;
        wait_home(&bed, CALLER, None)?;
        for address in RED {
            wait_home(&bed, address, Some(red))?;
        }
        bed.answered("client", service::BLUE, &["blue"], 3)?;
        // It would send to the old MAC for half a minute.
        bed.lab().on("red", "neigh flush dev eth0")?;
        call()?;
    }
    Ok(())
}

/// All programs are loaded anew, and nothing is lost.
fn another_mtu() -> Result<()> {
    let bed = Bed::new(&["--socket-lb", "host"])?;
    bed.answered("red", service::WEB, &["blue", "green", "red"], 20)?;
    for (mtu, count) in [(1400, 1), (1500, 2)] {
        bed.lab().on("node", &format!("link set veth-red mtu {mtu}"))?;
        bed.wait_for("programs are loaded anew", || {
            let log = bed.agent.log()?;
            Ok(log.matches("loaded anew, as this has changed: the smallest MTU").count() == count)
        })?;
        for from in ["red", "client", "node"] {
            bed.answered(from, service::BLUE, &["blue"], 3)?;
        }
    }
    Ok(())
}
