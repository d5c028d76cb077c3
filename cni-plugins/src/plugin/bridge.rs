//! bridge: a veth pair from the container to a bridge of the host.
//!
//! Order of ADD: nothing is changed before everything that can be refused was looked at; the address is reserved
//! before the interface exists; what was done is undone when a later step fails.

mod check;
mod config;
mod container;
mod gateway;
mod host;

use corten_netlink::route::Link;
use corten_netlink::{Cidr, Protocol, Socket};
use serde_json::Value;

use self::config::Config;
use self::container::Container;
use super::Plugin;
use crate::error::{Error, all};
use crate::ipam::Ipam;
use crate::owner::Owner;
use crate::skel::{Attachment, Network, ValidAttachment};
use crate::types::{self, CniResult, Interface};
use crate::{Result, masquerade, spoof};

pub static PLUGIN: Plugin = Plugin {
    name: "bridge",
    about: "connects a container to a bridge by a veth pair",
    add,
    del,
    check,
    gc,
    status,
};

fn add(network: &Network, attachment: &Attachment) -> Result<Value> {
    let config = Config::load(network, attachment)?;
    let netns = attachment.open_netns()?;
    let mut host = Socket::open(Protocol::Route)?;
    let mut container = Container::enter(&netns, &attachment.ifname)?;
    let bridge = host::ensure_bridge(&mut host, &config)?;
    let addresses = config.ipam.as_ref().map(|ipam| ipam.add(network, attachment)).transpose()?;
    let outcome = attach(network, attachment, &config, &mut host, &mut container, &bridge, addresses);
    outcome.map_err(|error| {
        let undone = [
            container.remove_link(),
            remove_rules(network, attachment, config.ip_masq, config.mac_spoof_check).map(drop),
            config.ipam.as_ref().map_or(Ok(()), |ipam| ipam.del(network, attachment)),
        ];
        error.and(undone.into_iter().filter_map(Result::err))
    })
}

/// Everything of ADD that may have to be undone, given the addresses of IPAM (`None`: the network has none).
fn attach(
    network: &Network,
    attachment: &Attachment,
    config: &Config,
    host: &mut Socket,
    container: &mut Container<'_>,
    bridge: &Link,
    addresses: Option<CniResult>,
) -> Result<Value> {
    let mut result = addresses.unwrap_or_default();
    if config.ipam.is_some() {
        let gateways = gateway::complete(&mut result, config)?;
        gateway::ensure_on_bridge(host, bridge, &gateways, config.force_address)?;
    }
    let veth = host::create_veth(host, config, bridge, container)?;
    let inner = container.configure(config, &result)?;
    if config.mac_spoof_check {
        let mac = inner.mac.ok_or_else(|| Error::internal("the container's interface has no MAC"))?;
        spoof::set_up(&attachment.container_id, &attachment.ifname, &veth, mac)?;
    }
    if config.ip_masq {
        let addresses: Vec<Cidr> = result.ips.iter().map(|ip| ip.address).collect();
        masquerade::set_up(&Owner::new(network, attachment), &addresses)?;
    }
    let outer = host::wait_until_up(host, &veth, config.disable_container_interface)?;
    // The bridge takes a port's MAC while it has no address, so ask again.
    let bridge = host::find_bridge(host, &config.bridge)?;
    let mac = |link: &Link| link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    let on_host = |link: &Link| Interface { name: link.name.clone(), mac: mac(link), ..Interface::default() };
    let in_container = Interface {
        name: attachment.ifname.clone(),
        mac: mac(&inner),
        sandbox: attachment.netns.clone(),
        ..Interface::default()
    };
    result.interfaces = vec![on_host(&bridge), on_host(&outer), in_container];
    if !config.dns.is_empty() {
        result.dns = config.dns.clone();
    }
    types::render(&result, network.version)
}

/// Works on as much as is left: rules are found by hash and chain name, the link through the namespace or, when that
/// is gone, through prevResult.
///
/// Rules first: what removes them waits for an RCU grace period when its socket closes, what deletes the link waits for
/// one before it returns. So both wait for the same (`rules` is dropped last).
fn del(network: &Network, attachment: &Attachment) -> Result<()> {
    let config = config::ForDel::load(network);
    let rules = remove_rules(network, attachment, config.ip_masq, config.mac_spoof_check);
    let link = if attachment.netns_doomed { Ok(()) } else { delete_link(network, attachment) };
    let ipam = match Ipam::of(network) {
        Ok(Some(ipam)) => ipam.del(network, attachment),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    let (rules, _open) = match rules {
        Ok(open) => (Ok(()), open),
        Err(error) => (Err(error), None),
    };
    all([link, ipam, rules])
}

/// The socket that removed them: closing it waits.
fn remove_rules(
    network: &Network,
    attachment: &Attachment,
    masquerade: bool,
    spoof: bool,
) -> Result<Option<Socket>> {
    if !masquerade && !spoof {
        return Ok(None);
    }
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let masquerade = if masquerade {
        masquerade::tear_down(&mut socket, &Owner::new(network, attachment))
    } else {
        Ok(())
    };
    let spoof = if spoof {
        spoof::tear_down(&mut socket, &attachment.container_id, &attachment.ifname)
    } else {
        Ok(())
    };
    all([masquerade, spoof])?;
    Ok(Some(socket))
}

fn delete_link(network: &Network, attachment: &Attachment) -> Result<()> {
    match attachment.netns_if_present()? {
        Some(netns) => container::delete_link(&netns, &attachment.ifname),
        None => host::delete_left_over(network, &attachment.ifname),
    }
}

fn check(network: &Network, attachment: &Attachment) -> Result<()> {
    let config = Config::load(network, attachment)?;
    if let Some(ipam) = &config.ipam {
        ipam.check(network, attachment)?;
    }
    let missing = || Error::config("CHECK needs the key \"prevResult\"");
    let result = network.parsed_prev_result()?.ok_or_else(missing)?;
    check::attachment(&config, attachment, &result)?;
    if config.ip_masq {
        let addresses: Vec<Cidr> = result.ips.iter().map(|ip| ip.address).collect();
        masquerade::check(&Owner::new(network, attachment), &addresses)?;
    }
    Ok(())
}

/// Links go with their namespaces. Chains of macspoofchk do not say of which network they are, so they stay.
fn gc(network: &Network, valid: &[ValidAttachment]) -> Result<()> {
    let ipam = match Ipam::of(network)? {
        Some(ipam) => ipam.gc(network, valid),
        None => Ok(()),
    };
    let masquerade = if config::ForDel::load(network).ip_masq {
        masquerade::collect_garbage(&network.name, valid)
    } else {
        Ok(())
    };
    all([ipam, masquerade])
}

fn status(network: &Network) -> Result<()> {
    let config = Config::of_network(network)?;
    if let Some(ipam) = &config.ipam {
        ipam.status(network)?;
    }
    if config.ip_masq { masquerade::status() } else { Ok(()) }
}
