//! How flannel writes a node into etcd: key and value of a subnet's lease. Pure.
//!
//! Key `PREFIX/subnets/10.5.52.0-24`, dual stack `10.5.52.0-24&fd00:0:0:1::-64`, IPv6 alone `0.0.0.0-0&fd00:...`.
//! Value: JSON of the public addresses, the backend's name and its data.
//! Source: flannel `pkg/subnet/subnet.go` (`MakeSubnetKey`), `pkg/lease/lease.go` (`LeaseAttrs`), `pkg/backend/vxlan`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use corten_netlink::route::Mac;
use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Announcement;
use crate::node::{Backend, Dual, Node, PodCidrs, PublicIps};

/// The last part of a lease's key.
pub fn key(cidrs: PodCidrs) -> String {
    let v4 = cidrs.v4.map_or("0.0.0.0-0".to_owned(), |v4| format!("{}-{}", v4.network(), v4.prefix()));
    match cidrs.v6 {
        None => v4,
        Some(v6) => format!("{v4}&{}-{}", v6.network(), v6.prefix()),
    }
}

/// `None` for a key that is no lease's.
pub fn parse_key(key: &str) -> Option<PodCidrs> {
    let (v4, v6) = match key.split_once('&') {
        None => (key, None),
        Some((v4, v6)) => (v4, Some(v6)),
    };
    let (address, prefix) = v4.split_once('-')?;
    let (address, prefix) = (address.parse::<Ipv4Addr>().ok()?, prefix.parse().ok()?);
    let v4 = if prefix == 0 { None } else { Some(Ipv4Network::new(address, prefix).ok()?) };
    let v6 = match v6.map(|v6| v6.split_once('-')) {
        None => None,
        Some(None) => return None,
        Some(Some((address, prefix))) => {
            Some(Ipv6Network::new(address.parse::<Ipv6Addr>().ok()?, prefix.parse().ok()?).ok()?)
        }
    };
    (v4.is_some() || v6.is_some()).then_some(PodCidrs { v4, v6 })
}

/// flannel's `LeaseAttrs`.
#[derive(Debug, Serialize, Deserialize)]
struct Attributes {
    #[serde(rename = "PublicIP")]
    public_ip: Option<String>,
    #[serde(rename = "PublicIPv6", default)]
    public_ipv6: Option<String>,
    #[serde(rename = "BackendType", default, skip_serializing_if = "String::is_empty")]
    backend_type: String,
    #[serde(rename = "BackendData", default, skip_serializing_if = "Value::is_null")]
    backend_data: Value,
    #[serde(rename = "BackendV6Data", default, skip_serializing_if = "Value::is_null")]
    backend_v6_data: Value,
}

/// The value that announces this node.
pub fn value(announcement: &Announcement) -> String {
    let (backend_type, backend_data, backend_v6_data) = backend_data(announcement.backend);
    let attributes = Attributes {
        // flannel has no way to say "none" here.
        public_ip: Some(announcement.public_ips.v4.unwrap_or(Ipv4Addr::UNSPECIFIED).to_string()),
        public_ipv6: announcement.public_ips.v6.map(|ip| ip.to_string()),
        backend_type: backend_type.to_owned(),
        backend_data,
        backend_v6_data,
    };
    serde_json::to_string(&attributes).expect("strings and JSON values are JSON")
}

/// The node behind a lease. Nodes have no names in etcd: it is called by its public address.
pub fn node(cidrs: PodCidrs, value: &[u8]) -> Result<Node, String> {
    let attributes: Attributes = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let address = |text: &Option<String>| match text {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => text.parse::<IpAddr>().map(Some).map_err(|_| format!("{text} is no address")),
    };
    let v4 = match address(&attributes.public_ip)? {
        Some(IpAddr::V4(ip)) if !ip.is_unspecified() => Some(ip),
        _ => None,
    };
    let v6 = match address(&attributes.public_ipv6)? {
        Some(IpAddr::V6(ip)) => Some(ip),
        _ => None,
    };
    let backend = backend(
        &attributes.backend_type,
        (!attributes.backend_data.is_null()).then_some(&attributes.backend_data),
        (!attributes.backend_v6_data.is_null()).then_some(&attributes.backend_v6_data),
    )?;
    let public_ips = PublicIps { v4, v6 };
    Ok(Node {
        name: name(public_ips).ok_or("it has no public address")?,
        pod_cidrs: cidrs,
        public_ips,
        backend,
    })
}

/// What a node is called where nodes have no names.
pub fn name(public_ips: PublicIps) -> Option<String> {
    public_ips.v4.map(|ip| ip.to_string()).or_else(|| public_ips.v6.map(|ip| ip.to_string()))
}

#[derive(Serialize, Deserialize)]
struct VxlanData {
    #[serde(rename = "VNI")]
    vni: u32,
    #[serde(rename = "VtepMAC")]
    vtep_mac: String,
}

/// Name and data of a backend, for each family, as flannel tells them; null where there is nothing to tell.
pub(super) fn backend_data(backend: Backend) -> (&'static str, Value, Value) {
    match backend {
        Backend::HostGw => ("host-gw", Value::Null, Value::Null),
        Backend::Vxlan { vni, vtep } => {
            let data = |mac: Option<Mac>| {
                mac.map_or(Value::Null, |mac| {
                    let data = VxlanData { vni, vtep_mac: mac.to_string() };
                    serde_json::to_value(data).expect("a number and a string are JSON")
                })
            };
            ("vxlan", data(vtep.v4), data(vtep.v6))
        }
    }
}

/// The reverse of [`backend_data`].
pub(super) fn backend(name: &str, v4: Option<&Value>, v6: Option<&Value>) -> Result<Backend, String> {
    match name {
        "host-gw" => return Ok(Backend::HostGw),
        "vxlan" => {}
        "" => return Err("it tells no backend".into()),
        other => return Err(format!("its backend {other} is not supported")),
    }
    let data = |value: Option<&Value>| -> Result<Option<(u32, Mac)>, String> {
        let Some(value) = value else { return Ok(None) };
        let data = VxlanData::deserialize(value).map_err(|error| format!("its backend data: {error}"))?;
        let mac = data.vtep_mac.parse().map_err(|error| format!("its backend data: {error}"))?;
        Ok(Some((data.vni, mac)))
    };
    let (v4, v6) = (data(v4)?, data(v6)?);
    let vni = v4.or(v6).map(|(vni, _)| vni).ok_or("it tells no address of a tunnel device")?;
    if [v4, v6].into_iter().flatten().any(|(other, _)| other != vni) {
        return Err("its tunnels have different VNIs".into());
    }
    Ok(Backend::Vxlan { vni, vtep: Dual { v4: v4.map(|(_, mac)| mac), v6: v6.map(|(_, mac)| mac) } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_flannels() {
        let cidrs = |v4: Option<&str>, v6: Option<&str>| PodCidrs {
            v4: v4.map(|text| text.parse().unwrap()),
            v6: v6.map(|text| text.parse().unwrap()),
        };
        let table = [
            (cidrs(Some("10.5.52.0/24"), None), "10.5.52.0-24"),
            (cidrs(Some("10.5.52.0/24"), Some("fd00:0:0:1::/64")), "10.5.52.0-24&fd00:0:0:1::-64"),
            (cidrs(None, Some("fc00::/64")), "0.0.0.0-0&fc00::-64"),
        ];
        for (cidrs, text) in table {
            assert_eq!(key(cidrs), text);
            assert_eq!(parse_key(text), Some(cidrs));
        }
        for text in [
            "config",
            "",
            "10.5.52.0",
            "10.5.52.0-33",
            "10.5.52-24",
            "0.0.0.0-0",
            "10.0.0.0-8&x",
            "10.0.0.0-8&::1-999",
        ] {
            assert_eq!(parse_key(text), None, "{text}");
        }
    }

    #[test]
    fn a_value_of_flanneld_is_understood() {
        // As flanneld 0.28 writes it.
        let value = br#"{"PublicIP":"192.168.0.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}}"#;
        let node = node(parse_key("10.5.52.0-24").unwrap(), value).unwrap();
        assert_eq!(node.name, "192.168.0.2");
        assert_eq!(
            node.backend,
            Backend::Vxlan {
                vni: 1,
                vtep: Dual { v4: Some("12:c6:65:89:b4:e3".parse().unwrap()), v6: None }
            }
        );
    }

    #[test]
    fn what_is_announced_is_read_back() {
        let cidrs = parse_key("10.5.52.0-24&fd00:0:0:1::-64").unwrap();
        for backend in [
            Backend::HostGw,
            Backend::Vxlan {
                vni: 7,
                vtep: Dual { v4: Some(Mac([2, 0, 0, 0, 0, 4])), v6: Some(Mac([2, 0, 0, 0, 0, 6])) },
            },
        ] {
            let announcement = Announcement {
                public_ips: PublicIps {
                    v4: Some("192.0.2.1".parse().unwrap()),
                    v6: Some("2001:db8::1".parse().unwrap()),
                },
                backend,
            };
            let node = node(cidrs, value(&announcement).as_bytes()).unwrap();
            assert_eq!((node.public_ips, node.backend), (announcement.public_ips, announcement.backend));
        }
        let v4 = Announcement {
            public_ips: PublicIps { v4: Some("192.0.2.1".parse().unwrap()), v6: None },
            backend: Backend::Vxlan { vni: 1, vtep: Dual { v4: Some(Mac([2, 0, 0, 0, 0, 4])), v6: None } },
        };
        assert_eq!(
            value(&v4),
            r#"{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:04"}}"#
        );
    }

    #[test]
    fn a_value_that_makes_no_sense_says_why() {
        let table: [(&str, &str); 6] = [
            ("{", "EOF"),
            (r#"{"PublicIP":"x","BackendType":"vxlan"}"#, "x is no address"),
            (r#"{"PublicIP":"1.2.3.4","BackendType":"wireguard"}"#, "wireguard is not supported"),
            (r#"{"PublicIP":"1.2.3.4","BackendType":"vxlan"}"#, "tells no address of a tunnel device"),
            (
                r#"{"PublicIP":"1.2.3.4","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"z"}}"#,
                "backend data",
            ),
            (r#"{"PublicIP":"0.0.0.0","BackendType":"host-gw"}"#, "no public address"),
        ];
        for (value, wanted) in table {
            let error = node(parse_key("10.5.52.0-24").unwrap(), value.as_bytes()).unwrap_err();
            assert!(error.contains(wanted), "{value}: {error}");
        }
    }
}
