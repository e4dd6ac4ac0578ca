//! Debian's 6.1 kernel for cloud machines: fetched as a package, unpacked into the user's cache.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::setup::{self, say};

/// The kernel that is looked for.
const VERSION: &str = "6.1.";
/// A package that depends on the newest kernel of this host's Debian.
const LATEST: &str = "linux-image-cloud-amd64";

/// A kernel and its modules.
pub struct Kernel {
    /// Its name, as `uname -r` says it.
    pub release: String,
    /// What boots.
    pub image: PathBuf,
    modules: PathBuf,
}

/// Why there is no such kernel; nothing if there is.
pub fn unavailable() -> Option<String> {
    if cached().is_some() {
        return None;
    }
    if setup::find("apt-get").is_none() || setup::find("dpkg-deb").is_none() {
        return Some("its kernel is a Debian package, and there is no apt here".to_owned());
    }
    package().err().map(|error| error.to_string())
}

/// The kernel, from the cache if it is there.
pub fn fetch() -> Result<Kernel> {
    if let Some(kernel) = cached() {
        return Ok(kernel);
    }
    let package = package()?;
    say(&format!("fetching {package} (a Debian package)"));
    let partial = dir().with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).with_context(|| format!("making {}", partial.display()))?;
    run(Command::new("apt-get").args(["download", "-qq", &package]).current_dir(&partial))?;
    let found = fs::read_dir(&partial)?.filter_map(|entry| Some(entry.ok()?.path()));
    let deb = found.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let deb = deb.with_context(|| format!("apt-get put no package into {}", partial.display()))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&partial))?;
    fs::remove_file(&deb)?;
    let _ = fs::remove_dir_all(dir());
    fs::rename(&partial, dir()).with_context(|| format!("making {}", dir().display()))?;
    cached().ok_or_else(|| anyhow!("{package} has no kernel in it"))
}

fn dir() -> PathBuf {
    lb_toolchain::cache().join("old-kernel")
}

fn cached() -> Option<Kernel> {
    let boot = fs::read_dir(dir().join("boot")).ok()?;
    let mut names = boot.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let release = names.find_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned))?;
    let image = dir().join("boot").join(format!("vmlinuz-{release}"));
    let modules = dir().join("lib/modules").join(&release);
    release.starts_with(VERSION).then_some(Kernel { release, image, modules })
}

/// The package of the kernel itself.
fn package() -> Result<String> {
    let output = Command::new("apt-cache").args(["depends", LATEST]).output().context("running apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let depends = text.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    match depends {
        Some(found) if found.starts_with(VERSION) => Ok(format!("linux-image-{found}")),
        Some(found) => bail!("the kernel of this Debian is {found}; that of Debian 12 is wanted"),
        None => bail!("apt knows no {LATEST}; on Debian 12, `apt-get update` may help"),
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

impl Kernel {
    /// The files of modules and of what they need, in the order in which they can be loaded.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let list = self.modules.join("modules.dep");
        // Packages bring no modules.dep; depmod makes it, for any directory.
        if !list.exists() {
            let root = dir();
            let mut depmod = Command::new(setup::find("depmod").context("no depmod here (Debian: kmod)")?);
            run(depmod.arg("--basedir").arg(root).arg(&self.release))?;
        }
        let text = fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
        let needs: HashMap<&str, Vec<&str>> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| (path, needs.split_whitespace().collect()))
            .collect();
        let mut ordered = Vec::new();
        for name in names {
            let file = format!("{name}.ko");
            let found = needs.iter().find(|(path, _)| Path::new(path).ends_with(&file));
            let (path, needs) = found.with_context(|| format!("{} has no module {name}", self.release))?;
            // The one that nothing else is needed for comes last.
            for module in needs.iter().rev().chain([path]) {
                let module = self.modules.join(module);
                if !ordered.contains(&module) {
                    ordered.push(module);
                }
            }
        }
        Ok(ordered)
    }
}
