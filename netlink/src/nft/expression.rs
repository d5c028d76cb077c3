//! Expressions: what a rule does, step by step, on 16-byte registers.

use super::survey::Reading;
use crate::message::{Attributes, Message};

const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const REG_VERDICT: u32 = 0;
const MASQ_FLAGS: u16 = 1;
/// NF_NAT_RANGE_PROTO_RANDOM_FULLY.
const NAT_PROTO_RANDOM_FULLY: u32 = 1 << 4;
/// Find the type of the destination address: NFTA_FIB_F_DADDR, NFT_FIB_RESULT_ADDRTYPE.
const FIB_DESTINATION: u32 = 2;
const FIB_ADDRESS_TYPE: u32 = 3;

/// NFT_REG_1 and NFT_REG_2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    One = 1,
    Two = 2,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal = 0,
    NotEqual = 1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Translation {
    Source = 0,
    Destination = 1,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    Payload {
        field: Field,
        into: Register,
    },
    Meta {
        key: Meta,
        into: Register,
    },
    /// `fib daddr type`: RTN_* as four bytes of the host's order.
    DestinationType {
        into: Register,
    },
    Compare {
        register: Register,
        comparison: Comparison,
        value: Vec<u8>,
    },
    /// `register = register & mask`.
    Mask {
        register: Register,
        mask: Vec<u8>,
    },
    /// Is the register's value in the set; `into`: take the map's value; a verdict map takes its verdict.
    Lookup {
        set: String,
        register: Register,
        into: LookupInto,
        inverted: bool,
    },
    Immediate {
        into: Register,
        value: Vec<u8>,
    },
    Verdict(Verdict),
    Nat {
        translation: Translation,
        ipv4: bool,
        address: Option<Register>,
        port: Option<Register>,
    },
    Masquerade,
    /// To a port drawn at random, so that two flows seldom want the same (`fully-random`).
    MasqueradeFullyRandom,
    /// The packet makes no conntrack entry.
    Notrack,
    /// To this host, at the port in the register.
    Redirect {
        port: Option<Register>,
    },
    Counter {
        packets: u64,
        bytes: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupInto {
    Nothing,
    Verdict,
    Register(Register),
}

impl Expression {
    /// One element of NFTA_RULE_EXPRESSIONS.
    pub(super) fn encode(&self, list: Message) -> Message {
        list.nest(LIST_ELEM, |m| m.string(EXPR_NAME, self.name()).nest(EXPR_DATA, |m| self.encode_data(m)))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } => "meta",
            Self::DestinationType { .. } => "fib",
            Self::Compare { .. } => "cmp",
            Self::Mask { .. } => "bitwise",
            Self::Lookup { .. } => "lookup",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Nat { .. } => "nat",
            Self::Masquerade | Self::MasqueradeFullyRandom => "masq",
            Self::Notrack => "notrack",
            Self::Redirect { .. } => "redir",
            Self::Counter { .. } => "counter",
        }
    }

    fn encode_data(&self, m: Message) -> Message {
        match self {
            Self::Payload { field, into } => {
                let (base, offset, len) = field.parts();
                m.be32(1, *into as u32).be32(2, base).be32(3, offset).be32(4, len)
            }
            Self::Meta { key, into } => m.be32(1, *into as u32).be32(2, *key as u32),
            Self::DestinationType { into } => {
                m.be32(1, *into as u32).be32(2, FIB_ADDRESS_TYPE).be32(3, FIB_DESTINATION)
            }
            Self::Compare { register, comparison, value } => m
                .be32(1, *register as u32)
                .be32(2, *comparison as u32)
                .nest(3, |m| m.attribute(DATA_VALUE, value)),
            Self::Mask { register, mask } => m
                .be32(1, *register as u32)
                .be32(2, *register as u32)
                .be32(3, mask.len() as u32)
                .nest(4, |m| m.attribute(DATA_VALUE, mask))
                .nest(5, |m| m.attribute(DATA_VALUE, &vec![0; mask.len()])),
            Self::Lookup { set, register, into, inverted } => {
                let m = m.string(1, set).be32(2, *register as u32);
                let m = match into {
                    LookupInto::Nothing => m,
                    LookupInto::Verdict => m.be32(3, REG_VERDICT),
                    LookupInto::Register(into) => m.be32(3, *into as u32),
                };
                if *inverted { m.be32(5, 1) } else { m }
            }
            Self::Immediate { into, value } => {
                m.be32(1, *into as u32).nest(2, |m| m.attribute(DATA_VALUE, value))
            }
            Self::Verdict(verdict) => m.be32(1, REG_VERDICT).nest(2, |m| verdict.encode(m)),
            Self::Nat { translation, ipv4, address, port } => {
                let family = if *ipv4 { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 };
                let m = m.be32(1, *translation as u32).be32(2, family as u32);
                let m = address.iter().fold(m, |m, r| m.be32(3, *r as u32));
                port.iter().fold(m, |m, r| m.be32(5, *r as u32))
            }
            Self::Masquerade | Self::Notrack => m,
            Self::MasqueradeFullyRandom => m.be32(MASQ_FLAGS, NAT_PROTO_RANDOM_FULLY),
            Self::Redirect { port } => port.iter().fold(m, |m, r| m.be32(1, *r as u32)),
            Self::Counter { packets, bytes } => {
                m.attribute(1, &bytes.to_be_bytes()).attribute(2, &packets.to_be_bytes())
            }
        }
    }

    /// `None`: an expression this type has no variant for.
    fn decode(name: &str, data: &Attributes<'_>) -> Option<Self> {
        let register = |kind| data.be32(kind).and_then(Register::decode);
        let value = |kind| Some(data.nested(kind)?.get(DATA_VALUE)?.to_vec());
        Some(match name {
            "payload" => Self::Payload {
                field: Field::decode(data.be32(2)?, data.be32(3)?, data.be32(4)?)?,
                into: register(1)?,
            },
            "meta" => Self::Meta { into: register(1)?, key: Meta::decode(data.be32(2)?)? },
            "fib" if data.be32(2) == Some(FIB_ADDRESS_TYPE) && data.be32(3) == Some(FIB_DESTINATION) => {
                Self::DestinationType { into: register(1)? }
            }
            "cmp" => Self::Compare {
                register: register(1)?,
                comparison: Comparison::decode(data.be32(2)?)?,
                value: value(3)?,
            },
            "bitwise" if data.be32(1) == data.be32(2) && value(5)?.iter().all(|b| *b == 0) => {
                Self::Mask { register: register(1)?, mask: value(4)? }
            }
            "lookup" => Self::Lookup {
                set: data.string(1)?,
                register: register(2)?,
                into: match data.be32(3) {
                    None => LookupInto::Nothing,
                    Some(REG_VERDICT) => LookupInto::Verdict,
                    Some(_) => LookupInto::Register(register(3)?),
                },
                inverted: data.be32(5).unwrap_or_default() & 1 != 0,
            },
            "immediate" if data.be32(1) == Some(REG_VERDICT) => {
                Self::Verdict(Verdict::decode(&data.nested(2)?)?)
            }
            "immediate" => Self::Immediate { into: register(1)?, value: value(2)? },
            "nat" => Self::Nat {
                translation: if data.be32(1)? == 0 { Translation::Source } else { Translation::Destination },
                ipv4: data.be32(2)? == libc::NFPROTO_IPV4 as u32,
                address: register(3),
                port: register(5),
            },
            "masq" => match data.be32(MASQ_FLAGS).unwrap_or_default() {
                0 => Self::Masquerade,
                NAT_PROTO_RANDOM_FULLY => Self::MasqueradeFullyRandom,
                _ => return None,
            },
            "notrack" => Self::Notrack,
            "redir" => Self::Redirect { port: register(1) },
            "counter" => Self::Counter { bytes: data.be64(1)?, packets: data.be64(2)? },
            _ => return None,
        })
    }
}

/// The expressions of a rule; `None` when one of them is not ours to read.
pub(super) fn decode_list(list: Attributes<'_>) -> Option<Vec<Expression>> {
    list.map(|(_, value)| {
        let element = Attributes::new(value);
        let data = element.nested(EXPR_DATA).unwrap_or(Attributes::new(&[]));
        Expression::decode(&element.string(EXPR_NAME)?, &data)
    })
    .collect()
}

/// The expressions of a rule, each read as far as it can be.
pub(super) fn decode_each(list: Attributes<'_>) -> Vec<Reading> {
    let read = |(_, value): (u16, &[u8])| {
        let element = Attributes::new(value);
        let name = element.string(EXPR_NAME).unwrap_or_default();
        let data = element.nested(EXPR_DATA).unwrap_or(Attributes::new(&[]));
        if let Some(known) = Expression::decode(&name, &data) {
            return Reading::Known(known);
        }
        // NFTA_{META,CT,PAYLOAD,EXTHDR}_SREG.
        let source = match name.as_str() {
            "meta" => Some(3),
            "ct" => Some(4),
            "payload" => Some(5),
            "exthdr" => Some(7),
            _ => None,
        };
        let writes = source.is_some_and(|kind| data.get(kind).is_some());
        // NFTA_{MATCH,TARGET}_NAME and _INFO.
        let extension = matches!(name.as_str(), "match" | "target")
            .then(|| Some((data.string(1)?, data.get(3).unwrap_or_default().to_vec())))
            .flatten();
        Reading::Other { name, writes, extension }
    };
    list.map(read).collect()
}

impl Register {
    fn decode(number: u32) -> Option<Self> {
        match number {
            // NFT_REG32_00 and _04 are the same registers by their other numbers.
            1 | 8 => Some(Self::One),
            2 | 12 => Some(Self::Two),
            _ => None,
        }
    }
}

impl Field {
    fn parts(self) -> (u32, u32, u32) {
        match self {
            Self::Link { offset, len } => (0, offset, len),
            Self::Network { offset, len } => (1, offset, len),
            Self::Transport { offset, len } => (2, offset, len),
        }
    }

    fn decode(base: u32, offset: u32, len: u32) -> Option<Self> {
        match base {
            0 => Some(Self::Link { offset, len }),
            1 => Some(Self::Network { offset, len }),
            2 => Some(Self::Transport { offset, len }),
            _ => None,
        }
    }
}

impl Meta {
    fn decode(number: u32) -> Option<Self> {
        [Self::Mark, Self::InputName, Self::OutputName, Self::NetworkProtocol, Self::TransportProtocol]
            .into_iter()
            .find(|key| *key as u32 == number)
    }
}

impl Comparison {
    fn decode(number: u32) -> Option<Self> {
        [Self::Equal, Self::NotEqual].into_iter().find(|c| *c as u32 == number)
    }
}

impl Verdict {
    /// The content of NFTA_IMMEDIATE_DATA or of a verdict map's NFTA_SET_ELEM_DATA.
    pub(super) fn encode(&self, m: Message) -> Message {
        let (code, chain) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5, None),
        };
        m.nest(DATA_VERDICT, |m| {
            chain.iter().fold(m.be32(VERDICT_CODE, code as u32), |m, chain| m.string(VERDICT_CHAIN, chain))
        })
    }

    pub(super) fn decode(data: &Attributes<'_>) -> Option<Self> {
        let verdict = data.nested(DATA_VERDICT)?;
        Some(match verdict.be32(VERDICT_CODE)? as i32 {
            0 => Self::Drop,
            1 => Self::Accept,
            -3 => Self::Jump(verdict.string(VERDICT_CHAIN)?),
            -4 => Self::Goto(verdict.string(VERDICT_CHAIN)?),
            -5 => Self::Return,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expression_survives_encoding() {
        use Register::{One, Two};
        let all = vec![
            Expression::Payload { field: Field::Network { offset: 12, len: 4 }, into: One },
            Expression::Payload { field: Field::Link { offset: 6, len: 6 }, into: Two },
            Expression::Payload { field: Field::Transport { offset: 2, len: 2 }, into: One },
            Expression::Meta { key: Meta::TransportProtocol, into: One },
            Expression::DestinationType { into: One },
            Expression::Compare { register: One, comparison: Comparison::NotEqual, value: vec![1, 2, 3] },
            Expression::Mask { register: One, mask: vec![255, 0] },
            Expression::Lookup { set: "s".into(), register: One, into: LookupInto::Nothing, inverted: true },
            Expression::Lookup { set: "m".into(), register: One, into: LookupInto::Verdict, inverted: false },
            Expression::Lookup {
                set: "m".into(),
                register: One,
                into: LookupInto::Register(Two),
                inverted: false,
            },
            Expression::Immediate { into: Two, value: vec![0, 80] },
            Expression::Verdict(Verdict::Accept),
            Expression::Verdict(Verdict::Drop),
            Expression::Verdict(Verdict::Return),
            Expression::Verdict(Verdict::Jump("a".into())),
            Expression::Verdict(Verdict::Goto("b".into())),
            Expression::Nat {
                translation: Translation::Destination,
                ipv4: true,
                address: Some(One),
                port: Some(Two),
            },
            Expression::Masquerade,
            Expression::MasqueradeFullyRandom,
            Expression::Notrack,
            Expression::Redirect { port: Some(One) },
            Expression::Counter { packets: 3, bytes: 1 << 40 },
        ];
        let message = all.iter().fold(Message::new("", 0, 0, &[]), |m, e| e.encode(m));
        assert_eq!(decode_list(message.attributes(0)), Some(all));
    }

    #[test]
    fn an_expression_we_do_not_write_makes_the_rule_unread() {
        let message = Message::new("", 0, 0, &[]).nest(LIST_ELEM, |m| m.string(EXPR_NAME, "quota"));
        assert_eq!(decode_list(message.attributes(0)), None);
    }
}
