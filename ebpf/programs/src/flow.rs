//! The headers that every decision is made on, read once.

use corten_ebpf_layout::datapath::{Reason, Source};

use crate::family::{Address, Family};
use crate::packet::{Packet, TCP, Transport, UDP};
use crate::slow;

/// What every packet of a flow starts with.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Headers<H: Copy> {
    pub ip: H,
    pub transport: Transport,
}

#[derive(Clone, Copy)]
pub struct Flow<H: Copy> {
    pub ip: H,
    /// Network byte order, 0 with ICMP.
    pub source_port: u16,
    pub destination_port: u16,
}

impl<H: Copy> Flow<H> {
    /// Reads the IP packet at `offset`, and leaves to the kernel what is unusual.
    #[inline(always)]
    pub fn read<F: Family<Header = H>>(packet: &Packet, offset: usize) -> Result<Self, Reason> {
        Self::of::<F>(packet.header(offset)?, packet.len() - offset as u32)
    }

    /// From headers that were read, of a packet of which `len` bytes are there.
    #[inline(always)]
    pub fn of<F: Family<Header = H>>(headers: Headers<H>, len: u32) -> Result<Self, Reason> {
        let Headers { ip, transport } = headers;
        F::plain(&ip)?;
        F::followed(&ip, &transport)?;
        if F::len(&ip) > len {
            return Err(Reason::Malformed);
        }
        let ports = is_translated(F::protocol(&ip));
        Ok(Self {
            ip,
            source_port: if ports { transport.source_port } else { 0 },
            destination_port: if ports { transport.destination_port } else { 0 },
        })
    }

    #[inline(always)]
    pub fn source<F: Family<Header = H>>(&self) -> Address {
        F::source(&self.ip)
    }

    #[inline(always)]
    pub fn destination<F: Family<Header = H>>(&self) -> Address {
        F::destination(&self.ip)
    }

    /// The sender's end, as `slow` knows it.
    #[inline(always)]
    pub fn source_end<F: Family<Header = H>>(&self) -> Source {
        slow::end(&self.source::<F>(), self.source_port, F::protocol(&self.ip))
    }

    /// The receiver's end, as `slow` knows it.
    #[inline(always)]
    pub fn destination_end<F: Family<Header = H>>(&self) -> Source {
        slow::end(&self.destination::<F>(), self.destination_port, F::protocol(&self.ip))
    }
}

/// Has the protocol ports, which conntrack may translate?
#[inline(always)]
pub fn is_translated(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP
}
