//! recvfrom(2), recvmsg(2) and recvmmsg(2) of UDP that want the sender's address.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use super::address::Socket;
use super::translate::reverse;

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(context: SockAddrContext) -> i32 {
    reverse(Socket::v4(&context))
}

/// Also IPv4 datagrams of an AF_INET6 socket, from a mapped address.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(context: SockAddrContext) -> i32 {
    reverse(Socket::v6(&context))
}
