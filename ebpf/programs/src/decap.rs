//! Out of vxlan, at the NIC: the outer headers are cut and the packet has the inner Ethernet header.

use aya_ebpf::{
    bindings::{
        BPF_CSUM_LEVEL_DEC, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{bpf_csum_level, bpf_skb_adjust_room},
};
use corten_ebpf_layout::datapath::Reason;

use crate::encap::Tunnel;
use crate::packet::Packet;

/// Cuts the outer headers. Nothing is changed if it fails.
///
/// What the NIC verified counts from outside inwards (`skb->csum_level`), so what it verified of the outer UDP checksum
/// must not pass for the inner one: one level less. A checksum still to be filled in (a wire of veth) and a sum over the
/// packet stay right by themselves: the one is counted from the head of the buffer, the other the helper corrects.
#[inline(always)]
pub fn pop<F: Tunnel>(packet: &Packet) -> Result<(), Reason> {
    let flags = BPF_F_ADJ_ROOM_FIXED_GSO as u64 | BPF_F_ADJ_ROOM_NO_CSUM_RESET as u64;
    // SAFETY: the context of the running program.
    unsafe {
        if bpf_skb_adjust_room(packet.skb, -(F::ROOM as i32), BPF_ADJ_ROOM_MAC, flags) != 0 {
            return Err(Reason::Tunnel);
        }
        bpf_csum_level(packet.skb, BPF_CSUM_LEVEL_DEC as u64);
    }
    Ok(())
}
