//! Sets and maps: what their keys are made of, their elements, and what is in them.

use super::expression::Verdict;
use super::object::{Table, with_comment};
use super::{GENERIC_LEN, message, userdata};
use crate::message::{Attributes, Message};

const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LEN: u16 = 7;
const SET_DESC: u16 = 9;
const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
const DESC_SIZE: u16 = 1;
const DESC_CONCAT: u16 = 2;
const FIELD_LEN: u16 = 1;
const FLAG_INTERVAL: u32 = 0x4;
const FLAG_MAP: u32 = 0x8;
const FLAG_TIMEOUT: u32 = 0x10;
const FLAG_EVAL: u32 = 0x20;
const FLAG_CONCAT: u32 = 0x80;
const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;
/// sizeof(struct nft_verdict) as user space counts it.
const VERDICT_LEN: u32 = 16;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS_LIST: u16 = 3;
const LIST_ELEM: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_USERDATA: u16 = 6;
const ELEMENT_KEY_END: u16 = 10;
const DATA_VALUE: u16 = 1;
/// The list of elements is one attribute, whose length has sixteen bits.
const LIST_BYTES: usize = 60_000;

/// One part of a key or of a map's data, by nft's number; that matters to `nft list` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// NFPROTO_*.
    NetworkProtocol = 2,
    Ipv4Address = 7,
    Ipv6Address = 8,
    /// IPPROTO_*.
    TransportProtocol = 12,
    Port = 13,
    /// Four bytes of the host's order.
    Mark = 19,
}

impl DataType {
    fn size_bytes(self) -> u32 {
        match self {
            Self::NetworkProtocol | Self::TransportProtocol => 1,
            Self::Port => 2,
            Self::Ipv4Address | Self::Mark => 4,
            Self::Ipv6Address => 16,
        }
    }

    /// nft's number and the length of one part, or of several one after the other, each padded to four bytes.
    fn joined(parts: &[Self]) -> (u32, u32) {
        match parts {
            [one] => (*one as u32, one.size_bytes()),
            _ => (
                parts.iter().fold(0, |number, part| number << 6 | *part as u32),
                parts.iter().map(|part| part.size_bytes().next_multiple_of(4)).sum(),
            ),
        }
    }
}

/// What a set's elements map to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind<'a> {
    Plain,
    Verdicts,
    Values(&'a [DataType]),
}

/// How elements come into a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elements {
    /// By us, each a key.
    Single,
    /// By us, each from a key to another, part by part; the key has several parts (Linux 5.6).
    Ranges,
    /// By rules ([`Expression::Update`](super::Expression::Update)), at most `limit`, each for a time.
    Dynamic { limit: u32 },
}

/// A named set or map.
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    pub name: &'a str,
    pub key: &'a [DataType],
    pub kind: SetKind<'a>,
    pub elements: Elements,
    pub comment: Option<&'a str>,
}

/// What of a set cannot be changed once it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    flags: u32,
    key: (u32, u32),
    data: Option<(u32, u32)>,
    limit: u32,
}

/// A set as it is in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetEntry {
    pub name: String,
    pub definition: Definition,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Element {
    pub key: Vec<u8>,
    /// The last key of the range, in a set of [`Elements::Ranges`].
    pub key_end: Option<Vec<u8>>,
    pub data: Option<ElementData>,
    pub comment: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ElementData {
    Verdict(Verdict),
    Value(Vec<u8>),
}

impl Set<'_> {
    pub fn definition(&self) -> Definition {
        let map = if self.kind == SetKind::Plain { 0 } else { FLAG_MAP };
        let (elements, limit) = match self.elements {
            Elements::Single => (0, 0),
            Elements::Ranges => (FLAG_INTERVAL | FLAG_CONCAT, 0),
            Elements::Dynamic { limit } => (FLAG_TIMEOUT | FLAG_EVAL, limit),
        };
        let data = match self.kind {
            SetKind::Plain => None,
            SetKind::Verdicts => Some((DATA_TYPE_VERDICT, VERDICT_LEN)),
            SetKind::Values(parts) => Some(DataType::joined(parts)),
        };
        Definition { flags: map | elements, key: DataType::joined(self.key), data, limit }
    }
}

impl SetEntry {
    /// `None`: of another table.
    pub fn decode(body: &[u8], table: &str) -> Option<Self> {
        let attributes = Attributes::after(body, GENERIC_LEN)?;
        if attributes.string(SET_TABLE)? != table {
            return None;
        }
        let pair = |kind, len| Some((attributes.be32(kind)?, attributes.be32(len)?));
        let data = pair(SET_DATA_TYPE, SET_DATA_LEN);
        let definition = Definition {
            flags: attributes.be32(SET_FLAGS).unwrap_or_default(),
            key: pair(SET_KEY_TYPE, SET_KEY_LEN)?,
            // The kernel does not tell a verdict's length in the way it was told.
            data: data
                .or(attributes.be32(SET_DATA_TYPE).map(|kind| (kind, VERDICT_LEN)))
                .map(|(kind, len)| (kind, if kind == DATA_TYPE_VERDICT { VERDICT_LEN } else { len })),
            limit: attributes.nested(SET_DESC).and_then(|desc| desc.be32(DESC_SIZE)).unwrap_or_default(),
        };
        Some(Self { name: attributes.string(SET_NAME)?, definition })
    }
}

/// `id` must differ between the sets of one batch.
pub fn add_set(table: Table<'_>, set: &Set<'_>, id: u32) -> Message {
    let definition = set.definition();
    let m = message(format!("add set {} {}", table.name, set.name), NEWSET, libc::NLM_F_CREATE, table.family)
        .string(SET_TABLE, table.name)
        .string(SET_NAME, set.name)
        .be32(SET_FLAGS, definition.flags)
        .be32(SET_KEY_TYPE, definition.key.0)
        .be32(SET_KEY_LEN, definition.key.1)
        .be32(SET_ID, id);
    let m = match definition.data {
        None => m,
        Some((kind, len)) => m.be32(SET_DATA_TYPE, kind).be32(SET_DATA_LEN, len),
    };
    let m = match set.elements {
        Elements::Single => m,
        Elements::Dynamic { limit } => m.nest(SET_DESC, |m| m.be32(DESC_SIZE, limit)),
        Elements::Ranges => m.nest(SET_DESC, |m| {
            let field =
                |m: Message, part: &DataType| m.nest(LIST_ELEM, |m| m.be32(FIELD_LEN, part.size_bytes()));
            m.nest(DESC_CONCAT, |m| set.key.iter().fold(m, field))
        }),
    };
    set.comment
        .into_iter()
        .fold(m, |m, c| m.attribute(SET_USERDATA, &userdata::encode_as(userdata::SET_COMMENT, c)))
}

pub fn delete_set(table: Table<'_>, set: &str) -> Message {
    message(format!("delete set {} {set}", table.name), DELSET, 0, table.family)
        .string(SET_TABLE, table.name)
        .string(SET_NAME, set)
}

pub fn list_sets(table: Table<'_>) -> Message {
    message(format!("list sets of table {}", table.name), GETSET, libc::NLM_F_DUMP, table.family)
        .string(SET_TABLE, table.name)
}

/// As many messages as the elements need.
pub fn add_elements(table: Table<'_>, set: &str, elements: &[Element]) -> Vec<Message> {
    change_elements("add", NEWSETELEM, libc::NLM_F_CREATE, table, set, elements)
}

pub fn delete_elements(table: Table<'_>, set: &str, elements: &[Element]) -> Vec<Message> {
    change_elements("delete", DELSETELEM, 0, table, set, elements)
}

fn change_elements(
    verb: &str,
    kind: u16,
    flags: i32,
    table: Table<'_>,
    set: &str,
    elements: &[Element],
) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut rest = elements;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |element: &&Element| {
            bytes += element.size_bound();
            bytes <= LIST_BYTES
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        rest = later;
        let what = format!("{verb} {count} elements of set {} {set}", table.name);
        let fill = |m| now.iter().fold(m, |m: Message, e| m.nest(LIST_ELEM, |m| e.encode(m)));
        messages.push(
            message(what, kind, flags, table.family)
                .string(ELEMENTS_TABLE, table.name)
                .string(ELEMENTS_SET, set)
                .nest(ELEMENTS_LIST, fill),
        );
    }
    messages
}

pub fn list_elements(table: Table<'_>, set: &str) -> Message {
    let what = format!("list elements of set {} {set}", table.name);
    message(what, GETSETELEM, libc::NLM_F_DUMP, table.family)
        .string(ELEMENTS_TABLE, table.name)
        .string(ELEMENTS_SET, set)
}

pub fn decode_elements(body: &[u8]) -> Vec<Element> {
    let list = Attributes::after(body, GENERIC_LEN).and_then(|a| a.nested(ELEMENTS_LIST));
    list.into_iter().flatten().filter_map(|(_, value)| Element::decode(&Attributes::new(value))).collect()
}

impl Element {
    /// At most so long is it encoded: the parts, and headers with padding of up to eight nests.
    fn size_bound(&self) -> usize {
        let data = match &self.data {
            Some(ElementData::Value(value)) => value.len(),
            Some(ElementData::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))) => chain.len(),
            None | Some(ElementData::Verdict(_)) => 0,
        };
        let comment = self.comment.as_ref().map_or(0, String::len);
        self.key.len() + self.key_end.as_ref().map_or(0, Vec::len) + data + comment + 8 * 8
    }

    fn encode(&self, m: Message) -> Message {
        let m = m.nest(ELEMENT_KEY, |m| m.attribute(DATA_VALUE, &self.key));
        let m = match &self.key_end {
            None => m,
            Some(end) => m.nest(ELEMENT_KEY_END, |m| m.attribute(DATA_VALUE, end)),
        };
        let m = match &self.data {
            None => m,
            Some(ElementData::Verdict(verdict)) => m.nest(ELEMENT_DATA, |m| verdict.encode(m)),
            Some(ElementData::Value(value)) => m.nest(ELEMENT_DATA, |m| m.attribute(DATA_VALUE, value)),
        };
        with_comment(m, ELEMENT_USERDATA, self.comment.as_deref())
    }

    fn decode(element: &Attributes<'_>) -> Option<Self> {
        let data = element.nested(ELEMENT_DATA).and_then(|data| match data.get(DATA_VALUE) {
            Some(value) => Some(ElementData::Value(value.to_vec())),
            None => Verdict::decode(&data).map(ElementData::Verdict),
        });
        let value = |kind| Some(element.nested(kind)?.get(DATA_VALUE)?.to_vec());
        Some(Self {
            key: value(ELEMENT_KEY)?,
            key_end: value(ELEMENT_KEY_END),
            data,
            comment: element.get(ELEMENT_USERDATA).and_then(userdata::decode),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Family;
    use super::*;
    use crate::message::HEADER_LEN;

    const TABLE: Table<'_> = Table { family: Family::Ipv4, name: "t" };

    fn decoded(messages: Vec<Message>) -> Vec<Element> {
        messages.into_iter().flat_map(|m| decode_elements(&m.sealed(1, true)[HEADER_LEN..])).collect()
    }

    #[test]
    fn elements_survive_encoding() {
        let elements = vec![
            Element { key: vec![1, 2], ..Element::default() },
            Element {
                key: vec![3],
                data: Some(ElementData::Verdict(Verdict::Goto("c".into()))),
                comment: Some("x".into()),
                ..Element::default()
            },
            Element { key: vec![4], data: Some(ElementData::Value(vec![9])), ..Element::default() },
            Element { key: vec![5], key_end: Some(vec![6]), ..Element::default() },
        ];
        assert_eq!(decoded(add_elements(TABLE, "s", &elements)), elements);
    }

    #[test]
    fn more_elements_than_one_message_holds_go_into_several() {
        let element = |number: u32| Element {
            key: number.to_be_bytes().to_vec(),
            data: Some(ElementData::Verdict(Verdict::Goto("a-chain".into()))),
            ..Element::default()
        };
        let elements: Vec<_> = (0..5000).map(element).collect();
        let messages = add_elements(TABLE, "s", &elements);
        assert!(messages.len() > 4, "{}", messages.len());
        assert_eq!(decoded(messages), elements);
        assert!(delete_elements(TABLE, "s", &[]).is_empty());
    }

    #[test]
    fn what_was_asked_for_is_recognised() {
        use DataType::{Ipv4Address, Port, TransportProtocol};
        let key = [Ipv4Address, TransportProtocol, Port];
        for kind in [SetKind::Plain, SetKind::Verdicts, SetKind::Values(&[Ipv4Address, Port])] {
            for elements in [Elements::Single, Elements::Ranges, Elements::Dynamic { limit: 9 }] {
                let set = Set { name: "s", key: &key, kind, elements, comment: None };
                let bytes = add_set(TABLE, &set, 1).sealed(1, true);
                let entry = SetEntry::decode(&bytes[HEADER_LEN..], "t").expect("a set");
                assert_eq!(entry, SetEntry { name: "s".into(), definition: set.definition() });
                assert_eq!(SetEntry::decode(&bytes[HEADER_LEN..], "other"), None);
            }
        }
    }

    #[test]
    fn short_bodies_decode_to_nothing() {
        for length in 0..8 {
            assert!(decode_elements(&vec![0; length]).is_empty());
            assert_eq!(SetEntry::decode(&vec![0; length], "t"), None);
        }
    }
}
