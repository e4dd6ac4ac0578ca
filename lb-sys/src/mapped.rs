//! An array map in this process's memory: writing rows costs no system call.

use std::{io, marker::PhantomData, os::fd::BorrowedFd, ptr::NonNull, sync::atomic::AtomicU64};

use bytemuck::Pod;
use lb_common::abi::Word;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// An array map made with `BPF_F_MMAPABLE`, mapped whole.
pub struct Mapped<T> {
    base: NonNull<u8>,
    len: u32,
    _rows: PhantomData<T>,
}

// SAFETY: the memory is the kernel's, shared with every CPU anyway; rows are copied in and out.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    /// Bytes from one row to the next: the kernel pads rows to 8.
    const STRIDE: usize = size_of::<T>().next_multiple_of(align_of::<AtomicU64>());

    /// Maps it; it stays mapped when the descriptor is closed.
    pub fn new(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        // SAFETY: a new mapping of the kernel's choice of address, unmapped in `drop`.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                Self::bytes(len),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map,
                0,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapped { base, len, _rows: PhantomData })
    }

    fn bytes(len: u32) -> usize {
        (len as usize * Self::STRIDE).next_multiple_of(rustix::param::page_size())
    }

    /// Number of rows.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn row(&self, index: u32) -> *mut T {
        assert!(index < self.len, "row {index} of a map with {} rows", self.len);
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.base.as_ptr().add(index as usize * Self::STRIDE) }.cast()
    }

    /// A copy of a row.
    pub fn get(&self, index: u32) -> T {
        // SAFETY: inside the mapping and aligned to 8; any bytes are a `T`.
        unsafe { self.row(index).read_volatile() }
    }

    /// Writes a row to which nothing points yet.
    pub fn set(&mut self, index: u32, row: T) {
        // SAFETY: as in `get`; this process is the only writer.
        unsafe { self.row(index).write_volatile(row) }
    }

    /// Writes rows to which nothing points yet.
    pub fn fill(&mut self, first: u32, rows: &[T]) {
        for (index, row) in (first..).zip(rows) {
            self.set(index, *row);
        }
    }

    /// The word a row starts with, in one load.
    pub fn word(&self, index: u32) -> Word {
        // SAFETY: a live row, 8-aligned; callers use it on rows that start with a word.
        unsafe { Word::load(self.row(index).cast()) }
    }

    /// Stores the word a row starts with; what was written before is visible to who reads it.
    pub fn publish(&mut self, index: u32, word: Word) {
        // SAFETY: as in `word`, and writable.
        unsafe { Word::publish(self.row(index).cast(), word) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        let stride = size_of::<T>().next_multiple_of(align_of::<AtomicU64>());
        let bytes = (self.len as usize * stride).next_multiple_of(rustix::param::page_size());
        // SAFETY: the mapping made in `new`, of the same length; no reference into it exists.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), bytes) };
    }
}
