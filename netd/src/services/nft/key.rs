//! Keys and values of the maps as bytes: parts one after the other, each padded to four bytes.

use std::net::{IpAddr, SocketAddr};

use corten_netlink::message::address_bytes;
use corten_netlink::nft::{Element, ElementData, Verdict};

use crate::services::model::{At, Family, FrontendKey};

#[derive(Debug, Clone, Default)]
pub struct Key(Vec<u8>);

impl Key {
    pub fn address(mut self, address: IpAddr) -> Self {
        self.0.extend(address_bytes(address));
        self
    }

    /// A protocol number.
    pub fn byte(mut self, byte: u8) -> Self {
        self.0.extend([byte, 0, 0, 0]);
        self
    }

    pub fn port(mut self, port: u16) -> Self {
        self.0.extend(port.to_be_bytes());
        self.0.extend([0, 0]);
        self
    }

    /// A drawn number is of the host's order.
    pub fn slot(mut self, slot: usize) -> Self {
        self.0.extend((slot as u32).to_ne_bytes());
        self
    }

    /// What a packet to the frontend has: its address (of a node port none, it may be any of the node's), protocol and
    /// port.
    pub fn frontend(self, key: &FrontendKey) -> Self {
        let addressed = match key.at {
            At::Address(address) => self.address(address),
            At::Node(_) => self,
        };
        addressed.byte(key.protocol.number()).port(key.port)
    }

    pub fn element(self) -> Element {
        Element { key: self.0, ..Element::default() }
    }

    /// From this key to `end`.
    pub fn range(self, end: Self) -> Element {
        Element { key: self.0, key_end: Some(end.0), ..Element::default() }
    }

    pub fn goto(self, chain: &str) -> Element {
        let data = Some(ElementData::Verdict(Verdict::Goto(chain.to_owned())));
        Element { key: self.0, data, ..Element::default() }
    }

    pub fn value(self, value: SocketAddr) -> Element {
        let data = Some(ElementData::Value(Self::default().address(value.ip()).port(value.port()).0));
        Element { key: self.0, data, ..Element::default() }
    }
}

impl Family {
    /// NFPROTO_*.
    pub fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }
}
