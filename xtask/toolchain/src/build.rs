//! Building the kernel object.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{Toolchain, cache, find};

/// Target of the kernel programs.
const TARGET: &str = "bpfel-unknown-none";

/// Builds kernel programs, those of a binary of `lb-ebpf`, and puts their object at `out`. Nothing is installed.
pub fn object(binary: &str, out: &Path) -> Result<()> {
    let toolchain = find()?;
    let workspace = workspace()?;
    let target_dir = workspace.join("target/bpf");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    clean_environment(&mut cargo);
    cargo
        .current_dir(&workspace)
        .args(["build", "--package", "lb-ebpf", "--bin", binary, "--release", "--target", TARGET, "--locked"])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&toolchain).join("\u{1f}"))
        .env("LD_LIBRARY_PATH", libraries(&toolchain.llvm)?);
    if toolchain.build_std {
        cargo.args(["-Z", "build-std=core"]);
    }
    let output = cargo.stdin(Stdio::null()).output().context("running cargo for the kernel programs")?;
    if !output.status.success() {
        bail!("the kernel programs do not build:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let built = target_dir.join(TARGET).join("release").join(binary);
    fs::copy(&built, out).with_context(|| format!("copying {} to {}", built.display(), out.display()))?;
    Ok(())
}

/// What the compiler is told.
fn flags(toolchain: &Toolchain) -> Vec<String> {
    vec![
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(),
        // BTF only with this; maps are described in it.
        "-Clink-arg=--btf".to_owned(),
        // Atomics, 32-bit jumps: kernel 5.12 and newer.
        "-Ctarget-cpu=v3".to_owned(),
        format!("-Clinker={}", toolchain.linker.display()),
    ]
}

/// The inner cargo is not the outer one's: nothing it was told about host code is passed on.
pub(crate) fn clean_environment(cargo: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let ours = name.starts_with("CARGO_")
            && !name.starts_with("CARGO_HOME")
            && !name.starts_with("CARGO_NET")
            && !name.starts_with("CARGO_REGISTR")
            && !name.starts_with("CARGO_HTTP")
            && !name.starts_with("CARGO_SOURCE");
        let build = matches!(
            &*name,
            "RUSTC"
                | "RUSTC_WRAPPER"
                | "RUSTC_WORKSPACE_WRAPPER"
                | "RUSTFLAGS"
                | "RUSTDOCFLAGS"
                | "RUSTUP_TOOLCHAIN"
                | "RUSTDOC"
                | "TARGET"
                | "HOST"
                | "PROFILE"
                | "OUT_DIR"
                | "LD_LIBRARY_PATH"
                | "CLIPPY_ARGS"
                | "RUSTC_LINKER"
        );
        if ours || build {
            cargo.env_remove(&*name);
        }
    }
}

/// A directory with that libLLVM alone: the linker opens the first it meets, and the system's
/// directory may hold several.
fn libraries(llvm: &Path) -> Result<PathBuf> {
    let name = llvm.file_name().ok_or_else(|| anyhow!("{} is no library", llvm.display()))?;
    let dir = cache().join("llvm").join(llvm.to_string_lossy().trim_start_matches('/').replace('/', "-"));
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    for name in [name.to_string_lossy().into_owned(), "libLLVM.so".to_owned()] {
        let link = dir.join(name);
        if fs::read_link(&link).ok().as_deref() != Some(llvm) {
            let _ = fs::remove_file(&link);
            match symlink(llvm, &link) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("linking {}", link.display()));
                }
                _ => {}
            }
        }
    }
    Ok(dir)
}

fn workspace() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace =
        here.ancestors().nth(2).ok_or_else(|| anyhow!("{} is not in a workspace", here.display()))?;
    Ok(workspace.to_owned())
}
