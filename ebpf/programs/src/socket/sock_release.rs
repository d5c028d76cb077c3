//! close(2) of a socket: what was remembered for it goes, so that the tables hold live sockets (Linux 5.9).

use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use corten_ebpf_layout::service::{Address, Endpoint, Reverse, TCP, UDP};

use super::PROCEED;
use super::translate::reverse_map;

const AF_INET: u32 = 2;

#[cgroup_sock(sock_release)]
pub fn sock_release(context: SockContext) -> i32 {
    let sock = context.sock;
    // SAFETY: the kernel passes a socket that lives as long as the program runs; each access is of a field's own width.
    unsafe {
        let protocol = read_volatile(&raw const (*sock).protocol);
        let port = read_volatile(&raw const (*sock).dst_port);
        if (protocol != TCP && protocol != UDP) || port == 0 {
            return PROCEED;
        }
        // All fields before the branch: joined behind it, the loads would be of one pointer that is moved, which the
        // verifier refuses.
        let family = read_volatile(&raw const (*sock).family);
        let v4 = read_volatile(&raw const (*sock).dst_ip4);
        let v6 = [
            read_volatile(&raw const (*sock).dst_ip6[0]),
            read_volatile(&raw const (*sock).dst_ip6[1]),
            read_volatile(&raw const (*sock).dst_ip6[2]),
            read_volatile(&raw const (*sock).dst_ip6[3]),
        ];
        let address = if family == AF_INET { Address::v4(v4) } else { Address(v6) };
        let backend = Endpoint::new(address, u32::from(port));
        let key = Reverse { cookie: bpf_get_socket_cookie(sock.cast()), backend };
        let _ = reverse_map(protocol).remove(&key);
    }
    PROCEED
}
