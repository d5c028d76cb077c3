//! What the CNI plugins leave in the host's network when their last pod is gone, and the removal of it: the bridge,
//! empty tables of rules, IPv4 forwarding.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use corten_netlink::nft::{Batch, Family, Table};
use corten_netlink::{NetlinkError, Protocol, Socket};

use crate::instance::Record;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Tables that the bridge and portmap plugins make, ours and upstream's alike.
const TABLES: [(Family, &str); 3] = [
    (Family::Inet, "cni_plugins_masquerade"),
    (Family::Ipv4, "cni_hostport"),
    (Family::Ipv6, "cni_hostport"),
];

pub fn ip_forward() -> String {
    fs::read_to_string(IP_FORWARD).unwrap_or_default().trim().to_string()
}

/// `ip cni_hostport`, as nft(8) writes it.
fn label(family: Family, name: &str) -> String {
    let family = match family {
        Family::Inet => "inet",
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
        Family::Bridge => "bridge",
    };
    format!("{family} {name}")
}

/// Which of the plugins' tables exist.
pub fn tables() -> Result<Vec<String>> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut present = Vec::new();
    for (family, name) in TABLES {
        if !socket
            .nft_chains(Table { family, name })
            .with_context(|| format!("cannot list table {name}"))?
            .is_empty()
        {
            present.push(label(family, name));
        }
    }
    Ok(present)
}

/// Removes the bridge when no port is left on it, tables without a rule of any container, and puts forwarding back.
pub fn remove(record: &Record) -> Vec<String> {
    let bridge = remove_bridge(&record.settings.bridge).err().map(|e| format!("{e:#}"));
    let tables = TABLES.iter().filter(|(family, name)| !record.tables.contains(&label(*family, name)));
    let tables = tables.filter_map(|(family, name)| remove_table(Table { family: *family, name }).err());
    let forward =
        (record.ip_forward == "0" && ip_forward() == "1").then(|| fs::write(IP_FORWARD, "0").err()).flatten();
    let forward = forward.map(|error| format!("cannot write {IP_FORWARD}: {error}"));
    bridge.into_iter().chain(tables.map(|e| e.to_string())).chain(forward).collect()
}

/// The kernel takes a dead namespace's veth away some 30 ms after its last process, later under load.
const PORTS_GO_WITHIN: Duration = Duration::from_secs(10);

fn remove_bridge(name: &str) -> Result<()> {
    let mut socket = Socket::open(Protocol::Route)?;
    let Some(bridge) = socket.link(name)? else { return Ok(()) };
    let started = Instant::now();
    loop {
        let ports = socket.links()?.into_iter().filter(|link| link.master == Some(bridge.index)).count();
        if ports == 0 {
            break;
        }
        if started.elapsed() > PORTS_GO_WITHIN {
            anyhow::bail!("bridge {name} has {ports} ports that are not ours: it is not removed");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    socket.transact(vec![corten_netlink::route::encode::delete_link(bridge.index)])?;
    Ok(())
}

fn remove_table(table: Table<'_>) -> Result<(), NetlinkError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let chains = socket.nft_chains(table)?;
    if chains.is_empty() {
        return Ok(());
    }
    // What the plugins add for a container has a comment that names it; the frame around it has none. A frame alone
    // may go even if another node uses it: the next ADD makes it again.
    for chain in &chains {
        if socket.nft_rules(table, chain)?.iter().any(|rule| rule.comment.is_some()) {
            return Ok(());
        }
    }
    let mut batch = Batch::new();
    batch.delete_table(table);
    batch.commit(&mut socket)
}
