//! Tables of the kernel's that others fill: a bridge's by a pod, the routes by a routing daemon. Whoever is plugged
//! in meanwhile is served at once.

use std::{
    fs,
    net::SocketAddr,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use xtask::lab::Pod;

use crate::{
    Test,
    bed::{Bed, CONFIG, NAME, only, service, vip},
};

pub const ALL: &[Test] = &[
    ("a pod is plugged in while another floods the bridge with MACs", macs),
    ("a pod is plugged in beside a hundred thousand routes", || routes(100_000)),
    ("a route of another table", other_table),
];

/// Half a minute.
pub const LONG: &[Test] = &[("a pod is plugged in beside a million routes", || routes(1_000_000))];

/// Frames of the flood, each from another MAC.
const FRAMES: u32 = 300_000;
/// Until a new pod is served.
const SERVED: Duration = Duration::from_secs(2);
/// Memory of the agent, its maps aside, and bytes of its log.
const MEMORY: u64 = 50 << 20;
const LOG: usize = 100_000;

const PINK: Pod = Pod { name: "pink", network: 1, host: 5 };
const GREY: Pod = Pod { name: "grey", network: 1, host: 6 };

fn macs() -> Result<()> {
    let bed = Bed::new(&[])?;
    let (sent, over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let flood = {
        let (lab, sent, over) = (bed.lab().clone(), Arc::clone(&sent), Arc::clone(&over));
        thread::spawn(move || lab.within("red", move || flood(&sent, &over))?)
    };
    bed.wait_for("the flood", || Ok(sent.load(Relaxed) > FRAMES / 3 || flood.is_finished()))?;
    let during = plugged_in(&bed, PINK)?;
    over.store(true, Relaxed);
    flood.join().map_err(|_| anyhow!("the flood has ended badly"))??;
    let learned = lines(&bed, "bridge fdb show br v-net-0")?;
    ensure!(
        sent.load(Relaxed) >= FRAMES && learned > FRAMES as usize / 2,
        "only {learned} MACs were learned"
    );
    let after = plugged_in(&bed, GREY)?;
    println!("{learned} MACs: a pod is served after {during:.2?} in the flood, {after:.2?} after it");
    modest(&bed)
}

/// Sends frames, each from another MAC, until all are sent and it is over.
fn flood(sent: &AtomicU32, over: &AtomicBool) -> Result<()> {
    let socket = socket(AddressFamily::PACKET, SocketType::RAW, None)?;
    let device = netdevice::name_to_index(&socket, "eth0")?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: device as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    // To everybody, of a type for experiments (IEEE 802).
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&[0xff; 6]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    while sent.load(Relaxed) < FRAMES || !over.load(Relaxed) {
        let number = sent.load(Relaxed).to_be_bytes();
        frame[6..8].copy_from_slice(&[2, 0x42]);
        frame[8..12].copy_from_slice(&number);
        // SAFETY: the kernel reads the frame and the address, whose sizes are given.
        let done = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        match done {
            0.. => sent.fetch_add(1, Relaxed),
            _ => return Err(std::io::Error::last_os_error()).context("sending a frame"),
        };
    }
    Ok(())
}

fn routes(count: u32) -> Result<()> {
    let bed = Bed::new(&[])?;
    let batch = std::env::temp_dir().join(format!("{NAME}-routes-{}", std::process::id()));
    let lines: String = (0..count)
        .map(|number| format!("route add {} dev eth0\n", std::net::Ipv4Addr::from(0x0b00_0000 + number)))
        .collect();
    fs::write(&batch, lines)?;
    let start = Instant::now();
    let adding = {
        let (lab, batch) = (bed.lab().clone(), batch.clone());
        thread::spawn(move || {
            lab.command("node", "ip")?.arg("-batch").arg(batch).status().context("running ip")
        })
    };
    let during = plugged_in(&bed, PINK)?;
    let added = adding.join().map_err(|_| anyhow!("adding routes has ended badly"))??;
    let adding = start.elapsed();
    fs::remove_file(&batch)?;
    ensure!(added.success(), "ip could not add the routes");
    let after = plugged_in(&bed, GREY)?;
    println!(
        "{count} routes, added in {adding:.1?}: a pod is served after {during:.2?} meanwhile, {after:.2?} afterwards"
    );
    modest(&bed)
}

/// The kernel's own lookup is asked: a rule that comes later leads to a next hop, which is kept fresh then.
fn other_table() -> Result<()> {
    const BACKEND: &str = "198.51.100.7";
    let bed = Bed::new(&[])?;
    bed.configure(&CONFIG.replace("192.168.1.11", BACKEND), "config taken over")?;
    let sought = || lines(&bed, &format!("ip neigh show to {BACKEND} dev eth0"));
    bed.lab().on("node", "route add 198.51.100.0/24 dev eth0 table 77")?;
    ensure!(sought()? == 0, "looked for without a rule");
    bed.lab().on("node", "rule add to 198.51.100.0/24 lookup 77")?;
    bed.wait_for("the next hop", || Ok(sought()? == 1))
}

/// Plugs a pod in; how long it took until its port had its program. It is served then.
fn plugged_in(bed: &Bed, pod: Pod) -> Result<Duration> {
    let start = Instant::now();
    bed.lab().add_pod(pod)?;
    let port = format!("veth-{}", pod.name);
    bed.wait_for("the new port", || Ok(bed.agent.log()?.contains(&format!("port {port} (pod)"))))?;
    let took = start.elapsed();
    ensure!(took < SERVED, "{} is served after {took:?}", pod.name);
    let blue: SocketAddr = vip(false, service::BLUE, 80);
    only(&bed.pages(pod.name, blue, 3)?, &["blue"])?;
    Ok(took)
}

/// The agent has neither grown nor talked.
fn modest(bed: &Bed) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{}/status", bed.agent.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    let memory = line.trim().trim_end_matches(" kB").parse::<u64>()? << 10;
    println!("memory of the agent: {:.1} MB", memory as f64 / 1e6);
    ensure!(memory < MEMORY, "the agent has {memory} bytes");
    let log = bed.agent.log()?;
    ensure!(log.len() < LOG, "the agent has said {} bytes", log.len());
    Ok(())
}

/// How many lines a command prints on the node.
fn lines(bed: &Bed, command: &str) -> Result<usize> {
    Ok(bed.lab().output("node", command)?.lines().count())
}
