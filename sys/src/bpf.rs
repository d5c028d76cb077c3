//! BPF device programs of a v2 cgroup, by bpf(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::{Errno, Result};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of parents and children all have to allow; without it a child could replace the parent's.
const ALLOW_MULTI: u32 = 1 << 1;
/// Never reached: a cgroup has one program of ours, and systemd's if it made the cgroup.
const MAX_PROGRAMS: usize = 64;

/// `union bpf_attr` as far as each command reads it; the kernel takes a shorter one as zero-filled.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
struct Attach {
    target_fd: u32,
    program_fd: u32,
    kind: u32,
    flags: u32,
}

#[repr(C)]
struct Query {
    target_fd: u32,
    kind: u32,
    flags: u32,
    attached_with: u32,
    prog_ids: u64,
    prog_count: u32,
    padding: u32,
}

#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

fn bpf<T>(command: libc::c_int, attribute: &mut T) -> Result<libc::c_long> {
    // SAFETY: no crate wraps these commands. `attribute` is a live, exclusively borrowed `repr(C)` struct without
    // padding at its end that the kernel could not read, and its size is passed with it. Pointers inside of it are
    // set by the callers below to buffers that outlive the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    crate::fd::check(answer)
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor for a successful call, so that it is open and nobody else
    // owns it. BPF descriptors are close-on-exec by themselves.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// Load a device program, given as `struct bpf_insn` in the kernel's layout, eight bytes each.
pub fn load_device_program(instructions: &[u8]) -> Result<OwnedFd> {
    if !instructions.len().is_multiple_of(8) {
        return Err(Errno::INVAL);
    }
    let mut attribute = Load {
        prog_type: TYPE_CGROUP_DEVICE,
        instruction_count: (instructions.len() / 8) as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    bpf(PROG_LOAD, &mut attribute).map(owned)
}

pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    bpf(PROG_ATTACH, &mut attach(cgroup, program, ALLOW_MULTI)).map(drop)
}

pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    bpf(PROG_DETACH, &mut attach(cgroup, program, 0)).map(drop)
}

fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, flags: u32) -> Attach {
    Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        program_fd: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags,
    }
}

/// The device programs attached to the cgroup itself.
pub fn attached_device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut query = Query {
        target_fd: cgroup.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: 0,
        attached_with: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_count: MAX_PROGRAMS as u32,
        padding: 0,
    };
    bpf(PROG_QUERY, &mut query)?;
    let found = &ids[..(query.prog_count as usize).min(MAX_PROGRAMS)];
    found
        .iter()
        .map(|&id| bpf(PROG_GET_FD_BY_ID, &mut ById { id, next_id: 0, open_flags: 0 }).map(owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `r0 = 1; exit`
    const ALLOW: [u8; 16] = [0xb4, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn the_verifier_takes_a_program_and_refuses_half_of_one() {
        match load_device_program(&ALLOW) {
            Err(Errno::PERM | Errno::NOSYS) => println!("SKIP: this process may not use bpf(2)"),
            loaded => drop(loaded.expect("a program that allows everything")),
        }
        assert_eq!(load_device_program(&ALLOW[..12]).unwrap_err(), Errno::INVAL);
        assert!(load_device_program(&ALLOW[..8]).is_err(), "it has no exit");
    }
}
