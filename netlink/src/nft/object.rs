//! Tables, chains and rules: requests and decoded dumps.

use super::expression::{self, Expression};
use super::{Family, GENERIC_LEN, message, userdata};
use crate::message::{Attributes, Message};

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
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
const GENERATION_ID: u16 = 1;

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

/// A chain as it is in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEntry {
    pub name: String,
    pub base: Option<BaseEntry>,
}

/// How a base chain is hooked; with numbers, since others make hooks that [`BaseChain`] does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseEntry {
    /// NF_INET_*.
    pub hook: u32,
    pub kind: String,
    pub priority: i32,
    /// The policy is accept.
    pub accepts: bool,
}

impl BaseEntry {
    /// Is it what [`Batch::add_chain`](super::Batch::add_chain) makes of `base`?
    pub fn is(&self, base: BaseChain) -> bool {
        self.hook == base.hook as u32
            && self.kind == base.kind
            && self.priority == base.priority
            && self.accepts
    }
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

pub(super) fn with_comment(m: Message, kind: u16, comment: Option<&str>) -> Message {
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

impl ChainEntry {
    /// `None`: of another table.
    pub fn decode(body: &[u8], table: &str) -> Option<Self> {
        let attributes = Attributes::after(body, GENERIC_LEN)?;
        if attributes.string(CHAIN_TABLE)? != table {
            return None;
        }
        let base = attributes.nested(CHAIN_HOOK).map(|hook| BaseEntry {
            hook: hook.be32(HOOK_NUMBER).unwrap_or(u32::MAX),
            kind: attributes.string(CHAIN_TYPE).unwrap_or_default(),
            priority: hook.be32(HOOK_PRIORITY).unwrap_or_default() as i32,
            accepts: attributes.be32(CHAIN_POLICY) == Some(ACCEPT),
        });
        Some(Self { name: attributes.string(CHAIN_NAME)?, base })
    }
}

pub fn flush_chain(table: Table<'_>, chain: &str) -> Message {
    message(format!("flush chain {} {chain}", table.name), DELRULE, 0, table.family)
        .string(RULE_TABLE, table.name)
        .string(RULE_CHAIN, chain)
}

pub fn add_rule(table: Table<'_>, chain: &str, rule: &Rule<'_>) -> Message {
    new_rule(libc::NLM_F_CREATE | libc::NLM_F_APPEND, table, chain, rule)
}

pub fn insert_rule(table: Table<'_>, chain: &str, rule: &Rule<'_>) -> Message {
    new_rule(libc::NLM_F_CREATE, table, chain, rule)
}

fn new_rule(flags: i32, table: Table<'_>, chain: &str, rule: &Rule<'_>) -> Message {
    let what = format!("add rule to {} {chain}", table.name);
    let m = message(what, NEWRULE, flags, table.family)
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

/// Of every chain of the table.
pub fn list_table_rules(table: Table<'_>) -> Message {
    message(format!("list rules of table {}", table.name), GETRULE, libc::NLM_F_DUMP, table.family)
        .string(RULE_TABLE, table.name)
}

pub fn list_rules(table: Table<'_>, chain: &str) -> Message {
    let what = format!("list rules of {} {chain}", table.name);
    message(what, GETRULE, libc::NLM_F_DUMP, table.family)
        .string(RULE_TABLE, table.name)
        .string(RULE_CHAIN, chain)
}

impl RuleEntry {
    /// `None`: of another table.
    pub fn decode(body: &[u8], table: &str) -> Option<Self> {
        let attributes = Attributes::after(body, GENERIC_LEN)?;
        if attributes.string(RULE_TABLE)? != table {
            return None;
        }
        Some(Self {
            chain: attributes.string(RULE_CHAIN)?,
            handle: attributes.be64(RULE_HANDLE)?,
            comment: attributes.get(RULE_USERDATA).and_then(userdata::decode),
            tag: attributes.get(RULE_USERDATA).and_then(|data| userdata::decode_as(userdata::TAG, data)),
            expressions: attributes.nested(RULE_EXPRESSIONS).and_then(expression::decode_list),
        })
    }
}

pub fn get_table(table: Table<'_>) -> Message {
    message(format!("look at table {}", table.name), GETTABLE, 0, table.family).string(TABLE_NAME, table.name)
}

pub fn decode_table_flags(body: &[u8]) -> Option<u32> {
    Attributes::after(body, GENERIC_LEN)?.be32(TABLE_FLAGS)
}

pub fn decode_generation(body: &[u8]) -> Option<u32> {
    Attributes::after(body, GENERIC_LEN)?.be32(GENERATION_ID)
}

pub fn generation() -> Message {
    message("ask for the nf_tables generation".into(), GETGEN, 0, Family::Inet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::HEADER_LEN;
    use crate::nft::Verdict;

    const TABLE: Table<'_> = Table { family: Family::Ipv4, name: "t" };

    #[test]
    fn a_rule_survives_encoding() {
        let expressions = vec![Expression::Masquerade, Expression::Verdict(Verdict::Return)];
        let rule = Rule { expressions: expressions.clone(), comment: Some("pod-1"), tag: Some("net") };
        let bytes = add_rule(TABLE, "c", &rule).attribute(RULE_HANDLE, &7_u64.to_be_bytes()).sealed(1, true);
        let decoded = RuleEntry::decode(&bytes[HEADER_LEN..], "t").expect("a rule");
        let comment = Some("pod-1".to_owned());
        let tag = Some("net".to_owned());
        let wanted = RuleEntry { chain: "c".into(), handle: 7, comment, tag, expressions: Some(expressions) };
        assert_eq!(decoded, wanted);
    }

    #[test]
    fn short_bodies_decode_to_nothing() {
        for length in 0..8 {
            assert_eq!(RuleEntry::decode(&vec![0; length], "t"), None);
            assert_eq!(ChainEntry::decode(&vec![0; length], "t"), None);
        }
    }
}
