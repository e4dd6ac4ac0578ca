//! Starved hosts: full disks, readers that are gone, few descriptors. The agent goes on, and says what is wrong.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    process::{ChildStderr, Stdio},
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    node::{Agent, Disk, Node, binary},
    wait::until,
};

/// A service at an address, and some objects that are left out with a line of log each.
fn config(address: &str, left_out: usize) -> String {
    let service = |name: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {address}, ports: [{{port: \
             80}}]}}\n---\n"
        )
    };
    let bad = (0..left_out).map(|n| service(&format!("bad{n}"), "10.96.0.300"));
    bad.chain([service("web", address)]).collect()
}

/// Changes the config until the log has had more than it can take, with the agent following.
fn talk(node: &Node, agent: &mut Agent) -> Result<()> {
    for last in 1..=5 {
        let address = format!("10.96.0.{last}");
        node.write("c.yaml", &config(&address, 4000))?;
        agent.wait_until("get services", &address)?;
    }
    Ok(())
}

/// A node with its config, and the name of the instance.
fn starved(name: &str) -> Result<(Node, String)> {
    let node = Node::new(&format!("lbs-{name}"))?;
    node.write("c.yaml", &config("10.96.0.10", 0))?;
    Ok((node, format!("starved-{name}")))
}

/// An agent that logs into a pipe, and the pipe.
fn piped<'n>(node: &'n Node, instance: &str) -> Result<(Agent<'n>, ChildStderr)> {
    let mut command = node.run("--bridge br0", instance, "c.yaml")?;
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut agent = node.start(instance, command)?;
    let pipe = agent.process().stderr.take().context("no pipe")?;
    Ok((agent, pipe))
}

#[test]
fn a_full_disk_below_the_log() -> Result<()> {
    let (node, instance) = starved("disk")?;
    let disk = Disk::mount(node.directory.join("disk"), "64k")?;
    let log = File::create(disk.path().join("log"))?;
    let filler = disk.fill()?;
    let mut command = node.run("--bridge br0", &instance, "c.yaml")?;
    command.stdout(log.try_clone()?).stderr(log);
    let mut agent = node.start(&instance, command)?;
    agent.wait_until("get services", "10.96.0.10")?;
    node.write("c.yaml", &config("10.96.0.11", 100))?;
    agent.wait_until("get services", "10.96.0.11")?;
    fs::remove_file(filler)?;
    let told =
        "lines of the log are lost: they could not be written (No space left on device (os error 28))\n";
    let log = disk.path().join("log");
    let said = until(|| Ok(fs::read_to_string(&log)?.contains(told).then_some(())));
    said.with_context(|| format!("says {:?}", fs::read_to_string(&log)))?;
    agent.end()
}

#[test]
fn a_reader_of_the_log_that_is_gone() -> Result<()> {
    let (node, instance) = starved("reader")?;
    let (mut agent, mut reader) = piped(&node, &instance)?;
    reader.read_exact(&mut [0; 10])?;
    drop(reader);
    agent.wait_until("get services", "10.96.0.10")?;
    talk(&node, &mut agent)?;
    agent.end()
}

#[test]
fn a_full_pipe_that_nobody_reads() -> Result<()> {
    let (node, instance) = starved("pipe")?;
    let (mut agent, mut reader) = piped(&node, &instance)?;
    agent.wait_until("get services", "10.96.0.10")?;
    talk(&node, &mut agent)?;
    agent.end()?;
    let mut said = Vec::new();
    reader.read_to_end(&mut said)?;
    ensure!(said.len() > 1 << 15, "the pipe was not full: {} bytes", said.len());
    Ok(())
}

#[test]
fn a_pipe_that_is_read_late_says_what_is_lost() -> Result<()> {
    let (node, instance) = starved("late")?;
    let (mut agent, mut reader) = piped(&node, &instance)?;
    agent.wait_until("get services", "10.96.0.10")?;
    talk(&node, &mut agent)?;
    agent.wait_until("status", " lines lost\n")?;
    let reading = std::thread::spawn(move || {
        let mut said = String::new();
        reader.read_to_string(&mut said).map(|_| said)
    });
    node.write("c.yaml", &config("10.96.0.77", 0))?;
    agent.wait_until("get services", "10.96.0.77")?;
    agent.end()?;
    let said = reading.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    let lost = said.find("lines of the log are lost: they came faster than they were read\n");
    let ended = said.find("ended; services go on").context("the last line is not there")?;
    ensure!(
        lost.is_some_and(|lost| lost < ended),
        "nothing is said to be lost:\n{}",
        &said[said.len() - 2000..]
    );
    Ok(())
}

/// No words of a panic, whatever fails first.
#[test]
fn few_descriptors() -> Result<()> {
    let (node, instance) = starved("files")?;
    let lb = binary()?;
    let limited = |limit: &str, arguments: &str| -> Result<(Option<i32>, String)> {
        let mut command = node.command(Path::new("sh"), "-c")?;
        command.arg(format!("ulimit {limit}; exec {} {arguments} --instance {instance}", lb.display()));
        let output = command.output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    for limit in (5..40).chain([64, 128, 255]) {
        let (code, said) = limited(&format!("-n {limit}"), "run --bridge br0 --config c.yaml")?;
        let expected = format!(
            "error: at most {limit} files may be open, but 256 are needed; allow more (`ulimit -n`, systemd: \
             LimitNOFILE=)\n"
        );
        ensure!(code == Some(1) && said == expected, "{limit}: {code:?} {said}");
    }
    // More are allowed, they only have to be asked for.
    let mut command = node.command(Path::new("sh"), "-c")?;
    let run = format!("exec {} run --bridge br0 --config c.yaml --instance {instance}", lb.display());
    command.arg(format!("ulimit -Sn 16; {run}")).stderr(File::create(node.log())?);
    let mut agent = node.start(&instance, command)?;
    agent.wait_for("ready: ", 0)?;
    for limit in 5..24 {
        for arguments in ["status", "get flows", "get services", "check c.yaml", "uninstall"] {
            let (_, said) = limited(&format!("-n {limit}"), arguments)?;
            ensure!(!said.contains("panic") && !said.contains("fault of lb"), "{limit}, {arguments}: {said}");
        }
    }
    agent.end()
}

/// Where nothing can be printed, nothing is; the code says the rest.
#[test]
fn outputs_that_take_nothing() -> Result<()> {
    let (node, _) = starved("output")?;
    let lb = binary()?;
    let code = |arguments: &str| -> Result<Option<i32>> {
        let mut command = node.command(Path::new("bash"), "-c")?;
        Ok(command.arg(format!("set -o pipefail; {} {arguments}", lb.display())).output()?.status.code())
    };
    for (arguments, expected) in [
        ("run --bridge br9 --config c.yaml --instance starved-output 2>/dev/full", 1),
        ("run --bridge br9 --config c.yaml --instance starved-output 2>&-", 1),
        ("explain --config none.yaml --from 10.0.0.1 --to 10.96.0.10:80 2>/dev/full", 1),
        ("explain --config none.yaml --from 10.0.0.1 --to 10.96.0.10:80 2>&1 | true", 1),
        ("status --instance starved-output 2>/dev/full", 1),
        ("completions bash >/dev/full", 1),
        ("completions bash | true", 0),
        ("check c.yaml | true", 0),
        ("check none.yaml | true", 1),
    ] {
        let found = code(arguments)?;
        ensure!(found == Some(expected), "lb {arguments}: {found:?}");
    }
    Ok(())
}
