//! rtnetlink: links, addresses, routes, neighbours, forwarding entries. The encoders are pure; [`Socket`] gains one method per question.

mod address;
mod link;
mod neighbour;
mod port;
mod unicast;
mod vxlan;

use std::net::IpAddr;

use nix::errno::Errno;

pub use address::Address;
pub use link::{
    BridgePort, IPV4_DEVCONF_ARP_NOTIFY, IPV4_DEVCONF_ROUTE_LOCALNET, Link, LinkChange, Mac, OPER_UP, Peer,
    Veth,
};
pub use neighbour::{Forward, Neighbour};
pub use port::PortLink;
pub use unicast::{Route, RouteKind};
pub use vxlan::Vxlan;

use crate::{Message, NetlinkError, Socket};

/// Encoders, for callers that send several requests in one call.
pub mod encode {
    pub use super::address::{
        add as add_address, add_undetected as add_address_undetected, delete as delete_address,
    };
    pub use super::link::{
        create_bridge, create_veth, delete as delete_link, isolate_bridge_port, set as set_link,
        set_bridge_port,
    };
    pub use super::neighbour::{
        delete as delete_neighbour, delete_forward, put as put_neighbour, put_forward,
    };
    pub use super::unicast::{add as add_route, delete as delete_route, replace as replace_route};
    pub use super::vxlan::{create as create_vxlan, set as set_vxlan};
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

    /// The links of another namespace, by the number it has in this one ([`Link::peer_netns`]). ENOENT or EINVAL when
    /// no namespace has it (any more).
    pub fn links_in(&mut self, netns: u32) -> Result<Vec<Link>, NetlinkError> {
        Ok(self.dump(&link::list_in(netns))?.iter().filter_map(|r| Link::decode(&r.body)).collect())
    }

    /// The ports of the bridge with this index.
    pub fn bridge_ports(&mut self, bridge: u32) -> Result<Vec<PortLink>, NetlinkError> {
        let replies = self.dump(&port::list(bridge))?;
        let ports = replies.iter().filter_map(|r| PortLink::decode(&r.body));
        Ok(ports.filter(|p| p.link.master == Some(bridge)).collect())
    }

    /// Do the ports of the bridge with this index belong to VLANs?
    pub fn bridge_filters_vlans(&mut self, bridge: u32) -> Result<bool, NetlinkError> {
        Ok(port::vlan_filtering(&self.get(link::get_by_index(bridge))?.body))
    }

    /// The queueing disciplines of all links, `ingress` and `clsact` among them: link index and kind.
    pub fn qdiscs(&mut self) -> Result<Vec<(u32, String)>, NetlinkError> {
        Ok(self.dump(&port::list_qdiscs())?.iter().filter_map(|r| port::decode_qdisc(&r.body)).collect())
    }

    /// The addresses of all links.
    pub fn all_addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        Ok(self.dump(&address::list_all())?.iter().filter_map(|r| Address::decode(&r.body)).collect())
    }

    /// The addresses of all links of another namespace, as [`Socket::links_in`].
    pub fn addresses_in(&mut self, netns: u32) -> Result<Vec<Address>, NetlinkError> {
        Ok(self.dump(&address::list_in(netns))?.iter().filter_map(|r| Address::decode(&r.body)).collect())
    }

    /// The neighbours of one family on the link with this index.
    pub fn neighbours(&mut self, ipv4: bool, link: u32) -> Result<Vec<Neighbour>, NetlinkError> {
        let replies = self.dump(&neighbour::list(ipv4, link))?;
        Ok(replies.iter().filter_map(|r| Neighbour::decode(&r.body)).filter(|n| n.link == link).collect())
    }

    /// The forwarding entries of the vxlan device with this index.
    pub fn forwards(&mut self, link: u32) -> Result<Vec<Forward>, NetlinkError> {
        let replies = self.dump(&neighbour::list_forwards(link))?;
        Ok(replies.iter().filter_map(|r| Forward::decode(&r.body)).filter(|f| f.link == link).collect())
    }

    /// The addresses of the link with this index, of both families.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Address>, NetlinkError> {
        let replies = self.dump(&address::list(index))?;
        Ok(replies.iter().filter_map(|r| Address::decode(&r.body)).filter(|a| a.index == index).collect())
    }

    /// The unicast routes of every table.
    pub fn routes(&mut self, ipv4: bool) -> Result<Vec<Route>, NetlinkError> {
        let routes = self.dump(&unicast::list(ipv4))?;
        let unicast = |route: &Route| route.kind == RouteKind::Unicast;
        Ok(routes.iter().filter_map(|r| Route::decode(&r.body)).filter(unicast).collect())
    }

    /// The routes of table main, blackholes too.
    pub fn main_routes(&mut self, ipv4: bool) -> Result<Vec<Route>, NetlinkError> {
        match self.dump(&unicast::list_main(ipv4)) {
            Ok(replies) => Ok(replies.iter().filter_map(|r| Route::decode(&r.body)).collect()),
            Err(e) if e.is(Errno::ENOENT) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    /// The index of the link that traffic to `address` leaves by; `None` when there is no route.
    pub fn link_towards(&mut self, address: IpAddr) -> Result<Option<u32>, NetlinkError> {
        Ok(self.route_towards(address)?.and_then(|route| route.link))
    }

    /// How the kernel would send to `address` now: link, gateway, source. `None` when there is no route or the address
    /// is this host's own.
    pub fn route_towards(&mut self, address: IpAddr) -> Result<Option<Route>, NetlinkError> {
        match self.get(unicast::lookup(address)) {
            Ok(reply) => Ok(Route::decode(&reply.body).filter(|route| route.kind == RouteKind::Unicast)),
            Err(e) if e.is(Errno::ENETUNREACH) || e.is(Errno::EHOSTUNREACH) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
