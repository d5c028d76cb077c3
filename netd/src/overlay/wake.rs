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

#[cfg(test)]
mod tests {
    use corten_netlink::Message;
    use corten_netlink::message::HEADER_LEN;
    use corten_netlink::route::{Mac, encode};

    use super::*;

    fn event(kind: u16, message: Message) -> Event {
        Event::Changed { kind, sender: 0, body: message.sealed(1, false)[HEADER_LEN..].to_vec() }
    }

    #[test]
    fn only_what_may_need_mending_wakes() {
        let watched = Watched {
            own_ports: vec![77],
            links: [2, 7].into(),
            names: ["flannel.1".into(), "eth0".into()].into(),
            tunnels: [7].into(),
            networks: vec!["10.244.0.0/16".parse().unwrap()],
        };
        let mac = Mac([2; 6]);
        let route = |text: &str, link| {
            let route = Route { link: Some(link), ..Route::to(text.parse().unwrap()) };
            event(libc::RTM_DELROUTE, encode::delete_route(&route))
        };
        let neighbour =
            |link| event(libc::RTM_NEWNEIGH, encode::put_neighbour(link, [10, 244, 2, 0].into(), mac));
        let gone = |link| event(libc::RTM_DELNEIGH, encode::delete_neighbour(link, [10, 244, 2, 0].into()));
        let unresolved = event(libc::RTM_NEWNEIGH, encode::delete_neighbour(7, [10, 244, 2, 9].into()));
        let link = |name| event(libc::RTM_NEWLINK, encode::create_bridge(name, 0));
        for (event, wakes) in [
            (Event::Lost, true),
            (link("flannel.1"), true),
            (link("veth1234"), false),
            (route("10.244.2.0/24", 9), true),
            (route("10.9.0.0/24", 2), true),
            (route("0.0.0.0/0", 9), true),
            (route("192.0.2.0/24", 9), false),
            (neighbour(7), true),
            (neighbour(2), false),
            (gone(7), true),
            (gone(2), false),
            (unresolved, false),
            (event(libc::RTM_NEWADDR, encode::add_address(9, "192.0.2.1/32".parse().unwrap())), true),
        ] {
            assert_eq!(concerns(&watched, &event), wakes, "{event:?}");
        }
        let Event::Changed { kind, body, .. } = route("10.244.2.0/24", 9) else { panic!("a change") };
        assert!(!concerns(&watched, &Event::Changed { kind, sender: 77, body }), "our own");
    }

    #[test]
    fn of_nf_tables_only_our_table_wakes() {
        let watched = Watched::default();
        for (name, wakes) in [(masquerade::TABLE_NAME, true), ("corten-services", false), ("filter", false)] {
            // NFT_MSG_DELTABLE; the body of a notification is that of a request.
            let mut body = vec![1, 0, 0, 0];
            body.extend((name.len() as u16 + 5).to_ne_bytes());
            body.extend(1_u16.to_ne_bytes());
            body.extend(name.as_bytes());
            body.push(0);
            let event = Event::Changed { kind: 0x0a02, sender: 0, body };
            assert_eq!(concerns(&watched, &event), wakes, "{name}");
        }
    }
}
