//! Builds the kernel programs that are part of the binary.

use std::{env, path::PathBuf, process::exit};

fn main() {
    for watched in ["../lb-ebpf", "../lb-common/src", "../xtask/toolchain/src", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("lb-ebpf.o");
    if let Err(error) = lb_toolchain::object("lb-ebpf", &out) {
        eprintln!("{error:#}");
        exit(1);
    }
}
