//! How bytes of packets are found and read, in tc and XDP.

use core::arch::asm;

use bytemuck::Pod;

/// Sizes, in bytes, of what is read in words of eight: whole headers.
const WIDE: usize = 28;
const WIDEST: usize = 72;

/// First byte and end of what is readable of a packet, from its context: words of 32 bits at `DATA` and behind it.
///
/// By assembly: where LLVM knows that the fields have 32 bits it may spill 32 bits of what the verifier tracks as a
/// packet pointer (`invalid size of register spill`, kernel 6.18).
///
/// # Safety
/// The context is live and has them there.
#[inline(always)]
pub unsafe fn bounds<C, const DATA: usize>(context: *mut C) -> (usize, usize) {
    let (data, end): (usize, usize);
    // SAFETY: reads two words, as the caller says.
    unsafe {
        asm!(
            "{data} = *(u32 *)({context} + {at})",
            "{end} = *(u32 *)({context} + {behind})",
            context = in(reg) context,
            at = const DATA,
            behind = const DATA + 4,
            data = out(reg) data,
            end = out(reg) end,
            options(nostack, preserves_flags),
        );
    }
    (data, end)
}

/// A copy of what lies at an even address in a packet.
///
/// # Safety
/// It is readable.
#[inline(always)]
pub unsafe fn read<T: Pod>(from: usize) -> T {
    const { assert!(align_of::<T>() <= 2) };
    if matches!(size_of::<T>(), WIDE..=WIDEST) && size_of::<T>() % 2 == 0 {
        // SAFETY: the caller says so; the size has just been compared.
        unsafe { read_wide(from) }
    } else {
        // SAFETY: as above.
        unsafe { (from as *const T).read() }
    }
}

/// Copies what lies at an address in words of eight bytes, whatever the address: the kernel lets programs read a
/// packet so, where LLVM would read two bytes at a time.
///
/// # Safety
/// It is readable, and `T` has an even number of bytes, 72 at most.
#[inline(always)]
unsafe fn read_wide<T: Pod>(from: usize) -> T {
    let mut words = [0u64; 9];
    macro_rules! read {
        ($size:literal, $at:expr) => {{
            let word: u64;
            // SAFETY: reads what the caller says is readable.
            unsafe {
                asm!(
                    concat!("{word} = *(", $size, " *)({from} + {at})"),
                    word = out(reg) word,
                    from = in(reg) from,
                    at = const $at,
                    options(nostack, preserves_flags, readonly),
                );
            }
            word
        }};
    }
    macro_rules! words {
        ($($index:literal)*) => {$(
            if size_of::<T>() >= $index * 8 + 8 {
                words[$index] = read!("u64", $index * 8);
            } else if size_of::<T>() == $index * 8 + 6 {
                words[$index] = read!("u32", $index * 8) | read!("u16", $index * 8 + 4) << 32;
            } else if size_of::<T>() == $index * 8 + 4 {
                words[$index] = read!("u32", $index * 8);
            } else if size_of::<T>() == $index * 8 + 2 {
                words[$index] = read!("u16", $index * 8);
            }
        )*};
    }
    words!(0 1 2 3 4 5 6 7 8);
    // SAFETY: as long as `T`, every pattern of which is one.
    unsafe { words.as_ptr().cast::<T>().read_unaligned() }
}
