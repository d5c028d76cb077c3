//! connect(2): TCP, connected UDP, TCP fast open.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use super::address::Socket;
use super::translate::{At, forward};

#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    forward(Socket::v4(&context), At::Connect)
}

/// Also an AF_INET6 socket that connects to a mapped IPv4 address.
#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    forward(Socket::v6(&context), At::Connect)
}
