//! The guest's root: an initramfs of the modules, `lb`, the tools of the lab and this program as init.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use cpio::newc;

use super::{
    guest::{LB, MODULES},
    kernel::Kernel,
};
use crate::{build::workspace, setup};

/// What the lab and the agent need that is not in the kernel itself. Nothing loads modules later.
const NEEDED: [&str; 7] =
    ["veth", "bridge", "cls_bpf", "sch_ingress", "iptable_nat", "ip6table_nat", "xt_MASQUERADE"];

/// Tools of the lab, and the programs that they are. The iptables of old needs fewer modules.
const TOOLS: [(&str, &str); 4] =
    [("ip", "ip"), ("tc", "tc"), ("iptables", "xtables-legacy-multi"), ("ip6tables", "xtables-legacy-multi")];

/// Where iptables looks for its targets.
const XTABLES: &str = "/usr/lib/x86_64-linux-gnu/xtables";

/// Files by their path in the guest.
type Files = BTreeMap<PathBuf, Content>;

enum Content {
    Directory,
    Copy(PathBuf),
    Text(String),
}

/// Writes the image.
pub fn write(image: &Path, kernel: &Kernel, lb: &Path) -> Result<()> {
    let mut files = Files::new();
    program(&mut files, "/init", &std::env::current_exe()?)?;
    program(&mut files, LB, lb)?;
    for (name, tool) in TOOLS {
        let path = setup::find(tool).with_context(|| format!("no {tool} here: `cargo xtask setup`"))?;
        // A path that is found without PATH.
        program(&mut files, &format!("/bin/{name}"), &path)?;
    }
    let targets = fs::read_dir(XTABLES).with_context(|| format!("reading {XTABLES}"))?;
    for target in targets.filter_map(|entry| Some(entry.ok()?.path())) {
        if target.to_string_lossy().ends_with("_MASQUERADE.so") {
            add(&mut files, &target, Content::Copy(target.clone()));
        }
    }
    let modules = kernel.modules(&NEEDED)?;
    let mut order = String::new();
    for module in modules {
        let name = module.file_name().context("a module without a name")?;
        let path = Path::new("/lib/modules").join(name);
        order += &format!("{}\n", path.display());
        add(&mut files, &path, Content::Copy(module));
    }
    add(&mut files, Path::new(MODULES), Content::Text(order));
    let examples = workspace().join("examples/lab.yaml");
    add(&mut files, &examples, Content::Copy(examples.clone()));
    for dir in ["/dev", "/proc", "/sys", "/run", "/tmp", "/var/lib"] {
        add(&mut files, Path::new(dir), Content::Directory);
    }
    archive(image, &files).with_context(|| format!("writing {}", image.display()))
}

/// A program and the libraries it is linked with, these where they are on the host.
fn program(files: &mut Files, path: &str, from: &Path) -> Result<()> {
    add(files, Path::new(path), Content::Copy(from.to_owned()));
    let libraries = Command::new("ldd").arg(from).output().context("running ldd")?;
    for line in String::from_utf8_lossy(&libraries.stdout).lines() {
        if let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) {
            add(files, Path::new(library), Content::Copy(library.into()));
        }
    }
    Ok(())
}

fn add(files: &mut Files, path: &Path, content: Content) {
    for dir in path.ancestors().skip(1) {
        files.entry(dir.to_owned()).or_insert(Content::Directory);
    }
    files.insert(path.to_owned(), content);
}

/// Parents sort before what is in them, as the kernel wants it.
fn archive(image: &Path, files: &Files) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(image)?);
    for (path, content) in files {
        let name = path.to_string_lossy();
        let name = name.trim_start_matches('/');
        if name.is_empty() {
            continue;
        }
        match content {
            Content::Directory => entry(&mut out, name, 0o040755, &[])?,
            Content::Copy(from) => entry(&mut out, name, 0o100755, &fs::read(from)?)?,
            Content::Text(text) => entry(&mut out, name, 0o100644, text.as_bytes())?,
        }
    }
    newc::trailer(&mut out)?;
    out.flush()
}

fn entry(out: &mut impl io::Write, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let size = content.len().try_into().map_err(io::Error::other)?;
    let mut entry = newc::Builder::new(name).mode(mode).nlink(1).write(out, size);
    entry.write_all(content)?;
    entry.finish().map(drop)
}
