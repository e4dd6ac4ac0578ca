//! Finds or installs what builds the kernel programs, and builds them. Used by `cargo xtask` and by
//! the build script of `lb-user`, so that every build takes the same road.

mod build;
mod find;
mod install;

use std::path::PathBuf;

pub use build::object;
pub use find::find;
pub use install::install;

/// The linker's version: the newest that works with the libLLVM that comes with rustc.
pub const LINKER_VERSION: &str = "0.10.4";
/// The oldest rustc whose LLVM and `core` are known to do.
pub const RUSTC_MINOR: u32 = 96;
/// The rustup toolchain that is installed where Debian's packages can't be.
pub const RUSTUP_TOOLCHAIN: &str = "1.96.0";

/// What builds the kernel programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// `core` is built from its source: the compiler brings none for BPF.
    pub build_std: bool,
    /// The libLLVM of that compiler, which the linker uses, too.
    pub llvm: PathBuf,
    /// bpf-linker.
    pub linker: PathBuf,
}

/// Where tools are cached, per user.
pub fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("lb")
}
