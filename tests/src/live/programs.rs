//! The programs around the one that is measured.

use std::os::fd::OwnedFd;

use anyhow::{Result, ensure};

use super::sys::{Array, load, map, op};

/// Bytes of every frame: headers and a few of data.
pub const FRAME: usize = 72;

/// Codes of instructions.
const LOAD_32: u8 = 0x61;
const LOAD_64: u8 = 0x79;
const STORE_32: u8 = 0x63;
const STORE_64: u8 = 0x7b;
const MOVE: u8 = 0xbf;
const MOVE_VALUE: u8 = 0xb7;
const ADD_VALUE: u8 = 0x07;
const AND: u8 = 0x5f;
const IF_GREATER: u8 = 0x2d;
const IF_EQUAL_VALUE: u8 = 0x15;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// Helpers.
const MAP_LOOKUP: i32 = 1;
const REDIRECT: i32 = 23;
/// What an XDP program returns.
const DROP: i32 = 1;
const PASS: i32 = 2;
const TX: i32 = 3;

/// Destination and source.
const fn regs(destination: u8, source: u8) -> u8 {
    destination | source << 4
}

/// Returns this for every frame.
fn constant(name: &str, value: i32) -> Result<OwnedFd> {
    load(name, &[op(MOVE_VALUE, 0, 0, value), op(EXIT, 0, 0, 0)])
}

/// Sends every frame back where it came from.
pub fn sends_back() -> Result<OwnedFd> {
    constant("sends frames back", TX)
}

/// Leaves every frame to the host.
pub fn passes() -> Result<OwnedFd> {
    constant("passes frames on", PASS)
}

/// Drops every frame.
pub fn drops() -> Result<OwnedFd> {
    constant("drops frames", DROP)
}

/// Drops every frame and keeps the last one's bytes, in the row of this array.
pub fn keeps(last: &Array) -> Result<OwnedFd> {
    let copy = (0..FRAME as i16 / 8)
        .flat_map(|word| [op(LOAD_64, regs(1, 6), word * 8, 0), op(STORE_64, regs(0, 1), word * 8, 0)]);
    let body: Vec<u64> = row_of_zero(last).into_iter().chain(copy).collect();
    load("keeps a frame", &with_frame(&body))
}

/// Gives each frame the bytes of the next row, over and over, and sends it to a device.
pub fn generates(frames: &[Vec<u8>], ifindex: u32) -> Result<Generator> {
    ensure!(frames.len().is_power_of_two(), "{} frames", frames.len());
    let (rows, next) = (Array::new(frames.len() as u32, FRAME)?, Array::new(1, 8)?);
    for (row, frame) in (0..).zip(frames) {
        rows.set(row, frame)?;
    }
    // The number of the next frame, and the bits that it has.
    next.set(0, &((frames.len() as u64 - 1) << 32).to_ne_bytes())?;
    let mut body = row_of_zero(&next);
    body.extend([
        op(LOAD_32, regs(8, 0), 0, 0),
        op(MOVE, regs(1, 8), 0, 0),
        op(ADD_VALUE, 1, 0, 1),
        op(STORE_32, regs(0, 1), 0, 0),
        op(LOAD_32, regs(2, 0), 4, 0),
        op(AND, regs(8, 2), 0, 0),
        op(STORE_32, regs(10, 8), -4, 0),
    ]);
    body.extend(row(&rows));
    for word in 0..FRAME as i16 / 8 {
        body.extend([op(LOAD_64, regs(1, 0), word * 8, 0), op(STORE_64, regs(6, 1), word * 8, 0)]);
    }
    body.extend([
        op(MOVE_VALUE, 1, 0, ifindex as i32),
        op(MOVE_VALUE, 2, 0, 0),
        op(CALL, 0, 0, REDIRECT),
        op(EXIT, 0, 0, 0),
    ]);
    let program = load("generates frames", &with_frame(&body))?;
    Ok(Generator { program, _maps: [rows, next] })
}

/// See [`generates`].
pub struct Generator {
    /// The program.
    pub program: OwnedFd,
    _maps: [Array; 2],
}

/// A program that begins with register 6 at the frame's bytes. Where its body ends, or where it leads a jump by
/// [`OUT`], the frame is dropped.
fn with_frame(body: &[u64]) -> Vec<u64> {
    let start = [
        op(LOAD_32, regs(6, 1), 0, 0),
        op(LOAD_32, regs(3, 1), 4, 0),
        op(MOVE, regs(4, 6), 0, 0),
        op(ADD_VALUE, 4, 0, FRAME as i32),
        op(IF_GREATER, regs(4, 3), OUT, 0),
    ];
    let mut program: Vec<u64> = start.into_iter().chain(body.iter().copied()).collect();
    let end = program.len();
    for (at, instruction) in program.iter_mut().enumerate() {
        if *instruction >> 16 & 0xffff == OUT as u64
            && matches!(*instruction as u8, IF_GREATER | IF_EQUAL_VALUE)
        {
            *instruction = *instruction & !(0xffff << 16) | ((end - at - 1) as u64) << 16;
        }
    }
    program.extend([op(MOVE_VALUE, 0, 0, DROP), op(EXIT, 0, 0, 0)]);
    program
}

/// Stands for a jump to the end.
const OUT: i16 = 0x7fff;

/// Finds the first row of an array: register 0.
fn row_of_zero(of: &Array) -> Vec<u64> {
    let mut found = vec![op(MOVE_VALUE, 1, 0, 0), op(STORE_32, regs(10, 1), -4, 0)];
    found.extend(row(of));
    found
}

/// Finds the row of an array whose number is on the stack: register 0.
fn row(of: &Array) -> Vec<u64> {
    let [low, high] = map(1, of.fd());
    vec![
        op(MOVE, regs(2, 10), 0, 0),
        op(ADD_VALUE, 2, 0, -4),
        low,
        high,
        op(CALL, 0, 0, MAP_LOOKUP),
        op(IF_EQUAL_VALUE, 0, OUT, 0),
    ]
}
