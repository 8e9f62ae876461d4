//! Memory of a map that is shared with programs in the kernel (`BPF_F_MMAPABLE`, `mmap(2)`). They read and write while we
//! do, so every access is atomic.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Such memory, until it is dropped.
#[derive(Debug)]
pub(super) struct Block {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: the memory is reached by atomic accesses alone, and no thread has a part in it.
unsafe impl Send for Block {}

impl Block {
    /// Maps the first `size` bytes of an array map.
    pub(super) fn map(map: &OwnedFd, size: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let anywhere = std::ptr::null_mut();
        // SAFETY: a new mapping at a place of the kernel's choice touches none of our memory.
        let start =
            unsafe { libc::mmap(anywhere, size, access, libc::MAP_SHARED, map.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { start, size })
    }

    pub(super) fn load_u32(&self, offset: usize) -> Option<u32> {
        Some(self.u32_at(offset)?.load(Ordering::Acquire))
    }

    pub(super) fn load_u64(&self, offset: usize) -> Option<u64> {
        Some(self.u64_at(offset)?.load(Ordering::Acquire))
    }

    pub(super) fn store_u32(&self, offset: usize, value: u32) -> Option<()> {
        self.u32_at(offset)?.store(value, Ordering::Release);
        Some(())
    }

    pub(super) fn store_u64(&self, offset: usize, value: u64) -> Option<()> {
        self.u64_at(offset)?.store(value, Ordering::Release);
        Some(())
    }

    fn u32_at(&self, offset: usize) -> Option<&AtomicU32> {
        let place = self.place(offset, size_of::<u32>())?.as_ptr().cast();
        // SAFETY: `place` is aligned and inside the mapping, which lives as long as `self`; nobody accesses it otherwise
        // than atomically, and a program in the kernel does as a CPU does.
        Some(unsafe { AtomicU32::from_ptr(place) })
    }

    fn u64_at(&self, offset: usize) -> Option<&AtomicU64> {
        let place = self.place(offset, size_of::<u64>())?.as_ptr().cast();
        // SAFETY: as above.
        Some(unsafe { AtomicU64::from_ptr(place) })
    }

    /// Returns where a number of `width` bytes stands, if it ends inside and is aligned: the mapping begins with a page.
    fn place(&self, offset: usize, width: usize) -> Option<NonNull<u8>> {
        let is_inside = offset.checked_add(width)? <= self.size;
        // SAFETY: inside of the mapping.
        (is_inside && offset.is_multiple_of(width)).then(|| unsafe { self.start.add(offset) })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and what borrowed from it is gone.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}
