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
    at_any_depth(path, |address| rustix::net::connect(&socket, address))?;
    Ok(socket)
}

/// Listens on a control socket: 0600, in a directory that is 0700 already (CVE-2020-15257).
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    listen_as(path, SocketType::SEQPACKET)
}

/// Listens for the console that an OCI runtime sends (`--console-socket` is a stream socket).
pub fn listen_stream(path: &Path) -> io::Result<OwnedFd> {
    listen_as(path, SocketType::STREAM)
}

fn listen_as(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    let listener = rustix::net::socket_with(AddressFamily::UNIX, kind, FLAGS, None)?;
    // The mode of the socket's file comes from here, so there is no moment with another one.
    rustix::fs::fchmod(&listener, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    at_any_depth(path, |address| rustix::net::bind(&listener, address))?;
    rustix::net::listen(&listener, 16)?;
    Ok(listener)
}

/// Takes the connection that is already there, and the descriptor it has sent.
pub fn accept_descriptor(listener: impl AsFd) -> io::Result<OwnedFd> {
    let connection = rustix::net::accept_with(listener, FLAGS)?;
    match receive(&connection)? {
        Received::Packet(_, mut fds) if fds.len() == 1 => Ok(fds.remove(0)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not one descriptor")),
    }
}

/// A socket's address holds 107 bytes; so its directory goes in as a descriptor.
fn at_any_depth(path: &Path, call: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<()>) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, rustix::fs::Mode::empty())?;
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok(call(&SocketAddrUnix::new(path)?)?)
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
    fn the_socket_file_is_0600_and_may_lie_deep() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(150));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("monitor.sock");
        let _listener = listen(&path).unwrap();
        let _again = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        connect(&path).unwrap();
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
