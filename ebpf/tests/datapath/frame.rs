//! Frames built header by header, and an oracle that checks every length and checksum of one.

use std::net::IpAddr;

pub type Mac = [u8; 6];

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// An IP packet; [`Ip::bytes`] fills in lengths and checksums.
#[derive(Debug, Clone)]
pub struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub ecn: u8,
    pub protocol: u8,
    /// IPv4: flags and offset.
    pub fragment: u16,
    /// IPv4 options, a multiple of four; IPv6: an extension header, whose first byte becomes the real protocol.
    pub extra: Vec<u8>,
    /// Transport header and payload, its checksum zero.
    pub payload: Vec<u8>,
}

impl Ip {
    pub fn new(source: &str, destination: &str, protocol: u8, payload: Vec<u8>) -> Self {
        let parse = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is no address"));
        let (source, destination) = (parse(source), parse(destination));
        Self { source, destination, ttl: 64, ecn: 0, protocol, fragment: 0, extra: Vec::new(), payload }
    }

    pub fn tcp(source: &str, destination: &str, ports: (u16, u16), flags: u8, len: usize) -> Self {
        let mut payload = ports.0.to_be_bytes().to_vec();
        payload.extend(ports.1.to_be_bytes());
        payload.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        payload.extend(pattern(len));
        Self::new(source, destination, TCP, payload)
    }

    pub fn udp(source: &str, destination: &str, ports: (u16, u16), len: usize) -> Self {
        let mut payload = ports.0.to_be_bytes().to_vec();
        payload.extend(ports.1.to_be_bytes());
        payload.extend(((len + 8) as u16).to_be_bytes());
        payload.extend([0, 0]);
        payload.extend(pattern(len));
        Self::new(source, destination, UDP, payload)
    }

    /// `kind` and `code` of ICMP or ICMPv6, by the family of the addresses.
    pub fn icmp(source: &str, destination: &str, kind: u8, code: u8) -> Self {
        let mut payload = vec![kind, code, 0, 0, 0x12, 0x34, 0, 1];
        payload.extend(pattern(48));
        let v6 = source.contains(':');
        Self::new(source, destination, if v6 { 58 } else { 1 }, payload)
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut payload = self.payload.clone();
        if let Some(at) = checksum_at(self.protocol)
            && self.fragment.trailing_zeros() >= 13
            && payload.len() >= at + 2
        {
            let sum = !sum(&[&self.pseudo(payload.len()), &payload]);
            let sum = if sum == 0 && self.protocol == UDP { 0xffff } else { sum };
            payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = 20 + self.extra.len();
                let mut bytes = vec![0x40 | (header / 4) as u8, self.ecn];
                bytes.extend(((header + payload.len()) as u16).to_be_bytes());
                bytes.extend([0xab, 0xcd]);
                bytes.extend(self.fragment.to_be_bytes());
                bytes.extend([self.ttl, self.protocol, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(&self.extra);
                let sum = !sum(&[&bytes]);
                bytes[10..12].copy_from_slice(&sum.to_be_bytes());
                bytes.extend(payload);
                bytes
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let next = self.extra.first().map_or(self.protocol, |_| 0);
                let mut bytes = vec![0x60, self.ecn << 4, 0, 0];
                bytes.extend(((self.extra.len() + payload.len()) as u16).to_be_bytes());
                bytes.extend([next, self.ttl]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(&self.extra);
                bytes.extend(payload);
                bytes
            }
            mixed => panic!("one family, not {mixed:?}"),
        }
    }

    fn pseudo(&self, len: usize) -> Vec<u8> {
        let mut pseudo = octets(self.source);
        pseudo.extend(octets(self.destination));
        pseudo.extend((len as u32).to_be_bytes());
        if self.protocol == 1 {
            return Vec::new();
        }
        pseudo.extend([0, 0, 0, self.protocol]);
        pseudo
    }

    /// In an Ethernet frame.
    pub fn frame(&self, source: Mac, destination: Mac) -> Vec<u8> {
        let kind = if self.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        [&destination[..], &source, &kind, &self.bytes()].concat()
    }
}

/// A frame in vxlan, in UDP.
pub fn vxlan(source: &str, destination: &str, vni: u32, inner: &[u8]) -> Ip {
    let mut packet = Ip::udp(source, destination, (40000, 8472), 0);
    packet.payload.extend([8, 0, 0, 0]);
    packet.payload.extend((vni << 8).to_be_bytes());
    packet.payload.extend(inner);
    let len = packet.payload.len() as u16;
    packet.payload[4..6].copy_from_slice(&len.to_be_bytes());
    packet
}

/// Checks lengths and checksums of a frame, and of a vxlan frame in it; a UDP checksum of zero counts as none. Returns
/// the frame inside, if there is one.
pub fn checked(frame: &[u8]) -> Option<Vec<u8>> {
    let (protocol, source, destination, transport) = match (frame[12], frame[13]) {
        (0x08, 0x00) => {
            let header = &frame[14..34];
            assert_eq!(header[0], 0x45);
            assert_eq!(sum(&[header]), 0xffff, "IPv4 header checksum");
            let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
            assert_eq!(len, frame.len() - 14, "IPv4 length");
            (header[9], header[12..16].to_vec(), header[16..20].to_vec(), &frame[34..])
        }
        (0x86, 0xdd) => {
            let header = &frame[14..54];
            assert_eq!(header[0] >> 4, 6);
            let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
            assert_eq!(len, frame.len() - 54, "IPv6 length");
            (header[6], header[8..24].to_vec(), header[24..40].to_vec(), &frame[54..])
        }
        other => panic!("EtherType {other:x?}"),
    };
    if protocol == UDP {
        let len = usize::from(u16::from_be_bytes([transport[4], transport[5]]));
        assert_eq!(len, transport.len(), "UDP length");
    }
    let none = protocol == UDP && transport[6..8] == [0, 0];
    if !none {
        let mut pseudo = [source, destination].concat();
        pseudo.extend((transport.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
        let pseudo = if protocol == 1 { Vec::new() } else { pseudo };
        assert_eq!(sum(&[&pseudo, transport]), 0xffff, "checksum of protocol {protocol}");
    }
    if protocol == UDP && transport[2..4] == 8472_u16.to_be_bytes() {
        let inner = &transport[16..];
        checked(inner);
        return Some(inner.to_vec());
    }
    None
}

fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP => Some(6),
        1 | 58 => Some(2),
        _ => None,
    }
}

/// One's complement sum over the parts, each padded to words.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for word in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn pattern(len: usize) -> impl Iterator<Item = u8> {
    (0..len).map(|i| (i * 7) as u8)
}

#[test]
fn the_oracle_sees_a_wrong_bit() {
    let good = Ip::tcp("10.0.0.1", "10.0.0.2", (1, 2), SYN, 33).frame([2; 6], [4; 6]);
    assert_eq!(checked(&good), None);
    for at in [16, 22, 24, 30, 40, 60, 80] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(std::panic::catch_unwind(|| checked(&bad)).is_err(), "byte {at}");
    }
    let outer = vxlan("fd99::1", "fd99::2", 1, &good).frame([2; 6], [4; 6]);
    assert_eq!(checked(&outer), Some(good));
}
