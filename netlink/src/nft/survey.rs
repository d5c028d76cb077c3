//! Everybody's chains and rules, read tolerantly: what this crate cannot write is named instead of refused.

use super::expression::{Expression, decode_each};
use super::{Family, GENERIC_LEN, SUBSYSTEM, Table};
use crate::message::{Attributes, Message};
use crate::{NetlinkError, Socket};

const GETCHAIN: u16 = 4;
const GETRULE: u16 = 7;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_DEV: u16 = 3;
const HOOK_DEVS: u16 = 4;
const DEVICE_NAME: u16 = 1;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const ACCEPT: u32 = 1;

/// A chain the kernel calls, of any table and family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookedChain {
    pub family: u8,
    pub table: String,
    pub name: String,
    /// NF_INET_*; in family netdev 0 is ingress, 1 egress.
    pub hook: u32,
    /// `filter`, `nat`, `route`.
    pub kind: String,
    /// The policy is drop.
    pub drops: bool,
    /// In family netdev (and inet's ingress hook): the devices.
    pub devices: Vec<String>,
}

/// One expression of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    Known(Expression),
    Other {
        name: String,
        /// It changes something: a `set` statement (`meta mark set 1`), not a match.
        writes: bool,
        /// The iptables extension's name and settings, where the expression is `match` or `target`.
        extension: Option<(String, Vec<u8>)>,
    },
}

impl HookedChain {
    /// `None` for chains that only others jump to.
    fn decode(body: &[u8]) -> Option<Self> {
        let attributes = Attributes::after(body, GENERIC_LEN)?;
        let hook = attributes.nested(CHAIN_HOOK)?;
        let listed = hook.nested(HOOK_DEVS).into_iter().flatten();
        let listed = listed.filter(|(kind, _)| *kind == DEVICE_NAME).map(|(_, value)| text(value));
        Some(Self {
            family: body[0],
            table: attributes.string(CHAIN_TABLE)?,
            name: attributes.string(CHAIN_NAME)?,
            hook: hook.be32(HOOK_NUMBER)?,
            kind: attributes.string(CHAIN_TYPE).unwrap_or_default(),
            drops: attributes.be32(CHAIN_POLICY).is_some_and(|policy| policy != ACCEPT),
            devices: hook.string(HOOK_DEV).into_iter().chain(listed).collect(),
        })
    }
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn ask(what: String, kind: u16, family: u8) -> Message {
    Message::new(what, SUBSYSTEM << 8 | kind, libc::NLM_F_DUMP, &[family, 0, 0, 0])
}

/// `family`: NFPROTO_*.
fn list_rules(family: u8, table: &str, chain: &str) -> Message {
    ask(format!("list rules of {table} {chain}"), GETRULE, family)
        .string(RULE_TABLE, table)
        .string(RULE_CHAIN, chain)
}

impl Socket {
    /// The chains that hooks call, of all tables and families.
    pub fn nft_hooked_chains(&mut self) -> Result<Vec<HookedChain>, NetlinkError> {
        let request = ask("list chains of all tables".into(), GETCHAIN, 0);
        Ok(self.dump(&request)?.iter().filter_map(|r| HookedChain::decode(&r.body)).collect())
    }

    /// The rules of a chain in order, each a list of expressions; none when the chain is gone.
    pub fn nft_read_rules(
        &mut self,
        family: u8,
        table: &str,
        chain: &str,
    ) -> Result<Vec<Vec<Reading>>, NetlinkError> {
        let replies = self.dump(&list_rules(family, table, chain))?;
        let rule = |body: &[u8]| {
            let attributes = Attributes::after(body, GENERIC_LEN)?;
            let here = attributes.string(RULE_CHAIN)? == chain && attributes.string(RULE_TABLE)? == table;
            let expressions = attributes.nested(RULE_EXPRESSIONS).map(decode_each).unwrap_or_default();
            here.then_some(expressions)
        };
        Ok(replies.iter().filter_map(|r| rule(&r.body)).collect())
    }
}

impl Table<'_> {
    /// Is this the table that a survey names so?
    pub fn is(&self, family: u8, name: &str) -> bool {
        self.family.number() == family && self.name == name
    }
}

impl Family {
    /// NFPROTO_* as [`HookedChain::family`] has it.
    pub fn nfproto(self) -> u8 {
        self.number()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hooked_chain_is_read_with_its_devices_and_policy() {
        let message = Message::new("", 0, 0, &[5, 0, 0, 0])
            .string(CHAIN_TABLE, "t")
            .string(CHAIN_NAME, "c")
            .nest(CHAIN_HOOK, |m| {
                m.be32(HOOK_NUMBER, 0)
                    .nest(HOOK_DEVS, |m| m.string(DEVICE_NAME, "eth0").string(DEVICE_NAME, "eth1"))
            })
            .be32(CHAIN_POLICY, 0)
            .string(CHAIN_TYPE, "filter");
        let bytes = message.sealed(1, false);
        let chain = HookedChain::decode(&bytes[crate::message::HEADER_LEN..]).expect("a hooked chain");
        assert_eq!((chain.family, chain.hook, chain.drops), (5, 0, true));
        assert_eq!(chain.devices, ["eth0", "eth1"]);
        assert_eq!(HookedChain::decode(&[0; 4]), None, "no hook");
        assert_eq!(HookedChain::decode(&[]), None);
    }
}
