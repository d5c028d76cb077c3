//! Results of CNI 0.3.0 to 0.4.0: addresses say their family; no MTU, no route metrics.

use serde_json::{Value, json};

use super::v1_0::{self, CniResult, Interface, Route};

pub fn parse(value: &Value) -> serde_json::Result<CniResult> {
    // What 0.4 has is a subset of 1.0, but for ips[].version, which follows from the address.
    v1_0::parse(value)
}

pub fn render(result: &CniResult) -> Value {
    let interfaces = result
        .interfaces
        .iter()
        .map(|i| Interface { mtu: None, socket_path: String::new(), pci_id: String::new(), ..i.clone() })
        .collect();
    let routes = result.routes.iter().map(|r| Route::to(r.dst, r.gw)).collect();
    let mut value = v1_0::render(&CniResult { interfaces, routes, ..result.clone() });
    for (index, ip) in result.ips.iter().enumerate() {
        value["ips"][index]["version"] = json!(if ip.address.is_ipv4() { "4" } else { "6" });
    }
    value
}
