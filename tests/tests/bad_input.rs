//! Bad input: what the real binary says to it, word for word, and that nothing changes.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::Output,
};

use anyhow::{Context, Result, ensure};
use lb_sys::bpf;
use lb_tests::node::{Node, binary};
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};
use xtask::lab::within;

const GOOD: &str = "\
services:
  - name: web
    address: 10.96.0.10
    ports: [{port: 80}]
    backends: [{address: 10.128.0.2}]
";

/// A config in the file `c.yaml`, and what is said about it, a line for each problem.
fn configs() -> Vec<(String, &'static [&'static str])> {
    let cases: &[(&str, &[&str])] = &[
        ("", &["c.yaml: the file is empty; write `services: []` to serve nothing, or remove it"]),
        (
            "services: [\n",
            &["c.yaml:1:11: this is not YAML: unclosed bracket '['; look at indentation and quotes here"],
        ),
        (
            "services:\n\t- name: web\n",
            &["c.yaml:2:2: this is not YAML: tabs disallowed within this context (block indentation); \
               look at indentation and quotes here"],
        ),
        (
            "services:\n  - name: web\n    adress: 10.96.0.10\n    ports: [{port: 80}]\n",
            &[
                "c.yaml:3:5: unknown field \"adress\" in a service; did you mean \"address\"?",
                "c.yaml:2:11: service default/web has no address and there is no range to give it one from; \
                 add an address, or `serviceCIDRs: [10.96.0.0/12]`",
            ],
        ),
        (
            "serviceCIDRs: [10.96.0.0/12]\nservices:\n  - {name: web, address: 10.96.0.300, ports: [{port: 80}]}\n",
            &["c.yaml:3:26: \"10.96.0.300\" is not an IP address; write one like 10.96.0.10 or fd00::10"],
        ),
        (
            "services:\n  - name: web\n    address: 10.96.0.10\n    ports: [{port: 80}]\n    backends:\n      - address: fd00::2\n",
            &["c.yaml:6:18: backend fd00::2 is IPv6, but service default/web has only the IPv4 address \
               10.96.0.10; add an IPv6 address, or take the backend out"],
        ),
        (
            "services:\n  - {name: a, address: 10.96.0.10, ports: [{port: 80}]}\n  - {name: b, address: 10.96.0.10, ports: [{port: 80}]}\n",
            &[
                "c.yaml:3:12: 10.96.0.10 port 80/TCP of default/b belongs to service default/a at c.yaml:2:12 \
               already; give one of them another address or port",
            ],
        ),
        (
            "services:\n  - {name: a, address: 10.96.0.10, ports: [{port: 0}]}\n",
            &["c.yaml:2:51: \"0\" is not a port; write a whole number from 1 to 65535"],
        ),
        (
            "services:\n  - {name: a, address: 10.96.0.10, ports: [{port: 70000}]}\n",
            &["c.yaml:2:51: \"70000\" is not a port; write a whole number from 1 to 65535"],
        ),
        (
            "services:\n  - name: a\n    address: 10.96.0.10\n    ports: [{port: 80}]\n    backends: [{address: 10.128.0.2, weight: 0}]\n",
            &[
                "c.yaml:5:15: every backend has weight 0, so none would get a connection; give one a weight of \
               1 or more",
            ],
        ),
        (
            "services:\n  - {name: a, address: 10.96.0.10, type: NodePort, ports: [{port: 80, nodePort: 30080}]}\nsnatPorts: 30000-39999\n",
            &["c.yaml:2:12: node port 30080/TCP of service default/a is not served: it lies in snatPorts \
               30000-39999 at c.yaml:3:12; give the service another, or snatPorts another range"],
        ),
        (
            "services:\n  - {name: a, address: 10.96.0.10, ports: [{port: 80, hostPort: 12000}], backends: [{address: 10.128.0.2}]}\n",
            &[
                "c.yaml:2:12: host port 12000/TCP of service default/a is not served: it lies in snatPorts, which \
               are 10000-29999 where nothing is said; give the service another, or snatPorts another range",
            ],
        ),
        (
            "services: []\nsnatPorts: 30000\n",
            &[
                "c.yaml:2:12: \"30000\" is not a range of ports; write one like 10000-29999, or none to let clients \
               keep their source",
            ],
        ),
        (
            "services:\n  - {name: a, address: 10.96.0.10, ports: [{port: 80, protocol: HTTP}]}\n",
            &["c.yaml:2:65: \"HTTP\" is not a protocol; write TCP, UDP or SCTP"],
        ),
    ];
    let mut all: Vec<_> = cases.iter().map(|(text, lines)| ((*text).to_owned(), *lines)).collect();
    let backends = (0..70_000)
        .map(|n| format!("{{address: 10.129.{}.{}, port: {}}}", n >> 8 & 255, n & 255, 1 + (n >> 16)));
    let backends: Vec<String> = backends.collect();
    let many = format!(
        "services:\n  - name: a\n    address: 10.96.0.10\n    ports: [{{port: 80}}]\n    backends: [{}]\n",
        backends.join(", ")
    );
    all.push((
        many,
        &["c.yaml:5:15: 70000 backends in one service, but at most 65535 are possible; split it"],
    ));
    all
}

/// That a command failed with these words and no others, and set nothing up.
fn refused(output: &Output, code: i32, stderr: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said == stderr, "said:\n{said}\nexpected:\n{stderr}");
    ensure!(output.status.code() == Some(code), "ended with {}", output.status);
    for directory in ["/sys/fs/bpf/lb", "/run/lb", "/var/lib/lb"] {
        let path = Path::new(directory).join("bad-input");
        ensure!(!path.exists(), "{} has been made", path.display());
    }
    Ok(())
}

#[test]
fn configs_are_refused_with_their_line() -> Result<()> {
    let node = Node::new("lbb-configs")?;
    for (text, lines) in configs() {
        node.write("c.yaml", &text)?;
        let output = node.lb("run --bridge br0 --instance bad-input --config c.yaml")?;
        refused(&output, 1, &format!("error: {}\n", lines.join("\n")))?;
        // `lb check` is about nothing else: what it finds is what it prints.
        let output = node.lb("check c.yaml")?;
        let found: String = lines.iter().map(|line| format!("error: {line}\n")).collect();
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said == format!("{found}c.yaml is not valid\n"), "said:\n{said}");
        refused(&output, 1, "")?;
    }
    Ok(())
}

#[test]
fn hosts_are_refused_before_anything_is_set_up() -> Result<()> {
    let node = Node::new("lbb-hosts")?;
    node.write("c.yaml", GOOD)?;
    let cases = [
        (
            "run --bridge br0 --config none.yaml",
            1,
            "error: none.yaml: no such file or directory; correct --config, or write the file\n",
        ),
        (
            "run --bridge br9 --config c.yaml",
            1,
            "error: no such bridge: br9 (here are: br0); make it first, or name another with --bridge\n",
        ),
        (
            "run --bridge lo --config c.yaml",
            1,
            "error: lo is not a bridge (here are: br0); name the bridge with --bridge, and a device that leads \
             outside with --uplink\n",
        ),
        (
            "run --bridge br0 --uplink eth9 --config c.yaml",
            1,
            "error: no such device: eth9; --uplink takes a device of this host (`ip link`)\n",
        ),
        (
            "run --config c.yaml",
            2,
            "error: the following required arguments were not provided:\n  <--bridge <BRIDGE>|--port <PATTERN>|--uplink <DEVICE>>\n\n\
             Usage: lb run --config <FILE> --instance <INSTANCE> <--bridge <BRIDGE>|--port <PATTERN>|--uplink <DEVICE>>\n\n\
             For more information, try '--help'.\n",
        ),
        (
            "run --bridge br0 --bridge br0 --config c.yaml",
            1,
            "error: the bridge br0 is named twice with --bridge\n",
        ),
        (
            "get services",
            1,
            "error: no instance is installed at /sys/fs/bpf/lb/bad-input/maps: start one with `lb run`, or name \
             another with --instance\n",
        ),
        (
            "status",
            1,
            "error: no instance is installed at /sys/fs/bpf/lb/bad-input/maps: start one with `lb run`, or name \
             another with --instance\n",
        ),
        (
            "get services -o yaml",
            2,
            "error: invalid value 'yaml' for '--output <OUTPUT>'\n  [possible values: table, json]\n\n\
             For more information, try '--help'.\n",
        ),
        (
            "get services --instance ../..",
            2,
            "error: invalid value '../..' for '--instance <INSTANCE>': use up to 64 letters, digits, '-', '_' and \
             '.', the first not '.'\n\nFor more information, try '--help'.\n",
        ),
    ];
    for (arguments, code, stderr) in cases {
        let instance = if arguments.contains("--instance") { "" } else { " --instance bad-input" };
        let output = node.lb(&format!("{arguments}{instance}"))?;
        refused(&output, code, stderr).with_context(|| format!("lb {arguments}"))?;
    }
    Ok(())
}

/// What `lb run` says to devices where XDP can't be or should not.
#[test]
fn xdp_is_refused_before_anything_is_set_up() -> Result<()> {
    const OTHER: &str = "bad-input-other";
    let node = Node::new("lbb-xdp")?;
    node.write("c.yaml", GOOD)?;
    for command in [
        "link add nic type veth peer name wire",
        "link add pod type veth peer name wire2",
        "link set pod master br0",
        "link add wide mtu 9000 type veth peer name wire3",
        "link set wire3 mtu 9000",
    ] {
        node.ip(command)?;
    }
    let refusals = [
        (
            "--uplink lo --xdp",
            "the driver of lo, loopback, has no native XDP; use --xdp=generic, which works on any device and saves \
             less, or leave --xdp out",
        ),
        (
            "--uplink br0 --xdp",
            "br0 is a bridge, and XDP belongs at its NIC: name that with --uplink, or leave --xdp out",
        ),
        (
            "--uplink pod --xdp=generic",
            "pod is a port of the bridge br0 with a pod behind it, all of whose traffic would lose its offloads to \
             XDP; name the device that leads outside with --uplink, or leave --xdp out",
        ),
        (
            "--uplink wide --xdp",
            "the driver of wide, veth, refuses it: veth: Peer MTU is too large to set XDP (the MTU is 9000); correct \
             that, use --xdp=generic, or leave --xdp out",
        ),
        // The first of them could be had.
        (
            "--uplink nic --uplink lo --xdp",
            "the driver of lo, loopback, has no native XDP; use --xdp=generic, which works on any device and saves \
             less, or leave --xdp out",
        ),
    ];
    for (options, why) in refusals {
        let output = node.lb(&format!("run {options} --config c.yaml --instance bad-input"))?;
        refused(&output, 1, &format!("error: --xdp: {why}\n")).with_context(|| options.to_owned())?;
        ensure!(!shows_xdp(&node)?, "{options}: a program is left");
    }

    let agent = node.ready_on("--uplink nic --xdp", OTHER, "c.yaml")?;
    ensure!(shows_xdp(&node)?, "no XDP");
    for option in ["--xdp", "--xdp=generic"] {
        let output = node.lb(&format!("run --uplink nic {option} --config c.yaml --instance bad-input"))?;
        let said = format!(
            "error: nic has programs of the instance {OTHER} already, whose agent runs: end it, then run `lb uninstall \
             --instance {OTHER}`, or name another device; a device is one instance's\n"
        );
        refused(&output, 1, &said)?;
    }
    drop(agent);
    ensure!(!shows_xdp(&node)?, "a program is left");

    // One that is no instance's.
    let foreign = within("lbb-xdp", || -> Result<OwnedFd> {
        let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
        let program = bpf::pass_xdp()?;
        Ok(bpf::link_xdp(program.as_fd(), name_to_index(&any, "nic")?, 0)?)
    })??;
    for option in ["--xdp", "--xdp=generic"] {
        let output = node.lb(&format!("run --uplink nic {option} --config c.yaml --instance bad-input"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let id: String =
            said.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        let why = format!(
            "nic has the XDP program {id} (lb_pass) already, which is left alone: detach it (`ip link set dev nic \
             xdp off` for one without a link), or leave --xdp out"
        );
        refused(&output, 1, &format!("error: --xdp: {why}\n"))?;
    }
    drop(foreign);
    ensure!(!shows_xdp(&node)?, "a program is left");
    let output = node.lb("run --bridge br0 --xdp --config c.yaml --instance bad-input")?;
    let usage = "error: the following required arguments were not provided:\n  --uplink <DEVICE>\n";
    ensure!(String::from_utf8_lossy(&output.stderr).starts_with(usage), "{output:?}");
    Ok(())
}

#[test]
fn a_mode_of_xdp_that_cannot_be_changed_stays() -> Result<()> {
    const INSTANCE: &str = "bad-input-mode";
    let node = Node::new("lbb-mode")?;
    node.write("c.yaml", GOOD)?;
    let agent = node.ready_on("--uplink lo --xdp=generic", INSTANCE, "c.yaml")?;
    let pid = rustix::process::Pid::from_raw(agent.pid() as i32).context("no process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let again = || node.lb(&format!("run --uplink lo --xdp --config c.yaml --instance {INSTANCE}"));
    let mut output = again()?;
    while String::from_utf8_lossy(&output.stderr).contains("already runs") {
        output = again()?;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.ends_with("less, or leave --xdp out\n") && !output.status.success(), "{said}");
    ensure!(said.contains("error: --xdp: the driver of lo, loopback, has no native XDP"), "{said}");
    let output = node.command(Path::new("ip"), "link show dev lo")?.output()?;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(shown.contains("xdpgeneric"), "{shown}");
    drop(agent);
    ensure!(!shows_xdp(&node)?, "a program is left");
    Ok(())
}

/// Whether a device of the node has a program of XDP.
fn shows_xdp(node: &Node) -> Result<bool> {
    let output = node.command(Path::new("ip"), "link show")?.output()?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("xdp"))
}

#[test]
fn nothing_to_uninstall_is_said() -> Result<()> {
    let node = Node::new("lbb-nothing")?;
    let output = node.lb("uninstall --instance bad-input")?;
    refused(&output, 0, "")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said == "no instance bad-input is installed: nothing to remove\n", "said: {said}");
    Ok(())
}

/// Two nodes whose seeds differ choose differently: that shows, and the seeds do not.
#[test]
fn different_seeds_are_told_apart() -> Result<()> {
    let node = Node::new("lbb-seeds")?;
    let status = |seed: &str| -> Result<String> {
        node.write("c.yaml", &format!("hashSeed: {seed}\n{GOOD}"))?;
        let agent = node.ready("bad-input-seeds", "c.yaml")?;
        let status = agent.lb("status")?;
        ensure!(!status.contains(seed), "the seed is shown: {status}");
        let line = status.lines().find(|line| line.starts_with("Hash seed: "));
        Ok(line.context("no word of the seed")?.to_owned())
    };
    let [one, other] = ["7f3a9c01d2e4b586", "7f3a9c01d2e4b587"];
    let said = status(one)?;
    ensure!(said == "Hash seed: one with the hash 4a7542e3", "{said}");
    ensure!(status(other)? != said && status(one)? == said, "{said}");
    Ok(())
}

#[test]
fn without_rights_it_says_which() -> Result<()> {
    let node = Node::new("lbb-rights")?;
    node.write("c.yaml", GOOD)?;
    // Where others may run and read it.
    let lb = node.directory.join("lb");
    std::fs::copy(binary()?, &lb)?;
    let run = "run --bridge br0 --instance bad-input --config c.yaml";
    let all = "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON";
    // The namespace is entered as root: the user changes after that.
    let mut setpriv = node.command(Path::new("setpriv"), "--reuid 65534 --regid 65534 --clear-groups --")?;
    let output = setpriv.arg(&lb).args(run.split(' ')).output()?;
    let stderr = |missing: &str| {
        format!(
            "error: not allowed to load programs: {missing} missing; run as root, or with these capabilities\n"
        )
    };
    refused(&output, 1, &stderr(all))?;
    for (dropped, missing) in [("net_admin", "CAP_NET_ADMIN"), ("bpf", "CAP_BPF"), ("perfmon", "CAP_PERFMON")]
    {
        let options = format!("--bounding-set -sys_admin,-{dropped} --inh-caps -all --");
        let output = node.command(Path::new("setpriv"), &options)?.arg(&lb).args(run.split(' ')).output()?;
        refused(&output, 1, &stderr(missing))?;
    }
    Ok(())
}

#[test]
fn a_running_agent_keeps_what_it_serves() -> Result<()> {
    const INSTANCE: &str = "bad-input-running";
    let node = Node::new("lbb-running")?;
    node.write("c.yaml", GOOD)?;
    let mut agent = node.ready(INSTANCE, "c.yaml")?;
    let served = agent.lb("get services -o json")?;
    ensure!(served.contains("10.96.0.10"), "serves {served}");

    let second = node.lb(&format!("run --bridge br0 --config c.yaml --instance {INSTANCE}"))?;
    let stderr = format!(
        "error: an agent already runs instance {INSTANCE}: stop it first, or name another instance with --instance\n"
    );
    refused(&second, 1, &stderr)?;

    for (text, lines) in configs() {
        let before = agent.log()?.len();
        node.write("c.yaml", &text)?;
        let last = lines.last().context("a config that is refused has a line")?;
        let said = agent.wait_for(&format!("config not taken over: {last}"), before)?;
        for line in lines {
            ensure!(said.contains(&format!("config not taken over: {line}\n")), "says {said}\nnot {line}");
        }
        let now = agent.lb("get services -o json")?;
        ensure!(now == served, "after {last}: serves {now}\nnot {served}");
    }
    let before = agent.log()?.len();
    std::fs::remove_file(node.directory.join("c.yaml"))?;
    agent.wait_for("config not taken over: c.yaml: no such file or directory", before)?;
    ensure!(agent.lb("get services -o json")? == served, "serves something else without its config");
    node.write("c.yaml", &GOOD.replace("10.96.0.10", "10.96.0.11"))?;
    agent.wait_for("service default/web TCP 10.96.0.11:80: ", before).map(drop)
}

/// What is no file to be read: how it is made, and what is said of it. Nobody waits for it, at start or later.
#[test]
fn only_regular_files_are_read() -> Result<()> {
    const INSTANCE: &str = "bad-input-files";
    const ADVICE: &str = "is not read; name a regular file, or a directory with such files";
    let node = Node::new("lbb-files")?;
    let cases = [
        ("mkfifo c.yaml", "c.yaml: a FIFO"),
        ("ln -s /dev/zero c.yaml", "c.yaml: a device"),
        ("python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('c.yaml')\"", "c.yaml: a socket"),
    ];
    let make = |command: &str| -> Result<()> {
        let command = format!("rm -rf c.yaml; {command}");
        let status = node.command(Path::new("sh"), "-c")?.arg(command).status()?;
        ensure!(status.success(), "{status}");
        Ok(())
    };
    for (command, said) in cases {
        make(command)?;
        let output = node.lb("run --bridge br0 --instance bad-input --config c.yaml")?;
        refused(&output, 1, &format!("error: {said} {ADVICE}\n"))?;
        let output = node.lb("check c.yaml")?;
        ensure!(String::from_utf8_lossy(&output.stdout).starts_with(&format!("error: {said} {ADVICE}\n")));
    }
    for (command, said) in cases {
        make("true")?;
        node.write("c.yaml", GOOD)?;
        let mut agent = node.ready(INSTANCE, "c.yaml")?;
        make(command)?;
        agent.wait_for(&format!("config not taken over: {said} {ADVICE}\n"), 0)?;
        agent.lb("get services")?;
        agent.end()?;
    }
    // In a directory, each file.
    make("mkdir c.yaml; mkfifo c.yaml/a.yaml; touch c.yaml/b.yaml")?;
    let output = node.lb("run --bridge br0 --instance bad-input --config c.yaml")?;
    refused(&output, 1, &format!("error: c.yaml/a.yaml: a FIFO {ADVICE}\n"))
}

/// Texts that stand for more than they say, within 512 MiB of memory.
#[test]
fn configs_are_bounded() -> Result<()> {
    let node = Node::new("lbb-bounds")?;
    let text = "x".repeat(700_000);
    let aliases = "*a, ".repeat(175_000);
    let large = format!("{}\n", "#".repeat(1023)).repeat(129 << 10);
    for (config, said) in [
        (
            format!("a: &a {text}\nb: [{aliases}]\n"),
            "c.yaml:2:381: anchors and aliases repeat more than 64 MiB; write the values out",
        ),
        (
            format!("a: &a [{}]\nb: [{aliases}]\n", "x, ".repeat(200_000)),
            "c.yaml:2:33: anchors and aliases repeat more than 64 MiB; write the values out",
        ),
        (
            "- \n".repeat(9_000_000),
            "c.yaml:8000000:3: more than 8000000 values in one config, with those of aliases; leave out what is not \
             used",
        ),
        (
            large,
            "c.yaml: the config has more than 128 MiB, the most that is read; leave out what is not used",
        ),
    ] {
        node.write("c.yaml", &config)?;
        let lb = binary()?;
        let mut command = node.command(Path::new("sh"), "-c")?;
        let output = command.arg(format!("ulimit -v 524288; exec {} check c.yaml", lb.display())).output()?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        ensure!(stdout == format!("error: {said}\nc.yaml is not valid\n"), "{stdout}\n{output:?}");
        ensure!(output.status.code() == Some(1), "{}", output.status);
    }
    Ok(())
}

/// Whatever the agent does in that moment.
#[test]
fn an_agent_that_starts_hears_sigterm() -> Result<()> {
    const INSTANCE: &str = "bad-input-early";
    let node = Node::new("lbb-early")?;
    let service = |n: usize| {
        let at = format!("10.{}.{}.{}", 97 + (n >> 16), n >> 8 & 255, n & 255);
        format!(
            "  - {{name: s{n}, address: {at}, ports: [{{port: 80}}], backends: [{{address: 10.128.0.2}}]}}\n"
        )
    };
    node.write("c.yaml", &format!("services:\n{}", (0..16_000).map(service).collect::<String>()))?;
    for delay in [50, 200, 400, 700, 1000] {
        let mut agent = node.agent_on("--bridge br0", INSTANCE, "c.yaml")?;
        std::thread::sleep(std::time::Duration::from_millis(delay));
        agent.end().with_context(|| format!("after {delay} ms"))?;
    }
    Ok(())
}
