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

use crate::family::Family;

/// To the next program, then to the kernel: TC_ACT_UNSPEC of clsact and TCX_NEXT.
pub const NEXT: i32 = -1;
/// TC_ACT_SHOT.
pub const DROP: i32 = 2;

/// `skb->pkt_type`: to the device's own address.
pub const TO_US: u32 = 0;

pub const ETHERNET: usize = size_of::<Ethernet>();

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// An Ethernet address; words are compared faster than bytes.
pub type Mac = [u16; 3];

/// Ethernet II.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ethernet {
    pub destination: Mac,
    pub source: Mac,
    /// EtherType, network byte order.
    pub kind: u16,
}

/// A frame's headers, written at once.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct Frame<H: Copy> {
    pub ethernet: Ethernet,
    pub ip: H,
}

impl Ethernet {
    /// A header for a packet of this family.
    #[inline(always)]
    pub fn new<F: Family>(destination: &[u8; 6], source: &[u8; 6]) -> Self {
        Self { destination: mac(destination), source: mac(source), kind: F::KIND }
    }
}

/// The first eight bytes of TCP, UDP and ICMP.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Transport {
    /// Network byte order. With ICMP: type and code.
    pub source_port: u16,
    pub destination_port: u16,
    pub rest: u32,
}

/// An Ethernet address of a map's value.
#[inline(always)]
pub fn mac(bytes: &[u8; 6]) -> Mac {
    let [a, b, c, d, e, f] = *bytes;
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]), u16::from_ne_bytes([e, f])]
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

    /// The bytes at `offset` as `T`, whose every bit pattern must be valid; reads from the linear part. Headers are read
    /// by words though they need not lie at multiples of four: the kernels of our machines allow it (the verifier sees
    /// to it), and put together byte by byte they would cost more than all the rest.
    #[inline(always)]
    pub fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        // SAFETY: data and data_end are packet pointers; the verifier proves the comparison below sufficient.
        unsafe {
            let start = (&raw const (*self.skb).data).read_volatile() as usize;
            let end = (&raw const (*self.skb).data_end).read_volatile() as usize;
            if start + offset + size_of::<T>() > end {
                return None;
            }
            Some(*((start + offset) as *const T))
        }
    }

    /// Brings the first `len` bytes, or all there are, into the linear part: what is read later is there or not at all.
    /// No more than is read: a socket's payload is not in the linear part, and bringing it there costs.
    #[inline(always)]
    pub fn linear(&self, len: usize) -> Result<(), Reason> {
        let len = if (len as u32) < self.len() { len as u32 } else { self.len() };
        // SAFETY: the context of the running program.
        unsafe {
            let start = (&raw const (*self.skb).data).read_volatile();
            let end = (&raw const (*self.skb).data_end).read_volatile();
            if end.wrapping_sub(start) < len && bpf_skb_pull_data(self.skb, len) != 0 {
                return Err(Reason::Malformed);
            }
        }
        Ok(())
    }

    /// As [`Packet::read`] of what must be there.
    #[inline(always)]
    pub fn header<T: Copy>(&self, offset: usize) -> Result<T, Reason> {
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
