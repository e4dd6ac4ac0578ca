//! Network namespaces of the lab. Only the network is entered, never the mounts: `ip netns exec` would
//! hide the bpf file system and its pins.

use std::{fs::File, io, os::unix::process::CommandExt as _, path::Path, process::Command, thread};

use anyhow::{Context as _, Result, anyhow};
use rustix::{
    system::sethostname,
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

fn open(namespace: &str) -> Result<File> {
    let path = Path::new("/run/netns").join(namespace);
    File::open(&path)
        .with_context(|| format!("no network namespace {namespace}: `cargo xtask lab up` makes the lab's"))
}

fn set(namespace: &File) -> io::Result<()> {
    use std::os::fd::AsFd as _;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// A command that will run in a namespace's network, and end with us.
pub fn enter(namespace: &str, program: &str) -> Result<Command> {
    let namespace = open(namespace)?;
    let mut command = Command::new(program);
    // SAFETY: between fork and exec, only system calls.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
            set(&namespace)
        });
    }
    Ok(command)
}

/// Gives a command a host name that only it and what it starts see.
pub fn set_host_name(command: &mut Command, name: &str) {
    let name = name.to_owned();
    // SAFETY: between fork and exec, only system calls; the only thread leaves only a namespace of names.
    unsafe {
        command.pre_exec(move || {
            unshare_unsafe(UnshareFlags::NEWUTS)?;
            Ok(sethostname(name.as_bytes())?)
        });
    }
}

/// Runs `work` on a thread of its own in a namespace's network. What it opens stays in that network.
pub fn within<T: Send + 'static>(namespace: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let namespace_file = open(namespace)?;
    let thread = thread::spawn(move || -> io::Result<T> {
        set(&namespace_file)?;
        Ok(work())
    });
    let done = thread.join().map_err(|_| anyhow!("work in the network of {namespace} ended badly"))?;
    done.with_context(|| format!("entering the network of {namespace}"))
}
