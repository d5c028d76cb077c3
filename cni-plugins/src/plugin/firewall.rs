//! firewall: lets a container's traffic through the host's firewall, and keeps networks apart (chained).
//!
//! Two places, one transaction, no program run:
//! - [`forward`]: the host drops forwarded packets by iptables' own chain FORWARD (Docker, ufw). Only an accept in that
//!   chain helps, so that is where the rules go, byte for byte as upstream's iptables backend writes them.
//! - [`isolation`]: `ingressPolicy`, in a table of ours: a drop is final wherever it stands.

mod config;
mod forward;
mod isolation;
mod legacy;

use corten_netlink::nft::{Batch, HookedChain};
use corten_netlink::{NetlinkError, Protocol, Socket};
use nix::errno::Errno;
use serde_json::Value;

use self::config::{Backend, Config, Policy};
use self::forward::Family;
use super::Plugin;
use crate::Result;
use crate::error::{Code, Error, all};
use crate::owner::{Owner, is_stale};
use crate::skel::{Attachment, Network, ValidAttachment};
use crate::types::{self, CniResult};

pub static PLUGIN: Plugin = Plugin {
    name: "firewall",
    about: "lets the container through the host's firewall (chained)",
    add,
    del,
    check,
    gc,
    status,
};

/// What was read changes while we write: look again this often.
const TRIES: u32 = 10;

fn add(network: &Network, attachment: &Attachment) -> Result<Value> {
    let config = Config::load(network)?;
    let (Some(prev_result), Some(result)) = (network.prev_result(), network.parsed_prev_result()?) else {
        return Err(Error::config("missing prevResult from earlier plugin")
            .details("firewall must be called as a chained plugin, after bridge"));
    };
    let port = isolation::Port::find(config.policy, &result)?;
    let owner = Owner::new(network, attachment).hash();
    transact(|socket, batch| {
        let hooked = socket.nft_hooked_chains()?;
        if let Some(refusal) = refuse_unreachable(&config, &hooked) {
            return Ok(Err(refusal));
        }
        for family in Family::BOTH.into_iter().filter(|family| family.is_hooked(&hooked)) {
            let addresses = family.addresses(&result);
            let rules = socket.nft_rules(family.table(), forward::CHAIN)?;
            forward::delete(batch, family, &rules, |rule| forward::is_owned_by(rule, &owner));
            if !addresses.is_empty() {
                forward::add_frame(socket, batch, family, &rules, &config.admin_chain)?;
                forward::add(batch, family, &addresses, &owner);
            }
        }
        isolation::add(socket, batch, &network.name, &config, port.as_ref())?;
        Ok(Ok(()))
    })?;
    if let (Policy::Isolated, Some(port)) = (config.policy, &port) {
        port.isolate().map_err(|error| {
            let undone = remove(|_, rule| forward::is_owned_by(rule, &owner));
            error.and(undone.err())
        })?;
    }
    types::echo(prev_result, network.version)
}

/// Who would drop the container's packets where we cannot let them through. Upstream reaches both (by D-Bus, by running
/// iptables), so silence would break what worked; `"backend": "nftables"` says that the administrator has seen to it.
fn refuse_unreachable(config: &Config, hooked: &[HookedChain]) -> Option<Error> {
    if config.backend == Backend::Nftables {
        return None;
    }
    if hooked.iter().any(|chain| chain.table == "firewalld") {
        // It rewrites its chains at every reload: rules of ours there would not last.
        let remedy = format!(
            "bind the network's subnet to a zone (firewall-cmd --permanent --zone={} --add-source=SUBNET; \
             firewall-cmd --reload) and write \"backend\": \"nftables\"",
            config.firewalld_zone
        );
        return Some(Error::unsupported("backend", "firewalld runs, and is not spoken to").details(remedy));
    }
    if Family::BOTH.into_iter().any(|family| legacy::forward_drops(family == Family::Ipv4)) {
        let remedy = "use the nf_tables variant of iptables (update-alternatives --set iptables \
                      /usr/sbin/iptables-nft), or let the network's subnet through and write \"backend\": \"nftables\"";
        let why = "the legacy variant of iptables drops what this host forwards, and is out of reach";
        return Some(Error::unsupported("backend", why).details(remedy));
    }
    None
}

/// In one transaction; an inner error is not tried again.
fn transact(
    write: impl Fn(&mut Socket, &mut Batch) -> std::result::Result<Result<()>, NetlinkError>,
) -> Result<()> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut tries = 0;
    loop {
        let mut batch = Batch::new();
        let written = write(&mut socket, &mut batch);
        tries += 1;
        match written
            .and_then(|inner| inner.map_or_else(|e| Ok(Err(e)), |()| batch.commit(&mut socket).map(Ok)))
        {
            // Another process removed a rule or a chain meanwhile.
            Err(error) if error.is(Errno::ENOENT) && tries < TRIES => {}
            outcome => return outcome?,
        }
    }
}

/// Ours by their tag; the Go plugin's, which have none, by the addresses of prevResult. Isolation is the network's, as
/// the bridge is: it stays until GC.
fn del(network: &Network, attachment: &Attachment) -> Result<()> {
    let owner = Owner::new(network, attachment).hash();
    let result = network.parsed_prev_result().ok().flatten().unwrap_or_default();
    remove(|family, rule| {
        forward::is_owned_by(rule, &owner) || forward::is_upstreams(rule, &family.addresses(&result))
    })
}

fn remove(unwanted: impl Fn(Family, &corten_netlink::nft::RuleEntry) -> bool) -> Result<()> {
    transact(|socket, batch| {
        for family in Family::BOTH {
            let rules = socket.nft_rules(family.table(), forward::CHAIN)?;
            forward::delete(batch, family, &rules, |rule| unwanted(family, rule));
        }
        Ok(Ok(()))
    })
}

fn check(network: &Network, attachment: &Attachment) -> Result<()> {
    let config = Config::load(network)?;
    let result: CniResult =
        network.parsed_prev_result()?.ok_or_else(|| Error::config("CHECK needs the key \"prevResult\""))?;
    let port = isolation::Port::find(config.policy, &result)?;
    let owner = Owner::new(network, attachment).hash();
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let hooked = socket.nft_hooked_chains()?;
    for family in Family::BOTH.into_iter().filter(|family| family.is_hooked(&hooked)) {
        forward::check(&mut socket, family, &family.addresses(&result), &owner, &config.admin_chain)?;
    }
    isolation::check(&mut socket, &network.name, &config, port.as_ref())
}

fn gc(network: &Network, valid: &[ValidAttachment]) -> Result<()> {
    let stale = is_stale(&network.name, valid);
    all([
        remove(|_, rule| rule.tag.as_deref().is_some_and(&stale)),
        transact(|socket, batch| {
            isolation::collect_garbage(socket, batch, &network.name, !valid.is_empty()).map(Ok)
        }),
    ])
}

fn status(network: &Network) -> Result<()> {
    let config = Config::load(network)?;
    let hooked = Socket::open(Protocol::Netfilter).and_then(|mut socket| socket.nft_hooked_chains());
    let hooked = hooked.map_err(|error: NetlinkError| {
        Error::new(Code::NotAvailable, format!("firewall needs nf_tables: {error}"))
    })?;
    match refuse_unreachable(&config, &hooked) {
        Some(refusal) => Err(Error::new(Code::NotAvailable, refusal.msg).details(refusal.details)),
        None => Ok(()),
    }
}
