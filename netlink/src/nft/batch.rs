//! A transaction: the kernel applies all of it or nothing (nfnetlink_rcv_batch()).

use super::object::{self, Chain, Rule, RuleEntry, Table};
use super::set::{self, Element, Set};
use crate::message::Message;
use crate::{NetlinkError, Socket};

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

/// Adding what exists is no error, as with `nft add`; deleting what does not exist is ENOENT.
#[derive(Debug, Default)]
pub struct Batch {
    messages: Vec<Message>,
    sets: u32,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// `comment` only takes effect when the table is created.
    pub fn add_table(&mut self, table: Table<'_>, comment: Option<&str>) -> &mut Self {
        self.push(object::add_table(table, comment))
    }

    pub fn delete_table(&mut self, table: Table<'_>) -> &mut Self {
        self.push(object::delete_table(table))
    }

    pub fn add_chain(&mut self, table: Table<'_>, chain: &Chain<'_>) -> &mut Self {
        self.push(object::add_chain(table, chain))
    }

    pub fn flush_chain(&mut self, table: Table<'_>, chain: &str) -> &mut Self {
        self.push(object::flush_chain(table, chain))
    }

    /// EBUSY while a rule jumps to it.
    pub fn delete_chain(&mut self, table: Table<'_>, chain: &str) -> &mut Self {
        self.push(object::delete_chain(table, chain))
    }

    /// Appends.
    pub fn add_rule(&mut self, table: Table<'_>, chain: &str, rule: &Rule<'_>) -> &mut Self {
        self.push(object::add_rule(table, chain, rule))
    }

    /// Before all rules of the chain.
    pub fn insert_rule(&mut self, table: Table<'_>, chain: &str, rule: &Rule<'_>) -> &mut Self {
        self.push(object::insert_rule(table, chain, rule))
    }

    /// By its handle.
    pub fn delete_rule(&mut self, table: Table<'_>, rule: &RuleEntry) -> &mut Self {
        self.push(object::delete_rule(table, rule))
    }

    pub fn add_set(&mut self, table: Table<'_>, set: &Set<'_>) -> &mut Self {
        self.sets += 1;
        self.push(set::add_set(table, set, self.sets))
    }

    pub fn delete_set(&mut self, table: Table<'_>, set: &str) -> &mut Self {
        self.push(set::delete_set(table, set))
    }

    pub fn add_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) -> &mut Self {
        self.messages.extend(set::add_elements(table, set, elements));
        self
    }

    /// ENOENT when one is missing.
    pub fn delete_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) -> &mut Self {
        self.messages.extend(set::delete_elements(table, set, elements));
        self
    }

    fn push(&mut self, message: Message) -> &mut Self {
        self.messages.push(message);
        self
    }

    /// `socket`: of [`crate::Protocol::Netfilter`]. An empty batch is not sent.
    pub fn commit(self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let bracket = |kind| Message::new("nf_tables batch", kind, 0, &[0, 0, 0, super::SUBSYSTEM as u8]);
        socket.batch(bracket(NFNL_MSG_BATCH_BEGIN), self.messages, bracket(NFNL_MSG_BATCH_END))
    }
}
