//! Standard streams and the terminal.

use std::os::fd::{AsFd, BorrowedFd};

use corten_sys::pty::{self, Pty};
use corten_sys::{Context, Errno, Failure, Root, mount, scm};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchown, fstat, major, minor};

use super::child::{Common, ConsoleTo, Stdio};
use super::protocol::InitEnd;

/// Puts the given descriptors at 0, 1 and 2.
pub(super) fn connect_stdio(stdio: &Stdio) -> Result<(), Failure> {
    match stdio {
        Stdio::Inherit => Ok(()),
        Stdio::Fds { stdin, stdout, stderr } => place(stdin.as_fd(), stdout.as_fd(), stderr.as_fd()),
    }
}

fn place(stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>) -> Result<(), Failure> {
    rustix::stdio::dup2_stdin(stdin)
        .and_then(|()| rustix::stdio::dup2_stdout(stdout))
        .and_then(|()| rustix::stdio::dup2_stderr(stderr))
        .tried(|| "connect standard streams".into())
}

/// Makes a terminal from the container's own devpts, and for a new container shows it as /dev/console.
pub(super) fn make(common: &Common<'_>, root: &Root, as_console: bool) -> Result<Option<Pty>, Failure> {
    if matches!(common.console, ConsoleTo::Nobody) {
        return Ok(None);
    }
    let ptmx = root.open("dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY);
    let terminal = ptmx
        .and_then(pty::from_ptmx)
        .tried(|| "open a terminal from the container's /dev/pts/ptmx".into())
        .map_err(|failure| failure.hint("process.terminal needs a devpts mount at /dev/pts"))?;
    if as_console {
        let show = || -> Result<(), Errno> {
            let target = root.touch("dev/console", Mode::from(0o600))?;
            mount::attach(mount::clone_tree(&terminal.peer, false)?, target)
        };
        show().tried(|| "mount the terminal at /dev/console".into())?;
    }
    Ok(Some(terminal))
}

/// Hands the master out and makes the terminal the controlling one, with the user as its owner.
pub(super) fn attach(common: &Common<'_>, terminal: Option<Pty>, socket: &InitEnd) -> Result<(), Failure> {
    if let Some(terminal) = terminal {
        if let Some((rows, columns)) = common.process.console_size {
            pty::set_size(&terminal.master, rows, columns).tried(|| "set the size of the terminal".into())?;
        }
        match common.console {
            ConsoleTo::Socket(console) => {
                scm::send(console, b"/dev/ptmx", &[terminal.master.as_fd()])
                    .tried(|| "send the terminal to the console socket".into())?;
            }
            _ => socket
                .send_console(terminal.master.as_fd())
                .tried(|| "send the terminal to the parent".into())?,
        }
        let peer = terminal.peer.as_fd();
        place(peer, peer, peer)?;
        pty::set_controlling(peer).tried(|| "make the terminal the controlling one".into())?;
    }
    give_streams(common)
}

/// The user must be able to open /dev/stdout again. /dev/null belongs to everybody and stays as it is.
fn give_streams(common: &Common<'_>) -> Result<(), Failure> {
    let uid = common.process.ids.uid;
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let status = match fstat(stream) {
            Err(Errno::BADF) => continue,
            other => other.tried(|| "stat a standard stream".into())?,
        };
        let is_device = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice;
        let is_null = is_device && (major(status.st_rdev), minor(status.st_rdev)) == (1, 3);
        if is_null || status.st_uid == uid {
            continue;
        }
        match fchown(stream, Some(Uid::from_raw(uid)), None::<Gid>) {
            // A stream of somebody else's, on a read-only file system, or of an owner that is not mapped here.
            Ok(()) | Err(Errno::PERM | Errno::ROFS | Errno::INVAL) => {}
            Err(errno) => return Err(Failure::new("give a standard stream to the user", errno)),
        }
    }
    Ok(())
}
