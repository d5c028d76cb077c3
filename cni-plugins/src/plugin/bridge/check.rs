//! CHECK: what ADD reported is still so.

use corten_netlink::route::Link;
use corten_netlink::{Protocol, Socket};

use super::config::Config;
use super::host::find_bridge;
use crate::Result;
use crate::error::Error;
use crate::skel::Attachment;
use crate::types::{CniResult, Interface};

pub fn attachment(config: &Config, attachment: &Attachment, result: &CniResult) -> Result<()> {
    let mut host = Socket::open(Protocol::Route)?;
    let mut inside = attachment.open_netns()?.run(|| Socket::open(Protocol::Route))??;
    let bridge = check_bridge(&mut host, config, result)?;
    let inner = check_container(&mut inside, attachment, result)?;
    check_veth(&mut host, attachment, result, &bridge, &inner)?;
    check_addresses(&mut inside, result, &inner)?;
    check_routes(&mut inside, result)
}

fn check_bridge(host: &mut Socket, config: &Config, result: &CniResult) -> Result<Link> {
    let name = &config.bridge;
    let reported = result.interfaces.iter().find(|i| i.name == *name && i.sandbox.is_empty());
    let reported = reported.ok_or_else(|| failed(format!("prevResult has no bridge {name:?}")))?;
    let bridge = find_bridge(host, name)?;
    check_mac(reported, &bridge)?;
    if (bridge.promiscuity != 0) != config.promiscuous {
        let is = bridge.promiscuity != 0;
        return Err(failed(format!("bridge {name:?}: promiscuous mode is {is}, promiscMode says otherwise")));
    }
    Ok(bridge)
}

fn check_container(inside: &mut Socket, attachment: &Attachment, result: &CniResult) -> Result<Link> {
    let name = &attachment.ifname;
    let reported = result.interfaces.iter().find(|i| i.name == *name && i.sandbox == attachment.netns);
    let reported = reported.ok_or_else(|| {
        failed(format!("prevResult has no interface {name:?} in sandbox {:?}", attachment.netns))
    })?;
    let link =
        inside.link(name)?.ok_or_else(|| failed(format!("interface {name:?} is not in the container")))?;
    if link.kind.as_deref() != Some("veth") {
        return Err(failed(format!("container interface {name:?} is not of type veth")));
    }
    check_mac(reported, &link)?;
    Ok(link)
}

/// One of the other interfaces reported on the host is the port of the bridge whose peer is the container's.
fn check_veth(
    host: &mut Socket,
    attachment: &Attachment,
    result: &CniResult,
    bridge: &Link,
    inner: &Link,
) -> Result<()> {
    let others = result.interfaces.iter().filter(|i| i.name != bridge.name && i.name != attachment.ifname);
    for reported in others.filter(|i| i.sandbox.is_empty()) {
        let Some(link) = host.link(&reported.name)? else { continue };
        let is_peer = link.peer == Some(inner.index) && inner.peer == Some(link.index);
        if link.kind.as_deref() == Some("veth") && is_peer && link.master == Some(bridge.index) {
            return check_mac(reported, &link);
        }
    }
    Err(failed(format!("the veth of {:?} on bridge {:?} is not there", attachment.ifname, bridge.name)))
}

fn check_addresses(inside: &mut Socket, result: &CniResult, inner: &Link) -> Result<()> {
    let addresses = inside.addresses(inner.index)?;
    for ip in &result.ips {
        if !addresses.iter().any(|a| a.cidr == ip.address) {
            return Err(failed(format!("address {} is not on interface {:?}", ip.address, inner.name)));
        }
    }
    Ok(())
}

fn check_routes(inside: &mut Socket, result: &CniResult) -> Result<()> {
    for ipv4 in [true, false] {
        let wanted: Vec<_> = result.routes.iter().filter(|r| r.dst.is_ipv4() == ipv4).collect();
        if wanted.is_empty() {
            continue;
        }
        let existing = inside.routes(ipv4)?;
        for route in wanted {
            let same = |r: &corten_netlink::route::Route| {
                r.destination == route.dst.network() && (route.gw.is_none() || r.gateway == route.gw)
            };
            if !existing.iter().any(same) {
                return Err(failed(format!("route {} is not in the container's routing table", route.dst)));
            }
        }
    }
    Ok(())
}

fn check_mac(reported: &Interface, link: &Link) -> Result<()> {
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if reported.mac.is_empty() || reported.mac.eq_ignore_ascii_case(&mac) {
        return Ok(());
    }
    Err(failed(format!("interface {:?} has MAC {mac}, prevResult says {}", link.name, reported.mac)))
}

fn failed(text: String) -> Error {
    Error::internal(text)
}
