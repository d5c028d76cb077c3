//! Ends of children: ours, and orphans of the containers that the kernel gave us as their subreaper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use corten_sys::pidfd::Exit as Ended;
use corten_sys::{process, signal};
use nix::sys::signalfd::SignalFd;

use crate::protocol::Exit;
use crate::timestamp::now_unix_nanos;

/// Blocks every signal and hears of them by a descriptor, so that none can interrupt or end the monitor: it ends by
/// request, or by SIGKILL.
#[derive(Debug)]
pub struct Reaper {
    signals: SignalFd,
}

impl Reaper {
    pub fn new() -> io::Result<Self> {
        Ok(Self { signals: signal::signalfd_all()? })
    }

    /// Reaps every child that has ended: pid and how.
    pub fn reap(&self) -> Vec<(i32, Exit)> {
        // One SIGCHLD may stand for many ends; what woke us is read away first, so that a later end wakes us again.
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let mut ended = Vec::new();
        while let Ok(Some((pid, exit))) = process::reap_any() {
            ended.push((pid, exit_now(exit)));
        }
        ended
    }
}

impl AsFd for Reaper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

/// An end that is being noticed now.
pub fn exit_now(ended: Ended) -> Exit {
    let signal = match ended {
        Ended::Code(_) => None,
        Ended::Signal(number) => Some(number),
    };
    let finished_at_unix_nanos = now_unix_nanos();
    Exit { code: ended.shell_code(), signal, oom_killed: false, finished_at_unix_nanos }
}
