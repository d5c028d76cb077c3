//! When to look again: somebody touched our table, or the node's addresses changed.

use std::io;

use corten_netlink::{Event, NetlinkError, Notifications, RouteGroup, nft};
use tokio::io::unix::AsyncFd;

use super::nft::TABLE;

/// The sockets, before they are in an event loop.
#[derive(Debug)]
pub struct Ears {
    nf_tables: Notifications,
    addresses: Notifications,
}

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The table may have been changed by others.
    Table,
    Addresses,
}

impl Ears {
    pub fn open() -> Result<Self, NetlinkError> {
        let addresses = [RouteGroup::Ipv4Addresses, RouteGroup::Ipv6Addresses];
        Ok(Self { nf_tables: Notifications::nf_tables()?, addresses: Notifications::route(&addresses)? })
    }

    /// In a tokio runtime.
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe: it asks that the descriptor stay the same, which Notifications sees to"
    )]
    pub fn listen(self) -> io::Result<Listener> {
        Ok(Listener { nf_tables: AsyncFd::new(self.nf_tables)?, addresses: AsyncFd::new(self.addresses)? })
    }
}

#[derive(Debug)]
pub struct Listener {
    nf_tables: AsyncFd<Notifications>,
    addresses: AsyncFd<Notifications>,
}

impl Listener {
    /// `own`: the sender of what we do ourselves. May be dropped at any time without loss.
    pub async fn wait(&mut self, own: u32) -> io::Result<Heard> {
        tokio::select! {
            heard = hear(&mut self.nf_tables, |event| touches_table(event, own)) => heard.map(|()| Heard::Table),
            heard = hear(&mut self.addresses, |_| true) => heard.map(|()| Heard::Addresses),
        }
    }
}

/// Pure.
fn touches_table(event: &Event, own: u32) -> bool {
    match event {
        Event::Lost => true,
        Event::Changed { sender, .. } if *sender == own => false,
        Event::Changed { kind, body, .. } => nft::changed_table(*kind, body).as_deref() == Some(TABLE.name),
    }
}

async fn hear(socket: &mut AsyncFd<Notifications>, concerns: impl Fn(&Event) -> bool) -> io::Result<()> {
    loop {
        let mut ready = socket.readable_mut().await?;
        let events = ready.get_inner_mut().read().map_err(io::Error::other)?;
        if events.is_empty() {
            ready.clear_ready();
        }
        if events.iter().any(&concerns) {
            return Ok(());
        }
    }
}
