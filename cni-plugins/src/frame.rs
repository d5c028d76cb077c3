//! Chains whose rules are always the same: written only when they differ.
//!
//! Deleting a rule makes the kernel wait for an RCU grace period when the socket closes (some 10 ms), so an ADD that
//! finds them as they should be must not flush them.

use corten_netlink::nft::{Batch, Expression, Rule, Table};
use corten_netlink::{NetlinkError, Socket};

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
