//! portmap: ports of the host lead to ports of the container, by nftables.

mod condition;
mod config;
mod rules;

use std::net::IpAddr;

use corten_netlink::nft::Transport;
use corten_netlink::route::{IPV4_DEVCONF_ROUTE_LOCALNET, LinkChange, encode};
use corten_netlink::{Protocol, Socket, conntrack};
use serde_json::Value;

use self::config::{Config, container_addresses};
use super::Plugin;
use crate::Result;
use crate::error::{Code, Error};
use crate::skel::{Attachment, Network, ValidAttachment};
use crate::types;

pub static PLUGIN: Plugin = Plugin {
    name: "portmap",
    about: "maps host ports to a container (chained)",
    add,
    del,
    check,
    gc,
    status,
};

fn add(network: &Network, attachment: &Attachment) -> Result<Value> {
    let config = Config::load(network)?;
    let Some(prev_result) = network.prev_result() else {
        return Err(Error::config(
            "portmap must be called as a chained plugin: the key \"prevResult\" is missing",
        ));
    };
    if !config.mappings.is_empty() {
        let addresses = container_addresses(network, attachment)?;
        config.refuse_unreachable(&addresses)?;
        let outcome = addresses.iter().try_for_each(|address| map(network, attachment, &config, *address));
        outcome.map_err(|error| {
            let undone = rules::remove(&rules::Owner::new(network, attachment)).err();
            error.and(undone)
        })?;
    }
    types::echo(prev_result, network.version)
}

fn map(network: &Network, attachment: &Attachment, config: &Config, address: IpAddr) -> Result<()> {
    rules::add(&rules::Owner::new(network, attachment), config, address)?;
    let udp = config.mappings.iter().filter(|m| m.transport == Transport::Udp);
    let ports: Vec<u16> = udp.map(|m| m.host_port).collect();
    if !ports.is_empty() {
        conntrack::flush_udp(&mut Socket::open(Protocol::Netfilter)?, address.is_ipv4(), &ports)?;
    }
    if config.snat && address.is_ipv4() {
        allow_localnet(address)?;
    }
    Ok(())
}

/// Lets packets from 127.0.0.1 leave by the interface towards the container: else they are martians.
fn allow_localnet(address: IpAddr) -> Result<()> {
    let mut socket = Socket::open(Protocol::Route)?;
    let Some(link) = socket.link_towards(address)? else { return Ok(()) };
    let conf = vec![(IPV4_DEVCONF_ROUTE_LOCALNET, 1)];
    let change = LinkChange { ipv4_conf: conf, ..LinkChange::default() };
    Ok(socket.transact(vec![encode::set_link(link, &change)])?)
}

fn del(network: &Network, attachment: &Attachment) -> Result<()> {
    if config::has_mappings(network) {
        rules::remove(&rules::Owner::new(network, attachment))
    } else {
        Ok(())
    }
}

fn check(network: &Network, attachment: &Attachment) -> Result<()> {
    let config = Config::load(network)?;
    if network.prev_result().is_none() {
        return Err(Error::config("CHECK needs the key \"prevResult\""));
    }
    let owner = rules::Owner::new(network, attachment);
    let addresses = container_addresses(network, attachment)?;
    addresses.iter().try_for_each(|address| rules::check(&owner, &config, *address))
}

fn gc(network: &Network, valid: &[ValidAttachment]) -> Result<()> {
    rules::collect_garbage(network, valid)
}

fn status(network: &Network) -> Result<()> {
    Config::load(network)?;
    let probe = || Socket::open(Protocol::Netfilter)?.nft_probe();
    probe().map_err(|e: corten_netlink::NetlinkError| {
        Error::new(Code::NotAvailable, format!("portmap needs nf_tables: {e}"))
    })
}
