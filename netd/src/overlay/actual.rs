//! What is: netlink dumps.

use corten_netlink::route::{Address, Forward, Link, Neighbour, Route};
use corten_netlink::{NetlinkError, Socket};

use super::desired::Family;

/// Links, addresses and routes of the host.
#[derive(Debug)]
pub struct Host {
    pub links: Vec<Link>,
    pub addresses: Vec<Address>,
    /// Of table main.
    pub routes_v4: Vec<Route>,
    pub routes_v6: Vec<Route>,
}

impl Host {
    pub fn dump(socket: &mut Socket) -> Result<Self, NetlinkError> {
        Ok(Self {
            links: socket.links()?,
            addresses: socket.all_addresses()?,
            routes_v4: socket.main_routes(true)?,
            routes_v6: socket.main_routes(false)?,
        })
    }

    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    pub fn routes(&self, family: Family) -> &[Route] {
        if family.is_ipv4() { &self.routes_v4 } else { &self.routes_v6 }
    }
}

/// A tunnel device's tables, of one family.
#[derive(Debug, Default)]
pub struct Device {
    pub index: u32,
    pub addresses: Vec<Address>,
    pub neighbours: Vec<Neighbour>,
    pub forwards: Vec<Forward>,
}

impl Device {
    pub fn dump(socket: &mut Socket, family: Family, index: u32) -> Result<Self, NetlinkError> {
        let mut addresses = socket.addresses(index)?;
        addresses.retain(|address| address.cidr.is_ipv4() == family.is_ipv4());
        Ok(Self {
            index,
            addresses,
            neighbours: socket.neighbours(family.is_ipv4(), index)?,
            forwards: socket.forwards(index)?,
        })
    }
}
