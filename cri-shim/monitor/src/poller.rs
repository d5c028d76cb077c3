//! The descriptors the monitor waits for, each under a [`Token`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// What a descriptor is, and which of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    Signals,
    Listener,
    Client(u32),
    Stream(u32),
    Oom(u32),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Signals => (0, 0),
            Self::Listener => (1, 0),
            Self::Client(number) => (2, number),
            Self::Stream(number) => (3, number),
            Self::Oom(number) => (4, number),
        };
        kind << 32 | u64::from(number)
    }

    fn decode(word: u64) -> Option<Self> {
        let number = word as u32;
        Some(match word >> 32 {
            0 => Self::Signals,
            1 => Self::Listener,
            2 => Self::Client(number),
            3 => Self::Stream(number),
            4 => Self::Oom(number),
            _ => return None,
        })
    }
}

#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub fn add(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token.encode()), EventFlags::IN)?)
    }

    /// Waits for room to write too, or no longer.
    pub fn watch_writable(&self, fd: impl AsFd, token: Token, on: bool) -> io::Result<()> {
        let events = if on { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token.encode()), events)?)
    }

    /// Before the descriptor is closed: a child that is being made may hold a copy, and closing would then not end it.
    pub fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// What is ready; empty after `timeout` without anything.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Token>> {
        let timeout =
            timeout.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
        let mut ready = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 32];
        let count = match epoll::wait(&self.epoll, &mut ready, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => 0,
            count => count?,
        };
        Ok(ready[..count].iter().filter_map(|event| Token::decode(event.data.u64())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_kernel() {
        for token in
            [Token::Signals, Token::Listener, Token::Client(7), Token::Stream(u32::MAX), Token::Oom(1)]
        {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(9 << 32), None);
    }
}
