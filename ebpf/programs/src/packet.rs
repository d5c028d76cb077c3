//! The packet as the kernel lends it: bounded reads, writes by helper, verdicts.
//!
//! Headers are read by value and written by `bpf_skb_store_bytes`, never in place: a program that writes in place pays
//! for uncloning every packet, also those that it only redirects.

use core::mem::size_of;

use aya_ebpf::{
    EbpfContext as _,
    bindings::__sk_buff,
    helpers::{bpf_skb_change_type, bpf_skb_pull_data, bpf_skb_store_bytes},
    programs::TcContext,
};
use corten_ebpf_layout::datapath::Reason;

/// To the next program, then to the kernel: TC_ACT_UNSPEC of clsact and TCX_NEXT.
pub const NEXT: i32 = -1;
/// TC_ACT_SHOT.
pub const DROP: i32 = 2;

/// `skb->pkt_type`: to the device's own address.
pub const TO_US: u32 = 0;

pub const ETHERNET: usize = size_of::<Ethernet>();

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// Ethernet II.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ethernet {
    pub destination: [u8; 6],
    pub source: [u8; 6],
    /// EtherType, network byte order.
    pub kind: [u8; 2],
}

/// The first eight bytes of TCP, UDP and ICMP.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Transport {
    /// With ICMP: type, code and checksum.
    pub source_port: [u8; 2],
    pub destination_port: [u8; 2],
    pub rest: [u8; 4],
}

pub struct Packet {
    pub skb: *mut __sk_buff,
}

impl Packet {
    #[inline(always)]
    pub fn new(context: &TcContext) -> Self {
        Self { skb: context.as_ptr().cast() }
    }

    /// Length of the frame.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        // SAFETY: the context of the running program.
        unsafe { (*self.skb).len }
    }

    /// The interface that the packet came in by.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the context of the running program.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    pub fn kind(&self) -> u32 {
        // SAFETY: the context of the running program.
        unsafe { (*self.skb).pkt_type }
    }

    #[inline(always)]
    pub fn in_vlan(&self) -> bool {
        // SAFETY: the context of the running program.
        unsafe { (*self.skb).vlan_present != 0 }
    }

    /// Payload bytes of each segment; 0: one packet.
    #[inline(always)]
    pub fn segment(&self) -> u32 {
        // SAFETY: the context of the running program.
        unsafe { (*self.skb).gso_size }
    }

    /// The bytes at `offset` as `T`, whose every bit pattern must be valid; reads from the linear part.
    #[inline(always)]
    pub fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        // SAFETY: data and data_end are packet pointers; the verifier proves the comparison below sufficient. `T` is
        // read as unaligned.
        unsafe {
            let start = (*self.skb).data as usize;
            let end = (*self.skb).data_end as usize;
            if start + offset + size_of::<T>() > end {
                return None;
            }
            Some(((start + offset) as *const T).read_unaligned())
        }
    }

    /// As [`Packet::read`], having brought the first `offset` bytes and `T` into the linear part.
    #[inline(always)]
    pub fn pull<T: Copy>(&self, offset: usize) -> Result<T, Reason> {
        if let Some(value) = self.read(offset) {
            return Ok(value);
        }
        let needed = (offset + size_of::<T>()) as u32;
        // SAFETY: the context of the running program. Fails if the packet is shorter.
        if unsafe { bpf_skb_pull_data(self.skb, needed) } != 0 {
            return Err(Reason::Malformed);
        }
        self.read(offset).ok_or(Reason::Malformed)
    }

    /// Overwrites bytes; on failure the packet is lost, since it may be half rewritten.
    #[inline(always)]
    pub fn write<T: Copy>(&self, offset: usize, value: &T) -> Result<(), Reason> {
        let from = core::ptr::from_ref(value).cast();
        // SAFETY: the context of the running program, and a value of this length on its stack.
        match unsafe { bpf_skb_store_bytes(self.skb, offset as u32, from, size_of::<T>() as u32, 0) } {
            0 => Ok(()),
            _ => Err(Reason::Dropped),
        }
    }

    /// Marks a packet that the bridge would have passed on as one for the receiver: IP drops those for others.
    #[inline(always)]
    pub fn deliver(&self) -> Result<(), Reason> {
        // SAFETY: the context of the running program.
        if self.kind() != TO_US && unsafe { bpf_skb_change_type(self.skb, TO_US) } != 0 {
            return Err(Reason::Dropped);
        }
        Ok(())
    }
}
