//! The model as one nf_tables table, `inet corten-services`.
//!
//! Nearly everything is an element of a map, so that a change of a Service is a few elements, whatever the number of
//! Services:
//!
//! ```text
//! prerouting, output ── frontends-v4: address . protocol . port ──> goto pick-v4-3        three backends
//!                                                               └─> goto refuse, goto drop
//!                    ── node-ports: family . protocol . port ─────> goto node/...         if the address is the node's
//! pick-v4-3          ── dnat to backends-v4: address . protocol . port . (a number drawn below 3)
//! postrouting        ── hairpin-v4, sources-v4, node-sources: by the flow's original destination ──> masquerade
//! ```
//! A chain such as `pick-v4-3` serves every frontend with three backends. Frontends of policy Local answer the node and
//! its pods by maps of their own (`inside-...`), looked up first. Only a Service with session affinity has chains of
//! its own: one for the Service, and one for each endpoint with the set of its clients.
//!
//! No packet is marked: what was translated is found in postrouting by what connection tracking remembers of it. All
//! chains are of type nat and see only the first packet of a flow; established flows cost nothing.
//!
//! [`render`] is pure; [`diff`] compares with what [`actual`] read; the difference goes in one transaction.

pub mod actual;
mod chains;
pub mod diff;
mod key;
pub mod render;
pub mod stale;
mod table;

use std::collections::BTreeMap;

use corten_netlink::nft::{BaseChain, DataType, Element, Elements, Expression, Family, Set, SetKind, Table};

pub use render::{Settings, render};
pub use table::{Applied, KernelTable};

pub const TABLE: Table<'static> = Table { family: Family::Inet, name: "corten-services" };

/// What the table holds, or should hold. Names are those nft shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    pub chains: BTreeMap<String, Chain>,
    pub sets: BTreeMap<String, Elementary>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    pub base: Option<BaseChain>,
    /// An empty rule is one that could not be read.
    pub rules: Vec<Vec<Expression>>,
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elementary {
    pub shape: Shape,
    /// Sorted. None in a set that rules fill.
    pub elements: Vec<Element>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub key: &'static [DataType],
    pub kind: SetKind<'static>,
    pub elements: Elements,
}

impl Shape {
    pub fn set(self, name: &str) -> Set<'_> {
        Set { name, key: self.key, kind: self.kind, elements: self.elements, comment: None }
    }
}

#[cfg(test)]
mod tests;
