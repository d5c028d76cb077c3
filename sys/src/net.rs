//! The one thing a new network namespace needs before anything else: its loopback link up.

use std::os::fd::{AsFd, AsRawFd};

use crate::Result;
use crate::fd::check;

/// Brings `lo` up in the network namespace of this thread. The kernel adds 127.0.0.1 and ::1 itself.
pub fn loopback_up() -> Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut name = [0; libc::IFNAMSIZ];
    (name[0], name[1]) = (b'l' as libc::c_char, b'o' as libc::c_char);
    let mut request =
        libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } };
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: SIOCGIFFLAGS reads the name of our ifreq and fills its flags; both live across the call. No safe crate
    // has it, and two ioctls are less than a netlink dependency here.
    check(unsafe { libc::ioctl(fd, libc::SIOCGIFFLAGS as _, std::ptr::from_mut(&mut request)) }.into())?;
    // SAFETY: the union was filled as flags by the call above.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | (libc::IFF_UP as libc::c_short);
    // SAFETY: as above; the kernel only reads.
    check(unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, std::ptr::from_ref(&request)) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_answers_in_a_new_network_namespace() {
        let namespace = crate::ns::new_network().unwrap();
        let connected = crate::ns::in_network(namespace, || {
            super::loopback_up().unwrap();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            std::net::TcpStream::connect(listener.local_addr().unwrap()).is_ok()
        });
        assert!(connected.unwrap());
    }
}
