//! An errno that prints its name and meaning and, where one is likely, the remedy.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Errno(pub corten_sys::Errno);

impl From<corten_sys::Errno> for Errno {
    fn from(errno: corten_sys::Errno) -> Self {
        Self(errno)
    }
}

impl From<&std::io::Error> for Errno {
    fn from(error: &std::io::Error) -> Self {
        Self(corten_sys::Errno::from_io_error(error).unwrap_or(corten_sys::Errno::IO))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&corten_sys::errno::describe(self.0))?;
        match self.0 {
            corten_sys::Errno::NOSPC => {
                f.write_str(": remove images, or give the image store a bigger file system")
            }
            corten_sys::Errno::PERM => {
                f.write_str(": root with CAP_MKNOD, CAP_CHOWN and CAP_SYS_ADMIN is needed")
            }
            _ => Ok(()),
        }
    }
}
