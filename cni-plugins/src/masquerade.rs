//! ipMasq: a rule per address in upstream's nftables layout, so that the Go plugins' DEL and GC find ours and ours
//! theirs.
//!
//! Table `inet cni_plugins_masquerade`, chain `masq_checks`. A rule's comment begins with a hash of network, interface
//! and container; that is how it is found, also when the namespace is gone.

use corten_netlink::nft::{
    self, BaseChain, Batch, Chain, Comparison, Direction, Expression, Family, Hook, Rule, RuleEntry, Table,
    Verdict,
};
use corten_netlink::{Cidr, NetlinkError, Protocol, Socket};
use nix::errno::Errno;

use crate::error::{Code, Error};
use crate::owner::{self, Owner};
use crate::skel::ValidAttachment;
use crate::{Result, frame};

const TABLE: Table<'_> = Table { family: Family::Inet, name: "cni_plugins_masquerade" };
const TABLE_COMMENT: &str = "Masquerading for plugins from github.com/containernetworking/plugins";
const CHECKS: &str = "masq_checks";
const CHECKS_COMMENT: &str =
    "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet";
const POSTROUTING: &str = "postrouting";
/// nft(8)'s `srcnat`.
const SOURCE_NAT_PRIORITY: i32 = 100;
const COMMENT_MAX_BYTES: usize = 127;
/// Deleting by handle meets another's delete of the same rule: look again this often.
const TRIES: u32 = 10;

fn comment_of(owner: &Owner<'_>) -> String {
    let Owner { network, ifname, container_id } = owner;
    let mut comment = format!("{}, net: {network}, if: {ifname}, id: {container_id}", owner.hash());
    comment = comment.replace('"', "");
    comment.truncate(COMMENT_MAX_BYTES);
    comment
}

/// Source-NATs what these addresses send out of their subnets. Rules this owner had before are replaced.
pub fn set_up(owner: &Owner<'_>, addresses: &[Cidr]) -> Result<()> {
    let mut socket = open()?;
    let comment = comment_of(owner);
    replace(
        &mut socket,
        |rules| rules.starts_with(&owner.hash()),
        |socket, batch| {
            add_frame(socket, batch)?;
            for address in addresses {
                let rule = masquerade_rule(*address, &comment);
                batch.add_rule(TABLE, CHECKS, &rule);
            }
            Ok(())
        },
    )
}

/// Everything but the rules of single attachments; adding what exists changes nothing.
fn add_frame(socket: &mut Socket, batch: &mut Batch) -> std::result::Result<(), NetlinkError> {
    let base = BaseChain { hook: Hook::Postrouting, kind: "nat", priority: SOURCE_NAT_PRIORITY };
    let chains = [
        Chain { name: CHECKS, base: None, comment: Some(CHECKS_COMMENT) },
        Chain { name: POSTROUTING, base: Some(base), comment: None },
    ];
    frame::write_chains(socket, batch, TABLE, TABLE_COMMENT, &chains)?;
    let leave_alone = |multicast: &str| {
        let network = multicast.parse().expect("a constant cidr");
        let mut expressions = nft::address(true, Direction::Destination, Comparison::Equal, network);
        expressions.push(Expression::Verdict(Verdict::Return));
        expressions
    };
    let check = vec![Expression::Verdict(Verdict::Goto(CHECKS.into()))];
    let rules = vec![leave_alone("224.0.0.0/4"), leave_alone("ff00::/8"), check];
    frame::write_chain(socket, batch, TABLE, POSTROUTING, rules)
}

fn masquerade_rule(address: Cidr, comment: &str) -> Rule<'_> {
    let host = Cidr::host(address.address());
    let mut expressions = nft::address(true, Direction::Source, Comparison::Equal, host);
    expressions.extend(nft::address(true, Direction::Destination, Comparison::NotEqual, address.network()));
    expressions.push(Expression::Masquerade);
    Rule { expressions, comment: Some(comment), tag: None }
}

pub fn tear_down(socket: &mut Socket, owner: &Owner<'_>) -> Result<()> {
    replace(socket, |comment| comment.starts_with(&owner.hash()), |_, _| Ok(()))
}

/// Removes the rules of attachments of this network that are not valid any more.
pub fn collect_garbage(network: &str, valid: &[ValidAttachment]) -> Result<()> {
    let stale = owner::is_stale(network, valid);
    replace(&mut open()?, stale, |_, _| Ok(()))
}

/// Every address has its rule.
pub fn check(owner: &Owner<'_>, addresses: &[Cidr]) -> Result<()> {
    let rules = open()?.nft_rules(TABLE, CHECKS)?;
    for address in addresses {
        let wanted = masquerade_rule(*address, "").expressions;
        let mine = |rule: &RuleEntry| rule.comment.as_deref().is_some_and(|c| c.starts_with(&owner.hash()));
        if !rules.iter().any(|rule| mine(rule) && rule.expressions.as_ref() == Some(&wanted)) {
            return Err(Error::internal(format!("the masquerade rule for {address} is missing")));
        }
    }
    Ok(())
}

/// Would [`set_up`] work here?
pub fn status() -> Result<()> {
    let probe = || Socket::open(Protocol::Netfilter)?.nft_probe();
    probe().map_err(|error: NetlinkError| {
        let text = format!("ipMasq needs nf_tables: {error}");
        Error::new(Code::NotAvailable, text)
    })
}

fn open() -> Result<Socket> {
    Ok(Socket::open(Protocol::Netfilter)?)
}

/// In one transaction: deletes the rules whose comment is `stale`, and adds.
fn replace(
    socket: &mut Socket,
    stale: impl Fn(&str) -> bool,
    add: impl Fn(&mut Socket, &mut Batch) -> std::result::Result<(), NetlinkError>,
) -> Result<()> {
    for _ in 1..TRIES {
        match try_replace(socket, &stale, &add) {
            Err(error) if error.is(Errno::ENOENT) => {}
            outcome => return Ok(outcome?),
        }
    }
    Ok(try_replace(socket, &stale, &add)?)
}

fn try_replace(
    socket: &mut Socket,
    stale: impl Fn(&str) -> bool,
    add: impl Fn(&mut Socket, &mut Batch) -> std::result::Result<(), NetlinkError>,
) -> std::result::Result<(), NetlinkError> {
    let rules = socket.nft_rules(TABLE, CHECKS)?;
    let mut batch = Batch::new();
    add(socket, &mut batch)?;
    for rule in rules.iter().filter(|rule| rule.comment.as_deref().is_some_and(&stale)) {
        batch.delete_rule(TABLE, rule);
    }
    batch.commit(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_upstreams() {
        let owner = Owner { network: "unit-test", ifname: "eth0", container_id: "one" };
        // printf '%s' unit-test | sha512sum; printf '%s' eth0:one | sha512sum
        assert_eq!(comment_of(&owner), format!("{}, net: unit-test, if: eth0, id: one", owner.hash()));
        assert_eq!(owner.hash().len(), 33);
        let long = Owner { container_id: &"a".repeat(100), ..owner };
        assert_eq!(comment_of(&long).len(), COMMENT_MAX_BYTES);
    }
}
