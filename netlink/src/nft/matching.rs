//! Matches as nft(8) writes them, so that `nft list ruleset` shows them as a person would have typed them.

use super::expression::{Comparison, Expression};
use super::operand::{Field, Meta, Register};
use crate::cidr::Cidr;
use crate::route::Mac;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Source,
    Destination,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl Transport {
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => libc::IPPROTO_TCP as u8,
            Self::Udp => libc::IPPROTO_UDP as u8,
            Self::Sctp => libc::IPPROTO_SCTP as u8,
        }
    }
}

const REGISTER: Register = Register::One;

fn compare(comparison: Comparison, value: &[u8]) -> Expression {
    Expression::Compare { register: REGISTER, comparison, value: value.to_vec() }
}

fn equal(value: &[u8]) -> Expression {
    compare(Comparison::Equal, value)
}

fn meta(key: Meta) -> Expression {
    Expression::Meta { key, into: REGISTER }
}

/// `ip saddr 10.0.0.0/8`, `ip6 daddr != fd00::1`. In an inet table the family must be matched first: `inet`.
pub fn address(inet: bool, direction: Direction, comparison: Comparison, cidr: Cidr) -> Vec<Expression> {
    let mut match_ = Vec::with_capacity(5);
    if inet {
        let family = if cidr.is_ipv4() { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 };
        match_.extend([meta(Meta::NetworkProtocol), equal(&[family as u8])]);
    }
    let (offset, len) = match (cidr.is_ipv4(), direction) {
        (true, Direction::Source) => (12, 4),
        (true, Direction::Destination) => (16, 4),
        (false, Direction::Source) => (8, 16),
        (false, Direction::Destination) => (24, 16),
    };
    match_.push(Expression::Payload { field: Field::Network { offset, len }, into: REGISTER });
    if cidr.prefix() < cidr.width() {
        match_.push(Expression::Mask { register: REGISTER, mask: cidr.mask_bytes() });
    }
    match_.push(compare(comparison, &crate::message::address_bytes(cidr.network().address())));
    match_
}

/// `tcp dport 80`.
pub fn destination_port(transport: Transport, comparison: Comparison, port: u16) -> Vec<Expression> {
    vec![
        meta(Meta::TransportProtocol),
        equal(&[transport.number()]),
        Expression::Payload { field: Field::Transport { offset: 2, len: 2 }, into: REGISTER },
        compare(comparison, &port.to_be_bytes()),
    ]
}

/// `fib daddr type local`.
pub fn destination_is_local() -> Vec<Expression> {
    let local = u32::from(libc::RTN_LOCAL).to_ne_bytes();
    vec![Expression::DestinationType { into: REGISTER }, equal(&local)]
}

/// `iifname "cni0"` with [`Meta::InputName`], `oifname` with [`Meta::OutputName`].
pub fn interface(key: Meta, comparison: Comparison, name: &str) -> Vec<Expression> {
    let mut padded = [0; libc::IFNAMSIZ];
    let length = name.len().min(padded.len() - 1);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    vec![meta(key), compare(comparison, &padded)]
}

/// `ether saddr 02:00:00:00:00:01`, in a bridge table.
pub fn source_mac(mac: Mac) -> Vec<Expression> {
    vec![Expression::Payload { field: Field::Link { offset: 6, len: 6 }, into: REGISTER }, equal(&mac.0)]
}
