//! What expressions work on: registers, and the values that are loaded into them.

/// One of the sixteen 4-byte words that a rule computes with. A value longer than a word fills the words after it;
/// the parts of a concatenated key follow each other, each padded to whole words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// Words 0, 4, 8 and 12 have the numbers of the older 16-byte registers, by which the kernel names them.
    One = 1,
    Two = 2,
    Three = 3,
    Four = 4,
    Word1 = 9,
    Word2 = 10,
    Word3 = 11,
    Word5 = 13,
    Word6 = 14,
    Word7 = 15,
    Word9 = 17,
    Word10 = 18,
    Word11 = 19,
    Word13 = 21,
    Word14 = 22,
    Word15 = 23,
}

impl Register {
    pub const COUNT: usize = 16;
    const WORDS: [Self; Self::COUNT] = [
        Self::One,
        Self::Word1,
        Self::Word2,
        Self::Word3,
        Self::Two,
        Self::Word5,
        Self::Word6,
        Self::Word7,
        Self::Three,
        Self::Word9,
        Self::Word10,
        Self::Word11,
        Self::Four,
        Self::Word13,
        Self::Word14,
        Self::Word15,
    ];

    /// # Panics
    /// From 16 on.
    pub fn word(number: usize) -> Self {
        Self::WORDS[number]
    }

    /// The word it begins at.
    pub fn index(self) -> usize {
        match self as usize {
            number @ 1..=4 => (number - 1) * 4,
            number => number - 8,
        }
    }

    /// NFT_REG_1 to _4, or NFT_REG32_00 to _15.
    pub(super) fn decode(number: u32) -> Option<Self> {
        let word = match number {
            1..=4 => (number - 1) * 4,
            _ => number.checked_sub(8)?,
        };
        Self::WORDS.get(word as usize).copied()
    }
}

/// Bytes of the packet: base, offset, length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Link { offset: u32, len: u32 },
    Network { offset: u32, len: u32 },
    Transport { offset: u32, len: u32 },
}

/// What the kernel knows beside the packet's bytes (NFT_META_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    Mark = 3,
    InputName = 6,
    OutputName = 7,
    /// The network protocol (NFPROTO_*), in inet tables.
    NetworkProtocol = 15,
    /// IPPROTO_*.
    TransportProtocol = 16,
}

/// What connection tracking knows of the packet's flow (NFT_CT_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conntrack {
    /// IPS_*, four bytes of the host's order.
    Status,
    /// Where the flow's first packet went before any translation. Of IPv4 flows only.
    OriginalDestination4,
    /// Of IPv6 flows only.
    OriginalDestination6,
    OriginalDestinationPort,
}

/// IPS_DST_NAT.
pub const CT_STATUS_DNAT: u32 = 1 << 5;
/// IP_CT_DIR_ORIGINAL.
const ORIGINAL: u8 = 0;

impl Conntrack {
    const ALL: [Self; 4] =
        [Self::Status, Self::OriginalDestination4, Self::OriginalDestination6, Self::OriginalDestinationPort];

    pub(super) fn parts(self) -> (u32, Option<u8>) {
        match self {
            Self::Status => (2, None),
            Self::OriginalDestination4 => (20, Some(ORIGINAL)),
            Self::OriginalDestination6 => (22, Some(ORIGINAL)),
            Self::OriginalDestinationPort => (12, Some(ORIGINAL)),
        }
    }

    pub(super) fn decode(number: u32, direction: Option<u8>) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.parts() == (number, direction))
    }
}

impl Field {
    pub(super) fn parts(self) -> (u32, u32, u32) {
        match self {
            Self::Link { offset, len } => (0, offset, len),
            Self::Network { offset, len } => (1, offset, len),
            Self::Transport { offset, len } => (2, offset, len),
        }
    }

    pub(super) fn decode(base: u32, offset: u32, len: u32) -> Option<Self> {
        match base {
            0 => Some(Self::Link { offset, len }),
            1 => Some(Self::Network { offset, len }),
            2 => Some(Self::Transport { offset, len }),
            _ => None,
        }
    }
}

impl Meta {
    pub(super) fn decode(number: u32) -> Option<Self> {
        [Self::Mark, Self::InputName, Self::OutputName, Self::NetworkProtocol, Self::TransportProtocol]
            .into_iter()
            .find(|key| *key as u32 == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_known_by_either_number() {
        for (word, register) in Register::WORDS.into_iter().enumerate() {
            assert_eq!(Register::decode(8 + word as u32), Some(register), "{word}");
            assert_eq!(Register::decode(register as u32), Some(register), "{word}");
            assert_eq!(register.index(), word);
        }
        for number in [0, 5, 7, 24] {
            assert_eq!(Register::decode(number), None, "{number}");
        }
    }
}
