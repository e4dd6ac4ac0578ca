//! A virtual machine as the bridge sees one: a tap device that a process carries frames to and from.
//! The machine's own network is a namespace behind a second tap.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    thread,
};

use anyhow::{Context as _, Result};
use xtask::lab::{Lab, Pod};

/// A machine with the pod's addresses, its port `tap-NAME` on the pod's bridge.
pub fn add_machine(lab: &Lab, pod: Pod) -> Result<()> {
    lab.add_host(pod.name)?;
    let port = format!("tap-{}", pod.name);
    let name = port.clone();
    let (node, bridge) = lab.nodes().home(pod.network);
    let outside = lab.within(node, move || open(&name))??;
    let inside = lab.within(pod.name, || open("eth0"))??;
    carry(outside.try_clone()?, inside.try_clone()?);
    carry(inside, outside);
    lab.on(node, &format!("link set {port} master {bridge} up"))?;
    lab.give_addresses(pod)
}

/// Opens a new tap device of this thread's namespace; it goes with the last descriptor.
fn open(name: &str) -> Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun").context("opening /dev/net/tun")?;
    // SAFETY: a struct of plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an `ifreq`, which lives over the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    if done < 0 {
        return Err(std::io::Error::last_os_error()).with_context(|| format!("making the tap device {name}"));
    }
    Ok(file)
}

/// Carries frames until one side has gone.
fn carry(mut from: File, mut to: File) {
    thread::spawn(move || {
        let mut frame = vec![0; 1 << 16];
        while let Ok(len) = from.read(&mut frame) {
            // A device that is down refuses frames.
            let _ = to.write(&frame[..len]);
        }
    });
}
