//! The reading end of a container's stdout, stderr or PTY.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::log_writer::{LineSplitter, LogWriter, StreamName};
use crate::timestamp::now_unix_nanos;

/// How much is read at a time: what a pipe holds.
const READ_BYTES: usize = 64 * 1024;
/// How often a stream is read in a row at most, so that one container that floods does not starve the others.
const READS_TO_DRAIN: usize = 32;

#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    splitter: LineSplitter,
}

/// What one reading found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    Some,
    Empty,
    End,
}

impl Stream {
    /// A pipe: our end, and the container's.
    pub fn pipe(name: StreamName) -> io::Result<(Self, OwnedFd)> {
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((Self::over(reading, name)?, writing))
    }

    /// A PTY's output counts as stdout.
    pub fn of_pty(master: BorrowedFd<'_>) -> io::Result<Self> {
        Self::over(master.try_clone_to_owned()?, StreamName::Stdout)
    }

    fn over(fd: OwnedFd, name: StreamName) -> io::Result<Self> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Ok(Self { fd, splitter: LineSplitter::new(name) })
    }

    /// Reads once and logs the lines.
    pub fn read(&mut self, log: Option<&mut LogWriter>) -> Read {
        let mut buffer = vec![0; READ_BYTES];
        let mut lines = Vec::new();
        let read = match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut buffer)) {
            Ok(0) => Read::End,
            Ok(count) => {
                self.splitter.push(now_unix_nanos(), &buffer[..count], &mut lines);
                Read::Some
            }
            Err(rustix::io::Errno::AGAIN) => Read::Empty,
            // EIO: nobody has the PTY open any more.
            Err(_) => Read::End,
        };
        if read == Read::End {
            self.splitter.finish(now_unix_nanos(), &mut lines);
        }
        if let Some(log) = log
            && !lines.is_empty()
        {
            log.append(&lines);
        }
        read
    }

    /// Reads all that is there now. [`Read::Some`]: there may be more.
    pub fn drain(&mut self, mut log: Option<&mut LogWriter>) -> Read {
        for _ in 0..READS_TO_DRAIN {
            let read = self.read(log.as_deref_mut());
            if read != Read::Some {
                return read;
            }
        }
        Read::Some
    }

    /// Logs what is left of a line; nothing will come any more.
    pub fn finish(mut self, log: Option<&mut LogWriter>) {
        let mut lines = Vec::new();
        self.splitter.finish(now_unix_nanos(), &mut lines);
        if let Some(log) = log
            && !lines.is_empty()
        {
            log.append(&lines);
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
