//! Makes the kernel's table be what it should: reads, compares, and sends the difference as one transaction.

use std::net::IpAddr;
use std::time::Duration;

use corten_netlink::nft::Batch;
use corten_netlink::{NetlinkError, Protocol, Socket, conntrack};
use nix::errno::Errno;

use super::actual::{self, Actual};
use super::diff::{self, Change};
use super::stale::Udp;
use super::{Content, TABLE};
use crate::services::model::Family;

/// Somebody changed the table between reading and writing, or the kernel moved elements about meanwhile.
const TRIES: u32 = 10;
/// The kernel rehashes a set of 100,000 elements in some 20 ms.
const REHASH: Duration = Duration::from_millis(20);

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Elements deleted and added.
    pub elements: usize,
    /// The table was made, or made anew.
    pub rebuilt: bool,
    pub changed: bool,
    /// UDP flows forgotten.
    pub flows: usize,
}

/// Sockets of the network namespace that was the thread's own at [`KernelTable::open`].
#[derive(Debug)]
pub struct KernelTable {
    netfilter: Socket,
    route: Socket,
    /// What the table holds: written by us, and nobody was heard to change it. Reading some ten thousand elements takes
    /// longer than everything else of a pass.
    known: Option<Content>,
    /// Of the ruleset, when that was so.
    generation: u32,
    udp: Option<Udp>,
}

impl KernelTable {
    pub fn open() -> Result<Self, NetlinkError> {
        let mut netfilter = Socket::open(Protocol::Netfilter)?;
        netfilter.nft_probe()?;
        Ok(Self { netfilter, route: Socket::open(Protocol::Route)?, known: None, generation: 0, udp: None })
    }

    /// The sender of notifications about our own changes.
    pub fn port(&mut self) -> Result<u32, NetlinkError> {
        self.netfilter.port()
    }

    /// Somebody may have changed the table: read it again.
    pub fn forget(&mut self) {
        self.known = None;
    }

    /// Whether nobody was heard to change what the last pass left.
    pub fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// Now and then: reads the table again if anybody has changed anything in nf_tables, heard or not.
    pub fn distrust(&mut self) -> Result<(), NetlinkError> {
        if self.netfilter.nft_generation()? != self.generation {
            self.forget();
        }
        Ok(())
    }

    /// The addresses of the node, loopback's included.
    pub fn addresses(&mut self) -> Result<Vec<IpAddr>, NetlinkError> {
        Ok(self.route.all_addresses()?.into_iter().map(|address| address.cidr.address()).collect())
    }

    /// Makes the table hold `desired`.
    pub fn apply(&mut self, desired: Content) -> Result<Applied, NetlinkError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let from_memory = self.known.is_some();
            let change = match self.compare(&desired)? {
                Some(change) => change,
                None if tries < TRIES => {
                    std::thread::sleep(REHASH);
                    continue;
                }
                None => return Err(never_still()),
            };
            let applied = Applied {
                elements: change.elements(&desired),
                rebuilt: matches!(change, Change::Rebuild { .. }),
                changed: !change.is_nothing(),
                flows: 0,
            };
            match diff::batch(&change, &desired).commit(&mut self.netfilter) {
                Ok(()) => {
                    self.known = Some(desired);
                    self.generation = self.netfilter.nft_generation()?;
                    return Ok(applied);
                }
                // What was to be changed is not as it was read.
                Err(error) if tries < TRIES && (from_memory || changed_meanwhile(&error)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// `None`: not to be read yet.
    fn compare(&mut self, desired: &Content) -> Result<Option<Change>, NetlinkError> {
        if let Some(known) = self.known.take() {
            return Ok(Some(diff::diff(desired, &known)));
        }
        Ok(match actual::read(&mut self.netfilter, desired) {
            Ok(Actual::Missing) => Some(Change::Rebuild { exists: false }),
            Ok(Actual::Foreign) => Some(Change::Rebuild { exists: true }),
            Ok(Actual::Table(content)) => Some(diff::diff(desired, &content)),
            Ok(Actual::Rehashing) => None,
            // The table went while it was read.
            Err(error) if error.is(Errno::ENOENT) => None,
            Err(error) => return Err(error),
        })
    }

    /// Forgets UDP flows whose backend is gone; when UDP frontends or their backends changed since the last call.
    /// Returns how many.
    pub fn forget_stale_flows(&mut self, udp: Udp) -> Result<usize, NetlinkError> {
        if self.udp.as_ref() == Some(&udp) {
            return Ok(0);
        }
        let judged = match &self.udp {
            Some(before) => udp.clone().and_gone(before),
            None => udp.clone(),
        };
        let mut count = 0;
        let mut own = Vec::new();
        if judged.has_node_ports() {
            own = self.addresses()?;
        }
        for family in judged.families() {
            let mut flows = conntrack::udp_flows(&mut self.netfilter, family == Family::V4)?;
            flows.retain(|flow| judged.is_stale(flow, |address| own.contains(&address)));
            count += conntrack::delete(&mut self.netfilter, &flows)?;
        }
        self.udp = Some(udp);
        Ok(count)
    }

    /// Takes the table away, if it is there.
    pub fn remove(&mut self) -> Result<(), NetlinkError> {
        self.known = None;
        let mut batch = Batch::new();
        batch.delete_table(TABLE);
        match batch.commit(&mut self.netfilter) {
            Err(error) if error.is(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }
}

fn changed_meanwhile(error: &NetlinkError) -> bool {
    [Errno::ENOENT, Errno::EEXIST, Errno::EBUSY, Errno::EINTR].iter().any(|errno| error.is(*errno))
}

fn never_still() -> NetlinkError {
    NetlinkError::Interrupted { what: format!("read table {}", TABLE.name), tries: TRIES }
}
