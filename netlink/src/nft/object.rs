//! Tables, chains, rules, sets and elements: requests and decoded dumps.

use super::expression::{self, Expression, Verdict};
use super::{Family, GENERIC_LEN, message, userdata};
use crate::message::{Attributes, Message};

const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const GETGEN: u16 = 16;

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_USERDATA: u16 = 6;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const CHAIN_USERDATA: u16 = 12;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LEN: u16 = 7;
const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
const SET_FLAG_MAP: u32 = 8;
const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS_LIST: u16 = 3;
const LIST_ELEM: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_USERDATA: u16 = 6;
const DATA_VALUE: u16 = 1;

const ACCEPT: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table<'a> {
    pub family: Family,
    pub name: &'a str,
}

/// NF_INET_* (bridge families use the same numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A chain the kernel calls; policy accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseChain {
    pub hook: Hook,
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// `dstnat` is -100, `srcnat` 100; lower comes first.
    pub priority: i32,
}

#[derive(Debug, Clone, Copy)]
pub struct Chain<'a> {
    pub name: &'a str,
    /// `None`: called by jump and goto only.
    pub base: Option<BaseChain>,
    pub comment: Option<&'a str>,
}

#[derive(Debug, Clone)]
pub struct Rule<'a> {
    pub expressions: Vec<Expression>,
    pub comment: Option<&'a str>,
    /// Text beside the comment that nft(8) does not show.
    pub tag: Option<&'a str>,
}

/// A rule as it is in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleEntry {
    pub chain: String,
    pub handle: u64,
    pub comment: Option<String>,
    pub tag: Option<String>,
    /// `None`: it holds an expression this crate does not write.
    pub expressions: Option<Vec<Expression>>,
}

/// What a set's elements map to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    Plain,
    Verdicts,
    /// nft's number for the data type, and its length in bytes.
    Values(u32, u32),
}

/// A named set or map. `key_type` is nft's number (ipv4_addr 7, ipv6_addr 8, inet_proto 12, inet_service 13; a
/// concatenation is each shifted by six bits) and matters to `nft list` alone; each part of a concatenated key is
/// padded to four bytes.
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    pub name: &'a str,
    pub key_type: u32,
    pub key_len: u32,
    pub kind: SetKind,
    pub comment: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<u8>,
    pub data: Option<ElementData>,
    pub comment: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementData {
    Verdict(Verdict),
    Value(Vec<u8>),
}

fn with_comment(m: Message, kind: u16, comment: Option<&str>) -> Message {
    comment.into_iter().fold(m, |m, comment| m.attribute(kind, &userdata::encode(comment)))
}

pub fn add_table(table: Table<'_>, comment: Option<&str>) -> Message {
    let what = format!("add table {}", table.name);
    let m = message(what, NEWTABLE, libc::NLM_F_CREATE, table.family)
        .string(TABLE_NAME, table.name)
        .be32(TABLE_FLAGS, 0);
    with_comment(m, TABLE_USERDATA, comment)
}

pub fn delete_table(table: Table<'_>) -> Message {
    message(format!("delete table {}", table.name), DELTABLE, 0, table.family).string(TABLE_NAME, table.name)
}

pub fn add_chain(table: Table<'_>, chain: &Chain<'_>) -> Message {
    let what = format!("add chain {} {}", table.name, chain.name);
    let m = message(what, NEWCHAIN, libc::NLM_F_CREATE, table.family)
        .string(CHAIN_TABLE, table.name)
        .string(CHAIN_NAME, chain.name);
    let m = match chain.base {
        None => m,
        Some(base) => m
            .nest(CHAIN_HOOK, |m| {
                m.be32(HOOK_NUMBER, base.hook as u32).be32(HOOK_PRIORITY, base.priority as u32)
            })
            .be32(CHAIN_POLICY, ACCEPT)
            .string(CHAIN_TYPE, base.kind),
    };
    with_comment(m, CHAIN_USERDATA, chain.comment)
}

pub fn delete_chain(table: Table<'_>, chain: &str) -> Message {
    message(format!("delete chain {} {chain}", table.name), DELCHAIN, 0, table.family)
        .string(CHAIN_TABLE, table.name)
        .string(CHAIN_NAME, chain)
}

pub fn list_chains(table: Table<'_>) -> Message {
    message(format!("list chains of table {}", table.name), GETCHAIN, libc::NLM_F_DUMP, table.family)
}

pub fn decode_chain_name(body: &[u8], table: &str) -> Option<String> {
    let attributes = Attributes::after(body, GENERIC_LEN)?;
    (attributes.string(CHAIN_TABLE)? == table).then(|| attributes.string(CHAIN_NAME)).flatten()
}

pub fn flush_chain(table: Table<'_>, chain: &str) -> Message {
    message(format!("flush chain {} {chain}", table.name), DELRULE, 0, table.family)
        .string(RULE_TABLE, table.name)
        .string(RULE_CHAIN, chain)
}

pub fn add_rule(table: Table<'_>, chain: &str, rule: &Rule<'_>) -> Message {
    let what = format!("add rule to {} {chain}", table.name);
    let m = message(what, NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, table.family)
        .string(RULE_TABLE, table.name)
        .string(RULE_CHAIN, chain)
        .nest(RULE_EXPRESSIONS, |m| rule.expressions.iter().fold(m, |m, e| e.encode(m)));
    let comment = rule.comment.map(userdata::encode);
    let tag = rule.tag.map(|tag| userdata::encode_as(userdata::TAG, tag));
    let data: Vec<u8> = comment.into_iter().chain(tag).flatten().collect();
    if data.is_empty() { m } else { m.attribute(RULE_USERDATA, &data) }
}

pub fn delete_rule(table: Table<'_>, rule: &RuleEntry) -> Message {
    let what = format!("delete rule {} of {} {}", rule.handle, table.name, rule.chain);
    message(what, DELRULE, 0, table.family)
        .string(RULE_TABLE, table.name)
        .string(RULE_CHAIN, &rule.chain)
        .attribute(RULE_HANDLE, &rule.handle.to_be_bytes())
}

pub fn list_rules(table: Table<'_>, chain: &str) -> Message {
    let what = format!("list rules of {} {chain}", table.name);
    message(what, GETRULE, libc::NLM_F_DUMP, table.family)
        .string(RULE_TABLE, table.name)
        .string(RULE_CHAIN, chain)
}

impl RuleEntry {
    pub fn decode(body: &[u8]) -> Option<Self> {
        let attributes = Attributes::after(body, GENERIC_LEN)?;
        Some(Self {
            chain: attributes.string(RULE_CHAIN)?,
            handle: attributes.be64(RULE_HANDLE)?,
            comment: attributes.get(RULE_USERDATA).and_then(userdata::decode),
            tag: attributes.get(RULE_USERDATA).and_then(|data| userdata::decode_as(userdata::TAG, data)),
            expressions: attributes.nested(RULE_EXPRESSIONS).and_then(expression::decode_list),
        })
    }
}

/// `id` must differ between the sets of one batch.
pub fn add_set(table: Table<'_>, set: &Set<'_>, id: u32) -> Message {
    let flags = if set.kind == SetKind::Plain { 0 } else { SET_FLAG_MAP };
    let m = message(format!("add set {} {}", table.name, set.name), NEWSET, libc::NLM_F_CREATE, table.family)
        .string(SET_TABLE, table.name)
        .string(SET_NAME, set.name)
        .be32(SET_FLAGS, flags)
        .be32(SET_KEY_TYPE, set.key_type)
        .be32(SET_KEY_LEN, set.key_len)
        .be32(SET_ID, id);
    let m = match set.kind {
        SetKind::Plain => m,
        SetKind::Verdicts => m.be32(SET_DATA_TYPE, DATA_TYPE_VERDICT).be32(SET_DATA_LEN, 16),
        SetKind::Values(kind, len) => m.be32(SET_DATA_TYPE, kind).be32(SET_DATA_LEN, len),
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

pub fn add_elements(table: Table<'_>, set: &str, elements: &[Element]) -> Message {
    change_elements("add", NEWSETELEM, libc::NLM_F_CREATE, table, set, elements)
}

pub fn delete_elements(table: Table<'_>, set: &str, elements: &[Element]) -> Message {
    change_elements("delete", DELSETELEM, 0, table, set, elements)
}

fn change_elements(
    verb: &str,
    kind: u16,
    flags: i32,
    table: Table<'_>,
    set: &str,
    elements: &[Element],
) -> Message {
    let what = format!("{verb} {} elements of set {} {set}", elements.len(), table.name);
    message(what, kind, flags, table.family)
        .string(ELEMENTS_TABLE, table.name)
        .string(ELEMENTS_SET, set)
        .nest(ELEMENTS_LIST, |m| elements.iter().fold(m, |m, e| m.nest(LIST_ELEM, |m| e.encode(m))))
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
    fn encode(&self, m: Message) -> Message {
        let m = m.nest(ELEMENT_KEY, |m| m.attribute(DATA_VALUE, &self.key));
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
        Some(Self {
            key: element.nested(ELEMENT_KEY)?.get(DATA_VALUE)?.to_vec(),
            data,
            comment: element.get(ELEMENT_USERDATA).and_then(userdata::decode),
        })
    }
}

pub fn generation() -> Message {
    message("ask for the nf_tables generation".into(), GETGEN, 0, Family::Inet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::HEADER_LEN;

    const TABLE: Table<'_> = Table { family: Family::Ipv4, name: "t" };

    #[test]
    fn a_rule_survives_encoding() {
        let expressions = vec![Expression::Masquerade, Expression::Verdict(Verdict::Return)];
        let rule = Rule { expressions: expressions.clone(), comment: Some("pod-1"), tag: Some("net") };
        let bytes = add_rule(TABLE, "c", &rule).attribute(RULE_HANDLE, &7_u64.to_be_bytes()).sealed(1, true);
        let decoded = RuleEntry::decode(&bytes[HEADER_LEN..]).expect("a rule");
        let comment = Some("pod-1".to_owned());
        let tag = Some("net".to_owned());
        let wanted = RuleEntry { chain: "c".into(), handle: 7, comment, tag, expressions: Some(expressions) };
        assert_eq!(decoded, wanted);
    }

    #[test]
    fn elements_survive_encoding() {
        let elements = vec![
            Element { key: vec![1, 2], data: None, comment: None },
            Element {
                key: vec![3],
                data: Some(ElementData::Verdict(Verdict::Goto("c".into()))),
                comment: Some("x".into()),
            },
            Element { key: vec![4], data: Some(ElementData::Value(vec![9])), comment: None },
        ];
        let bytes = add_elements(TABLE, "s", &elements).sealed(1, true);
        assert_eq!(decode_elements(&bytes[HEADER_LEN..]), elements);
    }

    #[test]
    fn short_bodies_decode_to_nothing() {
        for length in 0..8 {
            assert_eq!(RuleEntry::decode(&vec![0; length]), None);
            assert!(decode_elements(&vec![0; length]).is_empty());
        }
    }
}
