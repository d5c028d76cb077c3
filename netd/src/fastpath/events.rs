//! What `corten-netd drops` prints: an event of the programs' ring buffer in words. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use corten_ebpf::datapath::{Event, Hook, Reason};
use serde::{Deserialize, Serialize};

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
        let with_ports = event.flow.filter(|flow| matches!(flow.4, 6 | 17));
        let micros = event.time.subsec_micros();
        Self {
            time: format!("{}.{micros:06}", event.time.as_secs()),
            hook: hook_name(event.hook).to_owned(),
            link: links.get(&event.ifindex).cloned().unwrap_or_else(|| event.ifindex.to_string()),
            outcome: if event.reason == Reason::Dropped { "dropped" } else { "kernel" }.to_owned(),
            reason: event.reason.name().to_owned(),
            source: event.flow.map(|flow| flow.0),
            destination: event.flow.map(|flow| flow.2),
            source_port: with_ports.map(|flow| flow.1),
            destination_port: with_ports.map(|flow| flow.3),
            protocol: event.flow.map(|flow| protocol_name(flow.4)),
            length: event.len,
        }
    }
}

pub fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::FromPod => "from-pod",
        Hook::FromNic => "from-nic",
    }
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
    use std::time::Duration;

    fn event() -> Event {
        let flow = ("10.244.1.9".parse().unwrap(), 40000, "10.244.2.3".parse().unwrap(), 80, 6);
        Event {
            time: Duration::from_nanos(12_000_345_678),
            hook: Hook::FromPod,
            reason: Reason::SpoofedPod,
            ifindex: 5,
            len: 98,
            flow: Some(flow),
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
        let event = Event { flow: None, reason: Reason::Dropped, hook: Hook::FromNic, ..event() };
        let told = Told::new(&event, &BTreeMap::new());
        assert_eq!((told.source, told.source_port, told.link.as_str()), (None, None, "5"));
        assert!(told.to_string().ends_with("? ? > ?"), "{told}");
        assert_eq!((told.hook.as_str(), told.outcome.as_str()), ("from-nic", "dropped"));
        let flow = Some(("10.244.1.9".parse().unwrap(), 0, "10.244.2.3".parse().unwrap(), 0, 1));
        let icmp = Told::new(&Event { flow, ..event }, &BTreeMap::new());
        assert!(icmp.to_string().ends_with("icmp 10.244.1.9 > 10.244.2.3"), "{icmp}");
    }
}
