//! Clone of a single-threaded process, and the process-wide switches around it.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{DumpableBehavior, Pid, Signal, set_dumpable_behavior};

use crate::fd::check;
use crate::{Errno, Result};

/// What the new process gets besides a copy of this one.
#[derive(Debug, Default)]
pub struct Clone<'a> {
    /// `CLONE_NEW*` bits, or [`Clone::SIBLING`].
    pub flags: u32,
    /// A cgroup v2 directory to be born in (CLONE_INTO_CGROUP, Linux 5.7).
    pub into_cgroup: Option<BorrowedFd<'a>>,
}

impl Clone<'_> {
    /// CLONE_PARENT: the new process is a child of our parent, which must reap it.
    pub const SIBLING: u32 = libc::CLONE_PARENT as u32;
}

#[derive(Debug)]
pub struct Child {
    /// In the caller's pid namespace.
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Whether this process has one thread only: unshare(CLONE_THREAD) is a no-op then, and refused otherwise.
pub fn is_single_threaded() -> bool {
    // SAFETY: CLONE_THREAD alone changes nothing: the kernel answers 0 for a single thread, EINVAL for several.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// Given to the code that runs in a new process, and to nobody else.
#[derive(Debug)]
pub struct Inherited(());

impl Inherited {
    /// Closes every descriptor from `first` on that is not in `keep`: the parent's, which this copy got by accident.
    ///
    /// What the parent's frames own never runs again in this process; what the child's own code holds it must name in
    /// `keep`, and what it opens later it owns as usual. They are closed, not only marked close-on-exec, so that
    /// nothing of the host can be reached as /proc/self/fd/N (CVE-2024-21626).
    pub fn close(self, first: i32, keep: &[BorrowedFd<'_>]) -> Result<()> {
        let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).collect();
        keep.sort_unstable();
        let mut from = first as u32;
        for number in keep {
            if number > from {
                crate::fd::close_range(from, number - 1, 0)?;
            }
            from = from.max(number + 1);
        }
        crate::fd::close_range(from, u32::MAX, 0)
    }
}

/// Clones this process (clone3) and runs `child` in the copy, which then ends with the returned code.
///
/// The child has the handlers of all signals reset, inherits every descriptor, and must only use what a copy of a
/// single-threaded process may use: anything but the parent's tid (so no `abort`: a panic ends by `_exit(101)`).
///
/// # Errors
/// EBUSY when this process has more than one thread: the copy could hold locks that nobody will ever release.
pub fn clone(args: &Clone<'_>, child: impl FnOnce(Inherited) -> i32) -> Result<Child> {
    if !is_single_threaded() {
        return Err(Errno::BUSY);
    }
    let mut pidfd: libc::c_int = -1;
    let mut flags = u64::from(args.flags) | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    if args.into_cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let sibling = args.flags & Clone::SIBLING != 0;
    let arguments = CloneArgs {
        flags,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        // A sibling's exit signal is its parent's affair; the kernel wants 0 with CLONE_PARENT.
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        cgroup: args.into_cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    // SAFETY: no safe crate has clone3. Without CLONE_VM the child gets its own copy of memory and stack (stack 0 means
    // fork), so both sides go on from here independently; one thread was checked above, so no lock is held by a thread
    // that the child lacks. `arguments` lives across the call, and `pidfd` is written by the kernel before it returns.
    let answer =
        unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&arguments), size_of::<CloneArgs>()) };
    match check(answer)? {
        0 => run_child(child),
        pid => {
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so `pidfd` is a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: pid as i32, pidfd })
        }
    }
}

/// musl caches the tid, which is the parent's after a raw clone: `abort` would signal the parent. So a panic leaves
/// by `_exit`.
fn run_child(child: impl FnOnce(Inherited) -> i32) -> ! {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        exit_now(101)
    }));
    exit_now(child(Inherited(())))
}

/// Ends the process without running exit handlers, which belong to the process this one was copied from.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) never returns and runs none of our code.
    unsafe { libc::_exit(code) }
}

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args`, version 2 (88 bytes). Source: linux/sched.h.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Whether other processes may trace this one and open its /proc/PID files (CVE-2016-9962).
pub fn set_dumpable(on: bool) -> Result<()> {
    set_dumpable_behavior(if on { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable })
}

/// Orphaned descendants become children of this process.
pub fn set_subreaper(on: bool) -> Result<()> {
    rustix::process::set_child_subreaper(on.then(rustix::process::getpid))
}

/// The signal this process gets when its parent ends.
pub fn set_parent_death_signal(signal: Option<Signal>) -> Result<()> {
    rustix::process::set_parent_process_death_signal(signal)
}

/// Pid of the caller, in its own pid namespace.
pub fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Waits for any child that has ended, without blocking: pid and how it ended.
pub fn reap_any() -> Result<Option<(i32, crate::pidfd::Exit)>> {
    use crate::pidfd::Exit;
    match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
        Ok(None) | Err(Errno::CHILD) => Ok(None),
        Ok(Some((pid, status))) => {
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Code(255),
            };
            Ok(Some((Pid::as_raw(Some(pid)), exit)))
        }
        Err(errno) => Err(errno),
    }
}

/// Sets soft and hard limit of a process. `resource`: a libc `RLIMIT_*` number.
pub fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: rustix has no resource by number. The new limit is ours and only read; no old one is asked for.
    check(
        unsafe { libc::prlimit(pid, resource as _, std::ptr::from_ref(&limit), std::ptr::null_mut()) }.into(),
    )
    .map(drop)
}

/// Soft and hard limit of a process.
pub fn rlimit(pid: i32, resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: prlimit writes one rlimit, which is ours, and sets none.
    let answer =
        unsafe { libc::prlimit(pid, resource as _, std::ptr::null(), std::ptr::from_mut(&mut limit)) };
    check(answer.into())?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets the supplementary groups, then all gids, then all uids of this process.
pub fn set_ids(uid: u32, gid: u32, groups: Option<&[u32]>) -> Result<()> {
    use rustix::fs::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    if let Some(groups) = groups {
        let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        set_thread_groups(&groups)?;
    }
    let (gid, uid) = (Gid::from_raw(gid), Uid::from_raw(uid));
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// Sets the architecture or behaviour bits of this process (personality(2)).
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: personality(2) takes an integer.
    check(unsafe { libc::personality(persona as libc::c_ulong) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_cloned() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        assert_eq!(clone(&Clone::default(), |_| 0).unwrap_err(), Errno::BUSY);
        drop(stop);
        thread.join().unwrap().unwrap_err();
    }
}
