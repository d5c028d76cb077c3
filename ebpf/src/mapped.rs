//! An array map as shared memory: what a program reads is changed by one store, without a system call.
//!
//! An update by bpf(2) copies the value with memcpy, which promises nothing about the size of its stores.

use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;

/// The words of an array map that was made with BPF_F_MMAPABLE (Linux 5.5) and values of whole words.
#[derive(Debug)]
pub struct MappedWords {
    start: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: shared memory of which only atomics are handed out; it belongs to no thread.
unsafe impl Send for MappedWords {}
// SAFETY: as above.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// `len`: how many words all values of the map have together.
    pub fn new(map: impl AsFd, len: usize) -> Result<Self, Errno> {
        // SAFETY: a new mapping at an address of the kernel's choice takes nothing away from anybody. The kernel refuses
        // a length beyond the map (EINVAL) and keeps the map's memory as long as the mapping is there.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len * size_of::<AtomicU64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        NonNull::new(start.cast()).map(|start| Self { start, len }).ok_or(Errno::EINVAL)
    }

    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `new` mapped so many aligned words, readable and writable, until `drop`; programs and other processes
        // write to them too, which atomics allow.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: the range that `new` mapped; no reference outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len * size_of::<AtomicU64>()) };
    }
}
