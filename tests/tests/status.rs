//! `lb status`: what it says, and its code, when the agent or what it has attached is not well.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use lb_tests::node::{Agent, Disk, Node};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_getfd, pidfd_open, prlimit,
};
use socket2::{Domain, SockFilter, Socket};

/// Services that get their addresses from a range, so that there is something to keep.
fn config(names: &[&str]) -> String {
    let service = |name: &&str| {
        format!("  - {{name: {name}, ports: [{{port: 80}}], backends: [{{address: 10.128.0.2}}]}}\n")
    };
    format!("serviceCIDRs: [10.96.0.0/24]\nservices:\n{}", names.iter().map(service).collect::<String>())
}

/// An agent on a bridge with a port.
fn agent<'n>(node: &'n Node, instance: &str) -> Result<Agent<'n>> {
    node.ip("link add pod0 type veth peer name wire0")?;
    node.ip("link set pod0 master br0 up")?;
    node.write("c.yaml", &config(&["web"]))?;
    node.ready(instance, "c.yaml")
}

#[test]
fn a_hung_and_a_dead_agent() -> Result<()> {
    const INSTANCE: &str = "status-life";
    let node = Node::new("lbt-life")?;
    let mut agent = agent(&node, INSTANCE)?;
    agent.status(0, &format!("Agent:     running, process {}\n", agent.pid()))?;
    agent.signal(Signal::STOP)?;
    agent.status(1, "has not been heard of for ")?;
    agent.signal(Signal::CONT)?;
    agent.status(0, "running")?;
    agent.signal(Signal::KILL)?;
    agent.process().wait()?;
    agent.status(1, "Agent:     not running; services go on without it")?;
    // Restored by the next one.
    let next = node.ready(INSTANCE, "c.yaml")?;
    next.status(0, &format!("running, process {}\n", next.pid()))
}

/// Its questions to the kernel are not answered, and it gets no other socket to ask by.
#[test]
fn a_blind_agent() -> Result<()> {
    const INSTANCE: &str = "status-blind";
    let node = Node::new("lbt-blind")?;
    let mut agent = agent(&node, INSTANCE)?;
    agent.status(0, "running")?;
    let pid = Pid::from_raw(agent.pid() as i32).context("no process")?;
    let limit = no_more_files(pid)?;
    ensure!(deafen(pid)? > 0, "it has no socket to ask by");
    node.ip("link add pod1 type veth peer name wire1")?;
    agent.status(1, "the agent has been blind for ")?;
    prlimit(Some(pid), Resource::Nofile, limit)?;
    agent.status(0, "running")?;
    node.ip("link set pod1 master br0 up")?;
    agent.wait_until("get ports", "pod1").map(drop)
}

/// Attaching fails, is said, and is tried again.
#[test]
fn a_port_without_its_program() -> Result<()> {
    const INSTANCE: &str = "status-port";
    let node = Node::new("lbt-port")?;
    let mut agent = agent(&node, INSTANCE)?;
    agent.status(0, "running")?;
    let pid = Pid::from_raw(agent.pid() as i32).context("no process")?;
    let limit = no_more_files(pid)?;
    node.ip("link add pod1 type veth peer name wire1")?;
    node.ip("link set pod1 master br0 up")?;
    agent.status(1, "Too many open files")?;
    prlimit(Some(pid), Resource::Nofile, limit)?;
    agent.status(0, "running")?;
    agent.wait_until("get ports", "pod1").map(drop)
}

/// Lets a process open nothing more; what it might before.
fn no_more_files(pid: Pid) -> Result<Rlimit> {
    let none = Rlimit { current: Some(0), maximum: getrlimit(Resource::Nofile).maximum };
    Ok(prlimit(Some(pid), Resource::Nofile, none)?)
}

/// Drops all that the kernel answers a process by netlink, but not what it tells by itself; how many sockets that are.
fn deafen(pid: Pid) -> Result<usize> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let mut sockets = 0;
    for entry in fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()))? {
        let number = entry?.file_name().to_string_lossy().parse()?;
        let Ok(copy) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else { continue };
        let socket = Socket::from(copy);
        if socket.domain().ok() != Some(Domain::from(libc::AF_NETLINK)) {
            continue;
        }
        let address = socket.local_addr()?;
        // SAFETY: an address of that family.
        let groups = unsafe { (*address.as_ptr().cast::<libc::sockaddr_nl>()).nl_groups };
        if groups == 0 {
            // BPF_RET of nothing.
            socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])?;
            sockets += 1;
        }
    }
    Ok(sockets)
}

#[test]
fn programs_that_somebody_has_detached() -> Result<()> {
    const INSTANCE: &str = "status-links";
    let node = Node::new("lbt-links")?;
    let mut agent = agent(&node, INSTANCE)?;
    agent.status(0, "running")?;
    let links = Path::new("/sys/fs/bpf/lb").join(INSTANCE).join("links");
    let pins = fs::read_dir(&links)?.collect::<Result<Vec<_>, _>>()?;
    let pin = pins.iter().map(fs::DirEntry::path).find(|pin| pin.to_string_lossy().ends_with("port-ingress"));
    let pin = pin.context("no port has a program")?;
    let detached = Command::new("bpftool").args(["link", "detach", "pinned"]).arg(&pin).output()?;
    ensure!(detached.status.success(), "{detached:?}");
    agent.status(1, "port-ingress is not attached at pod0: it has been detached; start the agent again")?;
    agent.end()?;
    let next = node.ready(INSTANCE, "c.yaml")?;
    next.status(0, "running")?;
    fs::remove_file(pin)?;
    next.status(1, "port-ingress is not attached at pod0: its pin is gone")
}

#[test]
fn filters_that_somebody_has_removed() -> Result<()> {
    const INSTANCE: &str = "status-filters";
    let node = Node::new("lbt-filters")?;
    node.write("c.yaml", &config(&["web"]))?;
    let agent = node.ready_on("--bridge br0 --clsact", INSTANCE, "c.yaml")?;
    agent.status(0, "running")?;
    let deleted = node.command(Path::new("tc"), "filter del dev br0 ingress")?.output()?;
    ensure!(deleted.status.success(), "{deleted:?}");
    agent.status(1, "bridge-ingress is not attached at br0: it has been detached")
}

#[test]
fn a_config_that_is_refused() -> Result<()> {
    const INSTANCE: &str = "status-refused";
    let node = Node::new("lbt-refused")?;
    let agent = agent(&node, INSTANCE)?;
    agent.status(0, "running")?;
    node.write("c.yaml", "services: [")?;
    agent.status(1, "this is not YAML")?;
    node.write("c.yaml", &config(&["web"]))?;
    agent.status(0, "running")
}

#[test]
fn kept_addresses_on_a_full_disk() -> Result<()> {
    const INSTANCE: &str = "status-kept";
    let node = Node::new("lbt-kept")?;
    let disk = Disk::mount(Path::new("/var/lib/lb").join(INSTANCE), "64k")?;
    let filler = disk.fill()?;
    let mut agent = agent(&node, INSTANCE)?;
    let path = disk.path().join("kept.json");
    let problem = format!("{} can't be written: No space left on device (os error 28)", path.display());
    agent.status(1, &problem)?;
    // A change is served all the same.
    node.write("c.yaml", &config(&["web", "more"]))?;
    agent.wait_until("get services", "more")?;
    fs::remove_file(&filler)?;
    agent.status(0, "running")?;
    ensure!(fs::read_to_string(&path)?.contains("default/more"), "the address of a change is not kept");
    ensure!(agent.log()?.contains("kept.json is written again"), "not said");

    // Full or read-only: what is unchanged need not be written.
    let served = agent.lb("get services -o json")?;
    agent.end()?;
    disk.fill()?;
    disk.read_only()?;
    let mut next = node.ready(INSTANCE, "c.yaml")?;
    next.status(0, "running")?;
    ensure!(next.lb("get services -o json")? == served, "served otherwise");
    next.end()?;
    drop(disk);
    Ok(())
}

#[test]
fn a_view_on_a_full_disk() -> Result<()> {
    const INSTANCE: &str = "status-view";
    let node = Node::new("lbt-view")?;
    let disk = Disk::mount(Path::new("/run/lb").join(INSTANCE), "64k")?;
    let filler = disk.fill()?;
    let mut agent = agent(&node, INSTANCE)?;
    let problem = "view.json can't be written: No space left on device (os error 28)";
    agent.status(1, problem)?;
    node.write("c.yaml", &config(&["web", "more"]))?;
    agent.wait_for("default/more", 0)?;
    fs::remove_file(&filler)?;
    agent.status(0, "running")?;
    let shown = agent.lb("get services")?;
    ensure!(shown.contains("more"), "{shown}");
    agent.end()?;
    drop(disk);
    Ok(())
}

/// A path to a file that stays the same while what it leads to does not.
#[test]
fn a_config_whose_directory_is_made_again_or_mounted_over() -> Result<()> {
    const INSTANCE: &str = "status-again";
    let node = Node::new("lbt-again")?;
    let directory = node.directory.join("etc");
    let write = |address: &str| -> Result<()> {
        fs::create_dir_all(&directory)?;
        let text = format!("services: [{{name: web, address: {address}, ports: [{{port: 80}}]}}]\n");
        Ok(fs::write(directory.join("c.yaml"), text)?)
    };
    write("10.96.0.1")?;
    let mut agent = node.ready(INSTANCE, "etc/c.yaml")?;
    fs::remove_dir_all(&directory)?;
    agent.wait_for("config not taken over: etc/c.yaml: no such file or directory", 0)?;
    write("10.96.0.2")?;
    agent.wait_until("get services", "10.96.0.2")?;
    write("10.96.0.3")?;
    agent.wait_until("get services", "10.96.0.3")?;
    agent.signal(Signal::HUP)?;

    let disk = Disk::mount(directory.clone(), "64k")?;
    write("10.96.0.4")?;
    agent.wait_until("get services", "10.96.0.4")?;
    write("10.96.0.5")?;
    agent.wait_until("get services", "10.96.0.5")?;
    drop(disk);
    // What lay below is there again, and is followed.
    agent.wait_until("get services", "10.96.0.3")?;
    fs::rename(&directory, node.directory.join("old"))?;
    symlink("old", &directory)?;
    write("10.96.0.6")?;
    agent.wait_until("get services", "10.96.0.6")?;
    agent.end()
}
