//! What a Pod may learn of its node, read once at start.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::quantity::Amount;

/// The node as Pods see it.
#[derive(Debug, Clone, Default)]
pub struct Node {
    pub name: String,
    pub cpus: i64,
    pub memory_bytes: i64,
    /// Address other machines reach this one by; loopback on a machine without a route.
    pub host_ip: String,
}

impl Node {
    pub fn read(name: String) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as i64);
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self { name, cpus, memory_bytes: total_bytes(&meminfo), host_ip: host_ip().to_string() }
    }

    /// Capacity by resource name: what a limit that is not set resolves to in the downward API.
    pub fn capacity(&self, resource: &str) -> Amount {
        match resource {
            "cpu" => Amount::from_units(self.cpus),
            "memory" => Amount::from_units(self.memory_bytes),
            _ => Amount::default(),
        }
    }
}

fn total_bytes(meminfo: &str) -> i64 {
    let kib =
        meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or(0_i64) * 1024
}

/// The source address the kernel would choose towards the outside; connecting a UDP socket sends nothing.
fn host_ip() -> IpAddr {
    let towards = |bind: &str, to: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind(bind.parse::<SocketAddr>().ok()?).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    towards("0.0.0.0:0", "192.0.2.1:9")
        .or_else(|| towards("[::]:0", "[2001:db8::1]:9"))
        .unwrap_or_else(|| IpAddr::from([127, 0, 0, 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(total_bytes("MemFree: 1 kB\nMemTotal:       2048 kB\n"), 2_097_152);
        assert_eq!(total_bytes(""), 0);
    }
}
