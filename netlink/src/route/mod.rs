//! rtnetlink: links, addresses, routes. The encoders are pure; [`Socket`] gains one method per question.

mod address;
mod link;
mod unicast;

use std::net::IpAddr;

use nix::errno::Errno;

pub use address::Address;
pub use link::{
    BridgePort, IPV4_DEVCONF_ARP_NOTIFY, IPV4_DEVCONF_ROUTE_LOCALNET, Link, LinkChange, Mac, OPER_UP, Peer,
    Veth,
};
pub use unicast::Route;

use crate::{Message, NetlinkError, Socket};

/// Encoders, for callers that send several requests in one call.
pub mod encode {
    pub use super::address::{
        add as add_address, add_undetected as add_address_undetected, delete as delete_address,
    };
    pub use super::link::{
        create_bridge, create_veth, delete as delete_link, set as set_link, set_bridge_port,
    };
    pub use super::unicast::add as add_route;
}

/// Questions and single changes.
impl Socket {
    /// `None`: there is no link of that name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        self.one_link(link::get_by_name(name))
    }

    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, NetlinkError> {
        self.one_link(link::get_by_index(index))
    }

    fn one_link(&mut self, request: Message) -> Result<Option<Link>, NetlinkError> {
        let what = request.what().to_owned();
        match self.get(request) {
            Ok(reply) => match Link::decode(&reply.body) {
                Some(link) => Ok(Some(link)),
                None => Err(NetlinkError::Malformed { what, why: "no name or index" }),
            },
            Err(e) if e.is(Errno::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        Ok(self.dump(&link::list())?.iter().filter_map(|r| Link::decode(&r.body)).collect())
    }

    /// The addresses of the link with this index, of both families.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Address>, NetlinkError> {
        let replies = self.dump(&address::list(index))?;
        Ok(replies.iter().filter_map(|r| Address::decode(&r.body)).filter(|a| a.index == index).collect())
    }

    /// The unicast routes of every table.
    pub fn routes(&mut self, ipv4: bool) -> Result<Vec<Route>, NetlinkError> {
        Ok(self.dump(&unicast::list(ipv4))?.iter().filter_map(|r| Route::decode(&r.body)).collect())
    }

    /// The index of the link that traffic to `address` leaves by; `None` when there is no route.
    pub fn link_towards(&mut self, address: IpAddr) -> Result<Option<u32>, NetlinkError> {
        match self.get(unicast::lookup(address)) {
            Ok(reply) => Ok(Route::decode(&reply.body).and_then(|r| r.link)),
            Err(e) if e.is(Errno::ENETUNREACH) || e.is(Errno::EHOSTUNREACH) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
