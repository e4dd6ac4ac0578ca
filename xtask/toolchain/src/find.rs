//! Finding, without changing anything.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, anyhow};

use crate::{LINKER_VERSION, RUSTC_MINOR, RUSTUP_TOOLCHAIN, Toolchain, cache};

/// The tool chain, or what is missing and the commands that bring it.
pub fn find() -> Result<Toolchain> {
    let compiler = compiler().ok_or_else(|| {
        anyhow!(
            "no compiler for kernel programs: rustc 1.{RUSTC_MINOR} or newer with `core` for BPF. \
             `cargo xtask setup` brings one, or by hand, on Debian and as root:\n    \
             apt-get install --no-install-recommends rustc-web libstd-rust-web-dev-bpf\n  \
             or anywhere with rustup:\n    \
             rustup toolchain install {RUSTUP_TOOLCHAIN} --profile minimal -c rust-src"
        )
    })?;
    let linker = linker().ok_or_else(|| {
        anyhow!(
            "no linker for kernel programs. `cargo xtask setup` brings one, or by hand:\n    \
             cargo install bpf-linker --version {LINKER_VERSION} --locked --root {}",
            tools().display()
        )
    })?;
    let Compiler { rustc, build_std, llvm } = compiler;
    Ok(Toolchain { rustc, build_std, llvm, linker })
}

/// A compiler that can build for BPF.
pub(crate) struct Compiler {
    pub rustc: PathBuf,
    pub build_std: bool,
    pub llvm: PathBuf,
}

/// Debian's, or one of rustup's that has `core`'s source.
pub(crate) fn compiler() -> Option<Compiler> {
    let debian = PathBuf::from("/usr/bin/rustc");
    if Path::new("/usr/lib/rustlib/bpfel-unknown-none/lib").is_dir() && new_enough(&debian) {
        let llvm = llvm(&debian)?;
        return Some(Compiler { rustc: debian, build_std: false, llvm });
    }
    let home = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".rustup")))?;
    let mut toolchains: Vec<PathBuf> = std::fs::read_dir(home.join("toolchains"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    toolchains.sort();
    toolchains.into_iter().find_map(|dir| {
        let rustc = dir.join("bin/rustc");
        let source = dir.join("lib/rustlib/src/rust/library/core");
        if !source.is_dir() || !new_enough(&rustc) {
            return None;
        }
        let llvm = llvm(&rustc)?;
        Some(Compiler { rustc, build_std: true, llvm })
    })
}

fn new_enough(rustc: &Path) -> bool {
    let version = Command::new(rustc).arg("--version").env_remove("RUSTC_WRAPPER").output();
    let version =
        version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    // rustc 1.96.0 (...)
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= RUSTC_MINOR)
}

/// The libLLVM a compiler is linked with.
fn llvm(rustc: &Path) -> Option<PathBuf> {
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    let is_llvm = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libLLVM")) && path.is_file()
    };
    // rustup puts it beside the compiler's own libraries ...
    let beside = std::fs::read_dir(sysroot.join("lib")).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    if let Some(found) = beside.into_iter().find(is_llvm).filter(|_| sysroot != Path::new("/usr")) {
        return Some(found);
    }
    // ... Debian among the system's: the one that the compiler's driver asks for.
    let linked = Command::new("sh")
        .args([
            "-c",
            "ldd \"$1\" /usr/lib/*/librustc_driver-*.so /usr/lib/librustc_driver-*.so 2>/dev/null",
            "sh",
        ])
        .arg(rustc)
        .output()
        .ok()?;
    String::from_utf8_lossy(&linked.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from))
        .find(is_llvm)
}

/// Where tools that we install are.
pub(crate) fn tools() -> PathBuf {
    cache().join("tools")
}

/// bpf-linker in the version we need.
pub(crate) fn linker() -> Option<PathBuf> {
    let linker = tools().join("bin/bpf-linker");
    // It can't tell its version without a libLLVM: the receipt of `cargo install` can.
    let receipt = std::fs::read_to_string(tools().join(".crates.toml")).unwrap_or_default();
    (linker.is_file() && receipt.contains(&format!("bpf-linker {LINKER_VERSION} "))).then_some(linker)
}
