//! Signal names, masks and dispositions.

use std::os::fd::OwnedFd;

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::fd::check;
use crate::{Errno, Result};

/// `TERM`, `SIGTERM`, `sigterm`, `15`, `SIGRTMIN+3` → number.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (0..=64).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(34, rest);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(64, rest);
    }
    NAMES.iter().find(|(_, known)| known[3..] == *name).map(|(number, _)| *number)
}

fn real_time(base: i32, offset: &str) -> Option<i32> {
    let offset = if offset.is_empty() { 0 } else { offset.parse::<i32>().ok()? };
    Some(base + offset).filter(|number| (34..=64).contains(number))
}

/// The name of a signal number, `SIGTERM` for 15.
pub fn name(number: i32) -> Option<&'static str> {
    NAMES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

macro_rules! names {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name))),*] };
}

const NAMES: &[(i32, &str)] = names! {
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM
    SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO
    SIGPWR SIGSYS
};

/// Every signal back to its default and unblocked, as a new program expects it (Rust ignores SIGPIPE).
pub fn reset_all() -> Result<()> {
    for number in 1..=64 {
        if matches!(number, libc::SIGKILL | libc::SIGSTOP | 32 | 33) {
            continue;
        }
        // SAFETY: SIG_DFL installs no code of ours. 32 and 33 belong to the C library and are refused by it.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// Blocks signals and returns a descriptor that reads them (close-on-exec, non-blocking).
pub fn signalfd(signals: &[i32]) -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for number in signals {
        set.add(nix::sys::signal::Signal::try_from(*number).map_err(|_| Errno::INVAL)?);
    }
    set.thread_block().map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// Blocks every signal and returns a descriptor that reads all of them.
pub fn signalfd_all() -> Result<SignalFd> {
    let set = SigSet::all();
    set.thread_block().map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// Sends a signal to a pid, which the caller must know to be alive and its own (prefer [`crate::pidfd`]).
pub fn send(pid: i32, number: i32) -> Result<()> {
    // SAFETY: kill(2) takes two integers.
    check(unsafe { libc::kill(pid, number) }.into()).map(drop)
}

/// A descriptor that counts (eventfd), for instance for v1 OOM notices.
pub fn eventfd() -> Result<OwnedFd> {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_parse_as_runc_takes_them() {
        let table = [
            ("KILL", Some(9)),
            ("SIGKILL", Some(9)),
            ("sigterm", Some(15)),
            ("15", Some(15)),
            ("0", Some(0)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("RTMAX", Some(64)),
            ("RTMAX+1", None),
            ("65", None),
            ("-1", None),
            ("SIGNOPE", None),
            ("", None),
        ];
        for (text, number) in table {
            assert_eq!(parse(text), number, "{text:?}");
        }
        assert_eq!(name(9), Some("SIGKILL"));
    }
}
