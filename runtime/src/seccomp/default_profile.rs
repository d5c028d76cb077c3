//! The profile behind CRI's `RuntimeDefault`: what containerd and Docker allow, as names and conditions.

use std::collections::HashSet;
use std::hash::BuildHasher;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator as Operator, LinuxSyscall, LinuxSyscallBuilder,
};

/// The default profile for a process whose bounding set is `capabilities`. Calls it does not name answer EPERM.
pub fn default_profile<S: BuildHasher>(capabilities: &HashSet<Capability, S>) -> LinuxSeccomp {
    let mut calls = vec![allow(ALWAYS, &[])];
    if cfg!(target_arch = "x86_64") {
        calls.push(allow("arch_prctl modify_ldt", &[]));
    }
    // Persona: Linux, 32-bit Linux, each with ADDR_NO_RANDOMIZE or not, and the question which one it is.
    for persona in [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        calls.push(allow("personality", &[argument(0, Operator::ScmpCmpEq, persona, None)]));
    }
    // AF_VSOCK reaches the host of a virtual machine past every network policy.
    calls.push(allow("socket", &[argument(0, Operator::ScmpCmpNe, libc::AF_VSOCK as u64, None)]));
    for (capability, names) in BY_CAPABILITY {
        if capabilities.contains(capability) {
            calls.push(allow(names, &[]));
        }
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        calls.push(allow("clone", &[argument(0, Operator::ScmpCmpMaskedEq, NAMESPACES, Some(0))]));
        // Its flags are in memory, out of a filter's reach. ENOSYS makes C libraries use clone.
        calls.push(call("clone3", Action::ScmpActErrno, Some(libc::ENOSYS as u32), &[]));
    }
    let arches = if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    };
    LinuxSeccompBuilder::default()
        .default_action(Action::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .architectures(arches)
        .syscalls(calls)
        .build()
        .expect("every field of the builder has a default")
}

fn allow(names: &str, args: &[LinuxSeccompArg]) -> LinuxSyscall {
    call(names, Action::ScmpActAllow, None, args)
}

fn call(names: &str, action: Action, errno: Option<u32>, args: &[LinuxSeccompArg]) -> LinuxSyscall {
    let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    let builder = LinuxSyscallBuilder::default().names(names).action(action);
    let mut call = builder.build().expect("every field of the builder has a default");
    call.set_errno_ret(errno);
    call.set_args((!args.is_empty()).then(|| args.to_vec()));
    call
}

fn argument(index: usize, op: Operator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(index).value(value).op(op);
    let builder = match value_two {
        Some(value) => builder.value_two(value),
        None => builder,
    };
    builder.build().expect("every field of the builder has a default")
}

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACES: u64 = 0x7e02_0000;

const BY_CAPABILITY: &[(Capability, &str)] = &[
    (Capability::Bpf, "bpf"),
    (Capability::DacReadSearch, "open_by_handle_at"),
    (Capability::Perfmon, "perf_event_open"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie mount mount_setattr
         move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname setns
         statmount syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    (Capability::SysRawio, "ioperm iopl"),
    (Capability::SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::Syslog, "syslog"),
];

/// ptrace and process_vm_* are safe for everybody since Linux 4.8, where a tracer can no longer get around a filter.
const ALWAYS: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
    futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid
    getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
    getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt
    get_thread_area gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init
    inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64
    ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr listxattrat llistxattr _llseek
    lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore
    mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open
    mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat
    openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64
    prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6
    pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall
    rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max
    sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid
    setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address
    setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigpending
    sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat sync
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime
    utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(profile: &LinuxSeccomp, name: &str) -> bool {
        let calls = profile.syscalls().as_ref().unwrap();
        let unconditional =
            |call: &&LinuxSyscall| call.action() == Action::ScmpActAllow && call.args().is_none();
        calls.iter().filter(unconditional).any(|call| call.names().iter().any(|known| known == name))
    }

    #[test]
    fn capabilities_open_their_calls() {
        let none = default_profile(&HashSet::<Capability>::new());
        let admin = default_profile(&HashSet::from([Capability::SysAdmin]));
        for (name, to_all, to_admin) in [
            ("read", true, true),
            ("mount", false, true),
            ("clone", false, true),
            ("clone3", false, true),
            ("io_uring_setup", false, false),
            ("keyctl", false, false),
            ("userfaultfd", false, false),
            ("kexec_load", false, false),
            ("reboot", false, false),
        ] {
            assert_eq!((allows(&none, name), allows(&admin, name)), (to_all, to_admin), "{name}");
        }
    }

    #[test]
    fn every_name_is_a_call_somewhere() {
        let historic = ["epoll_ctl_old", "epoll_wait_old", "getsid", "recv", "send", "sigpending"];
        let names = BY_CAPABILITY
            .iter()
            .flat_map(|(_, names)| names.split_whitespace())
            .chain(ALWAYS.split_whitespace());
        for name in names.filter(|name| !historic.contains(name)) {
            assert!(
                super::super::syscalls::TABLE.binary_search_by_key(&name, |(known, _)| known).is_ok(),
                "{name}"
            );
        }
    }
}
