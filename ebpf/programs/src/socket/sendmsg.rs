//! sendto(2), sendmsg(2) and sendmmsg(2) with an address, of UDP. (Without one, connect has decided.)

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use super::address::Socket;
use super::translate::{At, forward};

/// Also an AF_INET6 socket that sends to a mapped IPv4 address.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(context: SockAddrContext) -> i32 {
    forward(Socket::v4(&context), At::Send)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(context: SockAddrContext) -> i32 {
    forward(Socket::v6(&context), At::Send)
}
