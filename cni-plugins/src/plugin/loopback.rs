//! loopback: brings up `lo` in the container's namespace, whatever CNI_IFNAME says.

use corten_netlink::route::{Link, LinkChange, encode};
use corten_netlink::{Protocol, Socket};
use corten_sys::netns::NetNs;
use serde_json::Value;

use super::Plugin;
use crate::Result;
use crate::error::Error;
use crate::skel::{Attachment, Network};
use crate::types::{self, CniResult, Interface, IpConfig};

pub static PLUGIN: Plugin = Plugin {
    name: "loopback",
    about: "brings up the loopback interface",
    add,
    del,
    check,
    // It keeps nothing and needs nothing.
    gc: |_, _| Ok(()),
    status: |_| Ok(()),
};

const NAME: &str = "lo";

fn add(network: &Network, attachment: &Attachment) -> Result<Value> {
    let (mut socket, lo) = open(&attachment.open_netns()?)?;
    set_up(&mut socket, &lo, true)?;
    let addresses = socket.addresses(lo.index)?;
    if let Some(other) = addresses.iter().find(|a| !a.cidr.address().is_loopback()) {
        return Err(Error::internal(format!("lo has an address that is not loopback: {}", other.cidr)));
    }
    if let Some(prev_result) = network.prev_result() {
        return types::echo(prev_result, network.version);
    }
    let interface = Interface {
        name: NAME.into(),
        mac: "00:00:00:00:00:00".into(),
        sandbox: attachment.netns.clone(),
        ..Interface::default()
    };
    let first = |ipv4: bool| addresses.iter().find(|a| a.cidr.is_ipv4() == ipv4);
    let ips = [first(true), first(false)].into_iter().flatten();
    let ips = ips.map(|a| IpConfig { address: a.cidr, gateway: None, interface: Some(0) }).collect();
    types::render(&CniResult { interfaces: vec![interface], ips, ..CniResult::default() }, network.version)
}

fn del(_: &Network, attachment: &Attachment) -> Result<()> {
    if attachment.netns_doomed {
        return Ok(());
    }
    let Some(netns) = attachment.netns_if_present()? else { return Ok(()) };
    let (mut socket, lo) = open(&netns)?;
    set_up(&mut socket, &lo, false)
}

fn check(_: &Network, attachment: &Attachment) -> Result<()> {
    let (_, lo) = open(&attachment.open_netns()?)?;
    if lo.up { Ok(()) } else { Err(Error::internal("the loopback interface is down")) }
}

fn open(netns: &NetNs) -> Result<(Socket, Link)> {
    let mut socket = netns.run(|| Socket::open(Protocol::Route))??;
    let lo = socket.link(NAME)?.ok_or_else(|| Error::internal("there is no interface lo"))?;
    Ok((socket, lo))
}

fn set_up(socket: &mut Socket, lo: &Link, up: bool) -> Result<()> {
    let change = LinkChange { up: Some(up), ..LinkChange::default() };
    Ok(socket.transact(vec![encode::set_link(lo.index, &change)])?)
}
