//! What is the same for all attachments, tables, chains and their fixed rules: written only where it differs.
//!
//! "Adding" a chain that exists is an update to the kernel, and updates, like deleted rules, wait for an RCU grace
//! period when the socket closes (5 to 10 ms; Linux 6.18, nft_rcv_nl_event()). So an ADD that finds all as it should
//! be adds its own rules and nothing else.

use corten_netlink::nft::{Batch, Chain, Expression, Rule, Table};
use corten_netlink::{NetlinkError, Socket};

/// The table with its comment, and those of the chains that are missing.
pub fn write_chains(
    socket: &mut Socket,
    batch: &mut Batch,
    table: Table<'_>,
    comment: &str,
    chains: &[Chain<'_>],
) -> Result<(), NetlinkError> {
    let existing = socket.nft_chains(table)?;
    let missing: Vec<_> = chains.iter().filter(|c| !existing.iter().any(|name| name == c.name)).collect();
    if !missing.is_empty() {
        batch.add_table(table, Some(comment));
    }
    for chain in missing {
        batch.add_chain(table, chain);
    }
    Ok(())
}

/// The chain must exist, or be added earlier in the batch.
pub fn write_chain(
    socket: &mut Socket,
    batch: &mut Batch,
    table: Table<'_>,
    chain: &str,
    wanted: Vec<Vec<Expression>>,
) -> Result<(), NetlinkError> {
    let existing = socket.nft_rules(table, chain)?;
    if existing.iter().map(|rule| rule.expressions.as_ref()).eq(wanted.iter().map(Some)) {
        return Ok(());
    }
    batch.flush_chain(table, chain);
    for expressions in wanted {
        batch.add_rule(table, chain, &Rule { expressions, comment: None, tag: None });
    }
    Ok(())
}
