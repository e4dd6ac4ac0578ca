//! The programs around the one that is measured.

use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::Array,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};

/// `lb-ebpf/src/bin/traffic.rs`.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/traffic.o"));

/// Words of every frame: headers and a few of data.
const WORDS: usize = 9;
/// Its bytes.
pub const FRAME: usize = WORDS * 8;

/// What an XDP program returns.
pub const DROP: i32 = 1;
pub const PASS: i32 = 2;
pub const TX: i32 = 3;

/// Makes frames, and keeps the last one of others.
pub struct Traffic(Ebpf);

impl Traffic {
    /// Makes these, over and over, and sends them to a device.
    pub fn new(frames: &[Vec<u8>], ifindex: u32) -> Result<Traffic> {
        let count = frames.len() as u32;
        ensure!(count.is_power_of_two(), "{count} frames");
        let (mut loader, out) = (EbpfLoader::new(), [ifindex, count - 1]);
        loader.map_max_entries("FRAMES", count).override_global("OUT", &out, true);
        let mut object = loader.load(OBJECT).context("loading the programs around the measured one")?;
        let mut rows = Array::<_, [u64; WORDS]>::try_from(object.map_mut("FRAMES").context("no map")?)?;
        for (row, frame) in (0..).zip(frames) {
            let words = frame.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect::<Vec<u64>>();
            rows.set(row, <[u64; WORDS]>::try_from(words).ok().context("a frame of another length")?, 0)?;
        }
        for (_, program) in object.programs_mut() {
            <&mut Xdp>::try_from(program)?.load()?;
        }
        Ok(Traffic(object))
    }

    fn program(&self, name: &str) -> Result<&Xdp> {
        Ok(self.0.program(name).with_context(|| format!("no program {name}"))?.try_into()?)
    }

    /// Sends so many frames.
    pub fn send(&self, frames: u32) -> Result<()> {
        // Batches fit a veth's ring of 256.
        const BATCH: u32 = 64;
        self.program("generate")?
            .test_run(TestRunOptions {
                data_in: Some(&[0; FRAME]),
                repeat: frames,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            })
            .context("running a program on live frames (kernel 5.18)")?;
        Ok(())
    }

    /// The program that keeps the last frame.
    pub fn keeper(&self) -> Result<BorrowedFd<'_>> {
        Ok(self.program("keep")?.fd()?.as_fd())
    }

    /// That frame.
    pub fn kept(&self) -> Result<Vec<u8>> {
        let rows = Array::<_, [u64; WORDS]>::try_from(self.0.map("LAST").context("no map")?)?;
        Ok(bytemuck::bytes_of(&rows.get(&0, 0)?).to_vec())
    }
}
