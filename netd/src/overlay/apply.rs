//! Carries changes out. What is gone already need not be deleted; what is there already need not be added.

use corten_netlink::route::{LinkChange as Setting, encode};
use corten_netlink::{Message, NetlinkError, Socket};
use nix::errno::Errno;

use super::desired::Tunnel;
use super::diff::{Change, LinkChange, Step};
use super::error::OverlayError;

/// `Ok(true)`: the device is new.
///
/// # Errors
/// A device that was created and could not be brought up is deleted again.
pub fn change_link(
    socket: &mut Socket,
    tunnel: &Tunnel,
    changes: &[LinkChange],
) -> Result<bool, OverlayError> {
    let mut created = false;
    for change in changes {
        let set = |index, setting: Setting| encode::set_link(index, &setting);
        let message = match *change {
            LinkChange::Create => {
                create(socket, tunnel)?;
                created = true;
                continue;
            }
            LinkChange::Delete { index } => encode::delete_link(index),
            LinkChange::Vxlan { index, vxlan } => encode::set_vxlan(index, &vxlan),
            LinkChange::Mtu { index, mtu } => set(index, Setting { mtu: Some(mtu), ..Setting::default() }),
            LinkChange::Mac { index, mac } => set(index, Setting { mac: Some(mac), ..Setting::default() }),
            LinkChange::Up { index } => set(index, Setting { up: Some(true), ..Setting::default() }),
        };
        socket.transact(vec![message]).map_err(explain)?;
    }
    Ok(created)
}

fn create(socket: &mut Socket, tunnel: &Tunnel) -> Result<(), OverlayError> {
    let Tunnel { name, mac, mtu, vxlan, .. } = tunnel;
    socket.transact(vec![encode::create_vxlan(name, Some(*mac), *mtu, vxlan)]).map_err(
        |error| match error.errno() {
            Some(Errno::EOPNOTSUPP) => OverlayError::NoVxlan { name: name.clone() },
            _ => explain(error),
        },
    )?;
    let bring_up = |socket: &mut Socket| {
        let Some(link) = socket.link(name)? else { return Ok(()) };
        // It talks to nobody by link-local addresses. Refused where IPv6 is off, and then not needed.
        let quiet = Setting { no_generated_ipv6: true, ..Setting::default() };
        let _ = socket.transact(vec![encode::set_link(link.index, &quiet)]);
        let up = Setting { up: Some(true), ..Setting::default() };
        let outcome = socket.transact(vec![encode::set_link(link.index, &up)]);
        if outcome.is_err() {
            let _ = socket.transact(vec![encode::delete_link(link.index)]);
        }
        outcome
    };
    Ok(bring_up(socket)?)
}

/// What is gone is no error.
pub fn delete_link(socket: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    match socket.link(name)? {
        Some(link) => socket.transact(vec![encode::delete_link(link.index)]),
        None => Ok(()),
    }
}

/// What the kernel's refusal most likely means.
pub fn explain(error: NetlinkError) -> OverlayError {
    match (error.errno(), error) {
        (
            Some(errno @ (Errno::EPERM | Errno::EACCES)),
            NetlinkError::Refused { what: tried, .. } | NetlinkError::Io { what: tried, .. },
        ) => OverlayError::Privileges { tried, errno },
        (_, error) => OverlayError::Netlink(error),
    }
}

/// Does all steps, in order, and returns those that were refused, by the peer they were for.
///
/// # Errors
/// When the socket failed, or privileges are missing: then nothing was done.
pub fn change_entries(
    socket: &mut Socket,
    device: Option<u32>,
    steps: &[Step],
) -> Result<Vec<(Option<usize>, NetlinkError)>, OverlayError> {
    let messages = steps.iter().map(|step| message(step.change, device.unwrap_or_default())).collect();
    let mut failed = Vec::new();
    for (place, error) in socket.transact_all(messages)? {
        let step = &steps[place];
        if error.is(Errno::EPERM) {
            return Err(explain(error));
        }
        if !is_done_already(step.change, &error) {
            failed.push((step.peer, error));
        }
    }
    Ok(failed)
}

fn message(change: Change, device: u32) -> Message {
    match change {
        // The address is new on this device and of this node alone: nobody need be asked.
        Change::PutAddress(cidr) => encode::add_address_undetected(device, cidr),
        Change::DeleteAddress(cidr) => encode::delete_address(device, cidr),
        Change::PutForward { mac, destination } => encode::put_forward(device, mac, destination),
        Change::DeleteForward { mac, destination } => encode::delete_forward(device, mac, destination),
        Change::PutNeighbour { address, mac } => encode::put_neighbour(device, address, mac),
        Change::DeleteNeighbour(address) => encode::delete_neighbour(device, address),
        Change::PutRoute(route) => encode::replace_route(&route),
        Change::DeleteRoute(route) => encode::delete_route(&route),
    }
}

fn is_done_already(change: Change, error: &NetlinkError) -> bool {
    match change {
        Change::PutAddress(_) => error.is(Errno::EEXIST),
        Change::DeleteAddress(_) => error.is(Errno::EADDRNOTAVAIL),
        Change::DeleteForward { .. } | Change::DeleteNeighbour(_) => error.is(Errno::ENOENT),
        Change::DeleteRoute(_) => error.is(Errno::ESRCH),
        Change::PutForward { .. } | Change::PutNeighbour { .. } | Change::PutRoute(_) => false,
    }
}
