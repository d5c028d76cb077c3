//! The ring buffer of events: drops, and what is worth telling of the slow path.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use corten_ebpf_layout::datapath::{Event as Raw, Hook, Reason};

use super::convert::ip;

/// Something that happened to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// CLOCK_MONOTONIC.
    pub time: Duration,
    pub hook: Hook,
    pub reason: Reason,
    /// The interface that the packet came in by.
    pub ifindex: u32,
    /// Of the frame, bytes.
    pub len: u32,
    /// Of the innermost IP header that was read: source and destination, each with the port or 0, and the protocol.
    pub flow: Option<(IpAddr, u16, IpAddr, u16, u8)>,
}

/// The reader: readable (epoll, tokio's AsyncFd) when [`Events::next`] has something.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// The next event; `None`: all are read. Never blocks.
    #[expect(clippy::should_implement_trait, reason = "an iterator would promise to stay ended")]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if let Some(event) = parse(&item) {
                return Some(event);
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

/// `None`: of a version that knows more than this one.
fn parse(bytes: &[u8]) -> Option<Event> {
    if bytes.len() < size_of::<Raw>() {
        return None;
    }
    // SAFETY: as many bytes are there, and every bit pattern is a `Raw`; reading by fields would say its layout twice.
    let raw: Raw = unsafe { bytes.as_ptr().cast::<Raw>().read_unaligned() };
    let hook = [Hook::FromPod, Hook::FromNic].into_iter().find(|hook| *hook as u8 == raw.hook)?;
    let reason = *Reason::ALL.get(usize::from(raw.reason))?;
    let port = u16::from_be_bytes;
    let flow = (
        ip(raw.source),
        port(raw.source_port),
        ip(raw.destination),
        port(raw.destination_port),
        raw.protocol,
    );
    Some(Event {
        time: Duration::from_nanos(raw.time_ns),
        hook,
        reason,
        ifindex: raw.ifindex,
        len: raw.len,
        flow: (raw.destination != [0; 16]).then_some(flow),
    })
}
