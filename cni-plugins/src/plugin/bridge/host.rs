//! The host's side: the bridge, and the end of the veth that is its port.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use corten_netlink::Socket;
use corten_netlink::route::{BridgePort, Link, LinkChange, OPER_UP, Peer, Veth, encode};
use nix::errno::Errno;

use super::config::Config;
use super::container::Container;
use crate::Result;
use crate::error::Error;
use crate::skel::Network;
use crate::sysctl;

/// Names are drawn; this often one may be taken.
const NAME_TRIES: u32 = 10;
/// Upstream looks five times within this.
const UP_DEADLINE: Duration = Duration::from_millis(2550);

/// The bridge, made if need be, up.
pub fn ensure_bridge(host: &mut Socket, config: &Config) -> Result<Link> {
    let name = &config.bridge;
    if host.link(name)?.is_none() {
        match host.transact(vec![encode::create_bridge(name, config.mtu)]) {
            // Another ADD was faster.
            Err(error) if !error.is(Errno::EEXIST) => return Err(error.into()),
            _ => {}
        }
        // The routes of this interface are ours.
        sysctl::try_set(&format!("net/ipv6/conf/{name}/accept_ra"), "0");
    }
    let bridge = find_bridge(host, name)?;
    let promiscuous = (config.promiscuous && bridge.promiscuity == 0).then_some(true);
    if !bridge.up || promiscuous.is_some() {
        let change = LinkChange { up: Some(true), promiscuous, ..LinkChange::default() };
        host.transact(vec![encode::set_link(bridge.index, &change)])?;
    }
    Ok(bridge)
}

pub fn find_bridge(host: &mut Socket, name: &str) -> Result<Link> {
    let link = host.link(name)?.ok_or_else(|| Error::internal(format!("bridge {name:?} is not there")))?;
    if link.kind.as_deref() == Some("bridge") {
        return Ok(link);
    }
    let kind = link.kind.as_deref().unwrap_or("a device");
    Err(Error::config(format!("{name:?} already exists but is not a bridge"))
        .details(format!("it is {kind}")))
}

/// The pair; returns the name of the host's end. The container's end is born in its namespace.
pub fn create_veth(
    host: &mut Socket,
    config: &Config,
    bridge: &Link,
    container: &mut Container<'_>,
) -> Result<String> {
    let mut tries = 0;
    let name = loop {
        let name = random_name()?;
        let peer = Peer { name: container.ifname(), netns: container.netns().as_fd(), mac: config.mac };
        let veth = Veth { name: &name, master: Some(bridge.index), mtu: config.mtu, peer };
        tries += 1;
        match host.transact(vec![encode::create_veth(&veth)]) {
            Ok(()) => break name,
            Err(error) if error.is(Errno::EEXIST) && tries < NAME_TRIES => container.refuse_existing()?,
            Err(error) => return Err(error.into()),
        }
    };
    container.now_has_our_link();
    sysctl::try_set(&format!("net/ipv6/conf/{name}/accept_ra"), "0");
    let port = BridgePort { hairpin: config.hairpin, isolated: config.isolated };
    if port != BridgePort::default() {
        let link = host.link(&name)?.ok_or_else(|| Error::internal(format!("veth {name} vanished")))?;
        host.transact(vec![encode::set_bridge_port(link.index, port)])?;
    }
    Ok(name)
}

/// `veth` and four random bytes. NetworkManager leaves such names alone.
fn random_name() -> Result<String> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Error::internal(format!("getrandom: {errno}")))?;
    Ok(format!("veth{:08x}", u32::from_be_bytes(bytes)))
}

/// Waits until the port carries frames; `down`: its peer stays down, so there is nothing to wait for.
pub fn wait_until_up(host: &mut Socket, name: &str, down: bool) -> Result<Link> {
    let deadline = Instant::now() + UP_DEADLINE;
    let mut pause = Duration::from_micros(50);
    loop {
        let link = host.link(name)?.ok_or_else(|| Error::internal(format!("veth {name} vanished")))?;
        if down || link.oper_state == OPER_UP {
            return Ok(link);
        }
        if Instant::now() > deadline {
            let text = format!("bridge port {name} did not come up (operational state {})", link.oper_state);
            return Err(Error::internal(text));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The namespace cannot be reached any more, but may live on (its mount point is gone, a process still holds it), and
/// with it the veth: found by the name and MAC that ADD reported.
pub fn delete_left_over(network: &Network, ifname: &str) -> Result<()> {
    let Some(result) = network.parsed_prev_result()? else { return Ok(()) };
    let mut host = Socket::open(corten_netlink::Protocol::Route)?;
    for interface in result.interfaces.iter().filter(|i| i.sandbox.is_empty() && i.name != ifname) {
        let Some(link) = host.link(&interface.name)? else { continue };
        let same = link.mac.is_some_and(|mac| mac.to_string() == interface.mac);
        if link.kind.as_deref() != Some("veth") || !same {
            continue;
        }
        match host.transact(vec![encode::delete_link(link.index)]) {
            Err(error) if !error.is(Errno::ENODEV) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
