//! From what every frontend should answer and what the maps hold to the changes, in an order that is right after each.
//!
//! Pure. A frontend answers by its old list until the one change that makes it answer by its new one; and what a program
//! may still be reading is removed last, in the same pass that inserts nothing after it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use corten_ebpf_layout::service::{
    Address, Choice, Endpoint, Frontend, MAX_BACKENDS, MAX_FRONTENDS, MAX_NODE_ADDRESSES, MAX_SERVICES,
    Service, TCP, UDP,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Where clients connect to. A node port has an unspecified address, one a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    pub protocol: Protocol,
    pub address: SocketAddr,
}

impl At {
    pub fn tcp(address: SocketAddr) -> Self {
        Self { protocol: Protocol::Tcp, address }
    }

    pub fn udp(address: SocketAddr) -> Self {
        Self { protocol: Protocol::Udp, address }
    }
}

impl From<At> for Frontend {
    fn from(at: At) -> Self {
        let protocol = match at.protocol {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
        };
        Self::new(at.address, protocol)
    }
}

/// Frontends that answer alike: one protocol and family of one port of a Service, as a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    pub frontends: BTreeSet<At>,
    /// None: connections are refused.
    pub backends: BTreeSet<SocketAddr>,
    /// Session affinity: how long a client keeps its backend after its last connection.
    pub affinity: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    pub entries: Vec<Entry>,
    /// Where node ports are answered, beside loopback. Loopback and unspecified addresses in it are ignored.
    pub node_addresses: BTreeSet<IpAddr>,
}

/// What the maps hold. Services that no frontend points to are not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actual {
    pub frontends: BTreeMap<Frontend, u32>,
    pub services: BTreeMap<u32, Service>,
    /// By set and slot.
    pub sets: BTreeMap<u32, BTreeMap<u32, Endpoint>>,
    pub node_addresses: BTreeSet<Address>,
}

/// One system call or store, or for sets as many as there are backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    WriteSet { set: u32, backends: Vec<Endpoint> },
    Store { index: u32, service: Service },
    Point { frontend: Frontend, index: u32 },
    AddNodeAddress(Address),
    RemoveNodeAddress(Address),
    Unpoint(Frontend),
    RemoveSet { set: u32, backends: BTreeMap<u32, Endpoint> },
}

/// A frontend left out; the others are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub at: At,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// An earlier entry has it.
    Taken,
    /// A backend is of the other address family, which a socket cannot be turned to.
    OtherFamily,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub refused: Vec<Refused>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} {what} do not fit into the map of {limit}")]
pub struct Full {
    pub what: &'static str,
    pub wanted: usize,
    pub limit: u32,
}

/// An entry whose frontends are all its own.
struct Settled {
    frontends: BTreeSet<Frontend>,
    backends: BTreeSet<Endpoint>,
    affinity_ns: u64,
}

/// `next_set`: the smallest number that no set had since the program started; moved on.
pub fn plan(desired: &Desired, actual: &Actual, next_set: &mut u32) -> Result<Plan, Full> {
    let (entries, refused) = settle(desired);
    let node_addresses = node_addresses(desired);
    fits(&entries, &node_addresses)?;

    let retained = retained(&entries, actual);
    let used: BTreeSet<u32> = actual.frontends.values().copied().collect();
    let mut free = (0..MAX_SERVICES).filter(|index| !used.contains(index));

    let mut sets = Vec::new();
    let mut fresh = Vec::new();
    let mut moved = Vec::new();
    let mut changed = Vec::new();
    let mut new = Vec::new();
    let mut keep: BTreeSet<u32> = BTreeSet::new();
    for (entry, retained) in entries.iter().zip(retained) {
        let old = retained.and_then(|index| actual.services.get(&index)).copied();
        let choice = match old.and_then(|service| same_set(service, &entry.backends, actual)) {
            Some(choice) => choice,
            None => write_set(&entry.backends, actual, next_set, &mut sets),
        };
        keep.insert(choice.set);
        let service = Service { choice: choice.into(), affinity_ns: entry.affinity_ns };
        let index = if let Some(index) = retained {
            if old != Some(service) {
                changed.push(Change::Store { index, service });
            }
            index
        } else {
            // More services than fit were refused above, but those about to go hold theirs until the next pass.
            let wanted = entries.len() + used.len();
            let index = free.next().ok_or(Full { what: "services", wanted, limit: MAX_SERVICES })?;
            fresh.push(Change::Store { index, service });
            index
        };
        for frontend in &entry.frontends {
            match actual.frontends.get(frontend) {
                Some(old) if *old == index => {}
                Some(_) => moved.push(Change::Point { frontend: *frontend, index }),
                None => new.push(Change::Point { frontend: *frontend, index }),
            }
        }
    }

    let wanted: BTreeSet<Frontend> = entries.iter().flat_map(|entry| &entry.frontends).copied().collect();
    let gone = actual.frontends.keys().filter(|frontend| !wanted.contains(frontend));
    let old_sets = actual.sets.iter().filter(|(set, _)| !keep.contains(set));
    let mut changes = sets;
    changes.extend(fresh);
    changes.extend(moved);
    changes.extend(changed);
    changes.extend(new);
    changes.extend(node_addresses.difference(&actual.node_addresses).copied().map(Change::AddNodeAddress));
    changes.extend(actual.node_addresses.difference(&node_addresses).copied().map(Change::RemoveNodeAddress));
    changes.extend(gone.copied().map(Change::Unpoint));
    changes
        .extend(old_sets.map(|(set, backends)| Change::RemoveSet { set: *set, backends: backends.clone() }));
    Ok(Plan { changes, refused })
}

/// Each frontend to the first entry that has it.
fn settle(desired: &Desired) -> (Vec<Settled>, Vec<Refused>) {
    let mut taken = BTreeSet::new();
    let mut refused = Vec::new();
    let mut settled = Vec::new();
    for entry in &desired.entries {
        let backends: BTreeSet<Endpoint> = entry.backends.iter().map(|b| Endpoint::from(*b)).collect();
        let mut frontends = BTreeSet::new();
        for at in &entry.frontends {
            let frontend = Frontend::from(*at);
            if backends.iter().any(|b| b.address.is_v4() != frontend.address.is_v4()) {
                refused.push(Refused { at: *at, why: Why::OtherFamily });
            } else if taken.insert(frontend) {
                frontends.insert(frontend);
            } else {
                refused.push(Refused { at: *at, why: Why::Taken });
            }
        }
        if !frontends.is_empty() {
            let affinity_ns = entry.affinity.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
            settled.push(Settled { frontends, backends, affinity_ns });
        }
    }
    (settled, refused)
}

fn node_addresses(desired: &Desired) -> BTreeSet<Address> {
    let all = desired.node_addresses.iter().map(|ip| Address::from(*ip));
    all.filter(|address| !address.is_loopback() && !address.is_unspecified()).collect()
}

fn fits(entries: &[Settled], node_addresses: &BTreeSet<Address>) -> Result<(), Full> {
    let sum = |of: fn(&Settled) -> usize| entries.iter().map(of).sum::<usize>();
    for (what, wanted, limit) in [
        ("services", entries.len(), MAX_SERVICES),
        ("frontends", sum(|e| e.frontends.len()), MAX_FRONTENDS),
        // The old and the new set of a service are there together for a moment; half is for that.
        ("backends", sum(|e| e.backends.len()), MAX_BACKENDS / 2),
        ("node addresses", node_addresses.len(), MAX_NODE_ADDRESSES),
    ] {
        if wanted > limit as usize {
            return Err(Full { what, wanted, limit });
        }
    }
    Ok(())
}

/// Which index each entry keeps, and with it its clients' affinity: the one that all its frontends have that have any.
/// With frontends of several the entry gets a new one, since some of them would answer by a third list for a moment.
fn retained(entries: &[Settled], actual: &Actual) -> Vec<Option<u32>> {
    let mut claimed = BTreeSet::new();
    let mut retain = |entry: &Settled| {
        let mut old = entry.frontends.iter().filter_map(|frontend| actual.frontends.get(frontend));
        let first = *old.next()?;
        (old.all(|index| *index == first) && claimed.insert(first)).then_some(first)
    };
    entries.iter().map(&mut retain).collect()
}

/// The set that the service has, if it is whole and these are its backends.
fn same_set(service: Service, backends: &BTreeSet<Endpoint>, actual: &Actual) -> Option<Choice> {
    let choice = Choice::from(service.choice);
    if backends.is_empty() {
        return (choice == Choice::default()).then_some(choice);
    }
    let set = actual.sets.get(&choice.set)?;
    let whole = set.len() == choice.count as usize && set.keys().copied().eq(0..choice.count);
    let same = set.len() == backends.len() && set.values().all(|endpoint| backends.contains(endpoint));
    (whole && same).then_some(choice)
}

fn write_set(
    backends: &BTreeSet<Endpoint>,
    actual: &Actual,
    next_set: &mut u32,
    sets: &mut Vec<Change>,
) -> Choice {
    if backends.is_empty() {
        return Choice::default();
    }
    // 0 is the set of no backends; a number comes again only after four billion others.
    let set = loop {
        let set = (*next_set).max(1);
        *next_set = set.wrapping_add(1);
        if !actual.sets.contains_key(&set) {
            break set;
        }
    };
    let backends: Vec<Endpoint> = backends.iter().copied().collect();
    let count = backends.len() as u32;
    sets.push(Change::WriteSet { set, backends });
    Choice { set, count }
}

#[cfg(test)]
mod tests;
