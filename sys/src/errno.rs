//! Errno names, and the one error that says what was tried, on what, and how it failed.

use std::fmt;

pub use rustix::io::Errno;

/// `mount proc at /proc: EPERM (Operation not permitted)`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// What was tried, and on what.
    pub tried: String,
    pub errno: Errno,
    /// Likely cause or remedy, where the caller knows one.
    pub hint: Option<&'static str>,
}

impl Failure {
    pub fn new(tried: impl Into<String>, errno: impl Into<Code>) -> Self {
        Self { tried: tried.into(), errno: errno.into().0, hint: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tried, describe(self.errno))?;
        self.hint.map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// Anything that carries an errno.
pub struct Code(pub Errno);

impl From<Errno> for Code {
    fn from(errno: Errno) -> Self {
        Self(errno)
    }
}

impl From<nix::errno::Errno> for Code {
    fn from(errno: nix::errno::Errno) -> Self {
        Self(Errno::from_raw_os_error(errno as i32))
    }
}

impl From<std::io::Error> for Code {
    fn from(error: std::io::Error) -> Self {
        Self(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

/// Adds to a bare errno what was tried.
pub trait Context<T> {
    fn tried(self, what: impl FnOnce() -> String) -> std::result::Result<T, Failure>;
}

impl<T, E: Into<Code>> Context<T> for std::result::Result<T, E> {
    fn tried(self, what: impl FnOnce() -> String) -> std::result::Result<T, Failure> {
        self.map_err(|errno| Failure::new(what(), errno))
    }
}

/// `ENOENT (No such file or directory)`.
pub fn describe(errno: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(errno.raw_os_error()).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    match name(errno) {
        Some(name) => format!("{name} ({text})"),
        None => format!("errno {} ({text})", errno.raw_os_error()),
    }
}

/// `strerror` alone, in lower case: how Go programs (and thus runc) print an errno.
pub fn text(errno: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(errno.raw_os_error()).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// The symbolic name of an errno, `ENOENT` for 2.
pub fn name(errno: Errno) -> Option<&'static str> {
    NAMES.iter().find(|(number, _)| *number == errno.raw_os_error()).map(|(_, name)| *name)
}

/// The errno of a symbolic name.
pub fn from_name(name: &str) -> Option<Errno> {
    NAMES.iter().find(|(_, known)| *known == name).map(|(number, _)| Errno::from_raw_os_error(*number))
}

macro_rules! names {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name))),*] };
}

const NAMES: &[(i32, &str)] = names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST
    EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM
    ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG
    EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG
    EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC
    ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE
    ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL
    ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT
    ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT
    ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL
    EHWPOISON
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_says_what_where_name_text_and_hint() {
        let failure = Failure::new("mount overlay at rootfs", Errno::INVAL).hint("upper and work differ");
        assert_eq!(
            failure.to_string(),
            "mount overlay at rootfs: EINVAL (Invalid argument) (upper and work differ)"
        );
    }

    #[test]
    fn names_go_both_ways() {
        for (number, name) in NAMES {
            assert_eq!(from_name(name).map(Errno::raw_os_error), Some(*number));
        }
        assert_eq!(name(Errno::from_raw_os_error(4000)), None);
        assert_eq!(text(Errno::NOENT), "no such file or directory");
    }
}
