//! A whole hash map in few system calls (BPF_MAP_LOOKUP_BATCH, Linux 5.6): a walk costs two for each entry.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use aya::Pod;
use nix::errno::Errno;

const LOOKUP_BATCH: libc::c_int = 24;
const BATCH: u32 = 4096;

#[repr(C)]
struct Attribute {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// All entries of a hash map (also LRU) whose keys and values are `K` and `V`; the caller has checked their sizes, as
/// aya's typed maps do. An entry that is changed meanwhile is there or not; an LRU map may show one twice.
pub fn read_all<K: Pod, V: Pod>(map: impl AsFd) -> Result<Vec<(K, V)>, Errno> {
    let mut all = Vec::new();
    let mut capacity = BATCH;
    // The kernel's cursor: for hash maps the number of a bucket.
    let mut cursor: Option<u32> = None;
    loop {
        let mut keys: Vec<MaybeUninit<K>> = uninit(capacity);
        let mut values: Vec<MaybeUninit<V>> = uninit(capacity);
        let mut next = 0_u32;
        let mut attribute = Attribute {
            in_batch: cursor.as_ref().map_or(0, |cursor| std::ptr::from_ref(cursor) as u64),
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: capacity,
            map: map.as_fd().as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: no crate we use wraps this command. The attribute is laid out as the batch part of `union bpf_attr`, its
        // addresses are of live buffers, exclusively ours, for `count` keys and values of the map's sizes (the caller's
        // promise), and of two u32, which is what hash maps use as cursor.
        let answer =
            unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut attribute, size_of::<Attribute>()) };
        let done = match Errno::result(answer) {
            Ok(_) => false,
            Err(Errno::ENOENT) => true,
            // One bucket has more than that.
            Err(Errno::ENOSPC) => {
                capacity *= 2;
                continue;
            }
            Err(errno) => return Err(errno),
        };
        let pairs = keys.into_iter().zip(values).take(attribute.count.min(capacity) as usize);
        // SAFETY: the kernel has written `count` keys and values, and any bytes are a valid `Pod`.
        all.extend(pairs.map(|(key, value)| unsafe { (key.assume_init(), value.assume_init()) }));
        if done {
            return Ok(all);
        }
        cursor = Some(next);
    }
}

fn uninit<T>(count: u32) -> Vec<MaybeUninit<T>> {
    (0..count).map(|_| MaybeUninit::uninit()).collect()
}
