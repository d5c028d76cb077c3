//! Pseudo terminals made from a devpts we hold, never by a path.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FileType, fstat, fstatfs, major, minor};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::fd::check;
use crate::{Errno, Result};

/// A terminal: `master` for who watches, `peer` for who lives on it.
#[derive(Debug)]
pub struct Pty {
    pub master: OwnedFd,
    pub peer: OwnedFd,
}

/// Makes a pair from an opened ptmx. The peer comes by TIOCGPTPEER, so nothing below /dev/pts is looked up
/// (CVE-2025-52565); that it is a ptmx of a devpts is checked, not believed.
///
/// # Errors
/// EINVAL: `ptmx` is something else.
pub fn from_ptmx(ptmx: OwnedFd) -> Result<Pty> {
    verify_ptmx(&ptmx)?;
    unlockpt(&ptmx)?;
    let peer = ioctl_tiocgptpeer(&ptmx, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    let status = fstat(&peer)?;
    // Unix98 pty slaves have majors 136 to 143 (kernel: Documentation/admin-guide/devices.txt).
    if FileType::from_raw_mode(status.st_mode) != FileType::CharacterDevice
        || !(136..=143).contains(&major(status.st_rdev))
    {
        return Err(Errno::INVAL);
    }
    Ok(Pty { master: ptmx, peer })
}

/// A ptmx is the character device 5:2, and inode 2 of its devpts.
fn verify_ptmx(ptmx: impl AsFd) -> Result<()> {
    let status = fstat(&ptmx)?;
    let is_device = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice
        && (major(status.st_rdev), minor(status.st_rdev)) == (5, 2);
    let on_devpts = fstatfs(&ptmx)?.f_type as u64 == libc::DEVPTS_SUPER_MAGIC as u64 && status.st_ino == 2;
    if is_device && on_devpts { Ok(()) } else { Err(Errno::INVAL) }
}

/// Rows and columns of a terminal.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
}

/// Makes a terminal the controlling one of this session (the caller leads a session without one).
pub fn set_controlling(terminal: impl AsFd) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer (0: do not steal); the descriptor is borrowed for the call.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY as _, 0) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags, openat};
    use rustix::mount::MountAttrFlags;

    fn devpts() -> OwnedFd {
        crate::mount::filesystem("devpts", "devpts", &[], MountAttrFlags::empty()).unwrap()
    }

    #[test]
    fn a_pair_comes_from_a_detached_devpts() {
        let ptmx =
            openat(devpts(), "ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let pty = from_ptmx(ptmx).unwrap();
        set_size(&pty.master, 24, 80).unwrap();
        rustix::io::write(&pty.peer, b"x").unwrap();
        let mut byte = [0; 1];
        rustix::io::read(&pty.master, &mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn cve_2025_52565_another_file_is_no_ptmx() {
        let null = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
        assert_eq!(from_ptmx(null.into()).unwrap_err(), Errno::INVAL);
    }
}
