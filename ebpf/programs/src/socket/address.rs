//! The socket and the address a hook is about.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::programs::SockAddrContext;
use corten_ebpf_layout::service::{Address, Endpoint, TCP, UDP};

/// Which half of `struct bpf_sock_addr` a hook may touch: by the hook's name, not by the socket's family (an AF_INET6
/// socket that sends to a mapped address runs sendmsg4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy)]
pub struct Socket {
    context: *mut bpf_sock_addr,
    family: Family,
}

// Fields of the context are read and written by volatile four-byte accesses: the compiler must neither narrow nor join
// them, since the verifier takes only certain widths at certain offsets.
impl Socket {
    #[inline(always)]
    pub fn v4(context: &SockAddrContext) -> Self {
        Self { context: context.sock_addr, family: Family::V4 }
    }

    #[inline(always)]
    pub fn v6(context: &SockAddrContext) -> Self {
        Self { context: context.sock_addr, family: Family::V6 }
    }

    /// `None`: of a protocol that services here do not have.
    #[inline(always)]
    pub fn protocol(self) -> Option<u32> {
        // SAFETY: the kernel passes a context that lives as long as the program runs.
        let protocol = unsafe { read_volatile(&raw const (*self.context).protocol) };
        (protocol == TCP || protocol == UDP).then_some(protocol)
    }

    /// The address the hook is about: the destination, or the sender of what was received.
    #[inline(always)]
    pub fn endpoint(self) -> Endpoint {
        let context = self.context;
        // SAFETY: as above.
        unsafe {
            let address = match self.family {
                Family::V4 => Address::v4(read_volatile(&raw const (*context).user_ip4)),
                Family::V6 => Address([
                    read_volatile(&raw const (*context).user_ip6[0]),
                    read_volatile(&raw const (*context).user_ip6[1]),
                    read_volatile(&raw const (*context).user_ip6[2]),
                    read_volatile(&raw const (*context).user_ip6[3]),
                ]),
            };
            Endpoint::new(address, read_volatile(&raw const (*context).user_port))
        }
    }

    #[inline(always)]
    pub fn set_endpoint(self, endpoint: &Endpoint) {
        let context = self.context;
        let Address([a, b, c, d]) = endpoint.address;
        // SAFETY: as above; the verifier allows these stores in every hook used here.
        unsafe {
            match self.family {
                Family::V4 => write_volatile(&raw mut (*context).user_ip4, d),
                Family::V6 => {
                    write_volatile(&raw mut (*context).user_ip6[0], a);
                    write_volatile(&raw mut (*context).user_ip6[1], b);
                    write_volatile(&raw mut (*context).user_ip6[2], c);
                    write_volatile(&raw mut (*context).user_ip6[3], d);
                }
            }
            write_volatile(&raw mut (*context).user_port, endpoint.port);
        }
    }

    #[inline(always)]
    pub fn cookie(self) -> u64 {
        // SAFETY: a helper that only reads the context.
        unsafe { bpf_get_socket_cookie(self.context.cast()) }
    }

    /// Of the network namespace the socket belongs to.
    #[inline(always)]
    pub fn netns(self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_get_netns_cookie(self.context.cast()) }
    }
}
