//! Results of CNI 0.1.0 and 0.2.0: at most one address a family, no interfaces.

use std::net::IpAddr;

use corten_netlink::Cidr;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text;
use super::v1_0::{CniResult, Dns, IpConfig, Route};
use crate::Result;
use crate::error::Error;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct OldResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<OldIp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<OldIp>,
    #[serde(skip_serializing_if = "Dns::is_empty")]
    dns: Dns,
}

#[derive(Debug, Serialize, Deserialize)]
struct OldIp {
    #[serde(with = "text")]
    ip: Cidr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

pub fn parse(value: &Value) -> serde_json::Result<CniResult> {
    let old = OldResult::deserialize(value)?;
    let mut result = CniResult { dns: old.dns, ..CniResult::default() };
    for ip in old.ip4.into_iter().chain(old.ip6) {
        result.ips.push(IpConfig { address: ip.ip, gateway: ip.gateway, interface: None });
        result.routes.extend(ip.routes);
    }
    Ok(result)
}

pub fn render(result: &CniResult) -> Result<Value> {
    let of_family = |ipv4: bool| {
        let ip = result.ips.iter().find(|ip| ip.address.is_ipv4() == ipv4)?;
        let routes = result.routes.iter().filter(|r| r.dst.is_ipv4() == ipv4);
        let routes = routes.map(|r| Route::to(r.dst, r.gw)).collect();
        Some(OldIp { ip: ip.address, gateway: ip.gateway, routes })
    };
    let old = OldResult { ip4: of_family(true), ip6: of_family(false), dns: result.dns.clone() };
    if old.ip4.is_none() && old.ip6.is_none() {
        return Err(Error::internal(
            "a result without an address cannot be told in CNI version 0.2.0 or older",
        ));
    }
    Ok(serde_json::to_value(old).expect("text and lists only"))
}
