//! host-local: addresses from ranges, kept in files of this host.

pub mod allocate;
mod config;
mod range;
mod resolv_conf;
mod store;

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use corten_netlink::{Protocol, Socket};
use serde_json::Value;

use self::allocate::{Choice, choose};
use self::config::{Config, DataDir};
use self::range::RangeSet;
use self::store::{Link, Owner, Release, Store};
use super::Plugin;
use crate::Result;
use crate::error::{Code, Error};
use crate::skel::{Attachment, Network, ValidAttachment};
use crate::types::{self, CniResult, IpConfig};

pub static PLUGIN: Plugin = Plugin {
    name: "host-local",
    about: "gives out addresses of ranges kept in files",
    add,
    del,
    check,
    gc,
    status,
};

/// How long we wait for the interface that last had an address, when there is no other address left.
const OLD_LINK_DEADLINE: Duration = Duration::from_secs(2);

fn add(network: &Network, attachment: &Attachment) -> Result<Value> {
    types::render(&allocate_all(network, attachment)?, network.version)
}

/// One address of every range set, or none at all.
pub fn allocate_all(network: &Network, attachment: &Attachment) -> Result<CniResult> {
    let config = Config::load(network, attachment)?;
    let dns = config.resolv_conf.as_deref().map(resolv_conf::read).transpose()?.unwrap_or_default();
    let owner = Owner::new(&attachment.container_id, &attachment.ifname);
    let mut store = Store::create(&config.data_dir, &network.name)?;
    let mut ips = Vec::new();
    let outcome = take_all(&mut store, &owner, &config, &mut ips);
    outcome.map_err(|error| {
        // Only what this call took: the refused duplicate of an ADD must not free the first one's address.
        let taken = ips.iter().map(|ip| ip.address.address());
        error.and(taken.filter_map(|ip| store.remove(ip).err()).collect::<Vec<_>>())
    })?;
    Ok(CniResult { ips, routes: config.routes, dns, ..CniResult::default() })
}

fn take_all(store: &mut Store, owner: &Owner, config: &Config, ips: &mut Vec<IpConfig>) -> Result<()> {
    let mut requested = config.requested.clone();
    for (index, set) in config.ranges.iter().enumerate() {
        let wanted = requested.iter().position(|ip| set.contains(*ip)).map(|i| requested.remove(i));
        ips.push(take(store, owner, set, index, wanted)?);
    }
    if requested.is_empty() {
        return Ok(());
    }
    Err(Error::config(format!("failed to allocate all requested IPs: {requested:?} are in no range")))
}

fn take(
    store: &mut Store,
    owner: &Owner,
    set: &RangeSet,
    index: usize,
    wanted: Option<IpAddr>,
) -> Result<IpConfig> {
    let failed =
        |code, text: String| Error::new(code, format!("failed to allocate for range {index}: {text}"));
    let taken = store.reservations()?;
    if let Some(ip) = wanted {
        let range = set.range_of(ip).expect("the caller asked whether the set contains it");
        if ip == range.gateway {
            return Err(failed(Code::InvalidConfig, format!("requested ip {ip} is subnet's gateway")));
        }
        if taken.contains_key(&ip) || !store.reserve(ip, owner, index)? {
            let text = format!("requested IP address {ip} is not available in range set {set}");
            return Err(failed(Code::TryAgainLater, text));
        }
        return Ok(range.ip_config(ip));
    }
    if let Some((ip, _)) = taken.iter().find(|(ip, who)| who.covers(owner) && set.contains(**ip)) {
        let id = owner.container_id();
        let text = format!("{ip} has been allocated to {id}, duplicate allocation is not allowed");
        return Err(failed(Code::Internal, text));
    }
    let releases = store.releases(SystemTime::now())?;
    let last = store.last_reserved(index);
    match choose(set, last, |ip| taken.contains_key(&ip), |ip| releases.iter().position(|r| r.ip == ip)) {
        Choice::Fresh(ip) => reserve_chosen(store, owner, set, index, ip),
        Choice::JustReleased(ip, release) => {
            wait_for_old_link(&releases[release])?;
            reserve_chosen(store, owner, set, index, ip)
        }
        Choice::Exhausted => {
            Err(failed(Code::TryAgainLater, format!("no IP addresses available in range set: {set}")))
        }
    }
}

fn reserve_chosen(
    store: &Store,
    owner: &Owner,
    set: &RangeSet,
    index: usize,
    ip: IpAddr,
) -> Result<IpConfig> {
    if store.reserve(ip, owner, index)? {
        let range = set.range_of(ip).expect("chosen from the set");
        return Ok(range.ip_config(ip));
    }
    // We hold the lock and saw no such file: somebody writes without the lock.
    Err(Error::internal(format!("address {ip} was taken by a process that does not lock the data directory")))
}

/// The kernel removes the interface of a destroyed namespace some ten milliseconds later; until then two interfaces
/// would answer for the address.
fn wait_for_old_link(release: &Release) -> Result<()> {
    let Some(link) = &release.link else { return Ok(()) };
    let mut socket = Socket::open(Protocol::Route)?;
    let deadline = Instant::now() + OLD_LINK_DEADLINE;
    while socket.link(link)?.is_some() {
        if Instant::now() > deadline {
            let text = format!("address {} is free, but {link}, which had it, is still there", release.ip);
            return Err(Error::new(Code::TryAgainLater, text));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn del(network: &Network, attachment: &Attachment) -> Result<()> {
    let DataDir(data_dir) = DataDir::of(network);
    let Some(mut store) = Store::open(&data_dir, &network.name)? else { return Ok(()) };
    let owner = Owner::new(&attachment.container_id, &attachment.ifname);
    let link = if attachment.netns_doomed { Link::Leaving(host_link(network)) } else { Link::Gone };
    store.release(&owner, &link)
}

/// The host's end of the container's interface, as the result of ADD has it: of the interfaces outside the sandbox
/// the last one, for a bridge comes before its veth.
fn host_link(network: &Network) -> Option<String> {
    let result = network.parsed_prev_result().ok().flatten()?;
    result.interfaces.into_iter().rev().find(|i| i.sandbox.is_empty()).map(|i| i.name)
}

fn check(network: &Network, attachment: &Attachment) -> Result<()> {
    let config = Config::load(network, attachment)?;
    let owner = Owner::new(&attachment.container_id, &attachment.ifname);
    let found = match Store::open(&config.data_dir, &network.name)? {
        None => false,
        Some(store) => store.reservations()?.values().any(|who| who.covers(&owner)),
    };
    if found {
        return Ok(());
    }
    let id = &attachment.container_id;
    Err(Error::internal(format!("host-local: failed to find address added by container {id}")))
}

fn gc(network: &Network, valid: &[ValidAttachment]) -> Result<()> {
    let DataDir(data_dir) = DataDir::of(network);
    let Some(mut store) = Store::open(&data_dir, &network.name)? else { return Ok(()) };
    let valid: Vec<Owner> = valid.iter().map(|v| Owner::new(&v.container_id, &v.ifname)).collect();
    store.retain(|owner| valid.iter().any(|v| owner.covers(v)))
}

fn status(network: &Network) -> Result<()> {
    let config = Config::of_network(network)?;
    Store::create(&config.data_dir, &network.name).map(drop).map_err(|error| {
        let text = format!("no address can be stored: {}", error.msg);
        Error::new(Code::NotAvailable, text).details(error.details)
    })
}
