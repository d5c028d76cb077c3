//! Expressions: what a rule does, step by step, on 16-byte registers.

use super::operand::{Conntrack, Field, Meta, Register};
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
const NUMGEN_RANDOM: u32 = 1;
const DYNSET_UPDATE: u32 = 1;

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

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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
    Conntrack {
        key: Conntrack,
        into: Register,
    },
    /// A number below `modulus`, drawn for each packet; four bytes of the host's order.
    Random {
        modulus: u32,
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
    /// `update @set { key timeout t }`: adds the element, or starts its time anew. When the set is full the rule ends
    /// here. Maps are left out: nft(8) before 1.0.7 aborts on listing an update with data from another map.
    Update {
        set: String,
        key: Register,
        timeout_ms: u64,
    },
    /// Drops the packet and tells its sender.
    Reject(Reject),
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
    /// A match of iptables (nft_compat), in iptables' own tables: `info` is its C structure, padded to eight bytes.
    Match {
        name: &'static str,
        revision: u32,
        info: Vec<u8>,
    },
}

/// The matches of iptables that [`Expression::Match`] stands for; others are not read.
const MATCHES: [&str; 2] = ["comment", "conntrack"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupInto {
    Nothing,
    Verdict,
    Register(Register),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// `reject with tcp reset`.
    TcpReset,
    /// `reject`: port unreachable of the packet's family (inet and bridge tables).
    PortUnreachable,
}

impl Reject {
    /// NFT_REJECT_* and, with ICMPX, NFT_REJECT_ICMPX_PORT_UNREACH.
    fn parts(self) -> (u32, Option<u8>) {
        match self {
            Self::TcpReset => (1, None),
            Self::PortUnreachable => (2, Some(1)),
        }
    }
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
            Self::Conntrack { .. } => "ct",
            Self::Random { .. } => "numgen",
            Self::Update { .. } => "dynset",
            Self::Reject(_) => "reject",
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
            Self::Match { .. } => "match",
        }
    }

    fn encode_data(&self, m: Message) -> Message {
        match self {
            Self::Payload { field, into } => {
                let (base, offset, len) = field.parts();
                m.be32(1, *into as u32).be32(2, base).be32(3, offset).be32(4, len)
            }
            Self::Meta { key, into } => m.be32(1, *into as u32).be32(2, *key as u32),
            Self::Conntrack { key, into } => {
                let (number, direction) = key.parts();
                let m = m.be32(1, *into as u32).be32(2, number);
                direction.into_iter().fold(m, |m, direction| m.attribute(3, &[direction]))
            }
            Self::Random { modulus, into } => {
                m.be32(1, *into as u32).be32(2, *modulus).be32(3, NUMGEN_RANDOM).be32(4, 0)
            }
            Self::Update { set, key, timeout_ms } => m
                .string(1, set)
                .be32(3, DYNSET_UPDATE)
                .be32(4, *key as u32)
                .attribute(6, &timeout_ms.to_be_bytes()),
            Self::Reject(reject) => {
                let (kind, code) = reject.parts();
                code.into_iter().fold(m.be32(1, kind), |m, code| m.attribute(2, &[code]))
            }
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
            Self::Match { name, revision, info } => m.string(1, name).be32(2, *revision).attribute(3, info),
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
            "ct" => {
                Self::Conntrack { into: register(1)?, key: Conntrack::decode(data.be32(2)?, data.u8(3))? }
            }
            "numgen" if data.be32(3) == Some(NUMGEN_RANDOM) && data.be32(4).unwrap_or_default() == 0 => {
                Self::Random { into: register(1)?, modulus: data.be32(2)? }
            }
            // 5, 7 and 10: data and expressions of the element, which these updates do not have.
            "dynset"
                if data.be32(3) == Some(DYNSET_UPDATE)
                    && [5, 7, 10].iter().all(|kind| data.get(*kind).is_none()) =>
            {
                Self::Update { set: data.string(1)?, key: register(4)?, timeout_ms: data.be64(6)? }
            }
            "reject" => Self::Reject([Reject::TcpReset, Reject::PortUnreachable].into_iter().find(|r| {
                r.parts().0 == data.be32(1).unwrap_or_default()
                    && (r.parts().1.is_none() || r.parts().1 == data.u8(2))
            })?),
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
            "match" => Self::Match {
                name: MATCHES.into_iter().find(|name| data.string(1).as_deref() == Some(name))?,
                revision: data.be32(2)?,
                info: data.get(3)?.to_vec(),
            },
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
        let is_extension = matches!(name.as_str(), "match" | "target");
        if let (false, Some(known)) = (is_extension, Expression::decode(&name, &data)) {
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
        let extension =
            is_extension.then(|| Some((data.string(1)?, data.get(3).unwrap_or_default().to_vec()))).flatten();
        Reading::Other { name, writes, extension }
    };
    list.map(read).collect()
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
            Expression::Conntrack { key: Conntrack::Status, into: Register::word(5) },
            Expression::Conntrack { key: Conntrack::OriginalDestination4, into: One },
            Expression::Conntrack { key: Conntrack::OriginalDestination6, into: One },
            Expression::Conntrack { key: Conntrack::OriginalDestinationPort, into: Two },
            Expression::Random { modulus: 3, into: Register::word(15) },
            Expression::Update { set: "s".into(), key: One, timeout_ms: 10_800_000 },
            Expression::Reject(Reject::TcpReset),
            Expression::Reject(Reject::PortUnreachable),
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
