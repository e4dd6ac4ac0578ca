//! Builds the kernel programs around those that are measured.

use std::{env, path::PathBuf, process::exit};

fn main() {
    for watched in ["../lb-ebpf/src/bin", "../lb-ebpf/Cargo.toml", "../xtask/toolchain/src", "../Cargo.lock"]
    {
        println!("cargo::rerun-if-changed={watched}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("traffic.o");
    if let Err(error) = lb_toolchain::object("lb-ebpf-traffic", &out) {
        eprintln!("{error:#}");
        exit(1);
    }
}
