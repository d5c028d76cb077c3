//! tuning: sysctls of the container's network namespace, and attributes of its interface (chained).
//!
//! What the interface had is recorded before it is changed, in upstream's file; DEL restores it, which matters for
//! interfaces that outlive the container. Sysctls go with the namespace.

mod allowlist;
mod attributes;
mod backup;
mod config;
mod keys;

use corten_netlink::{Protocol, Socket};
use serde_json::Value;

use self::allowlist::Allowlist;
use self::backup::Backups;
use self::config::Config;
use super::Plugin;
use crate::Result;
use crate::error::{Code, Error};
use crate::skel::{Attachment, Network, ValidAttachment};
use crate::{sysctl, types};

pub static PLUGIN: Plugin = Plugin {
    name: "tuning",
    about: "sets sysctls and attributes of the interface (chained)",
    add,
    del,
    check,
    gc,
    status,
};

fn add(network: &Network, attachment: &Attachment) -> Result<Value> {
    let config = Config::load(network, attachment)?;
    let Some(prev_result) = network.prev_result() else {
        return Err(Error::config(
            "tuning must be called as a chained plugin: the key \"prevResult\" is missing",
        ));
    };
    let sysctls = keys::paths(&config.sysctls, &attachment.ifname)?;
    Allowlist::read()?.refuse_others(config.sysctls.iter().map(|(key, _)| key.as_str()))?;
    let result = types::echo(prev_result, network.version)?;
    let netns = attachment.open_netns()?;
    netns.run(|| tune(network, attachment, &config, &sysctls))??;
    Ok(with_attributes(result, &attachment.ifname, &config))
}

/// Inside the namespace. What was changed is put back when a later step fails.
fn tune(
    network: &Network,
    attachment: &Attachment,
    config: &Config,
    sysctls: &[(String, String)],
) -> Result<()> {
    let mut undo = Vec::new();
    let outcome = write_sysctls(sysctls, &mut undo).and_then(|()| change_link(network, attachment, config));
    outcome.map_err(|error| {
        let undone: Vec<_> = undo.iter().rev().filter_map(|(key, old)| sysctl::set(key, old).err()).collect();
        error.and(undone)
    })
}

fn write_sysctls(sysctls: &[(String, String)], undo: &mut Vec<(String, String)>) -> Result<()> {
    for (key, value) in sysctls {
        // Some can only be written.
        let before = sysctl::get(key).ok();
        sysctl::set(key, value)?;
        undo.extend(before.map(|before| (key.clone(), before)));
    }
    Ok(())
}

fn change_link(network: &Network, attachment: &Attachment, config: &Config) -> Result<()> {
    let wanted = &config.attributes;
    if wanted.is_empty() {
        return Ok(());
    }
    let mut socket = Socket::open(Protocol::Route)?;
    let name = &attachment.ifname;
    let link =
        socket.link(name)?.ok_or_else(|| Error::internal(format!("failed to find interface {name:?}")))?;
    let before = wanted.before(&link);
    let backups = Backups::create(&config.data_dir)?;
    backups.write(network, attachment, &before)?;
    attributes::apply(&mut socket, &link, wanted).map_err(|error| {
        let undone = attributes::apply(&mut socket, &link, &before);
        error.and(undone.and_then(|()| backups.remove(attachment)).err())
    })
}

/// The result tells the MAC, and in CNI 1.1 the MTU where it told one.
fn with_attributes(mut result: Value, ifname: &str, config: &Config) -> Value {
    let interfaces = result.get_mut("interfaces").and_then(Value::as_array_mut);
    let in_container = |interface: &&mut Value| {
        interface["name"] == ifname
            && interface["sandbox"].as_str().is_some_and(|sandbox| !sandbox.is_empty())
    };
    for interface in interfaces.into_iter().flatten().filter(in_container) {
        if let Some(mac) = config.attributes.mac {
            interface["mac"] = mac.to_string().into();
        }
        if let (Some(mtu), true) = (config.attributes.mtu, interface.get("mtu").is_some()) {
            interface["mtu"] = mtu.into();
        }
    }
    result
}

/// A namespace or interface that is gone needs no restoring.
fn del(network: &Network, attachment: &Attachment) -> Result<()> {
    let backups = Backups::open(&config::data_dir(network));
    let Some(before) = backups.read(attachment)? else { return Ok(()) };
    if let Some(netns) = attachment.netns_if_present()? {
        let mut socket = netns.run(|| Socket::open(Protocol::Route))??;
        if let Some(link) = socket.link(&attachment.ifname)? {
            attributes::apply(&mut socket, &link, &before)?;
        }
    }
    backups.remove(attachment)
}

fn check(network: &Network, attachment: &Attachment) -> Result<()> {
    let config = Config::load(network, attachment)?;
    if network.prev_result().is_none() {
        return Err(Error::config("CHECK needs the key \"prevResult\""));
    }
    let sysctls = keys::paths(&config.sysctls, &attachment.ifname)?;
    attachment.open_netns()?.run(|| {
        for (key, wanted) in &sysctls {
            let now = sysctl::get(key)?;
            if !keys::same_value(&now, wanted) {
                let text = format!("sysctl {key} is configured as {wanted:?}, it is {now:?}");
                return Err(Error::internal(text));
            }
        }
        let name = &attachment.ifname;
        let link = Socket::open(Protocol::Route)?.link(name)?;
        let link = link.ok_or_else(|| Error::internal(format!("failed to find interface {name:?}")))?;
        config.attributes.check(&link)
    })?
}

fn gc(network: &Network, valid: &[ValidAttachment]) -> Result<()> {
    Backups::open(&config::data_dir(network)).retain(&network.name, valid)
}

fn status(network: &Network) -> Result<()> {
    let config = Config::of_network(network)?;
    // The name of an interface is as good as any other here.
    keys::paths(&config.sysctls, "eth0")?;
    Allowlist::read()?.refuse_others(config.sysctls.iter().map(|(key, _)| key.as_str()))?;
    Backups::create(&config.data_dir).map(drop).map_err(|e| {
        Error::new(Code::NotAvailable, format!("no attribute could be recorded: {}", e.msg))
            .details(e.details)
    })
}
