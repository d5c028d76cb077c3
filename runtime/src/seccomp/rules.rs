//! From `linux.seccomp` to what happens to each call of one architecture. Pure.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator,
    LinuxSyscall,
};

use super::SeccompError;
use super::arch::Arch;
use super::syscalls::number;

/// `SECCOMP_RET_*` with its data, as a filter returns it.
pub type Return = u32;

/// One argument against a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// 0 to 5.
    pub index: u32,
    pub comparison: Comparison,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Comparison {
    Equal(u64),
    NotEqual(u64),
    AtLeast(u64),
    Greater(u64),
    Below(u64),
    AtMost(u64),
    MaskedEqual { mask: u64, value: u64 },
}

/// All conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub conditions: Vec<Condition>,
    pub action: Return,
}

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Always(Return),
    /// The first rule that holds; the default action if none does.
    First(Vec<Rule>),
}

/// The verdicts of one architecture by number (with its bit); every other call gets the default action.
pub type Verdicts = BTreeMap<u32, Verdict>;

/// # Errors
/// An argument index, an errno or a combination the specification does not allow.
pub fn verdicts(profile: &LinuxSeccomp, arch: Arch) -> Result<Verdicts, SeccompError> {
    let default = default_action(profile)?;
    let mut verdicts = Verdicts::new();
    for group in profile.syscalls().iter().flatten() {
        let action = action(group.action(), group.errno_ret())?;
        // As in runc: it could only take a call away from a rule that came before.
        if action == default {
            continue;
        }
        let alternatives = alternatives(group)?;
        for name in group.names() {
            if action == NOTIFY && name == "write" {
                return Err(SeccompError::NotifyWrite);
            }
            // A name this architecture does not have is no error, as in runc: profiles name the calls of all.
            for (number, conditions) in entries(name, arch, &alternatives) {
                insert(&mut verdicts, number, conditions, action);
            }
        }
    }
    Ok(verdicts)
}

/// The unconditional rule wins over conditional ones, and among equals the first, as in libseccomp.
fn insert(verdicts: &mut Verdicts, number: u32, conditions: Vec<Condition>, action: Return) {
    let verdict = verdicts.entry(number).or_insert_with(|| Verdict::First(Vec::new()));
    match verdict {
        Verdict::Always(_) => {}
        Verdict::First(_) if conditions.is_empty() => *verdict = Verdict::Always(action),
        Verdict::First(rules) => rules.push(Rule { conditions, action }),
    }
}

/// The numbers that `name` has, each with the conditions of one rule. The 32-bit x86 has socket and System V IPC calls
/// twice: by themselves, and as the first argument of `socketcall` and `ipc`.
fn entries(name: &str, arch: Arch, alternatives: &[Vec<Condition>]) -> Vec<(u32, Vec<Condition>)> {
    let mut entries = Vec::new();
    if let Some(number) = number(name, arch) {
        entries.extend(alternatives.iter().map(|conditions| (number | arch.bit(), conditions.clone())));
    }
    if let Some((carrier, call)) = multiplexed(name).filter(|_| arch == Arch::I386) {
        let number = number(carrier, arch).expect("the table has socketcall and ipc on i386");
        // Its own arguments are in memory (socketcall) or one place further (ipc): out of reach, as for libseccomp.
        entries.push((number, vec![Condition { index: 0, comparison: Comparison::Equal(call) }]));
    }
    entries
}

/// `SYS_*` of <linux/net.h> and the operations of ipc(2).
fn multiplexed(name: &str) -> Option<(&'static str, u64)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 11] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
    ];
    if let Some(at) = SOCKET.iter().position(|socket| *socket == name) {
        return Some(("socketcall", at as u64 + 1));
    }
    if name == "shmctl" {
        return Some(("ipc", 24));
    }
    IPC.iter().find(|(ipc, _)| *ipc == name).map(|(_, call)| ("ipc", *call))
}

/// The conditions of a group: one set of which all must hold. If one argument is named twice, each condition is a
/// rule of its own, as in runc: profiles written before conditions were combined rely on it.
fn alternatives(group: &LinuxSyscall) -> Result<Vec<Vec<Condition>>, SeccompError> {
    let conditions = group.args().iter().flatten().map(condition).collect::<Result<Vec<_>, _>>()?;
    let repeated = |at: usize| conditions[..at].iter().any(|earlier| earlier.index == conditions[at].index);
    if (0..conditions.len()).any(repeated) {
        return Ok(conditions.into_iter().map(|condition| vec![condition]).collect());
    }
    Ok(vec![conditions])
}

fn condition(arg: &LinuxSeccompArg) -> Result<Condition, SeccompError> {
    if arg.index() > 5 {
        return Err(SeccompError::ArgumentIndex { index: arg.index() });
    }
    let value = arg.value();
    let comparison = match arg.op() {
        Operator::ScmpCmpEq => Comparison::Equal(value),
        Operator::ScmpCmpNe => Comparison::NotEqual(value),
        Operator::ScmpCmpGe => Comparison::AtLeast(value),
        Operator::ScmpCmpGt => Comparison::Greater(value),
        Operator::ScmpCmpLt => Comparison::Below(value),
        Operator::ScmpCmpLe => Comparison::AtMost(value),
        Operator::ScmpCmpMaskedEq => {
            Comparison::MaskedEqual { mask: value, value: arg.value_two().unwrap_or(0) }
        }
    };
    Ok(Condition { index: arg.index() as u32, comparison })
}

pub const KILL_THREAD: Return = 0;
pub const ERRNO: Return = 0x0005_0000;
pub const ALLOW: Return = 0x7fff_0000;
pub const NOTIFY: Return = 0x7fc0_0000;
const KILL_PROCESS: Return = 0x8000_0000;
const TRAP: Return = 0x0003_0000;
const TRACE: Return = 0x7ff0_0000;
const LOG: Return = 0x7ffc_0000;

pub fn default_action(profile: &LinuxSeccomp) -> Result<Return, SeccompError> {
    match action(profile.default_action(), profile.default_errno_ret())? {
        NOTIFY => Err(SeccompError::NotifyDefault),
        action => Ok(action),
    }
}

fn action(action: Action, errno: Option<u32>) -> Result<Return, SeccompError> {
    let data = match (action, errno) {
        (Action::ScmpActErrno | Action::ScmpActTrace, None) => libc::EPERM as u32,
        (Action::ScmpActErrno | Action::ScmpActTrace, Some(errno)) => {
            u16::try_from(errno).map_err(|_| SeccompError::Errno { errno })?.into()
        }
        (_, None) => 0,
        (action, Some(_)) => return Err(SeccompError::ErrnoRet { action: action.to_string() }),
    };
    let code = match action {
        Action::ScmpActKill | Action::ScmpActKillThread => KILL_THREAD,
        Action::ScmpActKillProcess => KILL_PROCESS,
        Action::ScmpActTrap => TRAP,
        Action::ScmpActErrno => ERRNO,
        Action::ScmpActNotify => NOTIFY,
        Action::ScmpActTrace => TRACE,
        Action::ScmpActLog => LOG,
        Action::ScmpActAllow => ALLOW,
    };
    Ok(code | data)
}

/// The highest number that any rule of the profile names: its author knew no newer call. `None`: the default action
/// is lenient to new calls, or is ENOSYS already, so there is nothing to make up for.
pub fn newest_known(profile: &LinuxSeccomp, arch: Arch) -> Option<u32> {
    let enosys = profile.default_errno_ret() == Some(libc::ENOSYS as u32);
    match profile.default_action() {
        Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace => return None,
        Action::ScmpActErrno if enosys => return None,
        _ => {}
    }
    let names = profile.syscalls().iter().flatten().flat_map(LinuxSyscall::names);
    names.filter_map(|name| number(name, arch)).max()
}
