//! A command that lives as long as the process it started: signals go on to it, its terminal is ours, its exit is ours.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use corten_sys::pidfd::{self, Exit};
use corten_sys::{Errno, process, pty, signal};
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Whether config.json asks for a terminal. A file that cannot be read is `create`'s to complain of.
pub fn wants_terminal(config: &Path) -> bool {
    let spec = corten_runtime::bundle::load_spec(config).ok();
    spec.and_then(|spec| spec.value.process().as_ref().and_then(oci_spec::runtime::Process::terminal))
        .unwrap_or(false)
}

/// Processes that the container's first one leaves behind become ours, and are reaped.
pub fn become_subreaper() -> anyhow::Result<()> {
    process::set_subreaper(true).context("prctl PR_SET_CHILD_SUBREAPER")
}

/// To be called before the process is made, so that no signal is lost.
pub fn catch_signals() -> anyhow::Result<SignalFd> {
    signal::signalfd_all().context("block signals")
}

/// Passes signals and terminal until the process has ended, and reaps it.
pub fn accompany(process: &OwnedFd, console: Option<OwnedFd>, signals: &SignalFd) -> anyhow::Result<Exit> {
    let terminal = console.map(Terminal::open).transpose().context("set up the terminal")?;
    let exit = loop {
        let mut fds = vec![PollFd::new(process, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if let Some(terminal) = &terminal {
            fds.push(PollFd::new(&terminal.master, PollFlags::IN));
            if terminal.input_open.get() {
                fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
            }
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => other.context("poll")?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if let Some(terminal) = &terminal {
            if ready[2] {
                terminal.copy_output();
            }
            if ready.get(3) == Some(&true) {
                terminal.copy_input();
            }
        }
        if ready[1] {
            forward(signals, process, terminal.as_ref());
        }
        if ready[0] {
            break pidfd::reap(process).context("wait")?;
        }
    };
    if let Some(terminal) = &terminal {
        terminal.drain();
    }
    Ok(exit)
}

fn forward(signals: &SignalFd, process: &OwnedFd, terminal: Option<&Terminal>) {
    while let Ok(Some(info)) = signals.read_signal() {
        match info.ssi_signo as i32 {
            // Our own children: the process itself is seen by its pidfd, the others are only reaped with us.
            libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG => {}
            libc::SIGWINCH => terminal.iter().for_each(|terminal| terminal.copy_size()),
            number => {
                // It may have ended meanwhile.
                let _ = pidfd::send_signal(process, number);
            }
        }
    }
}

/// Our terminal in raw mode, joined to the container's.
struct Terminal {
    master: OwnedFd,
    saved: Option<Termios>,
    input_open: std::cell::Cell<bool>,
}

impl Terminal {
    fn open(master: OwnedFd) -> Result<Self, Errno> {
        let stdin = rustix::stdio::stdin();
        let saved = if isatty(stdin) { Some(tcgetattr(stdin)?) } else { None };
        let terminal = Self { master, saved, input_open: true.into() };
        if let Some(mut raw) = terminal.saved.clone() {
            raw.make_raw();
            tcsetattr(stdin, OptionalActions::Now, &raw)?;
        }
        terminal.copy_size();
        Ok(terminal)
    }

    fn copy_size(&self) {
        if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
            // A terminal that has gone away has no size to set.
            let _ = pty::set_size(&self.master, size.ws_row, size.ws_col);
        }
    }

    /// False at the end.
    fn copy_output(&self) -> bool {
        let mut buffer = [0; 8192];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(count) if count > 0 => write_all(rustix::stdio::stdout(), &buffer[..count]),
            _ => false,
        }
    }

    fn copy_input(&self) {
        let mut buffer = [0; 8192];
        let open = match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(count) if count > 0 => write_all(self.master.as_fd(), &buffer[..count]),
            _ => false,
        };
        self.input_open.set(open);
    }

    /// What the process wrote before it ended is still in the terminal.
    fn drain(&self) {
        loop {
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let none_left = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            match poll(&mut fds, Some(&none_left)) {
                Ok(1..) if fds[0].revents().contains(PollFlags::IN) && self.copy_output() => {}
                _ => return,
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, saved);
        }
    }
}

fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
