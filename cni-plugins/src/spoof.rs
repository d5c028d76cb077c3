//! macspoofchk: only frames from the container's own MAC pass its port, in upstream's chains.
//!
//! Table `bridge nat`, base chain `PREROUTING`; a chain `cni-br-iface-<id>-<ifname>` and its `-mac` per attachment,
//! found by name, so teardown needs no namespace.

use corten_netlink::nft::{
    self, BaseChain, Batch, Chain, Comparison, Expression, Family, Hook, Meta, Rule, Table, Verdict,
};
use corten_netlink::route::Mac;
use corten_netlink::{Protocol, Socket};

use crate::Result;

const TABLE: Table<'_> = Table { family: Family::Bridge, name: "nat" };
const PREROUTING: &str = "PREROUTING";
/// nft(8)'s `dstnat` in the bridge family.
const PRIORITY: i32 = -300;

/// The names of one attachment's chains, and the comment of its rules.
struct Names {
    interface: String,
    mac: String,
    comment: String,
}

impl Names {
    fn new(container_id: &str, ifname: &str) -> Self {
        let interface = format!("cni-br-iface-{container_id}-{ifname}");
        let mac = format!("{interface}-mac");
        Self { interface, mac, comment: format!("macspoofchk-{container_id}-{ifname}") }
    }
}

/// `host_link`: the bridge port of the container.
pub fn set_up(container_id: &str, ifname: &str, host_link: &str, mac: Mac) -> Result<()> {
    let names = Names::new(container_id, ifname);
    let rule = |expressions| Rule { expressions, comment: Some(&names.comment), tag: None };
    let jump = |chain: &str| Expression::Verdict(Verdict::Jump(chain.to_owned()));
    let base = BaseChain { hook: Hook::Prerouting, kind: "filter", priority: PRIORITY };
    let chain = |name, base| Chain { name, base, comment: None };
    let mut from_port = nft::interface(Meta::InputName, Comparison::Equal, host_link);
    from_port.push(jump(&names.interface));
    let mut own_mac = nft::source_mac(mac);
    own_mac.push(Expression::Verdict(Verdict::Return));
    let mut batch = Batch::new();
    batch
        .add_table(TABLE, None)
        .add_chain(TABLE, &chain(PREROUTING, Some(base)))
        .add_chain(TABLE, &chain(&names.interface, None))
        .add_chain(TABLE, &chain(&names.mac, None))
        .flush_chain(TABLE, &names.interface)
        .flush_chain(TABLE, &names.mac)
        .add_rule(TABLE, PREROUTING, &rule(from_port))
        .add_rule(TABLE, &names.interface, &rule(vec![jump(&names.mac)]))
        .add_rule(TABLE, &names.mac, &rule(own_mac))
        .add_rule(TABLE, &names.mac, &rule(vec![Expression::Verdict(Verdict::Drop)]));
    Ok(batch.commit(&mut Socket::open(Protocol::Netfilter)?)?)
}

/// What is not there is no error.
pub fn tear_down(socket: &mut Socket, container_id: &str, ifname: &str) -> Result<()> {
    let names = Names::new(container_id, ifname);
    let mut batch = Batch::new();
    for rule in socket.nft_rules(TABLE, PREROUTING)? {
        if rule.comment.as_deref() == Some(&names.comment) {
            batch.delete_rule(TABLE, &rule);
        }
    }
    let chains = socket.nft_chains(TABLE)?;
    let existing = [&names.interface, &names.mac].into_iter().filter(|name| chains.contains(name));
    let existing: Vec<&String> = existing.collect();
    for name in &existing {
        batch.flush_chain(TABLE, name);
    }
    for name in &existing {
        batch.delete_chain(TABLE, name);
    }
    Ok(batch.commit(socket)?)
}
