//! getpeername(2): a client may compare it with what it asked for (Linux 5.8).

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use super::address::Socket;
use super::translate::reverse;

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(context: SockAddrContext) -> i32 {
    reverse(Socket::v4(&context))
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(context: SockAddrContext) -> i32 {
    reverse(Socket::v6(&context))
}
