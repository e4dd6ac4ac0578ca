//! Whose an instance's directories are. Each test has a bpf file system of its own.

use std::{path::Path, process::Output};

use anyhow::{Result, ensure};
use lb_tests::node::{Node, binary};

const GOOD: &str = "services: [{name: web, address: 10.96.0.10, ports: [{port: 80}]}]\n";
const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups";

/// Runs a script in the node with mounts of its own, `lb` in its path and `run` to run an agent for a moment.
fn script(node: &Node, mode: &str, script: &str) -> Result<Output> {
    node.write("c.yaml", GOOD)?;
    let lb = binary()?;
    let lb = lb.parent().unwrap_or(Path::new("."));
    // Over /run and /var/lib, which nobody removes: a mount over /run/lb would go when another test's uninstall
    // removes that.
    let text = format!(
        "set -e\nPATH={}:$PATH\nmount -t bpf -o mode={mode} bpf /sys/fs/bpf\nfor at in /run /var/lib; do mount -t tmpfs \
         -o mode=755 tmpfs $at; mkdir -m 755 $at/lb; done\nrun() {{ lb run --bridge br0 --config c.yaml --instance owned \
         & agent=$!; for i in $(seq 100); do sleep 0.1; [ -e /run/lb/owned/view.json ] && break; kill -0 $agent \
         2>/dev/null || break; done; kill $agent 2>/dev/null; wait $agent; }}\n{script}",
        lb.display()
    );
    Ok(node.command(Path::new("unshare"), "-m sh -c")?.arg(text).output()?)
}

/// That nothing was used, with these words.
fn refused(node: &Node, mode: &str, prepare: &str, why: &str) -> Result<()> {
    for command in ["run", "lb status --instance owned", "lb get services --instance owned"] {
        let output = script(node, mode, &format!("{prepare}\n{command}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains(&format!("error: {why}\n")), "{prepare}; {command}:\n{said}");
        ensure!(output.status.code() == Some(1), "{command}: {}", output.status);
        ensure!(!said.contains("ready: "), "{command}: {said}");
    }
    let output = script(node, mode, &format!("{prepare}\nlb uninstall --instance owned"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let expected =
        "error: instance owned is not removed, and programs that it may have stay (`bpftool net`): ";
    ensure!(said == format!("{expected}{why}\n"), "{said}");
    ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{output:?}");
    Ok(())
}

#[test]
fn what_others_have_is_not_used() -> Result<()> {
    let node = Node::new("lbo-others")?;
    for (path, prepare) in [
        ("/sys/fs/bpf/lb", format!("{NOBODY} mkdir /sys/fs/bpf/lb")),
        (
            "/sys/fs/bpf/lb/owned",
            "mkdir -p -m 700 /sys/fs/bpf/lb/owned; chown 65534 /sys/fs/bpf/lb/owned".to_owned(),
        ),
        ("/run/lb/owned", "mkdir /run/lb/owned; chown 65534 /run/lb/owned".to_owned()),
        ("/var/lib/lb/owned", "mkdir /var/lib/lb/owned; chown 65534 /var/lib/lb/owned".to_owned()),
    ] {
        let why = format!(
            "{path} belongs to user 65534, who can change what packets get: it is not used; find out what it is, then `rm \
             -r {path}` or `chown -R root {path}`"
        );
        // Where all may make directories, the first one has it.
        refused(&node, "1777", &prepare, &why)?;
    }
    Ok(())
}

#[test]
fn what_others_may_write_is_not_used() -> Result<()> {
    let node = Node::new("lbo-modes")?;
    for (path, mode, prepare) in [
        ("/sys/fs/bpf", "0777", "chmod 0777 /sys/fs/bpf"),
        ("/sys/fs/bpf/lb", "0777", "mkdir -m 777 /sys/fs/bpf/lb"),
        ("/run/lb", "1777", "chmod 1777 /run/lb"),
    ] {
        let why = format!(
            "{path} can be written by others (mode {mode}), who can change what packets get: it is not used; find out \
             what is in it, then `chmod go-w {path}`"
        );
        refused(&node, "1777", prepare, &why)?;
    }
    Ok(())
}

#[test]
fn a_shared_bpf_file_system_serves_where_ours_is_ours() -> Result<()> {
    let node = Node::new("lbo-shared")?;
    let steps = format!(
        "run\n! {NOBODY} mv /sys/fs/bpf/lb /sys/fs/bpf/gone 2>/dev/null\n\
         lb uninstall --all --instance owned"
    );
    let output = script(&node, "1777", &steps)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("maps of instance owned removed\n"), "{output:?}");
    Ok(())
}

#[test]
fn uninstall_says_what_stays() -> Result<()> {
    let node = Node::new("lbo-stays")?;
    // Root itself has moved the pins away, or has pinned a program a second time.
    let steps = "run\nmv /sys/fs/bpf/lb /sys/fs/bpf/gone\n";
    let output = script(&node, "1777", &format!("{steps}lb uninstall --instance owned"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("error: not removed: the program bridge_ingress (number "), "{output:?}");
    ensure!(said.contains("its pin is not in /sys/fs/bpf/lb/owned any more"), "{said}");
    ensure!(output.status.code() == Some(1), "{}", output.status);
    let output = script(
        &node,
        "1777",
        &format!("{steps}mv /sys/fs/bpf/gone /sys/fs/bpf/lb; lb uninstall --all --instance owned"),
    )?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}
