//! nf_tables: objects, expressions, and the atomic batch that carries them.
//!
//! What nft(8) prints is what these types mean: a rule is a list of expressions that load registers, compare them and
//! end in a verdict; a comment is user data the kernel keeps without reading. Numbers are from
//! linux/netfilter/nf_tables.h, user data from libnftnl/udata.h.

mod batch;
mod expression;
mod matching;
mod object;
mod operand;
mod set;
mod survey;
mod userdata;

pub use batch::Batch;
pub use expression::{Comparison, Expression, LookupInto, Reject, Translation, Verdict};
pub use matching::{
    Direction, Transport, address, destination_is_local, destination_port, interface, source_mac,
};
pub use object::{BaseChain, BaseEntry, Chain, ChainEntry, Hook, Rule, RuleEntry, Table};
pub use operand::{CT_STATUS_DNAT, Conntrack, Field, Meta, Register};
pub use set::{DataType, Definition, Element, ElementData, Elements, Set, SetEntry, SetKind};
pub use survey::{HookedChain, Reading};

use nix::errno::Errno;

use crate::message::{Attributes, Message};
use crate::{NetlinkError, Socket};

/// Where a hook of this family sees packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Inet,
    Ipv4,
    Ipv6,
    Bridge,
}

impl Family {
    /// NFPROTO_*.
    fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Bridge => 7,
            Self::Ipv6 => 10,
        }
    }
}

const SUBSYSTEM: u16 = 10;
const GENERIC_LEN: usize = 4;

fn message(what: String, kind: u16, flags: i32, family: Family) -> Message {
    Message::new(what, SUBSYSTEM << 8 | kind, flags, &[family.number(), 0, 0, 0])
}

/// A table whose chains the kernel does not call (`flags dormant`).
const TABLE_DORMANT: u32 = 1;

/// Questions.
impl Socket {
    /// Whether the table is there, and awake.
    pub fn nft_table(&mut self, table: Table<'_>) -> Result<Option<bool>, NetlinkError> {
        match self.get(object::get_table(table)) {
            Ok(reply) => Ok(Some(
                object::decode_table_flags(&reply.body).is_none_or(|flags| flags & TABLE_DORMANT == 0),
            )),
            Err(error) if error.is(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The rules of a chain, in order; none when table or chain do not exist.
    pub fn nft_rules(&mut self, table: Table<'_>, chain: &str) -> Result<Vec<RuleEntry>, NetlinkError> {
        let replies = self.dump(&object::list_rules(table, chain))?;
        let rules = replies.iter().filter_map(|r| RuleEntry::decode(&r.body, table.name));
        Ok(rules.filter(|r| r.chain == chain).collect())
    }

    /// The rules of all chains of a table, in order within each.
    pub fn nft_table_rules(&mut self, table: Table<'_>) -> Result<Vec<RuleEntry>, NetlinkError> {
        let replies = self.dump(&object::list_table_rules(table))?;
        Ok(replies.iter().filter_map(|r| RuleEntry::decode(&r.body, table.name)).collect())
    }

    /// The sets and maps of a table, those of single rules included; none when it does not exist.
    pub fn nft_sets(&mut self, table: Table<'_>) -> Result<Vec<SetEntry>, NetlinkError> {
        match self.dump(&set::list_sets(table)) {
            Ok(replies) => Ok(replies.iter().filter_map(|r| SetEntry::decode(&r.body, table.name)).collect()),
            Err(error) if error.is(Errno::ENOENT) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The elements of a set or map. ENOENT when it does not exist.
    ///
    /// For some milliseconds after a set has grown or shrunk much, the kernel moves its elements to a larger or smaller
    /// table; a list of several datagrams may then hold an element twice and lack another. Twice is the sign: read again.
    pub fn nft_elements(&mut self, table: Table<'_>, set: &str) -> Result<Vec<Element>, NetlinkError> {
        let replies = self.dump(&set::list_elements(table, set))?;
        Ok(replies.iter().flat_map(|r| set::decode_elements(&r.body)).collect())
    }

    /// The names of the chains of a table; none when it does not exist.
    pub fn nft_chains(&mut self, table: Table<'_>) -> Result<Vec<String>, NetlinkError> {
        Ok(self.nft_chain_entries(table)?.into_iter().map(|chain| chain.name).collect())
    }

    /// The chains of a table; none when it does not exist.
    pub fn nft_chain_entries(&mut self, table: Table<'_>) -> Result<Vec<ChainEntry>, NetlinkError> {
        let replies = self.dump(&object::list_chains(table))?;
        Ok(replies.iter().filter_map(|r| ChainEntry::decode(&r.body, table.name)).collect())
    }

    /// The number of the ruleset's last change, by anybody in this network namespace; elements that rules add are no
    /// change. While it stays the same, what was read or written is still so.
    pub fn nft_generation(&mut self) -> Result<u32, NetlinkError> {
        let reply = self.get(object::generation())?;
        object::decode_generation(&reply.body).ok_or(NetlinkError::Malformed {
            what: "ask for the nf_tables generation".into(),
            why: "no generation in it",
        })
    }

    /// Succeeds when the kernel has nf_tables and we may use it.
    pub fn nft_probe(&mut self) -> Result<(), NetlinkError> {
        self.get(object::generation()).map(drop)
    }
}

/// The table that a notification ([`crate::Event::Changed`]) is about; `None`: it is of no table, such as the end of a
/// transaction.
pub fn changed_table(kind: u16, body: &[u8]) -> Option<String> {
    /// In tables, chains, rules, sets, elements, objects and flow tables alike.
    const NAME: u16 = 1;
    const NEWGEN: u16 = SUBSYSTEM << 8 | 15;
    if kind >> 8 != SUBSYSTEM || kind == NEWGEN {
        return None;
    }
    Attributes::after(body, GENERIC_LEN)?.string(NAME)
}
