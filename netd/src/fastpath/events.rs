//! What `corten-netd drops` prints: an event of the programs' ring buffer in words. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use corten_ebpf_layout::datapath::{Address, Event, Hook, Reason};
use serde::{Deserialize, Serialize};

use super::tables::ip;

/// A packet that did not take the fast path, told because of its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Seconds since the machine's start.
    pub time: String,
    /// `from-pod`, `from-nic`.
    pub hook: String,
    /// The link it came in by: name, or number when it is gone.
    pub link: String,
    /// `kernel`: it went the kernel's way. `dropped`.
    pub outcome: String,
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Of the frame, bytes.
    pub length: u32,
}

impl Told {
    /// `links`: index → name.
    pub fn new(event: &Event, links: &BTreeMap<u32, String>) -> Self {
        let read = event.protocol != 0;
        let with_ports = matches!(event.protocol, 6 | 17);
        let address = |address: &Address| read.then(|| ip(address));
        let port = |port: [u8; 2]| with_ports.then(|| u16::from_be_bytes(port));
        let reason = Reason::ALL.into_iter().find(|r| *r as u8 == event.reason);
        Self {
            time: format!("{}.{:06}", event.time_ns / 1_000_000_000, event.time_ns / 1_000 % 1_000_000),
            hook: hook_name(event.hook).to_owned(),
            link: links.get(&event.ifindex).cloned().unwrap_or_else(|| event.ifindex.to_string()),
            outcome: if reason == Some(Reason::Dropped) { "dropped" } else { "kernel" }.to_owned(),
            reason: reason.map_or_else(|| event.reason.to_string(), |reason| reason.name().to_owned()),
            source: address(&event.source),
            destination: address(&event.destination),
            source_port: port(event.source_port),
            destination_port: port(event.destination_port),
            protocol: read.then(|| protocol_name(event.protocol)),
            length: event.len,
        }
    }
}

pub fn hook_name(hook: u8) -> &'static str {
    if hook == Hook::FromPod as u8 { "from-pod" } else { "from-nic" }
}

fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        other => other.to_string(),
    }
}

/// The first line of the table.
pub const HEADER: &str =
    "TIME             HOOK      LINK             OUTCOME  REASON          LENGTH  PACKET";

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, hook, link, outcome, reason, length, .. } = self;
        write!(f, "{time:<16} {hook:<9} {link:<16} {outcome:<8} {reason:<15} {length:<7} ")?;
        let end = |ip: Option<IpAddr>, port: Option<u16>| match (ip, port) {
            (Some(ip), Some(port)) => SocketAddr::new(ip, port).to_string(),
            (Some(ip), None) => ip.to_string(),
            (None, _) => "?".into(),
        };
        let protocol = self.protocol.as_deref().unwrap_or("?");
        let source = end(self.source, self.source_port);
        write!(f, "{protocol} {source} > {}", end(self.destination, self.destination_port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_ebpf_layout::datapath::mapped;

    fn event() -> Event {
        Event {
            time_ns: 12_000_345_678,
            ifindex: 5,
            len: 98,
            source: mapped([10, 244, 1, 9]),
            destination: mapped([10, 244, 2, 3]),
            source_port: 40000_u16.to_be_bytes(),
            destination_port: 80_u16.to_be_bytes(),
            protocol: 6,
            hook: 0,
            reason: Reason::SpoofedPod as u8,
            reserved: 0,
        }
    }

    #[test]
    fn an_event_is_a_line_of_the_table_and_an_object() {
        let links = BTreeMap::from([(5, "veth1".to_owned())]);
        let told = Told::new(&event(), &links);
        let line = "12.000345        from-pod  veth1            kernel   spoofed-pod     98      \
                    tcp 10.244.1.9:40000 > 10.244.2.3:80";
        assert_eq!(told.to_string(), line);
        assert_eq!(HEADER.find("PACKET"), line.find("tcp"));
        let json = serde_json::to_string(&told).expect("JSON");
        assert_eq!(serde_json::from_str::<Told>(&json).expect("read again"), told);
    }

    #[test]
    fn what_was_not_read_is_not_told() {
        let event = Event { protocol: 0, reason: Reason::Dropped as u8, hook: 1, ..event() };
        let told = Told::new(&event, &BTreeMap::new());
        assert_eq!((told.source, told.source_port, told.link.as_str()), (None, None, "5"));
        assert!(told.to_string().ends_with("? ? > ?"), "{told}");
        assert_eq!((told.hook.as_str(), told.outcome.as_str()), ("from-nic", "dropped"));
        let icmp = Told::new(&Event { protocol: 1, ..event }, &BTreeMap::new());
        assert!(icmp.to_string().ends_with("icmp 10.244.1.9 > 10.244.2.3"), "{icmp}");
    }
}
