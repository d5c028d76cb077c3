//! One packet with its descriptors over a `SOCK_SEQPACKET` unix socket, for both ends. Knows no message.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::{MAX_ATTACHED_BYTES, MAX_MESSAGE_BYTES, MAX_MESSAGE_FDS};

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// What [`receive`] found.
#[derive(Debug)]
pub enum Received {
    Packet(Vec<u8>, Vec<OwnedFd>),
    /// The packet was longer than [`MAX_MESSAGE_BYTES`] or carried more than [`MAX_MESSAGE_FDS`]: it is gone.
    TooLong,
    /// The peer closed.
    End,
}

/// Two connected ends, both non-blocking and CLOEXEC.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?)
}

/// Connects to a monitor's control socket.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Sends one packet; `WouldBlock` when the peer does not read.
pub fn send(socket: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MESSAGE_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(packet)], &mut control, flags)
    })?;
    Ok(())
}

/// Receives one packet; `WouldBlock` when there is none.
pub fn receive(socket: impl AsFd) -> io::Result<Received> {
    let mut packet = vec![0; MAX_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MESSAGE_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut packet)], &mut control, flags)
    })?;
    let fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(
            |message| if let RecvAncillaryMessage::ScmRights(fds) = message { Some(fds) } else { None },
        )
        .flatten()
        .collect();
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Ok(Received::TooLong);
    }
    if got.bytes == 0 {
        return Ok(Received::End);
    }
    packet.truncate(got.bytes);
    Ok(Received::Packet(packet, fds))
}

/// A sealed-off copy of a value as JSON in a memfd, to attach to a message.
pub fn attach_json(value: &impl Serialize) -> io::Result<OwnedFd> {
    let json = serde_json::to_vec(value)?;
    if json.len() > MAX_ATTACHED_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} bytes of JSON", json.len())));
    }
    let memfd = rustix::fs::memfd_create("corten", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(memfd);
    file.write_all(&json)?;
    Ok(file.into())
}

/// Reads an attached JSON value, at most [`MAX_ATTACHED_BYTES`].
pub fn read_attached<T: DeserializeOwned>(fd: OwnedFd) -> io::Result<T> {
    let mut file = File::from(fd);
    file.seek(SeekFrom::Start(0))?;
    let mut json = Vec::new();
    file.take(MAX_ATTACHED_BYTES as u64 + 1).read_to_end(&mut json)?;
    if json.len() > MAX_ATTACHED_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "attached JSON is longer than 4 MiB"));
    }
    Ok(serde_json::from_slice(&json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_keeps_its_boundary_and_its_descriptors() {
        let (a, b) = pair().unwrap();
        let attached = attach_json(&vec![1, 2, 3]).unwrap();
        send(&a, b"one", &[attached.as_fd()]).unwrap();
        send(&a, b"two", &[]).unwrap();
        let Received::Packet(first, mut fds) = receive(&b).unwrap() else { panic!("no packet") };
        assert_eq!((first.as_slice(), fds.len()), (b"one".as_slice(), 1));
        assert_eq!(read_attached::<Vec<i32>>(fds.remove(0)).unwrap(), [1, 2, 3]);
        assert!(matches!(receive(&b).unwrap(), Received::Packet(p, f) if p == b"two" && f.is_empty()));
        assert_eq!(receive(&b).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert!(matches!(receive(&b).unwrap(), Received::End));
    }

    #[test]
    fn a_packet_past_the_bound_is_refused_and_the_next_one_is_read() {
        let (a, b) = pair().unwrap();
        send(&a, &vec![0; MAX_MESSAGE_BYTES + 1], &[]).unwrap();
        send(&a, b"next", &[]).unwrap();
        assert!(matches!(receive(&b).unwrap(), Received::TooLong));
        assert!(matches!(receive(&b).unwrap(), Received::Packet(p, _) if p == b"next"));
    }
}
