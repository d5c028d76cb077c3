//! nf_tables: objects, expressions, and the atomic batch that carries them.
//!
//! What nft(8) prints is what these types mean: a rule is a list of expressions that load registers, compare them and
//! end in a verdict; a comment is user data the kernel keeps without reading. Numbers are from
//! linux/netfilter/nf_tables.h, user data from libnftnl/udata.h.

mod batch;
mod expression;
mod matching;
mod object;
mod survey;
mod userdata;

pub use batch::Batch;
pub use expression::{Comparison, Expression, Field, LookupInto, Meta, Register, Translation, Verdict};
pub use matching::{
    Direction, Transport, address, destination_is_local, destination_port, interface, source_mac,
};
pub use object::{BaseChain, Chain, Element, ElementData, Hook, Rule, RuleEntry, Set, SetKind, Table};
pub use survey::{HookedChain, Reading};

use crate::message::Message;
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

/// Questions.
impl Socket {
    /// The rules of a chain, in order; none when table or chain do not exist.
    pub fn nft_rules(&mut self, table: Table<'_>, chain: &str) -> Result<Vec<RuleEntry>, NetlinkError> {
        let replies = self.dump(&object::list_rules(table, chain))?;
        Ok(replies.iter().filter_map(|r| RuleEntry::decode(&r.body)).filter(|r| r.chain == chain).collect())
    }

    /// The elements of a set or map. ENOENT when it does not exist.
    pub fn nft_elements(&mut self, table: Table<'_>, set: &str) -> Result<Vec<Element>, NetlinkError> {
        let replies = self.dump(&object::list_elements(table, set))?;
        Ok(replies.iter().flat_map(|r| object::decode_elements(&r.body)).collect())
    }

    /// The names of the chains of a table; none when it does not exist.
    pub fn nft_chains(&mut self, table: Table<'_>) -> Result<Vec<String>, NetlinkError> {
        let replies = self.dump(&object::list_chains(table))?;
        Ok(replies.iter().filter_map(|r| object::decode_chain_name(&r.body, table.name)).collect())
    }

    /// Succeeds when the kernel has nf_tables and we may use it.
    pub fn nft_probe(&mut self) -> Result<(), NetlinkError> {
        self.get(object::generation()).map(drop)
    }
}
