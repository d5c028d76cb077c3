//! The kernel programs of the fast path. One file per hook, one per concern; all end in one object.
//!
//! What they do not know they leave to the kernel ([`packet::NEXT`]). Nothing is learned here but flows that must stay
//! with the kernel (`slow`): endpoints, nodes and configuration are programmed by corten-netd.
#![no_std]
#![no_main]

mod checksum;
mod decap;
mod encap;
mod family;
mod flow;
mod from_nic;
mod from_pod;
mod maps;
mod packet;
mod slow;
mod socket;
mod tell;

/// The helpers that redirect and look up routes are lent to GPL programs only; this package is under GPL-2.0 too.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Nothing here panics; the verifier would refuse a program that could.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
