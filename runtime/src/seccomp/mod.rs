//! seccomp: from `linux.seccomp` to a filter in the kernel, without libseccomp.
//!
//! [`Filter::new`] compiles (pure; in the parent, before clone); [`Filter::load`] is one system call that allocates
//! nothing (in the child). The semantics are those of runc with libseccomp, which the tests use as their oracle; where
//! this module departs from them, the place says so. It knows nothing of the order in which a container is set up.

mod arch;
mod compile;
mod default_profile;
#[cfg(test)]
mod interpreter;
mod listener;
mod program;
mod rules;
mod syscalls;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use corten_sys::seccomp::{self as sys, Instruction};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag as Flag};

pub use arch::Arch;
pub use default_profile::default_profile;
pub use listener::send_listener;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    #[error("linux.seccomp: argument index {index} is outside of 0 to 5")]
    ArgumentIndex { index: usize },
    #[error("linux.seccomp: errnoRet {errno} does not fit into 16 bits")]
    Errno { errno: u32 },
    #[error("linux.seccomp: {action} cannot return an errno: remove its errnoRet")]
    ErrnoRet { action: String },
    #[error(
        "linux.seccomp: SCMP_ACT_NOTIFY cannot be the default action: the notification itself would wait for one"
    )]
    NotifyDefault,
    #[error("linux.seccomp: SCMP_ACT_NOTIFY cannot be used for write: handing the descriptor over needs it")]
    NotifyWrite,
    #[error("linux.seccomp: SCMP_ACT_NOTIFY needs listenerPath, the socket that takes the notifications")]
    NoListener,
    #[error("linux.seccomp: {field} needs a rule with SCMP_ACT_NOTIFY")]
    NoNotify { field: &'static str },
    #[error(
        "linux.seccomp: the filter has {length} instructions, more than the kernel's {max}: name fewer arguments"
    )]
    TooLong { length: usize, max: usize },
}

/// A compiled filter, ready to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    program: Vec<Instruction>,
    flags: u32,
    listener: Option<PathBuf>,
}

impl Filter {
    /// Compile `linux.seccomp` for this machine.
    pub fn new(profile: &LinuxSeccomp) -> Result<Self, SeccompError> {
        let program = compile::compile(profile, Arch::native())?;
        if program.len() > sys::MAX_INSTRUCTIONS {
            return Err(SeccompError::TooLong { length: program.len(), max: sys::MAX_INSTRUCTIONS });
        }
        let notifies = program
            .iter()
            .any(|instruction| instruction.code == 0x06 && instruction.operand == rules::NOTIFY);
        let listener = profile.listener_path().clone().filter(|path| !path.as_os_str().is_empty());
        let metadata = profile.listener_metadata().as_ref().is_some_and(|metadata| !metadata.is_empty());
        match (notifies, &listener) {
            (true, None) => return Err(SeccompError::NoListener),
            (false, None) if metadata => return Err(SeccompError::NoNotify { field: "listenerMetadata" }),
            _ => {}
        }
        let flags = flags(profile.flags().as_deref(), notifies)?;
        Ok(Self { program, flags, listener: listener.filter(|_| notifies) })
    }

    /// Filter the calling thread from now on. With a listener the answer is the descriptor to give to
    /// [`send_listener`]. Allocates nothing.
    pub fn load(&self) -> corten_sys::Result<Option<OwnedFd>> {
        sys::load(&self.program, self.flags)
    }

    /// Where notifications go.
    pub fn listener(&self) -> Option<&Path> {
        self.listener.as_deref()
    }

    pub fn program(&self) -> &[Instruction] {
        &self.program
    }
}

/// Without any given: SPEC_ALLOW, as in runc since 1.2. The mitigation it turns off costs more than it protects from
/// (Linux 5.16 made that the kernel's own default).
fn flags(given: Option<&[Flag]>, notifies: bool) -> Result<u32, SeccompError> {
    let bits = |bits, flag: &Flag| {
        bits | match flag {
            Flag::SeccompFilterFlagLog => sys::LOG,
            Flag::SeccompFilterFlagTsync => sys::TSYNC,
            Flag::SeccompFilterFlagSpecAllow => sys::SPEC_ALLOW,
            Flag::SeccompFilterFlagWaitKillableRecv => sys::WAIT_KILLABLE_RECV,
        }
    };
    let mut flags = given.map_or(sys::SPEC_ALLOW, |given| given.iter().fold(0, bits));
    if notifies {
        flags |= sys::NEW_LISTENER;
        // The answer would be a thread id on failure and a descriptor on success: ask for an errno instead.
        if flags & sys::TSYNC != 0 {
            flags |= sys::TSYNC_ESRCH;
        }
    } else if flags & sys::WAIT_KILLABLE_RECV != 0 {
        return Err(SeccompError::NoNotify { field: "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" });
    }
    Ok(flags)
}
