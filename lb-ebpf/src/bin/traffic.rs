//! Programs around those that are measured with live frames: one makes frames, one keeps the last. An object of their
//! own, for the tests alone.

#![no_std]
#![no_main]

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    bindings::xdp_action::XDP_DROP,
    btf_maps::Array,
    helpers::bpf_redirect,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// The bytes of a frame.
type Frame = [u64; 9];

/// The frames that are made, one after the other; a power of two.
#[btf_map]
static FRAMES: Array<Frame, 1> = Array::new();
/// The number of the next one, not yet reduced to how many there are.
#[btf_map]
static NEXT: Array<u32, 1> = Array::new();
/// The last one that was kept.
#[btf_map]
static LAST: Array<Frame, 1> = Array::new();

/// The device that they are sent to, and the bits that their numbers have. Set before the programs are loaded.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.out")]
static OUT: [u32; 2] = [0; 2];

/// Gives each frame the bytes of the next one, over and over, and sends it to a device.
#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    // SAFETY: a live static; volatile, as its value here is not that of the loaded program.
    let [device, bits] = unsafe { read_volatile(&raw const OUT) };
    let Some(next) = NEXT.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: a row of an array lives as long as the program; frames are made on one CPU.
    let number = unsafe { read_volatile(next) };
    // SAFETY: as above.
    unsafe { write_volatile(next, number.wrapping_add(1)) };
    match (bytes(&ctx), FRAMES.get_ptr(number & bits)) {
        (Some(frame), Some(row)) => {
            // SAFETY: both have the bytes of a frame, as `bytes` has compared.
            unsafe { *frame = *row };
            // SAFETY: no preconditions.
            unsafe { bpf_redirect(device, 0) as u32 }
        }
        _ => XDP_DROP,
    }
}

/// Keeps the bytes of every frame, and drops it.
#[xdp]
pub fn keep(ctx: XdpContext) -> u32 {
    if let (Some(frame), Some(row)) = (bytes(&ctx), LAST.get_ptr_mut(0)) {
        // SAFETY: both have the bytes of a frame, as `bytes` has compared.
        unsafe { *row = *frame };
    }
    XDP_DROP
}

/// The bytes of a frame that is long enough.
#[inline(always)]
fn bytes(ctx: &XdpContext) -> Option<*mut Frame> {
    let data = ctx.data();
    (data + size_of::<Frame>() <= ctx.data_end()).then_some(data as *mut Frame)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: never reached; the kernel refuses programs in which it could be.
    unsafe { core::hint::unreachable_unchecked() }
}

/// For the helpers that are GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
