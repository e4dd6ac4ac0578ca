//! The unit of publishing: one 64-bit word that is read and written whole.

use core::sync::atomic::{AtomicU64, Ordering};

/// Two 32-bit halves that are always stored and loaded together.
///
/// It is the first field of its row, and elements of BPF maps start at multiples of 8, so the word is
/// aligned although its type only asks for 4.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Word {
    /// Low half: what the word names (a set, a backend, a state).
    pub low: u32,
    /// High half: the generation, never reset.
    pub generation: u32,
}

impl Word {
    /// Both halves from one load.
    ///
    /// # Safety
    /// `row` points to a live row that starts with a `Word` and is 8-aligned.
    #[inline(always)]
    pub unsafe fn load(row: *const Word) -> Word {
        // SAFETY: the caller's promise. Volatile: one load of 64 bits, neither split nor repeated.
        bytemuck::cast(unsafe { row.cast::<u64>().read_volatile() })
    }

    /// Stores both halves at once; everything written before is visible to who reads the word.
    ///
    /// # Safety
    /// As [`Word::load`], and the row is writable.
    pub unsafe fn publish(row: *mut Word, word: Word) {
        // SAFETY: the caller's promise.
        unsafe { AtomicU64::from_ptr(row.cast()) }.store(bytemuck::cast(word), Ordering::Release);
    }
}
