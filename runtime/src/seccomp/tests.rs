//! The compiler against libseccomp, over all call numbers; the filter against the kernel.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use corten_sys::seccomp::Instruction;
use oci_spec::runtime::{Capability, LinuxSeccomp};

use super::arch::{Arch, X32_BIT};
use super::compile::compile_with;
use super::interpreter::run;
use super::rules::{self, Comparison, Verdict};
use super::{Filter, SeccompError, default_profile};

fn profile(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).expect("profile")
}

/// The helper program, built once a run; `None` where there is no compiler or no libseccomp.
fn oracle() -> Option<&'static PathBuf> {
    static ORACLE: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let built = ORACLE.get_or_init(|| {
        let dir = tempfile::tempdir().ok()?;
        let (source, program) = (dir.path().join("oracle.c"), dir.path().join("oracle"));
        std::fs::write(&source, include_str!("oracle.c")).ok()?;
        let status = Command::new("cc")
            .arg("-o")
            .arg(&program)
            .arg(&source)
            .arg("-lseccomp")
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success()).then_some((dir, program))
    });
    if built.is_none() {
        println!("SKIP: no cc or no libseccomp (Debian: gcc libseccomp-dev) to compare with");
    }
    built.as_ref().map(|(_, program)| program)
}

fn oracle_token(arch: Arch) -> u32 {
    match arch {
        Arch::X32 => 0x4000_003e,
        arch => arch.audit(),
    }
}

/// What libseccomp makes of the same rules.
fn oracle_program(oracle: &PathBuf, profile: &LinuxSeccomp, arches: &[Arch]) -> Vec<Instruction> {
    let mut text = format!("default {}\n", rules::default_action(profile).unwrap());
    for arch in arches {
        writeln!(text, "arch {}", oracle_token(*arch)).unwrap();
    }
    for group in profile.syscalls().iter().flatten() {
        let action = group.action().as_u32(group.errno_ret());
        if action == rules::default_action(profile).unwrap() {
            continue;
        }
        let args = group.args().clone().unwrap_or_default();
        let repeated = args
            .iter()
            .enumerate()
            .any(|(at, arg)| args[..at].iter().any(|earlier| earlier.index() == arg.index()));
        let sets: Vec<Vec<_>> =
            if repeated { args.iter().map(|arg| vec![*arg]).collect() } else { vec![args] };
        for name in group.names() {
            for set in &sets {
                write!(text, "rule {} {name} {}", action, set.len()).unwrap();
                for arg in set {
                    write!(
                        text,
                        " {} {} {} {}",
                        arg.index(),
                        arg.op() as u32,
                        arg.value(),
                        arg.value_two().unwrap_or(0)
                    )
                    .unwrap();
                }
                text.push('\n');
            }
        }
    }
    let mut child = Command::new(oracle).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let instruction = |bytes: &[u8]| Instruction {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]),
        jump_true: bytes[2],
        jump_false: bytes[3],
        operand: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    output.stdout.chunks_exact(8).map(instruction).collect()
}

/// Argument values on both sides of every number that a rule names.
fn interesting(profile: &LinuxSeccomp, arch: Arch) -> Vec<u64> {
    let mut values = vec![0, 1, u64::MAX, u64::from(u32::MAX), 1 << 32];
    for verdict in rules::verdicts(profile, arch).unwrap().values() {
        let Verdict::First(rules) = verdict else { continue };
        for condition in rules.iter().flat_map(|rule| &rule.conditions) {
            let (Comparison::Equal(value)
            | Comparison::NotEqual(value)
            | Comparison::AtLeast(value)
            | Comparison::Greater(value)
            | Comparison::Below(value)
            | Comparison::AtMost(value)
            | Comparison::MaskedEqual { value, .. }) = condition.comparison;
            values.extend([
                value,
                value.wrapping_add(1),
                value.wrapping_sub(1),
                value | 1 << 40,
                value | 1 << 4,
            ]);
        }
    }
    values.sort_unstable();
    values.dedup();
    values
}

fn same_as_oracle(profile: &LinuxSeccomp, arches: &[Arch]) {
    let Some(oracle) = oracle() else { return };
    let mut profile = profile.clone();
    profile.set_architectures(Some(arches.iter().map(|arch| to_oci(*arch)).collect()));
    let theirs = oracle_program(oracle, &profile, arches);
    let ours = compile_with(&profile, arches[0], false).unwrap();
    for arch in Arch::ALL {
        let values = interesting(&profile, arch);
        let verdicts = rules::verdicts(&profile, arch).unwrap();
        // The library may be older than the newest calls: uretprobe, and all after set_mempolicy_home_node.
        let numbers = (0..450u32).filter(|number| *number != 335).map(|number| number | arch.bit()).chain([
            u32::MAX,
            X32_BIT - 1,
            X32_BIT + 5000,
        ]);
        for number in numbers {
            let conditional = matches!(verdicts.get(&number), Some(Verdict::First(_)));
            let combinations = if conditional { values.len() * 2 } else { 1 };
            for pick in 0..combinations {
                let at = |step: usize| values[(pick / 2 * step + pick % 2 * step) % values.len()];
                let arguments = [values[pick % values.len()], at(2), at(3), at(5), at(7), at(11)];
                let expected = run(&theirs, number, arch.audit(), arguments);
                let got = run(&ours, number, arch.audit(), arguments);
                assert_eq!(
                    got, expected,
                    "{arch:?} {number:#x} {arguments:x?} of {arches:?}: ours (left), libseccomp (right)"
                );
            }
        }
    }
}

fn to_oci(arch: Arch) -> oci_spec::runtime::Arch {
    use oci_spec::runtime::Arch as Oci;
    match arch {
        Arch::X86_64 => Oci::ScmpArchX86_64,
        Arch::X32 => Oci::ScmpArchX32,
        Arch::I386 => Oci::ScmpArchX86,
        Arch::Aarch64 => Oci::ScmpArchAarch64,
    }
}

const SETS: [&[Arch]; 4] = [
    &[Arch::X86_64],
    &[Arch::X86_64, Arch::I386, Arch::X32],
    &[Arch::Aarch64],
    &[Arch::X86_64, Arch::Aarch64, Arch::I386],
];

#[test]
fn the_default_profile_is_what_libseccomp_makes_of_it() {
    for capabilities in [HashSet::new(), HashSet::from([Capability::SysAdmin, Capability::SysPtrace])] {
        for arches in SETS {
            same_as_oracle(&default_profile(&capabilities), arches);
        }
    }
}

#[test]
fn every_operator_compares_as_libseccomp_does() {
    for (op, value, two) in [
        ("EQ", 5u64, 0u64),
        ("NE", 5, 0),
        ("LT", 5, 0),
        ("LE", 5, 0),
        ("GE", 5, 0),
        ("GT", 5, 0),
        ("EQ", 0x1_0000_0005, 0),
        ("NE", 0x1_0000_0005, 0),
        ("LT", 0x1_0000_0005, 0),
        ("LE", 0x1_0000_0005, 0),
        ("GE", 0x1_0000_0005, 0),
        ("GT", 0x1_0000_0005, 0),
        ("GT", 0xffff_ffff, 0),
        ("LE", u64::MAX, 0),
        ("MASKED_EQ", 0xf0, 0x50),
        ("MASKED_EQ", 0x7e02_0000, 0),
        ("MASKED_EQ", 0xf0_0000_00f0, 0x50_0000_0050),
        ("MASKED_EQ", 0xff_0000_0000, 0x5_0000_0000),
    ] {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"syscalls":[{{"names":["prctl"],"action":"SCMP_ACT_ALLOW",
               "args":[{{"index":1,"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}]}}]}}"#
        );
        same_as_oracle(&profile(&json), &[Arch::X86_64]);
        same_as_oracle(&profile(&json), &[Arch::Aarch64]);
        if u32::try_from(value).is_ok() {
            same_as_oracle(&profile(&json), &[Arch::X86_64, Arch::I386, Arch::X32]);
        }
    }
}

#[test]
fn conditions_are_anded_rules_are_ored_and_the_unconditional_rule_wins() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
        {"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":3,"op":"SCMP_CMP_EQ"},{"index":1,"value":7,"op":"SCMP_CMP_GE"}]},
        {"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":2,"value":9,"op":"SCMP_CMP_EQ"}]},
        {"names":["fcntl"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]},
        {"names":["mmap"],"action":"SCMP_ACT_ALLOW","args":[{"index":2,"value":4,"op":"SCMP_CMP_EQ"}]},
        {"names":["mmap"],"action":"SCMP_ACT_ALLOW"},
        {"names":["read"],"action":"SCMP_ACT_ALLOW"},
        {"names":["read"],"action":"SCMP_ACT_TRAP","args":[{"index":0,"value":4,"op":"SCMP_CMP_EQ"}]},
        {"names":["write"],"action":"SCMP_ACT_ERRNO"}]}"#;
    for arches in SETS {
        same_as_oracle(&profile(json), arches);
    }
}

#[test]
fn every_action_is_returned() {
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["getpid"],"action":"SCMP_ACT_KILL"},{"names":["getppid"],"action":"SCMP_ACT_KILL_PROCESS"},
        {"names":["getuid"],"action":"SCMP_ACT_KILL_THREAD"},{"names":["getgid"],"action":"SCMP_ACT_TRAP"},
        {"names":["geteuid"],"action":"SCMP_ACT_ERRNO"},{"names":["getegid"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
        {"names":["gettid"],"action":"SCMP_ACT_TRACE","errnoRet":7},{"names":["getsid"],"action":"SCMP_ACT_LOG"},
        {"names":["uname"],"action":"SCMP_ACT_NOTIFY"},{"names":["no_such_call_ever"],"action":"SCMP_ACT_KILL"}]}"#;
    for arches in SETS {
        same_as_oracle(&profile(json), arches);
    }
}

#[test]
fn the_calls_of_sockets_and_ipc_are_found_behind_their_carriers_on_i386() {
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["socket","accept4","sendmmsg","recv","shmctl","semop","msgget","semtimedop"],"action":"SCMP_ACT_ERRNO","errnoRet":97}]}"#;
    same_as_oracle(&profile(json), &[Arch::X86_64, Arch::I386]);
    // The arguments of socket are out of reach there, so that its rule holds for all of them.
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket","semget"],"action":"SCMP_ACT_ERRNO",
        "args":[{"index":0,"value":40,"op":"SCMP_CMP_EQ"}]}]}"#;
    same_as_oracle(&profile(json), &[Arch::X86_64, Arch::I386, Arch::X32]);
}

#[test]
fn newer_calls_than_the_profile_knows_answer_enosys() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","statx"],"action":"SCMP_ACT_ALLOW"}],
                   "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"]}"#;
    let program = compile_with(&profile(json), Arch::X86_64, true).unwrap();
    let answer = |arch: Arch, number: u32| run(&program, number, arch.audit(), [0; 6]);
    let (eperm, enosys) = (rules::ERRNO + 1, rules::ERRNO + 38);
    for (arch, number, action) in [
        (Arch::X86_64, 332, rules::ALLOW),
        (Arch::X86_64, 331, eperm),
        (Arch::X86_64, 333, enosys),
        (Arch::X86_64, 435, enosys),
        (Arch::X86_64, X32_BIT | 5, enosys),
        (Arch::X86_64, u32::MAX, enosys),
        (Arch::I386, 383, rules::ALLOW),
        (Arch::I386, 384, enosys),
        (Arch::Aarch64, 63, rules::KILL_THREAD),
    ] {
        assert_eq!(answer(arch, number), action, "{arch:?} {number}");
    }
    for lenient in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
        let json = json
            .replace("\"defaultAction\":\"SCMP_ACT_ERRNO\"", &format!("\"defaultAction\":\"{lenient}\""))
            .replace("_ACT_ALLOW\"}],", "_ACT_KILL\"}],");
        let program = compile_with(&profile(&json), Arch::X86_64, true).unwrap();
        assert_ne!(run(&program, 435, Arch::X86_64.audit(), [0; 6]), enosys);
    }
}

#[test]
fn no_call_passes_more_than_a_dozen_comparisons_and_the_program_is_short() {
    let filter = Filter::new(&default_profile(&HashSet::new())).unwrap();
    println!("default profile: {} instructions", filter.program().len());
    assert!(filter.program().len() < 700, "{}", filter.program().len());
}

#[test]
fn what_the_specification_does_not_allow_is_refused() {
    let rule = |rule: &str| profile(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#));
    let index = rule(
        r#"{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}"#,
    );
    assert_eq!(Filter::new(&index).unwrap_err(), SeccompError::ArgumentIndex { index: 6 });
    let errno = rule(r#"{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":65536}"#);
    assert_eq!(Filter::new(&errno).unwrap_err(), SeccompError::Errno { errno: 65536 });
    let kill = rule(r#"{"names":["read"],"action":"SCMP_ACT_KILL","errnoRet":1}"#);
    assert!(Filter::new(&kill).unwrap_err().to_string().contains("SCMP_ACT_KILL cannot return an errno"));
    let notify = rule(r#"{"names":["read"],"action":"SCMP_ACT_NOTIFY"}"#);
    assert_eq!(Filter::new(&notify).unwrap_err(), SeccompError::NoListener);
    let write = rule(r#"{"names":["write"],"action":"SCMP_ACT_NOTIFY"}"#);
    assert_eq!(Filter::new(&write).unwrap_err(), SeccompError::NotifyWrite);
    assert_eq!(
        Filter::new(&profile(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#)).unwrap_err(),
        SeccompError::NotifyDefault
    );
    let killable =
        profile(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#);
    assert!(matches!(Filter::new(&killable).unwrap_err(), SeccompError::NoNotify { .. }));
}

/// Load a filter in a thread of its own (a filter is a thread's) and tell what `call` answers there.
fn in_filtered_thread<T: Send + 'static>(
    json: &str,
    call: impl FnOnce(Option<std::os::fd::OwnedFd>) -> T + Send + 'static,
) -> T {
    let filter = Filter::new(&profile(json)).unwrap();
    let thread = std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        call(filter.load().unwrap())
    });
    thread.join().unwrap()
}

#[test]
fn the_kernel_takes_the_filter_and_answers_its_errno() {
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW"],"syscalls":[
        {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28},
        {"names":["umask"],"action":"SCMP_ACT_ERRNO","errnoRet":11,"args":[{"index":0,"value":63,"op":"SCMP_CMP_EQ"}]}]}"#;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let errno = in_filtered_thread(json, move |_| std::fs::create_dir(path).unwrap_err().raw_os_error());
    assert_eq!(errno, Some(libc::ENOSPC));
}

#[test]
fn the_kernel_takes_the_default_profile() {
    let filter = Filter::new(&default_profile(&HashSet::new())).unwrap();
    let answer = std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        filter.load().unwrap();
        // unshare needs CAP_SYS_ADMIN in the profile; everything a Rust thread does to end is allowed.
        corten_sys::ns::unshare(libc::CLONE_NEWUTS as u32).unwrap_err()
    });
    assert_eq!(answer.join().unwrap(), corten_sys::Errno::PERM);
}

#[test]
fn notifications_come_by_the_descriptor_that_load_returns() {
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/agent.sock","flags":["SECCOMP_FILTER_FLAG_TSYNC"],"syscalls":[
        {"names":["getsid"],"action":"SCMP_ACT_NOTIFY"}]}"#;
    assert_eq!(Filter::new(&profile(json)).unwrap().flags & super::sys::TSYNC_ESRCH, super::sys::TSYNC_ESRCH);
    // Without TSYNC: it would filter the whole test runner.
    let json = json.replace("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW");
    assert_eq!(Filter::new(&profile(&json)).unwrap().listener().unwrap().to_str(), Some("/run/agent.sock"));
    let listener = in_filtered_thread(&json, |listener| listener);
    let flags = rustix::io::fcntl_getfd(listener.expect("a descriptor")).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}
