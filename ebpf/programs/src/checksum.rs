//! The Internet checksum (RFC 1071) of headers, in the order of bytes in memory. Pure.

/// One's complement sum of 16-bit words, folded to 16 bits.
#[inline(always)]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum of an IPv4 header whose checksum field is zero.
#[inline(always)]
pub fn ipv4(words: &[u16; 10]) -> u16 {
    let mut sum = 0;
    for word in words {
        sum += u32::from(*word);
    }
    !fold(sum)
}

/// The checksum after a 16-bit word changed (RFC 1624, equation 3).
#[inline(always)]
pub fn replace(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u32::from(!checksum) + u32::from(!old) + u32::from(new))
}
