//! What parent and init say to each other, one message a packet.
//!
//! ```text
//! parent                         init
//!                                (is in its namespaces)
//! Mapped        ──────────────>  only with a new user namespace: ids are mapped
//!               <──────────────  Warning (any number, any time)
//!               <──────────────  RunHooks: mounts are done; only when there are hooks
//! HooksDone     ──────────────>
//!               <──────────────  Console + descriptor: only with a terminal
//!               <──────────────  Listener: number of its seccomp notify descriptor, which the parent fetches
//!               <──────────────  Ready, or Failed
//! Go            ──────────────>  the record is written
//!               <── end of file  the program is executed (exec), or init waits at its gate (create)
//! ```
//! An end of file before `Ready` means that init was killed; before `Go`, that the parent was, and init ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use corten_sys::{Errno, scm};

/// Longest message; a warning or an error is cut there.
const LIMIT: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromInit {
    Warning(String),
    RunHooks,
    Console,
    /// Sent by number and in one write(2), which is all that a filter with notifications is sure to let through.
    Listener(i32),
    Ready,
    Failed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToInit {
    Mapped,
    HooksDone,
    Go,
}

impl FromInit {
    fn encode(&self) -> Vec<u8> {
        let number;
        let (tag, text) = match self {
            Self::Warning(text) => (b'W', text.as_str()),
            Self::Listener(fd) => {
                number = fd.to_string();
                (b'L', number.as_str())
            }
            Self::RunHooks => (b'H', ""),
            Self::Console => (b'C', ""),
            Self::Ready => (b'R', ""),
            Self::Failed(text) => (b'F', text.as_str()),
        };
        let mut bytes = vec![tag];
        bytes.extend(text.bytes().take(LIMIT - 1));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (tag, text) = bytes.split_first()?;
        let text = || String::from_utf8_lossy(text).into_owned();
        Some(match tag {
            b'W' => Self::Warning(text()),
            b'H' => Self::RunHooks,
            b'C' => Self::Console,
            b'L' => Self::Listener(text().parse().ok()?),
            b'R' => Self::Ready,
            b'F' => Self::Failed(text()),
            _ => return None,
        })
    }
}

impl ToInit {
    fn byte(self) -> u8 {
        match self {
            Self::Mapped => b'M',
            Self::HooksDone => b'D',
            Self::Go => b'G',
        }
    }
}

/// The parent's end.
#[derive(Debug)]
pub struct ParentEnd(OwnedFd);

/// Init's end.
#[derive(Debug)]
pub struct InitEnd(OwnedFd);

pub fn pair() -> Result<(ParentEnd, InitEnd), Errno> {
    let (parent, init) = scm::message_pair()?;
    Ok((ParentEnd(parent), InitEnd(init)))
}

impl ParentEnd {
    /// `None`: init has closed its end.
    pub fn receive(&self) -> Result<Option<(FromInit, Option<OwnedFd>)>, Errno> {
        let mut buffer = [0; LIMIT];
        let (count, fds) = match scm::receive(&self.0, &mut buffer) {
            Err(Errno::CONNRESET) => return Ok(None),
            other => other?,
        };
        if count == 0 {
            return Ok(None);
        }
        let message = FromInit::decode(&buffer[..count]).ok_or(Errno::PROTO)?;
        Ok(Some((message, fds.into_iter().next())))
    }

    pub fn send(&self, message: ToInit) -> Result<(), Errno> {
        scm::send(&self.0, &[message.byte()], &[])
    }
}

impl InitEnd {
    pub fn send(&self, message: &FromInit) -> Result<(), Errno> {
        rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &message.encode())).map(drop)
    }

    pub fn send_console(&self, master: BorrowedFd<'_>) -> Result<(), Errno> {
        scm::send(&self.0, &FromInit::Console.encode(), &[master])
    }

    /// Waits for one message; any other, or an end of file (the parent is gone), is an error.
    pub fn expect(&self, message: ToInit) -> Result<(), Errno> {
        let mut byte = [0; 1];
        match scm::receive(&self.0, &mut byte)? {
            (1, _) if byte[0] == message.byte() => Ok(()),
            (0, _) => Err(Errno::PIPE),
            _ => Err(Errno::PROTO),
        }
    }
}

impl AsFd for InitEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_way() {
        let (parent, init) = pair().unwrap();
        for message in [
            FromInit::Warning("a\nb".into()),
            FromInit::RunHooks,
            FromInit::Listener(7),
            FromInit::Ready,
            FromInit::Failed("x".into()),
        ] {
            init.send(&message).unwrap();
            assert_eq!(parent.receive().unwrap().unwrap().0, message);
        }
        init.send(&FromInit::Failed("x".repeat(10_000))).unwrap();
        assert!(
            matches!(parent.receive().unwrap().unwrap().0, FromInit::Failed(text) if text.len() == LIMIT - 1)
        );
        drop(init);
        assert!(parent.receive().unwrap().is_none());
    }

    #[test]
    fn another_message_than_the_expected_one_is_an_error() {
        let (parent, init) = pair().unwrap();
        parent.send(ToInit::Go).unwrap();
        assert_eq!(init.expect(ToInit::Mapped).unwrap_err(), Errno::PROTO);
        drop(parent);
        assert_eq!(init.expect(ToInit::Go).unwrap_err(), Errno::PIPE);
    }
}
