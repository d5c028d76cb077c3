//! One netlink message: written with [`Message`], read with [`Attributes`].
//!
//! The form is common to every netlink family: a 16-byte header, a fixed body of the family, then attributes, each a
//! length, a type and a value padded to four bytes; a value may again be a list of attributes.

use std::net::IpAddr;

pub const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;
const NESTED: u16 = libc::NLA_F_NESTED as u16;
/// The upper two bits of a type are flags (nested, network byte order).
const TYPE_MASK: u16 = 0x3fff;

/// A request under construction. `what` says what it does, on what; it begins the text of every error.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
    what: String,
}

impl Message {
    /// `flags` are added to NLM_F_REQUEST; the socket sets sequence and, where it wants one, NLM_F_ACK.
    pub fn new(what: impl Into<String>, kind: u16, flags: i32, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        let mut message = Self { bytes, what: what.into() };
        message.pad();
        message
    }

    pub fn what(&self) -> &str {
        &self.what
    }

    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.put(kind, value);
        self
    }

    /// A string ending in NUL, as the kernel wants names.
    #[must_use]
    pub fn string(mut self, kind: u16, value: &str) -> Self {
        self.put_string(kind, value);
        self
    }

    #[must_use]
    pub fn u32(mut self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_ne_bytes());
        self
    }

    /// nf_tables numbers are big-endian.
    #[must_use]
    pub fn be32(mut self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_be_bytes());
        self
    }

    #[must_use]
    pub fn address(mut self, kind: u16, value: IpAddr) -> Self {
        self.put(kind, &address_bytes(value));
        self
    }

    #[must_use]
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.open(kind | NESTED);
        let mut filled = fill(self);
        filled.close(start);
        filled
    }

    /// A nest that begins with a fixed structure (VETH_INFO_PEER holds an ifinfomsg first).
    #[must_use]
    pub fn nest_with_body(mut self, kind: u16, body: &[u8], fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.open(kind);
        self.bytes.extend_from_slice(body);
        self.pad();
        let mut filled = fill(self);
        filled.close(start);
        filled
    }

    /// Sets length, sequence and acknowledgement; the bytes are ready to send.
    pub fn sealed(mut self, sequence: u32, acknowledge: bool) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        if acknowledge {
            let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | libc::NLM_F_ACK as u16;
            self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        }
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }

    /// The attributes of the message, without header and fixed body; for tests of encoders.
    pub fn attributes(&self, body_len: usize) -> Attributes<'_> {
        Attributes::new(&self.bytes[HEADER_LEN + body_len..])
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        let start = self.bytes.len();
        self.open(kind);
        self.bytes.extend_from_slice(value);
        self.close(start);
    }

    fn put_string(&mut self, kind: u16, value: &str) {
        let start = self.bytes.len();
        self.open(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    fn open(&mut self, kind: u16) {
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
    }

    fn close(&mut self, start: usize) {
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

pub fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub fn address_from(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// Reads a list of attributes. A length that does not fit ends the list: what follows cannot be found anyway.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// After a fixed body of `body_len` bytes; `None` when the message is shorter.
    pub fn after(bytes: &'a [u8], body_len: usize) -> Option<Self> {
        Some(Self { rest: bytes.get(body_len.next_multiple_of(4)..)? })
    }

    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    pub fn nested(&self, kind: u16) -> Option<Attributes<'a>> {
        self.get(kind).map(Attributes::new)
    }

    pub fn u8(&self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }

    pub fn u32(&self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.get(kind)?.get(..4)?.try_into().ok()?))
    }

    pub fn be16(&self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(self.get(kind)?.get(..2)?.try_into().ok()?))
    }

    pub fn be32(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.get(..4)?.try_into().ok()?))
    }

    pub fn be64(&self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.get(kind)?.get(..8)?.try_into().ok()?))
    }

    pub fn string(&self, kind: u16) -> Option<String> {
        let value = self.get(kind)?;
        let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
        Some(String::from_utf8_lossy(&value[..end]).into_owned())
    }

    pub fn address(&self, kind: u16) -> Option<IpAddr> {
        address_from(self.get(kind)?)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        let header = self.rest.get(..ATTRIBUTE_HEADER_LEN)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = self.rest.get(ATTRIBUTE_HEADER_LEN..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let message = Message::new("test", 16, 0, &[1, 2, 3, 4])
            .string(1, "eth0")
            .u32(2, 7)
            .nest(3, |m| m.be32(1, 9).address(2, "fd00::1".parse().unwrap()))
            .attribute(4, &[]);
        let attributes = message.attributes(4);
        assert_eq!(attributes.string(1).as_deref(), Some("eth0"));
        assert_eq!(attributes.u32(2), Some(7));
        let nested = attributes.nested(3).expect("the nest");
        assert_eq!(nested.be32(1), Some(9));
        assert_eq!(nested.address(2), Some("fd00::1".parse().unwrap()));
        assert_eq!(attributes.get(4), Some(&[][..]));
        let bytes = message.sealed(5, true);
        assert_eq!(u32::from_ne_bytes(bytes[0..4].try_into().unwrap()) as usize, bytes.len());
        assert_eq!(u16::from_ne_bytes(bytes[6..8].try_into().unwrap()), 5, "request and ack");
        assert_eq!(bytes[8], 5);
    }

    #[test]
    fn lengths_that_lie_end_the_list_and_never_panic() {
        for bytes in [&[][..], &[1], &[3, 0, 1, 0], &[200, 0, 1, 0, 1, 2], &[0, 0, 0, 0], &[4, 0, 1, 0, 9]] {
            assert!(Attributes::new(bytes).count() <= 1, "{bytes:?}");
        }
        // Any bytes at all: the iterator ends, since each step consumes at least a header.
        let mut seed = 1_u32;
        for _ in 0..2000 {
            let noise: Vec<u8> = (0..64)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            assert!(Attributes::new(&noise).count() <= 16);
        }
    }
}
