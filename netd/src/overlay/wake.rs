//! When to look again: which notifications concern the overlay ([`concerns`], pure), and waiting for them.

use std::collections::HashSet;
use std::io;

use corten_netlink::route::{Link, Neighbour, Route};
use corten_netlink::{Cidr, Event, NetlinkError, Notifications, RouteGroup};
use nix::libc;
use tokio::io::unix::AsyncFd;

use super::masquerade;

const NFTABLES: u16 = 10 << 8;
const NFNL_TABLE: u16 = 1;

/// What the last pass looked at.
#[derive(Debug, Default)]
pub struct Watched {
    /// Senders whose changes are our own.
    pub own_ports: Vec<u32>,
    /// The uplink and the tunnels.
    pub links: HashSet<u32>,
    pub names: HashSet<String>,
    pub tunnels: HashSet<u32>,
    /// The cluster's.
    pub networks: Vec<Cidr>,
}

/// Might this event make a pass find something to do?
pub fn concerns(watched: &Watched, event: &Event) -> bool {
    let Event::Changed { kind, sender, body } = event else { return true };
    if watched.own_ports.contains(sender) {
        return false;
    }
    match *kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => Link::decode(body)
            .is_none_or(|link| watched.links.contains(&link.index) || watched.names.contains(&link.name)),
        // Rare, and with an option like --iface-regex any may matter.
        libc::RTM_NEWADDR | libc::RTM_DELADDR => true,
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => Route::decode(body).is_some_and(|route| {
            route.destination.prefix() == 0
                || route.link.is_some_and(|link| watched.links.contains(&link))
                || watched.networks.iter().any(|network| network.contains(route.destination.address()))
        }),
        libc::RTM_DELNEIGH => on_tunnel(watched, body),
        // The kernel's own states of an address that nobody answers are no news.
        libc::RTM_NEWNEIGH => {
            on_tunnel(watched, body) && Neighbour::decode(body).is_none_or(|n| n.mac.is_some())
        }
        kind if kind & 0xff00 == NFTABLES => {
            let table =
                corten_netlink::message::Attributes::after(body, 4).and_then(|a| a.string(NFNL_TABLE));
            table.as_deref() == Some(masquerade::TABLE_NAME)
        }
        _ => false,
    }
}

fn on_tunnel(watched: &Watched, body: &[u8]) -> bool {
    let link = body.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
    link.is_some_and(|link| watched.tunnels.contains(&link))
}

/// The sockets, before they are in an event loop.
#[derive(Debug)]
pub struct Ears {
    route: Notifications,
    nf_tables: Notifications,
}

impl Ears {
    pub fn open() -> Result<Self, NetlinkError> {
        use RouteGroup::{Ipv4Addresses, Ipv4Routes, Ipv6Addresses, Ipv6Routes, Links, Neighbours};
        let groups = [Links, Neighbours, Ipv4Addresses, Ipv6Addresses, Ipv4Routes, Ipv6Routes];
        Ok(Self { route: Notifications::route(&groups)?, nf_tables: Notifications::nf_tables()? })
    }

    /// In a tokio runtime.
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe: it asks that the descriptor stay the same, which Notifications sees to"
    )]
    pub fn listen(self) -> io::Result<Listener> {
        Ok(Listener { route: AsyncFd::new(self.route)?, nf_tables: AsyncFd::new(self.nf_tables)? })
    }
}

#[derive(Debug)]
pub struct Listener {
    route: AsyncFd<Notifications>,
    nf_tables: AsyncFd<Notifications>,
}

impl Listener {
    /// Returns when something that [`concerns`] us has happened. May be dropped at any time without loss.
    pub async fn wait(&mut self, watched: &Watched) -> io::Result<()> {
        loop {
            let heard = tokio::select! {
                heard = hear(&mut self.route, watched) => heard?,
                heard = hear(&mut self.nf_tables, watched) => heard?,
            };
            if heard {
                return Ok(());
            }
        }
    }

    /// Takes what has arrived so far: the pass to come will see it.
    pub fn clear(&mut self) {
        for notifications in [self.route.get_mut(), self.nf_tables.get_mut()] {
            while notifications.read().is_ok_and(|events| !events.is_empty()) {}
        }
    }
}

async fn hear(socket: &mut AsyncFd<Notifications>, watched: &Watched) -> io::Result<bool> {
    let mut ready = socket.readable_mut().await?;
    let events = ready.get_inner_mut().read().map_err(io::Error::other)?;
    if events.is_empty() {
        ready.clear_ready();
    }
    Ok(events.iter().any(|event| concerns(watched, event)))
}
